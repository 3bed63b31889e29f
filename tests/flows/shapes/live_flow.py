"""A training that reports its epochs while it runs, and steps oftener; its second attempt goes on after the first.

Each epoch waits for the file ``epoch-N``, if the run is told so, and is noted with the time.
"""

import json
import time
from pathlib import Path

from metaflow import FlowSpec, Parameter, current, retry, step

from dlpipe.flows import report_point

EPOCHS = 4


class LiveFlow(FlowSpec):
    """Train for four epochs."""

    wait = Parameter("wait", type=bool, default=False, help="Whether each epoch waits for a file.")

    @retry(times=1, minutes_between_retries=0)
    @step
    def start(self):
        done = Path(f"{current.origin_run_id or current.run_id}.epochs")
        self.epochs = json.loads(done.read_text()) if done.exists() else []
        for epoch in range(len(self.epochs) + 1, EPOCHS + 1):
            while self.wait and not Path(f"epoch-{epoch}").exists():
                time.sleep(0.02)
            self.epochs.append({"epoch": epoch, "loss": 1 / epoch, "scores": {"f1": epoch / 10}})
            report_point("epochs", self.epochs[-1])
            report_point("batches", {"step": epoch, "loss": 0.5})
            done.write_text(json.dumps(self.epochs))
            time.sleep(0.3)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    LiveFlow()
