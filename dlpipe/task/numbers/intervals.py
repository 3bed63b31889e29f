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


def bound_coverage(rows: int, *, coverage: float) -> float:
    """Return the coverage that intervals from the errors of so many rows can promise, at most ``coverage``.

    A new row's error is as likely to be the largest of all as any other's, so the largest of n errors holds
    n / (n + 1) of new rows, and no quantile of them holds more.

    Examples
    --------
    >>> bound_coverage(4, coverage=0.9), bound_coverage(9, coverage=0.9)
    (0.8, 0.9)
    """
    return min(coverage, rows / (rows + 1))


def count_needed_rows(coverage: float) -> int:
    """Return how many errors it takes to promise ``coverage``.

    Examples
    --------
    >>> count_needed_rows(0.9), count_needed_rows(0.5)
    (9, 1)
    """
    return math.ceil(round(coverage / (1 - coverage), 9))


def compute_halfwidth(errors: Floats, *, coverage: float) -> float:
    """Return half the width of intervals that hold at least ``coverage`` of rows like these.

    With too few rows for that coverage it is the largest error, which then holds less: ``bound_coverage``.

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
    # the n + 1 counts the new row among the others: the plain quantile of n errors would hold too few
    ranked = np.sort(np.asarray(errors, np.float64))
    rank = math.ceil((len(ranked) + 1) * coverage)
    return float(ranked[min(rank, len(ranked)) - 1])
