"""A step with many tasks as one record: MLflow's page would drown in a run for each of them."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from dlpipe.bridge.attempts import TaskAttempt
from dlpipe.bridge.names import number_step
from dlpipe.bridge.records import Document, RunRecord, Status
from dlpipe.bridge.snapshots import RunSnapshot
from dlpipe.redaction import redact

ORDER: tuple[Status, ...] = ("RUNNING", "FAILED", "KILLED", "FINISHED")

NO_POINTS = (
    "points that the tasks report while they run are not shown: of so many tasks, only the last numbers of their "
    "artifacts are series, in the run"
)


def make_step_record(
    snapshot: RunSnapshot, step: str, attempts: Sequence[TaskAttempt], width: int, *, reporting: bool = False
) -> RunRecord:
    """Return the record of a step with many tasks, which stands for theirs.

    Parameters
    ----------
    snapshot : RunSnapshot
        The run at this moment.
    step : str
        Name of the step.
    attempts : sequence of TaskAttempt
        Its attempts so far.
    width : int
        How many tasks it has, or will have.
    reporting : bool, optional
        Whether a task has reported points while it ran, which have no run to stand in.
    """
    last = {attempt.task: attempt for attempt in attempts}
    status = next(worst for worst in ORDER if worst in {attempt.status for attempt in last.values()})
    if len(last) < width and snapshot.alive:
        status = "RUNNING"
    columns = ["task", "place", "attempt", "status", "start", "seconds", "origin", "caught"]
    rows = [
        [
            attempt.task,
            attempt.place,
            attempt.number,
            attempt.status,
            attempt.start,
            _count_seconds(attempt),
            attempt.origin,
            redact(attempt.caught),
        ]
        for attempt in attempts
    ]
    table = json.dumps({"columns": columns, "data": rows}).encode()
    return RunRecord(
        key=f"{snapshot.pathspec}/{step}",
        parent=snapshot.pathspec,
        name=f"{number_step(step, snapshot.graph.get('steps', {}))}{step} ({width} tasks)",
        former_names=(f"{step} ({width} tasks)",),
        former_note=(f"{width} tasks", f"{width} tasks"),
        status=status,
        start=min(attempt.start for attempt in attempts),
        end=None if status == "RUNNING" else max(attempt.end or attempt.start for attempt in attempts),
        tags={
            "metaflow.step": step,
            "metaflow.tasks": str(width),
            "mlflow.user": snapshot.user,
            "mlflow.note.content": _describe_counts(width, last.values(), status),
            **({"metaflow.notes": NO_POINTS} if reporting else {}),
        },
        documents=() if status == "RUNNING" else (Document("tasks.json", table),),
    )


def _describe_counts(width: int, last: Collection[TaskAttempt], status: Status) -> str:
    """Return how many tasks there are, and in the end how they ended: each change in between would be a call."""
    if status == "RUNNING":
        return f"{width} tasks."
    counts = {kind: sum(attempt.status == kind for attempt in last) for kind in ORDER}
    words = ", ".join(f"{count} {kind.lower()}" for kind, count in counts.items() if count)
    if caught := sum(bool(attempt.caught) for attempt in last):
        words += f" ({caught} of them with an exception that `@catch` took)"
    return f"{width} tasks: {words}. Each is a row of `tasks.json`."


def _count_seconds(attempt: TaskAttempt) -> float | None:
    return None if attempt.end is None else (attempt.end - attempt.start) / 1000
