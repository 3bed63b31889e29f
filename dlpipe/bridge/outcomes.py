"""What came of a run, for whoever compares runs: read from Metaflow alone, without running any code of it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dlpipe.bridge.artifacts import Artifact, read_all_artifacts
from dlpipe.bridge.attempts import TaskAttempt
from dlpipe.bridge.datastore import Unreadable
from dlpipe.bridge.opening import read_fields
from dlpipe.bridge.points import find_points
from dlpipe.bridge.reading import RunReading
from dlpipe.bridge.records import Dataset, Model, Status
from dlpipe.bridge.snapshots import RunSnapshot
from dlpipe.redaction import redact

EVALUATION_FIELDS = frozenset({"metrics", "intervals"})

Points = tuple[tuple[int, float], ...]
"""Steps, such as epochs, each with a number."""


@dataclass(frozen=True)
class StepOutcome:
    """How a step went; ``seconds`` of its last attempts, ``None`` where one runs, was killed or taken over."""

    step: str
    status: Status
    seconds: float | None
    tasks: int = 1
    attempts: int = 1


@dataclass(frozen=True)
class RunOutcome:
    """What came of a run.

    Attributes
    ----------
    start, end : int
        Milliseconds since 1970; ``end`` is ``None`` while it runs.
    failure : str
        The step that failed it and why, in a line.
    settings : mapping of str to str
        Parameters as they were in force, by the names that MLflow has.
    numbers : mapping of str to float
        The final numbers of its steps, as ``step/name``.
    series : mapping of str to Points
        Such as those of epochs, by the names that MLflow has.
    evaluations : mapping of str to mapping
        By artifact, its metrics: (value, low, high), NaN where there is no interval.
    code : mapping of str to str
        ``commit``, ``uncommitted`` and ``package``, of which any may be missing.
    uncommitted_lines : int
        Lines added and removed that were not committed, as far as they are known.
    """

    pathspec: str
    status: Status
    start: int
    end: int | None
    failure: str = ""
    origin: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    series: Mapping[str, Points] = field(default_factory=dict)
    evaluations: Mapping[str, Mapping[str, tuple[float, float, float]]] = field(default_factory=dict)
    datasets: tuple[Dataset, ...] = ()
    models: tuple[Model, ...] = ()
    code: Mapping[str, str] = field(default_factory=dict)
    uncommitted_lines: int = 0
    steps: tuple[StepOutcome, ...] = ()


def read_outcome(pathspec: str) -> RunOutcome:
    """Return what came of the run ``Flow/run``, so far if it still runs.

    Raises
    ------
    RunNotFound
        When Metaflow has no such run here.
    StorageUnavailable
        When its datastore does not answer.
    """
    reading = RunReading(pathspec)
    snapshot = reading.read_snapshot()
    record = reading.make_run_record(snapshot)
    series, evaluations = _read_inside(snapshot)
    series = {**_read_reported(reading, snapshot), **series}
    diff = next((part.content for part in record.documents if part.path == "uncommitted.diff"), b"")
    points: dict[str, dict[int, float]] = defaultdict(dict)
    for metric in record.metrics:
        points[metric.key][metric.step] = metric.value
    named = {
        "commit": "mlflow.source.git.commit",
        "uncommitted": "metaflow.git.uncommitted",
        "package": "metaflow.code_package",
    }
    return RunOutcome(
        pathspec=pathspec,
        status=snapshot.status,
        start=snapshot.created,
        end=snapshot.end,
        failure=_describe_failure(snapshot),
        origin=snapshot.origin,
        settings={**reading.read_given(), **record.params},
        numbers={key: values[max(values)] for key, values in points.items()},
        series={**{key: _sort(values) for key, values in points.items() if len(values) > 1}, **series},
        evaluations=evaluations,
        datasets=record.datasets,
        models=record.models,
        code={name: record.tags[tag] for name, tag in named.items() if tag in record.tags},
        uncommitted_lines=sum(
            line[:1] in (b"+", b"-") and line[:3] not in (b"+++", b"---") for line in diff.splitlines()
        ),
        steps=tuple(_list_steps(snapshot)),
    )


def _sort(values: Mapping[int, float]) -> Points:
    return tuple(sorted(values.items()))


def _list_steps(snapshot: RunSnapshot) -> Iterator[StepOutcome]:
    last = snapshot.last_attempts
    for step, attempts in snapshot.by_step.items():
        tasks = [attempt for attempt in attempts if last[attempt.pathspec] is attempt]
        # when a task was killed is not known, and one that `resume` took over took its time in another run
        ended = [task for task in tasks if task.end is not None and task.status != "KILLED" and not task.origin]
        ends = [((task.end or 0) - task.start) / 1000 for task in ended]
        status: Status = next((task.status for task in tasks if task.status != "FINISHED"), "FINISHED")
        yield StepOutcome(step, status, sum(ends) if len(ends) == len(tasks) else None, len(tasks), len(attempts))


def _describe_failure(snapshot: RunSnapshot) -> str:
    """Return which step ended the run and why; empty for a run that went well or still runs."""
    if snapshot.status in ("FINISHED", "RUNNING"):
        return ""
    failed = [attempt for attempt in snapshot.last_attempts.values() if attempt.status in ("FAILED", "KILLED")]
    if not failed:
        return "it ended before its last step"
    attempt = next((attempt for attempt in failed if attempt.status == "FAILED"), failed[-1])
    artifacts = {found.name: found for found in _list_artifacts(attempt)}
    fields = read_fields(_open(artifacts["_exception"])) if "_exception" in artifacts else {}
    kind = str(fields.get("type") or "").removeprefix("builtins.")
    lines = str(fields.get("exception") or "").splitlines()
    why = f"{kind}: {lines[0] if lines else ''}".strip(": ")
    return redact(f"{attempt.step} {'failed' if attempt.status == 'FAILED' else 'was killed'}: {why}".strip(": "))


def _read_inside(
    snapshot: RunSnapshot,
) -> tuple[dict[str, Points], dict[str, dict[str, tuple[float, float, float]]]]:
    """Return the series and the evaluations in the artifacts of steps of one task, each where it was made."""
    series: dict[str, Points] = {}
    evaluations: dict[str, dict[str, tuple[float, float, float]]] = {}
    seen: set[tuple[str, str]] = set()
    widths = {step: len({attempt.task for attempt in found}) for step, found in snapshot.by_step.items()}
    for attempt in snapshot.last_attempts.values():
        if widths[attempt.step] > 1 or attempt.status != "FINISHED":
            continue
        for artifact in _list_artifacts(attempt):
            if artifact.name.startswith("_") or (artifact.name, artifact.sha) in seen:
                continue
            seen.add((artifact.name, artifact.sha))
            value = _open(artifact)
            fields = read_fields(value)
            if fields.keys() >= EVALUATION_FIELDS:
                evaluations[artifact.name] = _read_evaluation(fields)
            found: dict[str, dict[int, float]] = defaultdict(dict)
            for key, number, step in find_points(artifact.name, value).metrics:
                found[key][step] = number
            series |= {key: _sort(values) for key, values in found.items() if len(values) > 1 or any(values)}
    return series, evaluations


def _read_reported(reading: RunReading, snapshot: RunSnapshot) -> dict[str, Points]:
    """Return the series that tasks have reported which left no artifact: those that failed, or still run."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    last = snapshot.last_attempts
    for attempt in snapshot.attempts:
        if last[attempt.pathspec].status == "FINISHED":
            continue
        for metric in reading.read_reported(attempt.key):
            found[metric.key][metric.step] = metric.value
    return {key: _sort(values) for key, values in found.items()}


def _read_evaluation(fields: Mapping[str, Any]) -> dict[str, tuple[float, float, float]]:
    made = {}
    metrics, intervals = fields["metrics"], fields["intervals"]
    if not isinstance(metrics, Mapping) or not isinstance(intervals, Mapping):
        return {}
    for name, value in metrics.items():
        low, high = intervals.get(name) or (math.nan, math.nan)
        made[str(name)] = (float(value), float(low), float(high))
    return made


def _list_artifacts(attempt: TaskAttempt) -> list[Artifact]:
    try:
        return read_all_artifacts(attempt.pathspec, attempt.number)
    except (ValueError, LookupError, TypeError):  # a damaged list
        return []


def _open(artifact: Artifact) -> Any:
    """Return the value of an artifact; ``None`` where it cannot be read here."""
    try:
        return artifact.value()
    except Unreadable:
        return None
