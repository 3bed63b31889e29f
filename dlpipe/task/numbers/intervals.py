"""Intervals of predicted numbers by conformal residuals.

Split conformal prediction (Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005; Lei and
others, JASA 2018): of the absolute errors on rows that the model was not fitted to, a high quantile is half the
width of an interval that holds the wanted share of new rows like those, whatever the model.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.floating[Any]]


def compute_halfwidth(errors: Floats, *, coverage: float) -> float:
    """Return half the width of intervals that hold at least ``coverage`` of rows like these.

    With too few rows for that coverage it is the largest error, which then holds less.

    Parameters
    ----------
    errors : array of shape (n_rows,)
        Absolute errors on rows that the model was not fitted to.
    coverage : float
        Between 0 and 1.

    Examples
    --------
    >>> compute_halfwidth(np.arange(1, 101), coverage=0.9)
    91.0
    """
    ranked = np.sort(np.asarray(errors, np.float64))
    rank = math.ceil((len(ranked) + 1) * coverage)
    return float(ranked[min(rank, len(ranked)) - 1])
