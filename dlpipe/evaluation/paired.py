"""Two models on the same rows: how far their scores lie apart, and which rows one has right and the other wrong.

Models make mistakes on the same hard rows, so the difference of two scores is surer than each of them. Both are
scored on the same resamples of the rows, and the interval is that of the difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlpipe.evaluation.on_table import LabelledRows, evaluate_outputs
from dlpipe.task import Evaluation, Target, Task

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.floating[Any]]

RESAMPLES = 1000
SURE = 0.05
"""A p-value below it agrees with an interval of 95 %."""


@dataclass(frozen=True)
class ModelOutputs:
    """What a model says of rows: outputs of shape (n_rows, n_outputs), their names, and what decides by them."""

    outputs: Floats
    names: Sequence[str]
    decision: Mapping[str, Any]

    def take(self, places: Sequence[int]) -> ModelOutputs:
        """Return the outputs of the rows at ``places``."""
        return ModelOutputs(self.outputs[list(places)], self.names, self.decision)

    def over(self, names: Sequence[str]) -> ModelOutputs:
        """Return the outputs under these names; those that the model lacks are 0."""
        import numpy as np

        made = np.zeros((len(self.outputs), len(names)))
        made[:, [names.index(name) for name in self.names]] = self.outputs
        return ModelOutputs(made, tuple(names), self.decision)


@dataclass(frozen=True)
class MetricDifference:
    """A metric of two models on the same rows; ``value`` is the second's less the first's.

    Attributes
    ----------
    first, second, value : float
        NaN where the rows give the metric no value.
    first_interval, second_interval, interval : (low, high)
        95 % percentile bootstrap intervals; that of the difference is over the same resamples for both.
    lower_is_better : bool
    p_value : float or None
        Of McNemar's exact test, where the metric moves only with rows that turn right or wrong.
    """

    metric: str
    first: float
    first_interval: tuple[float, float]
    second: float
    second_interval: tuple[float, float]
    value: float
    interval: tuple[float, float]
    lower_is_better: bool
    p_value: float | None = None

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` beyond chance, else ``unclear``; ``same`` where all is 0.

        Beyond chance is where the interval leaves out 0 and, where there is an exact test, its p is below 0.05:
        of five rows won and none lost, no resample but one in 150 has none, and chance does it once in 16 times.
        """
        low, high = self.interval
        if self.value == low == high == 0:
            return "same"
        if math.isnan(low) or low <= 0 <= high or (self.p_value is not None and self.p_value >= SURE):
            return "unclear"
        return "better" if (low > 0) != self.lower_is_better else "worse"


@dataclass(frozen=True)
class RowOutcome:
    """A row on which two models differ: what is true, and what each decides."""

    row_id: str
    text: str
    label: str
    first: str
    second: str


@dataclass(frozen=True)
class GroupOutcome:
    """The rows of a class, or with a label: the share that each model has right, and rows won and lost.

    Attributes
    ----------
    group : str
    rows : int
    first_recall, second_recall : float
        The share of these rows for which a model decides on this class, or gives this label.
    interval : (low, high)
        95 %, of the second's recall less the first's: the wider ends of the bootstrap over the resamples of all
        metrics and of Newcombe's interval for pairs, see ``compute_paired_interval``.
    p_value : float
        Of McNemar's exact test on these rows.
    won, lost : int
        Rows that only the second has right, and that only the first has right. A row with several labels is right
        where all of them are.
    """

    group: str
    rows: int
    first_recall: float
    second_recall: float
    interval: tuple[float, float]
    p_value: float
    won: int
    lost: int

    @property
    def difference(self) -> MetricDifference:
        """The second's recall less the first's, as a metric; it has no intervals of the two alone."""
        return MetricDifference(
            metric=self.group,
            first=self.first_recall,
            first_interval=(math.nan, math.nan),
            second=self.second_recall,
            second_interval=(math.nan, math.nan),
            value=self.second_recall - self.first_recall,
            interval=self.interval,
            lower_is_better=False,
            p_value=self.p_value,
        )


