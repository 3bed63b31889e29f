"""A flow with a foreach of which one task works, one fails for good, and one is killed because of that."""

import time

from metaflow import FlowSpec, retry, step


class ForeachFailureFlow(FlowSpec):
    """Fail in the middle."""

    @step
    def start(self):
        self.words = ["good", "bad", "slow"]
        self.next(self.look, foreach="words")

    @retry(times=1, minutes_between_retries=0)
    @step
    def look(self):
        self.word = self.input
        print("looking at", self.word)
        if self.word == "bad":
            time.sleep(1)  # so that the others have begun
            raise RuntimeError(f"{self.word} at {self.index}")
        if self.word == "slow":
            time.sleep(100)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ForeachFailureFlow()
