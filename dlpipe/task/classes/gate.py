"""What a gate asks of a model that predicts classes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from dlpipe.settings import check_name
from dlpipe.task.classes.per_class import compute_recalls, find_majority
from dlpipe.task.classes.scores import ClassEvaluation
from dlpipe.task.gate import TOLERANCE, Check, Thresholds

Metric = Literal["accuracy", "macro_f1", "auroc", "log_loss", "calibration_error"]
Share = Annotated[float, Ge(0.0), Le(1.0)]
Margin = Annotated[float, Ge(-1.0), Le(1.0)]
EVERY = "*"
"""What stands for every class in a threshold by class."""


@dataclass(frozen=True)
class ClassThresholds(Thresholds):
    """What a model must reach to become champion; ``None`` is not asked.

    A margin is by how much the headline ``metric`` may be worse than the baseline's or the champion's; a negative
    one demands that it be better by as much. ``min_recall`` is by class, ``*`` for every class.
    """

    metric: Metric = "accuracy"
    min_accuracy: Share = 0.6
    min_macro_f1: Share | None = None
    min_recall: Mapping[str, Share] | None = None
    max_calibration_error: Share | None = None
    max_log_loss: Annotated[float, Ge(0.0), Le(100.0)] | None = None
    baseline_margin: Margin = 0.0
    champion_margin: Margin = 0.0


def check_classes(thresholds: ClassThresholds, labels: Sequence[str]) -> None:
    """Raise ``SettingError`` where ``thresholds`` name a class that is not one of ``labels``.

    Examples
    --------
    >>> check_classes(ClassThresholds(min_recall={"urgnet": 0.5}), ["ok", "urgent"])
    Traceback (most recent call last):
    ...
    dlpipe.errors.SettingError: [gate] min_recall has no class 'urgnet'; did you mean 'urgent'? Known: ok, urgent.
    """
    for label in thresholds.min_recall or {}:
        if label != EVERY:
            check_name(label, list(labels), what="class", where="[gate] min_recall")


def check_recalls(candidate: ClassEvaluation, bounds: Mapping[str, float]) -> Iterator[Check]:
    """Yield a check for each class that has a bound; one that the test rows lack fails where it is named."""
    recalls = compute_recalls(candidate)
    for label, bound in bounds.items():
        if label != EVERY:
            yield check_recall(label, recalls.get(label, math.nan), bound, known=label in candidate.labels)
    for label in recalls if EVERY in bounds else ():
        if label not in bounds:
            yield check_recall(label, recalls[label], bounds[EVERY], known=True)


def check_recall(label: str, value: float, bound: float, *, known: bool) -> Check:
    """Return the check of the recall of a class against its bound.

    Parameters
    ----------
    label : str
    value, bound : float
        NaN where no test row has the class: what nobody has measured is not passed.
    known : bool
        Whether the model has the class at all.
    """
    if not known:
        return Check(False, f"min_recall names {label!r}, which is no class of this model")
    if math.isnan(value):
        return Check(False, f"recall of {label!r} is unknown, no test row has it")
    passed = value >= bound
    return Check(passed, f"recall of {label!r} {value:.3f} {'is at least' if passed else 'is below'} {bound:.3f}")


def check_majority(candidate: ClassEvaluation) -> Check:
    """Return the check that the candidate tells classes apart: a macro F1 above that of one constant answer."""
    # at 99 to 1 the constant answer has an accuracy of 0.99: a bound of accuracy does not see it, macro F1 does
    label, constant = find_majority(candidate)
    mine = candidate.metrics["macro_f1"]
    passed = mine > constant + TOLERANCE
    relation = "above" if passed else "not above"
    return Check(passed, f"macro F1 {mine:.3f} is {relation} the {constant:.3f} of always {label!r}")
