"""A flow in one line that is given all that a flow can be given: file, JSON, configuration, numbers, text.

Its artifacts are of the kinds that a store of metrics and text finds hard to hold.
"""

import datetime
import decimal
import enum
import sys
from collections import Counter, namedtuple

from metaflow import Config, FlowSpec, IncludeFile, JSONType, Parameter, config_expr, environment, resources, step

Point = namedtuple("Point", "x y")
Kind = enum.IntEnum("Kind", "A B")


class LinearFlow(FlowSpec):
    """Look at what was given, and keep odd things."""

    settings = Config(
        "settings", default_value={"training": {"epochs": 3, "rate": 0.1}, "mark": "from the config"}
    )
    source = IncludeFile("source", default=__file__, help="A text file; by default this one.")
    weights = Parameter("weights", type=JSONType, default='{"good": 1.5, "bad": [1, 2, null]}')
    epochs = Parameter("epochs", type=int, default=config_expr("settings.training.epochs"))
    share = Parameter("share", type=float, default=0.25)
    shout = Parameter("shout", type=bool, default=True)
    title = Parameter("title", default="grüße, 世界 🌍")
    text = Parameter("text", default="tab\t, newline\n, 'quotes\" and %s {braces}", help="Odd in itself.")

    @step
    def start(self):
        self.lines = len(self.source.splitlines())
        self.good = self.weights["good"]
        self.rate = self.settings.training.rate
        self.next(self.middle)

    @resources(cpu=1, memory=512)
    @environment(vars={"MARK": config_expr("settings.mark")})
    @step
    def middle(self):
        import os

        self.mark = os.environ["MARK"]
        print(self.title, self.mark)
        self.next(self.odd)

    @step
    def odd(self):
        self.huge, self.tiny, self.minus_zero = 10**400, 5e-324, -0.0
        self.not_a_number, self.endless, self.complex = float("nan"), -float("inf"), 1 + 2j
        self.decimal, self.day = decimal.Decimal("0.1"), datetime.datetime(2020, 2, 29, tzinfo=datetime.UTC)
        self.loss, self.Loss, self.LOSS = 1.0, 2.0, "three"
        self.surrogate, self.zero_byte, self.empty, self.breaks = "\udc80", "a\0b", "", "a\r\nb\u2028c"
        self.blob, self.nothing, self.yes = b"\x89PNG not really", None, True
        self.keys = {1: "a", None: "b", (1, 2): "c", "d": {"e": "\udc80"}}
        self.point, self.counted, self.kind = Point(1, 2), Counter("aab"), Kind.B
        self.itself = []
        self.itself.append(self.itself)
        self.deep = []
        for _ in range(200):
            self.deep = [self.deep]
        sys.stdout.buffer.write(b"\x80 \x00 \x1b[0m no text\n")
        self.next(self.heavy)

    @step
    def heavy(self):
        import numpy
        import pandas

        self.scalar, self.flag, self.zero_dim = numpy.float32(0.1), numpy.bool_(True), numpy.array(3)
        self.objects, self.structured = numpy.array([{}, None]), numpy.zeros(2, dtype="i4,f8")
        self.mixed = pandas.DataFrame({"a": [1, "b", None], "b": [{}, [], ()]})
        self.no_rows, self.dates = pandas.DataFrame({"a": []}), pandas.Series(pandas.date_range("2020", periods=2))
        self.twice = pandas.DataFrame([[1, 2]], columns=["a", "a"])
        self.large = "long " * 100_000
        setattr(self, "n" * 180, 1.0)
        self.ünïcode = 1.0
        self.next(self.end)

    @step
    def end(self):
        self.total = self.epochs * self.good if self.shout else self.share
        print(("many words " * 10 + "\n") * 1000)


if __name__ == "__main__":
    LinearFlow()
