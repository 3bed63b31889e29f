"""Five steps of two seconds each: a short run in which work is done."""

import time

from metaflow import FlowSpec, step

SECONDS = 2


class WorkFlow(FlowSpec):
    """Five steps, each with a number and a word to keep."""

    @step
    def start(self):
        time.sleep(SECONDS)
        self.share, self.word = 0.1, "start"
        self.next(self.second)

    @step
    def second(self):
        time.sleep(SECONDS)
        self.share, self.word = 0.2, "second"
        self.next(self.third)

    @step
    def third(self):
        time.sleep(SECONDS)
        self.share, self.word = 0.3, "third"
        self.next(self.fourth)

    @step
    def fourth(self):
        time.sleep(SECONDS)
        self.share, self.word = 0.4, "fourth"
        self.next(self.end)

    @step
    def end(self):
        time.sleep(SECONDS)
        self.share, self.word = 0.5, "end"


if __name__ == "__main__":
    WorkFlow()
