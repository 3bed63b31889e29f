"""Scores of probabilities against the truth, each with a bootstrap interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlpipe.evaluation.bootstrap import Floats, Integers

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


def evaluate(
    probabilities: Floats,
    truth: Sequence[str],
    labels: Sequence[str],
    *,
    row_ids: Sequence[str],
    texts: Sequence[str],
    seed: int = 0,
    resamples: int = 1000,
    worst: int = 20,
) -> Evaluation:
    """Return the scores of ``probabilities`` against ``truth``, with 95 % percentile bootstrap intervals.

    AUROC is that of the second of two labels, and the mean over one-versus-rest for more. The calibration
    error is the expected calibration error over fifteen equal-width bins of the highest probability (Guo,
    Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017).

    Parameters
    ----------
    probabilities : array of shape (n_rows, n_labels)
        Columns in the order of ``labels``; rows are scaled to a sum of one.
    truth, row_ids, texts : sequences of n_rows strings
    seed, resamples : int
        The intervals are the same for the same seed.
    worst : int
        How many mistakes to keep.

    Raises
    ------
    EvaluationError
        When lengths differ, a label is unknown, or a probability is negative or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> sure = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]])
    >>> made = evaluate(sure, ["bad", "good", "good", "bad"], ["bad", "good"], row_ids="abcd", texts="wxyz")
    >>> made.line()
    'accuracy 0.750 (0.250 to 1.000)'
    >>> made.mistakes
    (Mistake(row_id='d', text='z', label='bad', predicted='good', probability=0.6),)
    """
    from dlpipe.evaluation import measures
    from dlpipe.evaluation.bootstrap import bootstrap

    measures.check_lengths(probabilities, truth, labels, row_ids, texts)
    scaled = measures.checked_probabilities(probabilities)
    known = measures.label_indices(truth, labels)
    return Evaluation(
        metrics=measures.point_metrics(scaled, known),
        intervals=bootstrap(scaled, known, seed=seed, resamples=resamples),
        labels=tuple(labels),
        confusion=measures.confusion(scaled, known),
        reliability=measures.reliability(scaled, known),
        rows=len(known),
        mistakes=measures.worst_mistakes(scaled, truth, labels, row_ids, texts)[:worst],
    )
