"""What a run reached as a whole: the last numbers of its steps, its data sets, its models and its settings."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dlpipe.bridge.attempts import TaskAttempt
from dlpipe.bridge.contents import Contents
from dlpipe.bridge.graphs import find_steps_above
from dlpipe.bridge.points import SCORES
from dlpipe.bridge.records import Dataset, Metric, Model
from dlpipe.bridge.snapshots import RunSnapshot
from dlpipe.bridge.values import shorten_key

MOST_METRICS = 1_000
"""So many metrics of its steps stand in a run."""
MOST_POINTS = 200
"""So many points of a series stand in a run, so that the curves of two can be compared; of more, the last one."""
MOST_TASKS = 1_000
"""Of a step with more tasks, the numbers stay with the tasks: each has its artifacts read for it."""

SCORE_NAMES = ("accuracy", "f1", "auc", "auroc", "r2", "score", "rmse", "mae", "mse", "loss")
"""Where there is no such artifact, single numbers of these names are scores."""


@dataclass(frozen=True)
class TaskTotals:
    """What is kept of a task that has ended well.

    Attributes
    ----------
    finals : dict of str to (dict of str to float)
        The last point of each metric, by the artifact that it stands in.
    settings : dict of str to str
        Parameters that hold for the whole run.
    """

    finals: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    datasets: tuple[Dataset, ...] = ()
    models: tuple[Model, ...] = ()
    verdicts: Mapping[str, str] = field(default_factory=dict)
    """What was decided and why, by artifact."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """The version of a table or model that a metric is a part of."""
    held: Mapping[str, Mapping[tuple[str, ...], float]] = field(default_factory=dict)
    """The last numbers inside each artifact, also those that stand elsewhere."""
    series: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    """Step and value of each point of a series, of too many the last one alone; the last counts."""
    prints: Mapping[str, str] = field(default_factory=dict)
    """A digest of what is kept of each artifact: see ``Contents``."""

    def find_numbers(self, name: str) -> Mapping[Any, float]:
        """Return all numbers of an artifact, by which it is known again."""
        return self.held.get(name) or self.finals.get(name, {})

    paths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Where each metric is from in an artifact that holds several numbers."""
    names: frozenset[str] = frozenset()
    """The artifacts that were looked at even where the step before holds the same."""

    @property
    def scores(self) -> dict[str, float]:
        """What the task measured: its ``scores`` or ``metrics``, or single numbers that are called like scores."""
        found = {key: value for name in SCORES for key, value in self._strip(name).items()}
        return found or {
            name: self.finals[name][name] for name in SCORE_NAMES if name in self.finals.get(name, ())
        }

    @property
    def baseline(self) -> dict[str, float]:
        """The same of what the scores are beside, from the artifact ``baseline``."""
        return self._strip("baseline")

    def _strip(self, name: str) -> dict[str, float]:
        return {key.removeprefix(f"{name}/"): value for key, value in self.finals.get(name, {}).items()}