@dataclass(frozen=True)
class PairedComparison:
    """Two models on the same rows.

    Attributes
    ----------
    rows : int
    headline : str
        The metric that decides.
    metrics : mapping of str to MetricDifference
        The headline first.
    has_right_rows : bool
        Whether predictions are right or wrong. Of numbers one is only closer, and ``won`` counts those rows.
    won, lost : int
        Rows that only the second has right, and that only the first has right.
    both, neither : int
        Rows that both have right, and that both have wrong; of numbers, ``both`` are equally close.
    p_value : float or None
        Two-sided, of McNemar's exact test: how often chance alone would tell won and lost so far apart.
    groups : tuple of GroupOutcome
        Those with the most rows won or lost first.
    won_rows, lost_rows : tuple of RowOutcome
        Those first on which the models lie furthest apart.
    """

    rows: int
    headline: str
    metrics: Mapping[str, MetricDifference]
    has_right_rows: bool
    won: int
    lost: int
    both: int
    neither: int
    p_value: float | None
    groups: tuple[GroupOutcome, ...]
    won_rows: tuple[RowOutcome, ...]
    lost_rows: tuple[RowOutcome, ...]

    @property
    def deciding(self) -> MetricDifference:
        """The difference of the metric that decides."""
        return self.metrics[self.headline]


def compare_outputs(
    first: ModelOutputs,
    second: ModelOutputs,
    rows: LabelledRows,
    *,
    task: Task,
    seed: int = 0,
    resamples: int = RESAMPLES,
    shown: int = 20,
) -> PairedComparison:
    """Return how the second model differs from the first on rows whose labels both know.

    Parameters
    ----------
    first, second : ModelOutputs
        Of ``rows``. Where they have not the same names, both are judged over all names.
    rows : LabelledRows
    task : Task
        Of both models.
    seed, resamples : int
        Of the bootstrap; the intervals are the same for the same seed.
    shown : int
        How many rows won, and how many lost, are listed.

    Raises
    ------
    EvaluationError
        When there is no row, or an output is not finite.
    """
    target = task.target
    names = [*first.names, *(name for name in second.names if name not in first.names)]
    both = (first.over(names), second.over(names))
    evaluations = [
        evaluate_outputs(one.outputs, rows, names, task=task, decision=one.decision, seed=seed) for one in both
    ]
    intervals = bootstrap_differences(*both, rows.labels, target=target, seed=seed, resamples=resamples)
    errors = [
        target.measure_row_errors(one.outputs, rows.labels, names=names, decision=one.decision) for one in both
    ]
    won, lost = find_won_and_lost(errors[0], errors[1], right=target.has_right_rows)
    same = ~(won | lost)
    fine = errors[0] == 0 if target.has_right_rows else same
    apart = abs(errors[0] - errors[1])
    outcome = [
        make_row_outcomes(chosen, apart, both, rows, task=task, shown=shown) if shown else ()
        for chosen in (won, lost)
    ]
    p_value = compute_mcnemar_p(int(won.sum()), int(lost.sum())) if target.has_right_rows else None
    headline = evaluations[0].headline
    metrics = [headline, *(name for name in evaluations[0].metrics if name != headline)]
    return PairedComparison(
        rows=len(rows.labels),
        headline=headline,
        metrics={name: make_difference(name, evaluations, intervals[name], target, p_value) for name in metrics},
        has_right_rows=target.has_right_rows,
        won=int(won.sum()),
        lost=int(lost.sum()),
        both=int((same & fine).sum()),
        neither=int((same & ~fine).sum()),
        p_value=p_value,
        groups=tuple(make_groups(both, won, lost, rows.labels, target=target, seed=seed, resamples=resamples)),
        won_rows=outcome[0],
        lost_rows=outcome[1],
    )


def bootstrap_differences(
    first: ModelOutputs,
    second: ModelOutputs,
    labels: Sequence[Any],
    *,
    target: Target,
    seed: int,
    resamples: int,
) -> dict[str, tuple[float, float]]:
    """Return the 95 % interval of the difference of each metric, the second's less the first's.

    Parameters
    ----------
    first, second : ModelOutputs
        Of the same rows, with the same names.
    labels : sequence of n_rows labels
    target : Target
        Whose metrics these are.
    seed, resamples : int
    """
    from dlpipe.task.bootstrap import bootstrap

    def measure(counts: Floats) -> dict[str, Floats]:
        # the same counts for both: a hard row is drawn for both or for none
        mine, theirs = (
            target.resample_metrics(counts, one.outputs, labels, names=one.names, decision=one.decision)
            for one in (second, first)
        )
        return {name: mine[name] - theirs[name] for name in mine}

    return bootstrap(measure, rows=len(labels), seed=seed, resamples=resamples)


