"""The scores of a model: each metric with its interval, and what it got wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlpipe.evaluation.bootstrap import Integers

METRICS = ("accuracy", "macro_f1", "auroc", "log_loss", "calibration_error")


@dataclass(frozen=True)
class Mistake:
    """A row that the model got wrong, with the probability of the label it gave."""

    row_id: str
    text: str
    label: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class Bin:
    """The rows whose highest probability lies in (``low``, ``high``]; means are NaN without rows."""

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Evaluation:
    """How a model did on ``rows`` rows.

    Attributes
    ----------
    metrics : mapping
        accuracy, macro_f1, auroc, log_loss and calibration_error; auroc is NaN where the truth has one class.
    intervals : mapping
        Metric -> (low, high) of its 95 % bootstrap interval.
    confusion : array of shape (n_labels, n_labels)
        Rows are the truth, columns the prediction, both in the order of ``labels``.
    reliability : tuple of Bin
        Fifteen equal-width bins of the highest probability.
    mistakes : tuple of Mistake
        The worst ones, most confident first.
    """

    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    labels: tuple[str, ...]
    confusion: Integers
    reliability: tuple[Bin, ...]
    rows: int
    mistakes: tuple[Mistake, ...]

    def line(self, metric: str = "accuracy") -> str:
        """Return the metric with its interval, such as ``accuracy 0.871 (0.846 to 0.894)``."""
        low, high = self.intervals[metric]
        return f"{metric.replace('_', ' ')} {self.metrics[metric]:.3f} ({low:.3f} to {high:.3f})"

    def lines(self) -> tuple[str, ...]:
        """Return one line a metric."""
        return tuple(self.line(metric) for metric in METRICS)
