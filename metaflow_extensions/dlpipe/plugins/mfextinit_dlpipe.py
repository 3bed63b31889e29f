"""What dlpipe adds to Metaflow: the step decorators ``mlflow_bridge`` and ``storage_check``."""

STEP_DECORATORS_DESC = [
    ("mlflow_bridge", ".mlflow_bridge.MlflowBridge"),
    ("storage_check", ".storage_check.StorageCheck"),
]
