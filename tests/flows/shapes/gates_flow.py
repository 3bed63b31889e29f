"""Three steps; each ends when a file of its name is there."""

import time
from pathlib import Path

from metaflow import FlowSpec, current, step


class GatesFlow(FlowSpec):
    """Waits for ``start``, ``middle`` and ``end`` in the working directory."""

    @step
    def start(self):
        self.wait()
        self.next(self.middle)

    @step
    def middle(self):
        self.wait()
        self.next(self.end)

    @step
    def end(self):
        self.wait()

    def wait(self):
        """Wait for this step's file."""
        while not Path(current.step_name).exists():
            time.sleep(0.05)


if __name__ == "__main__":
    GatesFlow()
