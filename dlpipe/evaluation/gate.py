"""The gate: may a model replace the champion?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from dlpipe.errors import EvaluationError
from dlpipe.task import Check, Evaluation, Target, Thresholds
from dlpipe.task.evaluation import spell_metric
from dlpipe.task.gate import TOLERANCE


@dataclass(frozen=True)
class Rival:
    """The champion, scored on the test rows that it can be judged on, beside the candidate on the same rows.

    Attributes
    ----------
    version : int or None
        Of the champion, where it has one.
    evaluation, candidate : Evaluation, optional
        ``None`` where the champion cannot be scored on these rows; ``problem`` says why.
    unknown : mapping of label to number of rows
        The labels of the test rows that the champion does not know.
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
    rival : Evaluation, optional
        The scores of that version, on the rows that it can be judged on; ``None`` where it has none.
    """

    passed: bool
    reason: str
    champion: int | None = None
    rival: Evaluation | None = None


def judge(
    candidate: Evaluation,
    *,
    baseline: Evaluation,
    champion: Rival | Evaluation | None,
    thresholds: Thresholds,
    target: Target,
) -> Verdict:
    """Return whether ``candidate`` may become champion, with the numbers that decided it.

    A metric that is not a number fails, and so does what the target asks beside bounds: that a classifier tells
    classes apart better than the one that always says the most frequent class, for one.

    Parameters
    ----------
    candidate, baseline : Evaluation
        On the same rows.
    champion : Rival, Evaluation or None
        ``None`` if there is no champion. A bare evaluation is one on all rows of the candidate's.
    thresholds : Thresholds
        Of the class ``target.gate``.
    target : Target
        Of the task that the candidate was trained for.

    Raises
    ------
    EvaluationError
        When evaluations that are compared are of different numbers of rows.
    """
    rival = Rival(None, champion, candidate) if isinstance(champion, Evaluation) else champion
    checks = list_checks(candidate, baseline=baseline, champion=rival, thresholds=thresholds, target=target)
    passed = all(check.passed for check in checks)
    # of a refusal, only what failed is said; of a pass, everything
    words = [check.words for check in checks if check.passed == passed]
    described = [target.describe(candidate)] if target.describe(candidate) else []
    reason = f"{'passed' if passed else 'not promoted'}: {'; '.join([*words, *described])}"
    # without the texts that it got wrong, which need not be kept twice
    scores = replace(rival.evaluation, mistakes=()) if rival and rival.evaluation else None
    return Verdict(passed, reason, rival.version if rival else None, scores)


def list_checks(
    candidate: Evaluation,
    *,
    baseline: Evaluation,
    champion: Rival | None,
    thresholds: Thresholds,
    target: Target,
) -> list[Check]:
    """Return everything that the gate asks, each with its answer; ``judge`` has the parameters."""
    check_same_rows("baseline", baseline, candidate)
    checks = [
        *target.make_checks(candidate, thresholds),
        check_rival(
            candidate,
            baseline,
            name="baseline",
            metric=thresholds.metric,
            margin=thresholds.baseline_margin,
            lower_is_better=thresholds.metric in target.lower_is_better,
        ),
    ]
    return checks if champion is None else [*checks, check_champion(champion, thresholds, target)]


def check_same_rows(name: str, other: Evaluation, candidate: Evaluation) -> None:
    """Raise ``EvaluationError`` unless both evaluations have as many rows; a sentence calls the other ``name``."""
    if other.rows != candidate.rows:
        raise EvaluationError(
            f"The {name} was evaluated on {other.rows} rows and the candidate on {candidate.rows}; "
            "evaluate both on the same test rows."
        )


def check_champion(champion: Rival, thresholds: Thresholds, target: Target) -> Check:
    """Check that the candidate is not worse than the champion, on the rows whose labels both know.

    Parameters
    ----------
    champion : Rival
    thresholds : Thresholds
    target : Target
        Whose metrics these are.
    """
    name = "champion" if champion.version is None else f"champion v{champion.version}"
    if champion.evaluation is None or champion.candidate is None:
        return Check(False, f"the {name} cannot be compared: {champion.problem}")
    check_same_rows("champion", champion.evaluation, champion.candidate)
    check = check_rival(
        champion.candidate,
        champion.evaluation,
        name=name,
        metric=thresholds.metric,
        margin=thresholds.champion_margin,
        lower_is_better=thresholds.metric in target.lower_is_better,
    )
    if not champion.unknown:
        return check
    classes = ", ".join(f"{label!r} ({rows})" for label, rows in champion.unknown.items())
    rows = champion.evaluation.rows
    return Check(check.passed, f"{check.words} on the {rows} rows of classes that it knows, without {classes}")


def check_rival(
    candidate: Evaluation, rival: Evaluation, *, name: str, metric: str, margin: float, lower_is_better: bool
) -> Check:
    """Check that ``candidate`` is not worse than ``rival`` by more than ``margin``.

    Parameters
    ----------
    candidate, rival : Evaluation
    name : str
        What a sentence calls the rival.
    metric : str
        The metric that is compared; it must be one of both evaluations.
    margin : float
        In the unit of the metric.
    lower_is_better : bool
        Whether less of the metric is better.
    """
    mine, theirs = candidate.metrics[metric], rival.metrics[metric]
    ahead = theirs - mine if lower_is_better else mine - theirs
    passed = ahead >= -margin - TOLERANCE
    relation = f"{abs(ahead):.3f} {'better' if ahead > 0 else 'worse'} than" if ahead else "the same as"
    allowed = f" (margin {margin:.3f})" if margin else ""
    return Check(passed, f"{spell_metric(metric)} {mine:.3f} is {relation} the {name}'s {theirs:.3f}{allowed}")
