"""The gate: may a model replace the champion?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Le

from dlpipe.errors import EvaluationError
from dlpipe.evaluation.per_class import class_recalls, class_words, majority
from dlpipe.evaluation.scores import Evaluation
from dlpipe.settings import check_name

LOWER_IS_BETTER = ("log_loss", "calibration_error")

Metric = Literal["accuracy", "macro_f1", "auroc", "log_loss", "calibration_error"]
Share = Annotated[float, Ge(0.0), Le(1.0)]
Margin = Annotated[float, Ge(-1.0), Le(1.0)]
EVERY = "*"
"""What stands for every class in a threshold by class."""
HAIR = 1e-9  # 0.87 - 0.86 is a hair under 0.01 in binary, and a hair must not decide


@dataclass(frozen=True)
class Thresholds:
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


@dataclass(frozen=True)
class Rival:
    """The champion, scored on the test rows whose class it knows, beside the candidate on the same rows.

    Attributes
    ----------
    version : int or None
        Of the champion, where it has one.
    evaluation, candidate : Evaluation, optional
        ``None`` where the champion cannot be scored on these rows; ``problem`` says why.
    unknown : mapping of class to number of rows
        The classes of the test rows that the champion does not know.
    """

    version: int | None
    evaluation: Evaluation | None
    candidate: Evaluation | None
    unknown: Mapping[str, int] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class Verdict:
    """Whether a model passed the gate, and why in one line.

    Attributes
    ----------
    champion : int or None
        The version that the model was judged against, ``None`` for none.
    recall : mapping of class to share
        The candidate's, of the classes that the test rows have.
    """

    passed: bool
    reason: str
    champion: int | None = None
    recall: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """One comparison of the gate, in words for both of its outcomes."""

    passed: bool
    words: str


def judge(
    candidate: Evaluation,
    *,
    baseline: Evaluation,
    champion: Rival | Evaluation | None,
    thresholds: Thresholds,
) -> Verdict:
    """Return whether ``candidate`` may become champion, with the numbers that decided it.

    A metric that is not a number fails, and so does a model that tells classes apart no better than the one that
    always says the most frequent class.

    Raises
    ------
    EvaluationError
        When evaluations that are compared are of different numbers of rows.
    """
    check_same_rows("baseline", baseline, candidate)
    checks = [
        *threshold_checks(candidate, thresholds),
        *recall_checks(candidate, thresholds.min_recall or {}),
        majority_check(candidate),
        rival_check(candidate, baseline, "baseline", thresholds.metric, thresholds.baseline_margin),
    ]
    rival = Rival(None, champion, candidate) if isinstance(champion, Evaluation) else champion
    if rival is not None:
        checks.append(champion_check(rival, thresholds))
    passed = all(check.passed for check in checks)
    words = [check.words for check in checks if check.passed == passed]
    reason = f"{'passed' if passed else 'not promoted'}: {'; '.join([*words, class_words(candidate)])}"
    return Verdict(passed, reason, rival.version if rival else None, class_recalls(candidate))


def check_classes(thresholds: Thresholds, labels: Sequence[str]) -> None:
    """Raise ``SettingError`` where ``thresholds`` name a class that is not one of ``labels``.

    Examples
    --------
    >>> check_classes(Thresholds(min_recall={"urgnet": 0.5}), ["ok", "urgent"])
    Traceback (most recent call last):
    ...
    dlpipe.errors.SettingError: [gate] min_recall has no class 'urgnet'; did you mean 'urgent'? Known: ok, urgent.
    """
    for label in thresholds.min_recall or {}:
        if label != EVERY:
            check_name(label, list(labels), what="class", where="[gate] min_recall")


def check_same_rows(name: str, other: Evaluation, candidate: Evaluation) -> None:
    """Raise ``EvaluationError`` unless both evaluations have as many rows."""
    if other.rows != candidate.rows:
        raise EvaluationError(
            f"The {name} was evaluated on {other.rows} rows and the candidate on {candidate.rows}; "
            "evaluate both on the same test rows."
        )


def threshold_checks(candidate: Evaluation, thresholds: Thresholds) -> Iterator[Check]:
    """Yield a check for each absolute threshold that is asked."""
    for metric, bound in (
        ("accuracy", thresholds.min_accuracy),
        ("macro_f1", thresholds.min_macro_f1),
        ("calibration_error", thresholds.max_calibration_error),
        ("log_loss", thresholds.max_log_loss),
    ):
        if bound is not None:
            yield threshold_check(metric, candidate.metrics[metric], bound)


def threshold_check(metric: str, value: float, bound: float) -> Check:
    """Return the check of one metric against its bound."""
    lower = metric in LOWER_IS_BETTER
    passed = value <= bound if lower else value >= bound
    relation = ("is at most" if lower else "is at least") if passed else ("is above" if lower else "is below")
    return Check(passed, f"{spoken(metric)} {value:.3f} {relation} {bound:.3f}")


def recall_checks(candidate: Evaluation, bounds: Mapping[str, float]) -> Iterator[Check]:
    """Yield a check for each class that has a bound; one that the test rows lack fails where it is named."""
    recalls = class_recalls(candidate)
    for label, bound in bounds.items():
        if label != EVERY:
            yield recall_check(label, recalls.get(label, math.nan), bound, known=label in candidate.labels)
    for label in recalls if EVERY in bounds else ():
        if label not in bounds:
            yield recall_check(label, recalls[label], bounds[EVERY], known=True)


def recall_check(label: str, value: float, bound: float, *, known: bool) -> Check:
    """Return the check of the recall of one class against its bound."""
    if not known:
        return Check(False, f"min_recall names {label!r}, which is no class of this model")
    if math.isnan(value):
        return Check(False, f"recall of {label!r} is unknown, no test row has it")
    passed = value >= bound
    return Check(passed, f"recall of {label!r} {value:.3f} {'is at least' if passed else 'is below'} {bound:.3f}")


def majority_check(candidate: Evaluation) -> Check:
    """Return the check that the candidate tells classes apart: a macro F1 above that of one constant answer."""
    label, constant = majority(candidate)
    mine = candidate.metrics["macro_f1"]
    passed = mine > constant + HAIR
    relation = "above" if passed else "not above"
    return Check(passed, f"macro F1 {mine:.3f} is {relation} the {constant:.3f} of always {label!r}")


def champion_check(champion: Rival, thresholds: Thresholds) -> Check:
    """Return the check that the candidate is not worse than the champion, on the rows that both know."""
    name = "champion" if champion.version is None else f"champion v{champion.version}"
    if champion.evaluation is None or champion.candidate is None:
        return Check(False, f"the {name} cannot be compared: {champion.problem}")
    check_same_rows("champion", champion.evaluation, champion.candidate)
    check = rival_check(
        champion.candidate, champion.evaluation, name, thresholds.metric, thresholds.champion_margin
    )
    if not champion.unknown:
        return check
    classes = ", ".join(f"{label!r} ({rows})" for label, rows in champion.unknown.items())
    rows = champion.evaluation.rows
    return Check(check.passed, f"{check.words} on the {rows} rows of classes that it knows, without {classes}")


def rival_check(candidate: Evaluation, rival: Evaluation, name: str, metric: str, margin: float) -> Check:
    """Return the check that ``candidate`` is not worse than ``rival`` by more than ``margin``."""
    mine, theirs = candidate.metrics[metric], rival.metrics[metric]
    ahead = theirs - mine if metric in LOWER_IS_BETTER else mine - theirs
    passed = ahead >= -margin - HAIR
    relation = f"{abs(ahead):.3f} {'better' if ahead > 0 else 'worse'} than" if ahead else "the same as"
    allowed = f" (margin {margin:.3f})" if margin else ""
    return Check(passed, f"{spoken(metric)} {mine:.3f} is {relation} the {name}'s {theirs:.3f}{allowed}")


def spoken(metric: str) -> str:
    """Return the metric's name as it reads in a sentence."""
    return metric.replace("_", " ").replace("f1", "F1").replace("auroc", "AUROC")
