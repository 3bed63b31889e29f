"""A flow whose artifacts are of the kinds that a store of metrics and text finds hard to hold."""

import datetime
import decimal
import enum
import sys
from collections import Counter, namedtuple

from metaflow import FlowSpec, Parameter, step

Point = namedtuple("Point", "x y")
Kind = enum.IntEnum("Kind", "A B")


class ValuesFlow(FlowSpec):
    """Keep odd things."""

    text = Parameter("text", default="tab\t, newline\n, 'quotes\" and %s {braces}", help="Odd in itself.")

    @step
    def start(self):
        self.huge, self.tiny, self.minus_zero = 10**400, 5e-324, -0.0
        self.not_a_number, self.endless, self.complex = float("nan"), -float("inf"), 1 + 2j
        self.decimal, self.day = decimal.Decimal("0.1"), datetime.datetime(2020, 2, 29, tzinfo=datetime.UTC)
        self.loss, self.Loss, self.LOSS = 1.0, 2.0, "three"
        self.surrogate, self.zero_byte, self.empty, self.lines = "\udc80", "a\0b", "", "a\r\nb\u2028c"
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
        print(("many words " * 10 + "\n") * 1000)


if __name__ == "__main__":
    ValuesFlow()
