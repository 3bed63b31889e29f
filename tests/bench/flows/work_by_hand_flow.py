"""``work_flow.py`` with MLflow by hand."""

import time

from by_hand import child, parent
from metaflow import FlowSpec, step

SECONDS = 2


class WorkByHandFlow(FlowSpec):
    """Five steps, each of which logs a number and a word."""

    @step
    def start(self):
        self.parent_id = parent()
        time.sleep(SECONDS)
        child(self.parent_id, 0.1)
        self.next(self.second)

    @step
    def second(self):
        time.sleep(SECONDS)
        child(self.parent_id, 0.2)
        self.next(self.third)

    @step
    def third(self):
        time.sleep(SECONDS)
        child(self.parent_id, 0.3)
        self.next(self.fourth)

    @step
    def fourth(self):
        time.sleep(SECONDS)
        child(self.parent_id, 0.4)
        self.next(self.end)

    @step
    def end(self):
        time.sleep(SECONDS)
        child(self.parent_id, 0.5)


if __name__ == "__main__":
    WorkByHandFlow()