@dataclass(frozen=True)
class RunTotals:
    """What stands in the run itself; ``notes`` say what does not.

    Attributes
    ----------
    scores, baseline : dict of str to float
        What the last step that has scores measured, in the order in which it did, and what they are beside.
    verdicts : tuple of str
        What was decided and why.
    """

    metrics: tuple[Metric, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    datasets: tuple[Dataset, ...] = ()
    models: tuple[Model, ...] = ()
    notes: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    baseline: Mapping[str, float] = field(default_factory=dict)
    verdicts: tuple[str, ...] = ()


def make_task_totals(contents: Contents, names: frozenset[str] = frozenset()) -> TaskTotals:
    """Return what is kept of what a task left; ``names`` stays with it."""
    last: dict[str, Metric] = {}
    points: dict[str, dict[int, float]] = defaultdict(dict)
    for metric in contents.metrics:
        points[metric.key][metric.step] = metric.value
        if metric.key not in last or metric.step >= last[metric.key].step:
            last[metric.key] = metric
    return TaskTotals(
        {
            name: {key: metric.value for key, metric in last.items() if key in keys}
            for name, keys in contents.numbers.items()
            if keys
        },
        dict(contents.settings),
        tuple(contents.datasets),
        tuple(contents.models),
        dict(contents.verdicts),
        dict(contents.versions),
        dict(contents.held),
        {key: _shorten_series(sorted(at.items())) for key, at in points.items() if [*at] != [0]},
        dict(contents.prints),
        dict(contents.paths),
        names,
    )


def _shorten_series(points: Sequence[tuple[int, float]]) -> Sequence[tuple[int, float]]:
    """Return the points that stand in a run: all, or the last one where they are too many."""
    return points if len(points) <= MOST_POINTS else points[-1:]


def make_run_totals(snapshot: RunSnapshot, find: Callable[[TaskAttempt, frozenset[str]], TaskTotals]) -> RunTotals:
    """Return what the run has reached so far: what is here does not change any more while it goes on.

    Parameters
    ----------
    snapshot : RunSnapshot
        The run at this moment.
    find : callable
        Returns what is kept of an attempt that has ended well; the artifacts that it is given are those of the
        attempt even where the step before holds the same.
    """
    metrics: list[Metric] = []
    settings: dict[str, str] = {}
    datasets: dict[tuple[str, str, str], Dataset] = {}
    models: dict[Model, None] = {}
    notes: list[str] = []
    verdicts: dict[str, None] = {}
    versions: set[str] = set()
    first: set[str] = set()
    beside: set[str] = set()
    last: set[str] = set()
    scores: Mapping[str, float] = {}
    baseline: Mapping[str, float] = {}
    made: dict[str, Mapping[str, Mapping[Any, float]]] = {}
    for step, tasks in _list_ended(snapshot):
        if len(tasks) > MOST_TASKS:
            notes.append(f"{step}: the numbers of more than {MOST_TASKS:,} tasks stand in the tasks alone")
            continue
        found = [find(task, frozenset()) for task in tasks]
        if len(tasks) > 1:
            # what one of them has made, all have: a value that is that of the step before counts in a mean, too
            names = frozenset(name for totals in found for name in totals.finals)
            found = [
                totals if names <= set(totals.finals) else find(task, names)
                for task, totals in zip(tasks, found, strict=True)
            ]
        known = _find_known(snapshot, step, made)
        names = frozenset({*found[0].finals, *found[0].held}) if len(tasks) == 1 else frozenset()
        made[step] = {name: found[0].find_numbers(name) for name in names}
        if len(tasks) > 1 or tasks[0].place:
            metrics += _make_series(step, tasks, _join_tasks(found))
        else:
            new = {
                name: numbers
                for name, numbers in found[0].finals.items()
                if known.get(name) != found[0].find_numbers(name)
            }
            told = _leave_out(_join(new), found[0].versions, versions)
            finals = [*_make_finals(step, tasks[0], told, found[0].series)]
            metrics += finals
            versions |= set(found[0].versions.values())
            its_scores = {shorten_key(f"{step}/{key}") for name in SCORES for key in new.get(name, ())}
            first |= its_scores
            beside |= {metric.key for metric in finals} if its_scores else set()
            last |= {shorten_key(f"{step}/{key}") for key in found[0].versions}
            reached = replace(found[0], finals=new)
            scores, baseline = reached.scores or scores, reached.baseline or baseline
            verdicts |= dict.fromkeys(found[0].verdicts.values())
        for name, value in _find_common(found).items():
            settings.setdefault(name if settings.get(name, value) == value else f"{step}/{name}", value)
        for totals in found:
            for dataset in totals.datasets:
                datasets.setdefault((dataset.name, dataset.digest, dataset.source), dataset)
            models |= dict.fromkeys(totals.models)
    if len({metric.key for metric in metrics}) > MOST_METRICS:
        notes.append(f"more than {MOST_METRICS:,} metrics: they stand in the tasks alone")
        metrics = []
    # MLflow lists them in the order in which they came: until the run has ended, nothing stands before the scores
    if snapshot.status == "RUNNING":
        metrics = [metric for metric in metrics if metric.key in first]
    metrics.sort(key=lambda metric: (metric.key not in first, metric.key in last, metric.key not in beside))
    return RunTotals(
        tuple(metrics),
        settings,
        tuple(datasets.values()),
        tuple(models),
        tuple(notes),
        scores,
        baseline,
        tuple(verdicts),
    )


def _find_known(
    snapshot: RunSnapshot, step: str, made: Mapping[str, Mapping[str, Mapping[Any, float]]]
) -> dict[str, Mapping[Any, float]]:
    """Return the numbers of each artifact as they were before ``step``: what the steps that lead to it have made.

    Metaflow pickles again what a step has looked at, and the same value may come out as other bytes.
    """
    above = find_steps_above(snapshot.graph, step)
    known: dict[str, Mapping[Any, float]] = {}
    for name, finals in made.items():  # in the order in which steps began: the latest counts
        if name in above:
            known |= finals
    return known


def _find_common(found: Sequence[TaskTotals]) -> dict[str, str]:
    """Return the settings in which all tasks of a step agree; others are those of the tasks alone."""
    first, *others = (totals.settings for totals in found)
    return {
        name: value for name, value in first.items() if all(settings.get(name) == value for settings in others)
    }


def _join_tasks(found: Sequence[TaskTotals]) -> list[dict[str, float]]:
    """Return the last numbers of each task of a step under the same names.

    In one of them a number may not be told, because another one happens to be the same: it counts in a series, and
    in a mean.
    """
    paths = {name: path for totals in found for name, path in totals.paths.items()}
    joined = []
    for totals in found:
        numbers = _join(totals.finals)
        for name, path in paths.items():
            if name not in numbers and path in totals.held.get(path[0], ()):
                numbers[name] = totals.held[path[0]][path]
        joined.append(numbers)
    return joined


def _join(finals: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {key: value for numbers in finals.values() for key, value in numbers.items()}


def _leave_out(
    numbers: Mapping[str, float], versions: Mapping[str, str], told: Collection[str]
) -> dict[str, float]:
    """Return the numbers without those of versions of tables and models that an earlier step has told."""
    return {key: value for key, value in numbers.items() if versions.get(key) not in told}


def _list_ended(snapshot: RunSnapshot) -> Iterator[tuple[str, list[TaskAttempt]]]:
    """Yield each step that is over, with those of its tasks that have ended well, by their places.

    A step with one task is over with it. Of one with several, that is known when a later step has begun, or the
    run has ended: a mean that still changes would leave its older values in MLflow.
    """
    last = snapshot.last_attempts
    for step, attempts in snapshot.by_step.items():
        tasks = [attempt for attempt in attempts if last[attempt.pathspec] is attempt]
        ended = [task for task in tasks if task.status == "FINISHED" and task.complete]
        several = len(tasks) > 1 or any(task.place for task in tasks)
        after = snapshot.graph.get("steps", {}).get(step, {}).get("next", [])
        goes_on = step in after or not any(name in snapshot.by_step for name in after)
        if ended and not (several and goes_on and snapshot.status == "RUNNING"):
            yield step, sorted(ended, key=lambda task: [int(part) for part in _split_place(task.place)])


def _split_place(place: str) -> Sequence[str]:
    """Return the numbers in a place such as ``[2][0]``."""
    return [part for part in place.strip("[]").split("][") if part.isdigit()]


def _make_finals(
    step: str, task: TaskAttempt, finals: Mapping[str, float], series: Mapping[str, Sequence[tuple[int, float]]]
) -> Iterator[Metric]:
    """Yield the points of each series, the last of which is the one that counts, and the other numbers."""
    time = task.end or task.start
    for key, value in finals.items():
        for at, point in series.get(key, [(0, value)]):
            yield Metric(shorten_key(f"{step}/{key}"), point, time, at)


def _make_series(
    step: str, tasks: Sequence[TaskAttempt], finals: Sequence[Mapping[str, float]]
) -> Iterator[Metric]:
    """Yield a point for each task and number, and their mean, lowest and highest.

    The step of a point is the task's index in its foreach; of a foreach in a foreach, and of tasks that follow
    each other, its place among all.
    """
    places = [_split_place(task.place) for task in tasks]
    flat = all(len(place) == 1 for place in places) and len({place[0] for place in places}) == len(places)
    values: dict[str, list[float]] = defaultdict(list)
    time = max(task.end or task.start for task in tasks)  # of all points: MLflow lists them by it
    for at, numbers in enumerate(finals):
        for key, value in numbers.items():
            values[key].append(value)
            index = int(places[at][0]) if flat else at
            yield Metric(shorten_key(f"{step}/{key}"), value, time, index)
    for key, all_ in values.items():
        for name, value in (("mean", statistics.fmean(all_)), ("min", min(all_)), ("max", max(all_))):
            whole = f"{key}/{name}"
            while whole in values:  # a number of the tasks' own
                whole += ":2"
            yield Metric(shorten_key(f"{step}/{whole}"), value, time)