def find_won_and_lost(first: Floats, second: Floats, *, right: bool) -> tuple[Any, Any]:
    """Return which rows only the second has right, and which only the first: two bool arrays of shape (n_rows,).

    Parameters
    ----------
    first, second : float arrays of shape (n_rows,)
        How wrong each row is, 0 where it is right.
    right : bool
        Whether predictions are right or wrong; else the smaller error counts.

    Examples
    --------
    >>> import numpy as np
    >>> one, other = np.array([0.0, 1.0, 2.0]), np.array([1.0, 0.0, 1.0])
    >>> [part.tolist() for part in find_won_and_lost(one, other, right=True)]
    [[False, True, False], [True, False, False]]
    >>> [part.tolist() for part in find_won_and_lost(one, other, right=False)]
    [[False, True, True], [True, False, False]]
    """
    if not right:
        return second < first, first < second
    return (first > 0) & (second == 0), (first == 0) & (second > 0)


def compute_mcnemar_p(won: int, lost: int) -> float:
    """Return the two-sided p-value of McNemar's exact test; 1 where no row was won or lost.

    Examples
    --------
    >>> compute_mcnemar_p(5, 5), round(compute_mcnemar_p(12, 2), 4)
    (1.0, 0.0129)
    """
    from scipy.stats import binomtest

    return float(binomtest(won, won + lost, 0.5).pvalue) if won + lost else 1.0


def make_difference(
    name: str,
    evaluations: Sequence[Evaluation],
    interval: tuple[float, float],
    target: Target,
    p_value: float | None,
) -> MetricDifference:
    """Return the difference of a metric.

    Parameters
    ----------
    name : str
        Of the metric.
    evaluations : sequence of two Evaluation
        Of the first and the second model.
    interval : (low, high)
        Of the difference.
    target : Target
        Whose metric it is.
    p_value : float or None
        Of McNemar's exact test on all rows.
    """
    first, second = evaluations
    return MetricDifference(
        metric=name,
        first=first.metrics[name],
        first_interval=first.intervals[name],
        second=second.metrics[name],
        second_interval=second.intervals[name],
        value=second.metrics[name] - first.metrics[name],
        interval=interval,
        lower_is_better=name in target.lower_is_better,
        p_value=p_value if name in target.right_row_metrics else None,
    )


def make_row_outcomes(
    chosen: Any, apart: Floats, both: Sequence[ModelOutputs], rows: LabelledRows, *, task: Task, shown: int
) -> tuple[RowOutcome, ...]:
    """Return the first ``shown`` of the chosen rows, those first on which the models lie furthest apart.

    Parameters
    ----------
    chosen : bool array of shape (n_rows,)
    apart : float array of shape (n_rows,)
        By how much the errors of the two models differ.
    both : sequence of two ModelOutputs
    rows : LabelledRows
    task : Task
    shown : int
    """
    import numpy as np

    places = np.flatnonzero(chosen)
    places = places[np.argsort(-apart[places], kind="stable")][:shown].tolist()
    target = task.target
    decided = [target.decide(one.outputs[places], {"labels": one.names, "decision": one.decision}) for one in both]
    return tuple(
        RowOutcome(
            row_id=str(rows.row_ids[place]),
            text=task.inputs.format_row(rows.rows[place]),
            label=target.format_label(rows.labels[place]),
            first=target.format_label(first),
            second=target.format_label(second),
        )
        for place, first, second in zip(places, *decided, strict=True)
    )


def make_groups(
    both: Sequence[ModelOutputs],
    won: Any,
    lost: Any,
    labels: Sequence[Any],
    *,
    target: Target,
    seed: int,
    resamples: int,
) -> list[GroupOutcome]:
    """Return what came of the rows of each class or label, those with the most rows won or lost first.

    Parameters
    ----------
    both : sequence of two ModelOutputs
    won, lost : bool arrays of shape (n_rows,)
    labels : sequence of n_rows labels
    target : Target
    seed, resamples : int
        Of the bootstrap.
    """

    members = find_members([target.list_groups(label) for label in labels])
    if not members:
        return []
    first, second = (
        [
            {*target.list_groups(made)}
            for made in target.decide(one.outputs, {"labels": one.names, "decision": one.decision})
        ]
        for one in both
    )
    hits = {
        group: (find_hits(group, first, places), find_hits(group, second, places))
        for group, places in members.items()
    }
    drawn = bootstrap_groups(members, hits, rows=len(labels), seed=seed, resamples=resamples)
    found = [
        GroupOutcome(
            group,
            len(places),
            float(hits[group][0].mean()),
            float(hits[group][1].mean()),
            widen(drawn[group], compute_paired_interval(*hits[group])),
            compute_mcnemar_p(*(int((one > other).sum()) for one, other in (hits[group], hits[group][::-1]))),
            int(won[places].sum()),
            int(lost[places].sum()),
        )
        for group, places in sorted(members.items())
    ]
    return sorted(found, key=lambda group: -(group.won + group.lost))


