"""Five epochs with a checkpoint each, as the training step has them; the file ``wait`` stops it in the fourth."""

import tempfile
import time
from pathlib import Path

from metaflow import FlowSpec, checkpoint, current, step

from dlpipe.flows import TaskCheckpoints


class EpochsFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.train)

    @checkpoint
    @step
    def train(self):
        checkpoints = TaskCheckpoints()
        found = checkpoints.latest()
        done = int((found / "epoch").read_text()) if found else 0
        for epoch in range(done + 1, 6):
            with open("epochs", "a") as file:
                file.write(f"{current.run_id} {epoch}\n")
            while epoch == 4 and Path("wait").exists():
                time.sleep(0.05)
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "epoch").write_text(str(epoch))
                checkpoints.save(Path(folder))
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    EpochsFlow()
