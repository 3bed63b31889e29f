"""What dlpipe adds to Metaflow: step decorators, and the production orchestrator ``local-scheduler``."""

CLIS_DESC = [("local-scheduler", ".local_scheduler.cli.cli")]
DEPLOYER_IMPL_PROVIDERS_DESC = [("local-scheduler", ".local_scheduler.deployer.LocalSchedulerDeployer")]
STEP_DECORATORS_DESC = [
    ("mlflow_bridge", ".mlflow_bridge.MlflowBridge"),
    ("launch_check", ".launch_check.LaunchCheck"),
    ("local_scheduler_internal", ".local_scheduler.decorator.LocalSchedulerInternal"),
]
