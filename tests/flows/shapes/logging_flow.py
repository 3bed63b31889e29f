"""A flow whose steps log to MLflow themselves, in all the ways in which people do."""

import multiprocessing
import subprocess
import sys
import threading

from metaflow import FlowSpec, card, current, retry, step

BY_HAND = "import mlflow; mlflow.log_metric('from_a_process', 3.0)"


def logged_in_a_child(number: int) -> None:
    """Log from a process of multiprocessing, in a run of its own."""
    import mlflow

    with mlflow.start_run(run_name=f"child {number}"):
        mlflow.log_param("number", number)


class LoggingFlow(FlowSpec):
    """Log by hand, from threads, from processes, through autolog and through Lightning's logger."""

    @step
    def start(self):
        import mlflow

        mlflow.log_param("by_hand", "yes")
        mlflow.log_metric("loss", 0.5, step=1)
        mlflow.log_metric("loss", 0.25, step=2)
        self.loss = 0.125
        self.by_hand = "another value than the step's own"
        self.next(self.threads, self.runs, self.lightning)

    @step
    def threads(self):
        import mlflow

        mlflow.log_metric("from_main", 1.0)
        thread = threading.Thread(target=lambda: mlflow.log_metric("from_a_thread", 2.0))
        thread.start()
        thread.join()
        subprocess.run([sys.executable, "-c", BY_HAND], check=True)
        self.next(self.meet)

    @retry(times=1, minutes_between_retries=0)
    @step
    def runs(self):
        import mlflow

        mlflow.set_experiment("an experiment of the step's own")
        with mlflow.start_run(run_name="first", tags={"mine": "yes"}):
            mlflow.log_param("attempt", current.retry_count)
            with mlflow.start_run(nested=True, run_name="inner"):
                mlflow.log_param("depth", 2)
        if current.retry_count == 0:
            raise ValueError("the first attempt always fails")
        with mlflow.start_run(run_name="second"):
            mlflow.log_param("attempt", "the second run of the step")
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            pool.map(logged_in_a_child, [1, 2])
        self.next(self.meet)

    @step
    def lightning(self):
        from mlflow import MlflowClient
        from mlflow.tracking.context.registry import resolve_tags

        # what Lightning's MLFlowLogger does
        client = MlflowClient()
        experiment = client.create_experiment("lightning_logs")
        run = client.create_run(experiment, tags=resolve_tags({"logger": "lightning"}), run_name="lit")
        client.log_metric(run.info.run_id, "epoch_loss", 0.75, step=3)
        client.set_terminated(run.info.run_id)
        self.next(self.meet)

    @step
    def meet(self, inputs):
        self.next(self.end)

    @card(type="blank")
    @step
    def end(self):
        pass


if __name__ == "__main__":
    LoggingFlow()
