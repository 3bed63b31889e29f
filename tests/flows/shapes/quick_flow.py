"""A flow of two quick steps: the first can log to MLflow itself, the second can wait for a file."""

import time
from pathlib import Path

from metaflow import FlowSpec, Parameter, step


class QuickFlow(FlowSpec):
    """Count words quickly."""

    words = Parameter("words", default="one two three", help="What is counted.")
    log = Parameter("log", type=bool, default=False, help="Whether the step start logs to MLflow itself.")
    go_file = Parameter("go-file", default="", help="The step end waits until this file is there.")

    @step
    def start(self):
        self.count = len(self.words.split())
        self.notes = {"words": self.words.split()}
        print("counted", self.count)
        if self.log:
            import mlflow

            mlflow.log_metric("logged", 1.0)
        self.next(self.end)

    @step
    def end(self):
        deadline = time.monotonic() + 100
        while self.go_file and not Path(self.go_file).exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        self.share = 1 / self.count


if __name__ == "__main__":
    QuickFlow()
