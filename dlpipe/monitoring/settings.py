"""What counts as drift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt


@dataclass(frozen=True)
class DriftSettings:
    """The section ``[monitoring]``.

    A signal is raised when it is both significant (``alpha``, Holm's procedure over all signals of a run) and
    large enough to matter (the other thresholds).

    Attributes
    ----------
    window : int
        The rows scored last, at most so many, are compared.
    min_rows : int
        With fewer rows nothing is compared.
    reference_rows : int
        Rows of the training table that they are compared with at most, drawn by the seed.
    alpha : float
        How often a run may raise a signal although nothing changed. Runs are many; keep it small.
    max_psi : float
        Population stability index of what is compared, such as text lengths, probabilities and predicted labels,
        less what chance gives for as many rows, on average 0.18 for 50. 0.1 is called a slight change, 0.25 a
        large one.
    max_auc : float
        AUC of the classifier that tells new rows from old ones; 0.5 is guessing. Of 50 rows that had not shifted
        it reached 0.60 in 80 draws.
    min_labels : int
        With fewer labels quality is not compared.
    max_accuracy_drop : float
        By how much the accuracy may be below that of the test split.
    max_error_growth : float
        Where numbers are predicted: by what share the mean absolute error may be above that of the test split.
    quiet_hours : float
        After an event for a model, none for the same one for so long, unless labels came in that were missing.
    seed : int
        Of what is drawn, and of the classifier's folds.
    """

    window: Annotated[int, Ge(20), Le(1_000_000)] = 1_000
    min_rows: Annotated[int, Ge(20), Le(1_000_000)] = 50
    reference_rows: Annotated[int, Ge(50), Le(1_000_000)] = 2_000
    alpha: Annotated[float, Gt(0), Lt(1)] = 0.001
    max_psi: Annotated[float, Ge(0), Le(10)] = 0.2
    max_auc: Annotated[float, Ge(0.5), Le(1)] = 0.65
    min_labels: Annotated[int, Ge(10), Le(1_000_000)] = 50
    max_accuracy_drop: Annotated[float, Ge(0), Le(1)] = 0.05
    max_error_growth: Annotated[float, Ge(0), Le(100)] = 0.2
    quiet_hours: Annotated[float, Ge(0)] = 168.0
    seed: Annotated[int, Ge(0), Le(2**32 - 1)] = 0
