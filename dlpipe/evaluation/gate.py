"""The gate: may a model replace the champion?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from dlpipe.errors import EvaluationError
from dlpipe.evaluation.scores import Evaluation

LOWER_IS_BETTER = ("log_loss", "calibration_error")

Metric = Literal["accuracy", "macro_f1", "auroc", "log_loss", "calibration_error"]
Share = Annotated[float, Ge(0.0), Le(1.0)]
Margin = Annotated[float, Ge(-1.0), Le(1.0)]


@dataclass(frozen=True)
class Thresholds:
    """What a model must reach to become champion; ``None`` is not asked.

    A margin is by how much the headline ``metric`` may be worse than the baseline's or the champion's; a negative
    one demands that it be better by as much.
    """

    metric: Metric = "accuracy"
    min_accuracy: Share = 0.6
    min_macro_f1: Share | None = None
    max_calibration_error: Share | None = None
    max_log_loss: Annotated[float, Ge(0.0), Le(100.0)] | None = None
    baseline_margin: Margin = 0.0
    champion_margin: Margin = 0.0


@dataclass(frozen=True)
class Verdict:
    """Whether a model passed the gate, and why in one line."""

    passed: bool
    reason: str


@dataclass(frozen=True)
class Check:
    """One comparison of the gate, in words for both of its outcomes."""

    passed: bool
    words: str


def judge(
    candidate: Evaluation, *, baseline: Evaluation, champion: Evaluation | None, thresholds: Thresholds
) -> Verdict:
    """Return whether ``candidate`` may become champion, with the numbers that decided it.

    All three evaluations must be of the same test rows. A metric that is not a number fails.

    Raises
    ------
    EvaluationError
        When the evaluations are of different numbers of rows.
    """
    check_same_rows(candidate, baseline, champion)
    checks = [
        *threshold_checks(candidate, thresholds),
        rival_check(candidate, baseline, "baseline", thresholds.metric, thresholds.baseline_margin),
    ]
    if champion is not None:
        checks.append(rival_check(candidate, champion, "champion", thresholds.metric, thresholds.champion_margin))
    failed = [check.words for check in checks if not check.passed]
    if failed:
        return Verdict(False, "not promoted: " + "; ".join(failed))
    return Verdict(True, "passed: " + "; ".join(check.words for check in checks))


def check_same_rows(candidate: Evaluation, baseline: Evaluation, champion: Evaluation | None) -> None:
    """Raise ``EvaluationError`` unless all evaluations have as many rows."""
    for name, other in (("baseline", baseline), ("champion", champion)):
        if other is not None and other.rows != candidate.rows:
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


def rival_check(candidate: Evaluation, rival: Evaluation, name: str, metric: str, margin: float) -> Check:
    """Return the check that ``candidate`` is not worse than ``rival`` by more than ``margin``."""
    mine, theirs = candidate.metrics[metric], rival.metrics[metric]
    ahead = theirs - mine if metric in LOWER_IS_BETTER else mine - theirs
    # 0.87 - 0.86 is a hair under 0.01 in binary, and a hair must not decide
    passed = ahead >= -margin - 1e-9
    relation = f"{abs(ahead):.3f} {'better' if ahead > 0 else 'worse'} than" if ahead else "the same as"
    allowed = f" (margin {margin:.3f})" if margin else ""
    return Check(passed, f"{spoken(metric)} {mine:.3f} is {relation} the {name}'s {theirs:.3f}{allowed}")


def spoken(metric: str) -> str:
    """Return the metric's name as it reads in a sentence."""
    return metric.replace("_", " ").replace("f1", "F1").replace("auroc", "AUROC")