def find_members(groups: Sequence[Sequence[str]]) -> dict[str, list[int]]:
    """Return the places of the rows of each group.

    Examples
    --------
    >>> find_members([("a",), ("b", "a"), ()])
    {'a': [0, 1], 'b': [1]}
    """
    places: dict[str, list[int]] = {}
    for at, names in enumerate(groups):
        for name in dict.fromkeys(names):
            places.setdefault(name, []).append(at)
    return places


def find_hits(group: str, given: Sequence[set[str]], places: Sequence[int]) -> Floats:
    """Return 1 for each of the rows at ``places`` that is given this class or label, else 0.

    Examples
    --------
    >>> find_hits("a", [{"a"}, set(), {"a", "b"}], [1, 2]).tolist()
    [0.0, 1.0]
    """
    import numpy as np

    return np.array([float(group in given[at]) for at in places])


def bootstrap_groups(
    members: Mapping[str, Sequence[int]],
    hits: Mapping[str, tuple[Floats, Floats]],
    *,
    rows: int,
    seed: int,
    resamples: int,
) -> dict[str, tuple[float, float]]:
    """Return the 95 % interval of each group's difference over the resamples that the metrics have, too.

    Parameters
    ----------
    members : mapping of str to sequence of int
        The places of each group's rows among all.
    hits : mapping of str to two float arrays of shape (n_rows of the group,)
        1 where a model has a row of the group right, else 0.
    rows : int
        All of them.
    seed, resamples : int
    """
    import numpy as np

    from dlpipe.task.bootstrap import bootstrap

    gains = {group: second - first for group, (first, second) in hits.items()}

    def measure(counts: Floats) -> dict[str, Floats]:
        found = {}
        for group, places in members.items():
            own = counts[places]
            count = own.sum(axis=0)  # a resample may have no row of a small group
            empty = np.full(len(count), np.nan)
            found[group] = np.divide(gains[group] @ own, count, out=empty, where=count > 0)
        return found

    return bootstrap(measure, rows=rows, seed=seed, resamples=resamples)


def compute_paired_interval(first: Floats, second: Floats) -> tuple[float, float]:
    """Return Newcombe's 95 % interval of the second share less the first, of the same rows.

    It has a width where the models agree on all rows, and where few rows differ, which a bootstrap has not:
    of what no row shows, no resample has one. Newcombe (1998), Statistics in Medicine 17, 2635-2650, method 10.

    Parameters
    ----------
    first, second : float arrays of shape (n_rows,)
        1 where a model is right, else 0; at least one row.

    Examples
    --------
    >>> import numpy as np
    >>> low, high = compute_paired_interval(np.ones(4), np.ones(4))
    >>> round(low, 2), round(high, 2)
    (-0.49, 0.49)
    """
    from dlpipe.task.quality import compute_wilson_interval

    rows = len(first)
    shares = float(first.mean()), float(second.mean())
    (low, high), (other_low, other_high) = (
        compute_wilson_interval(int(right.sum()), rows) for right in (first, second)
    )
    value, link = shares[1] - shares[0], compute_link(first, second)

    def measure_reach(up: float, down: float) -> float:
        return math.sqrt(max(0.0, up * up - 2 * link * up * down + down * down))

    return (
        value - measure_reach(shares[1] - other_low, high - shares[0]),
        value + measure_reach(other_high - shares[1], shares[0] - low),
    )


def compute_link(first: Floats, second: Floats) -> float:
    """Return Newcombe's correlation of two models' right rows: 0 where one of them has all rows right, or none.

    Parameters
    ----------
    first, second : float arrays of shape (n_rows,)
        1 where a model is right, else 0.
    """
    rows = len(first)
    both, neither = float(first @ second), float((1 - first) @ (1 - second))
    won, lost = float((1 - first) @ second), float(first @ (1 - second))
    sides = (both + lost) * (won + neither) * (both + won) * (lost + neither)
    if not sides:
        return 0.0
    apart = both * neither - won * lost
    # corrected for continuity where they go together
    return (max(apart - rows / 2, 0.0) if apart > 0 else apart) / math.sqrt(sides)


def widen(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """Return the lower of the lower ends and the higher of the higher ones; a missing one does not count.

    Examples
    --------
    >>> widen((0.0, 0.5), (-0.1, 0.4)), widen((math.nan, math.nan), (0.0, 1.0))
    ((-0.1, 0.5), (0.0, 1.0))
    """
    if math.isnan(one[0]):
        return other
    return min(one[0], other[0]), max(one[1], other[1])
