"""Scores as people keep them: in dictionaries, dataclasses, lists of epochs, tables of folds, one a fold."""

import math
from dataclasses import dataclass

from metaflow import Config, FlowSpec, Parameter, step


@dataclass
class Summary:
    """A class that only this file knows."""

    loss: float
    rows: int
    note: str
    worst: dict


class ScoresFlow(FlowSpec):
    """Keep numbers in all the ways that people do."""

    given = Config("given", default_value={"rate": 0.5, "name": "first", "head": {"layers": 1}})
    rate = Parameter("rate", type=float, default=None)
    size = Parameter("size", type=int, default=1)
    folds = Parameter("folds", type=int, default=12)

    @step
    def start(self):
        self.params = {"rate": 0.1, "size": 2, "head": {"layers": 2, "dropout": None}}
        self.accuracy = 0.5  # which the first fold has, too
        self.at = list(range(self.folds))
        self.next(self.fold, foreach="at")

    @step
    def fold(self):
        self.accuracy = 0.5 + self.input / 100
        self.params = {"only_here": self.input}
        self.next(self.join)

    @step
    def join(self, inputs):
        import pandas

        self.by_fold = pandas.DataFrame({"fold": [1, 2], "f1": [0.5, 0.75]})
        self.scores = {"accuracy": 0.875, "strategy": "freeze", "by_class": {"good": 0.5, "bad": math.nan}}
        self.epochs = [{"epoch": at, "loss": 1 / at, "inner": {"f1": at / 10}} for at in (1, 2, 3)]
        self.summary = Summary(0.25, 12, "fine", {"loss": 1.5})
        self.many = {str(at): {"value": at} for at in range(5_000)}
        self.odd = {"a//b": 1, "x%y": math.inf, "api_token": "s3cr3t-of-mine", "size": 10**400}
        self.next(self.end)

    @step
    def end(self):
        self.looked_at = self.summary.rows  # which Metaflow pickles again, as other bytes


if __name__ == "__main__":
    ScoresFlow()
