"""The scores of a model that predicts classes, and what it got wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlpipe.task.evaluation import Evaluation, Mistake

if TYPE_CHECKING:
    from dlpipe.task.classes.resampling import Integers

METRICS = ("accuracy", "macro_f1", "auroc", "log_loss", "calibration_error")


@dataclass(frozen=True)
class ClassMistake(Mistake):
    """A row of another class than the model says, with the probability of the class it says."""

    probability: float

    def to_cells(self) -> dict[str, str]:
        """Return what a list of mistakes shows, the probability last."""
        return {**super().to_cells(), "probability": f"{self.probability:.3f}"}


@dataclass(frozen=True)
class Bin:
    """The rows whose highest probability lies in (``low``, ``high``]; means are NaN without rows."""

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class ClassEvaluation(Evaluation):
    """How a model that predicts classes did.

    Its metrics are accuracy, macro F1, AUROC, log loss and the calibration error.
    AUROC is NaN where the truth has one class; the worst mistakes are the most confident ones.

    Attributes
    ----------
    confusion : array of shape (n_labels, n_labels)
        Rows are the truth, columns the prediction, both in the order of ``labels``.
    reliability : tuple of Bin
        Fifteen equal-width bins of the highest probability.
    """

    confusion: Integers
    reliability: tuple[Bin, ...]
