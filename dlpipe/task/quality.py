"""How good predictions of new rows are beside those of the test split, and how surprising a difference is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

ACCURACY, ERROR = "accuracy", "mae"


@dataclass(frozen=True)
class Quality:
    """What labels that came in later say of predictions.

    Attributes
    ----------
    metric : str
        What is compared, such as ``accuracy``.
    value, test_value : float
        Of the new rows that have a label, and of the test split; NaN without rows.
    interval : (low, high)
        The 95 % interval of ``value``.
    rows, test_rows : int
    size : float
        How much worse ``value`` is than ``test_value``, in the unit of the limit.
    words : str
        What ``size`` is, as a sentence goes on.
    limit : str
        The setting of ``[monitoring]`` that says how large it may be.
    p_value : float
        One-sided: how often chance alone would make the new rows so much worse.
    """

    metric: str
    value: float
    interval: tuple[float, float]
    rows: int
    test_value: float
    test_rows: int
    size: float
    words: str
    limit: str
    p_value: float


def compare_shares(right: int, rows: int, test_right: int, test_rows: int) -> Quality:
    """Return the accuracy of new rows beside that of the test split (Fisher's exact test).

    Parameters
    ----------
    right, rows : int
        So many of so many new rows are right.
    test_right, test_rows : int
        And of the test split.

    Examples
    --------
    >>> found = compare_shares(50, 100, 90, 100)
    >>> found.value, found.test_value, round(found.size, 3), found.p_value < 1e-6
    (0.5, 0.9, 0.4, True)
    """
    value, test_value = compute_share(right, rows), compute_share(test_right, test_rows)
    return Quality(
        metric=ACCURACY,
        value=value,
        interval=compute_wilson_interval(right, rows),
        rows=rows,
        test_value=test_value,
        test_rows=test_rows,
        size=test_value - value,
        words="accuracy lost since the test split",
        limit="max_accuracy_drop",
        p_value=compute_fisher_p(right, rows, test_right, test_rows),
    )


def compare_errors(errors: Sequence[float], test_errors: Sequence[float]) -> Quality:
    """Return the mean absolute error of new rows beside that of the test split (Mann and Whitney's test).

    Parameters
    ----------
    errors, test_errors : sequence of float
        The absolute error of each row.

    Examples
    --------
    >>> found = compare_errors([2.0, 3.0, 4.0] * 30, [1.0, 2.0, 3.0] * 30)
    >>> found.value, found.test_value, found.size, found.p_value < 1e-3
    (3.0, 2.0, 0.5, True)
    """
    value, test_value = compute_mean(errors), compute_mean(test_errors)
    return Quality(
        metric=ERROR,
        value=value,
        interval=bootstrap_mean(errors),
        rows=len(errors),
        test_value=test_value,
        test_rows=len(test_errors),
        # as a share of the test split's error, so that the limit needs no unit
        size=value / test_value - 1 if test_value else math.inf if value else 0.0,
        words="growth of the mean absolute error since the test split",
        limit="max_error_growth",
        # a test of ranks, since outliers move a mean far
        p_value=compute_mann_whitney_p(errors, test_errors),
    )


def compute_share(right: int, rows: int) -> float:
    """Return the share that is right, NaN of no rows."""
    return right / rows if rows else math.nan


def compute_mean(values: Sequence[float]) -> float:
    """Return the mean, NaN of no values."""
    return sum(values) / len(values) if values else math.nan


def compute_wilson_interval(right: int, rows: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's interval of the share ``right / rows``; NaN without rows.

    Where all rows or none are right it still has a width, and it never leaves 0 to 1.

    Examples
    --------
    >>> low, high = compute_wilson_interval(80, 100)
    >>> round(low, 3), round(high, 3)
    (0.711, 0.867)
    """
    from scipy.stats import binomtest

    if not rows:
        return math.nan, math.nan
    interval = binomtest(right, rows).proportion_ci(confidence_level=confidence, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_mean(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean; NaN without values."""
    import numpy as np

    from dlpipe.task.bootstrap import bootstrap

    if not values:
        return math.nan, math.nan
    numbers, rows = np.asarray(values, np.float64), len(values)
    return bootstrap(lambda counts: {"mean": numbers @ counts / rows}, rows=rows, seed=0, resamples=1000)["mean"]


def compute_fisher_p(right: int, rows: int, test_right: int, test_rows: int) -> float:
    """Return the one-sided p-value (Fisher's exact test) that a smaller share is right than in the test split.

    Parameters
    ----------
    right, rows : int
        So many of so many new rows are right.
    test_right, test_rows : int
        And of the test split.

    Examples
    --------
    >>> compute_fisher_p(50, 100, 90, 100) < 1e-6, compute_fisher_p(90, 100, 90, 100) > 0.5
    (True, True)
    """
    from scipy.stats import fisher_exact

    table = [[right, rows - right], [test_right, test_rows - test_right]]
    return float(fisher_exact(table, alternative="less").pvalue)


def compute_mann_whitney_p(errors: Sequence[float], test_errors: Sequence[float]) -> float:
    """Return the one-sided p-value (Mann-Whitney) that errors are larger than those of the test split.

    Examples
    --------
    >>> small, large = [1.0, 2.0] * 9, [3.0, 4.0] * 9
    >>> compute_mann_whitney_p(large, small) < 1e-6, compute_mann_whitney_p(small, small) > 0.4
    (True, True)
    """
    from scipy.stats import mannwhitneyu

    if not errors or not test_errors:
        return 1.0
    return float(mannwhitneyu(errors, test_errors, alternative="greater").pvalue)
