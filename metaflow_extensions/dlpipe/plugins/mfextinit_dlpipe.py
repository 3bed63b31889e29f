"""What dlpipe adds to Metaflow: the step decorator ``mlflow_bridge``."""

STEP_DECORATORS_DESC = [("mlflow_bridge", ".mlflow_bridge.MlflowBridge")]
