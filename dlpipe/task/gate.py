"""What a gate asks of a model: bounds of its metrics, and how much worse than others it may be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from dlpipe.task.evaluation import Evaluation, spell_metric

TOLERANCE = 1e-9
"""0.87 - 0.86 is a hair under 0.01 in binary, and a hair must not decide."""


@dataclass(frozen=True)
class Thresholds:
    """What a model must reach to become champion; the gate of a target adds bounds to it.

    A field ``min_<metric>`` or ``max_<metric>`` is a bound of that metric, ``None`` is not asked.

    Attributes
    ----------
    metric : str
        What is compared with the baseline and the champion.
    baseline_margin, champion_margin : float
        By how much that may be worse than the baseline's or the champion's; a negative one demands that it be
        better by as much.
    """

    metric: str
    baseline_margin: float = 0.0
    champion_margin: float = 0.0


@dataclass(frozen=True)
class Check:
    """One comparison of the gate, in words for both of its outcomes."""

    passed: bool
    words: str


def check_bounds(evaluation: Evaluation, thresholds: Thresholds) -> Iterator[Check]:
    """Yield a check for each bound of a metric, in the order of the fields.

    Examples
    --------
    >>> @dataclass(frozen=True)
    ... class Bounds(Thresholds):
    ...     min_macro_f1: float | None = None
    ...     max_log_loss: float | None = None
    >>> made = Evaluation({"macro_f1": 0.8, "log_loss": 0.5}, {}, (), 9, (), "macro_f1")
    >>> for check in check_bounds(made, Bounds("macro_f1", min_macro_f1=0.7, max_log_loss=0.4)):
    ...     print(check.passed, check.words)
    True macro F1 0.800 is at least 0.700
    False log loss 0.500 is above 0.400
    """
    for name in (field.name for field in fields(thresholds)):
        # margins are fields too, but no bounds
        side, _, metric = name.partition("_")
        bound = getattr(thresholds, name)
        if side in ("min", "max") and metric in evaluation.metrics and bound is not None:
            yield check_bound(metric, evaluation.metrics[metric], bound, most=side == "max")


def check_bound(metric: str, value: float, bound: float, *, most: bool) -> Check:
    """Return the check of a metric against its bound.

    Parameters
    ----------
    metric : str
        Its name, such as ``macro_f1``.
    value, bound : float
        A value that is NaN fails.
    most : bool
        Whether ``bound`` is the most that the metric may be; otherwise it is the least.
    """
    passed = value <= bound if most else value >= bound
    relation = ("is at most" if most else "is at least") if passed else ("is above" if most else "is below")
    return Check(passed, f"{spell_metric(metric)} {value:.3f} {relation} {bound:.3f}")
