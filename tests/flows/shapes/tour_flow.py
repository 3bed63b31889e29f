"""A flow that knows nothing of dlpipe: branch, foreach, join, a failing attempt, cards, artifacts of all sorts."""

import base64
import os
from pathlib import Path

from metaflow import FlowSpec, Parameter, card, current, retry, step
from metaflow.cards import Image, Markdown

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class TourFlow(FlowSpec):
    """Count words in two ways."""

    words = Parameter("words", default="one two three", help="What is counted.")
    api_token = Parameter("api_token", default="sk-tour-0123456789", help="A credential, as people pass them.")
    fail_file = Parameter("fail-file", default="", help="While this file is there, the step join fails.")
    fan_out = Parameter("fan-out", type=int, default=3, help="Tasks of the foreach.")

    @card(type="blank")
    @step
    def start(self):
        current.card.append(Markdown("# The words"))
        current.card.append(Image(PIXEL, label="one pixel"))
        self.places = list(range(self.fan_out))
        self.count = len(self.words.split())
        self.address = "postgresql://ana:hunter2@db.example/tour"
        print("token=abc-not-for-anyone", self.words)
        self.next(self.left, self.right)

    @retry(times=1, minutes_between_retries=0)
    @step
    def left(self):
        self.attempt = current.retry_count
        if current.retry_count == 0:
            raise ValueError("the first attempt always fails")
        self.share = 0.5
        self.worst = float("inf")
        self.next(self.meet)

    @step
    def right(self):
        import numpy
        import pandas

        self.table = pandas.DataFrame({"word": ["a", "b"], "count": [1, 2]})
        self.numbers = numpy.arange(4.0)
        self.notes = {"kind": "test", "password": "hunter2", "inner": {"values": [1, None]}}
        self.essay = "long " * 2000
        self.nothing = None
        self.thing = Path("somewhere")
        self.next(self.meet)

    @step
    def meet(self, inputs):
        self.merge_artifacts(inputs, include=["count", "places"])
        self.next(self.fan)

    @step
    def fan(self):
        self.next(self.spread, foreach="places")

    @step
    def spread(self):
        self.square = self.input**2
        self.next(self.join)

    @step
    def join(self, inputs):
        if self.fail_file and os.path.exists(self.fail_file):
            raise RuntimeError("the file is there")
        self.total = sum(one.square for one in inputs)
        self.next(self.end)

    @step
    def end(self):
        print("total", self.total)


if __name__ == "__main__":
    TourFlow()
