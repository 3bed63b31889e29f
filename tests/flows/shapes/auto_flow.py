"""A flow that leaves its logging to libraries: autolog of scikit-learn, and Lightning's logger."""

from metaflow import FlowSpec, step


class AutoFlow(FlowSpec):
    """Fit a tiny classifier, then log as a Lightning trainer does."""

    @step
    def start(self):
        import mlflow

        mlflow.sklearn.autolog(log_models=False)
        from sklearn.linear_model import LogisticRegression

        LogisticRegression().fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
        self.next(self.light)

    @step
    def light(self):
        import os

        import numpy

        numpy.Inf = numpy.inf  # pytorch_lightning 1.9 asks for it
        from pytorch_lightning.loggers import MLFlowLogger

        logger = MLFlowLogger("lightning_logs", tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
        logger.log_hyperparams({"lr": 0.1})
        logger.log_metrics({"loss": 0.5}, step=1)
        logger.finalize("success")
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    AutoFlow()
