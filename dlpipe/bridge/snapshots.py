"""A Metaflow run at one moment: its attempts, its graph, and how it stands."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from dlpipe.bridge.artifacts import read_artifact_value
from dlpipe.bridge.attempts import TaskAttempt
from dlpipe.bridge.graphs import find_steps_before
from dlpipe.bridge.records import Status

_SPLITS: dict[str, int] = {}


@dataclass(frozen=True)
class RunSnapshot:
    """A run as its metadata tells it at one moment.

    Attributes
    ----------
    alive : bool
        Whether somebody still works on it, as far as this machine can tell.
    attempts : tuple of TaskAttempt
        By step in the order in which steps began, then by task and number.
    """

    pathspec: str
    created: int
    user_tags: tuple[str, ...]
    system_tags: tuple[str, ...]
    graph: Mapping[str, Any]
    code: Mapping[str, str]
    origin: str | None
    alive: bool
    attempts: tuple[TaskAttempt, ...]

    @cached_property
    def by_step(self) -> dict[str, list[TaskAttempt]]:
        """Attempts by step."""
        steps: dict[str, list[TaskAttempt]] = defaultdict(list)
        for attempt in self.attempts:
            steps[attempt.step].append(attempt)
        return dict(steps)

    @property
    def last_attempts(self) -> dict[str, TaskAttempt]:
        """The last attempt of each task, by pathspec."""
        return {attempt.pathspec: attempt for attempt in self.attempts}

    @property
    def user(self) -> str:
        """Who started it."""
        return next((tag[5:] for tag in self.system_tags if tag.startswith("user:")), "unknown")

    @property
    def status(self) -> Status:
        """Status of the run, from the metadata of its tasks alone."""
        if any(
            attempt.status == "FINISHED" and self.is_end_step(attempt.step)
            for attempt in self.last_attempts.values()
        ):
            return "FINISHED"
        if self.alive:
            return "RUNNING"
        failed = any(attempt.status == "FAILED" for attempt in self.last_attempts.values())
        return "FAILED" if failed else "KILLED"

    @property
    def end(self) -> int | None:
        """When it ended; ``None`` while it runs."""
        if self.status == "RUNNING":
            return None
        return max([self.created, *(attempt.end or attempt.start for attempt in self.attempts)])

    def as_of(self, moment: int) -> RunSnapshot:
        """Return the run as it was at a moment, in milliseconds since 1970: with the attempts that had begun."""
        if self.end is not None and self.end <= moment:
            return self
        going_on: dict[str, Any] = {"end": None, "status": "RUNNING", "complete": False, "caught": "", "error": ""}
        attempts = (
            attempt if attempt.end is None or attempt.end <= moment else replace(attempt, **going_on)
            for attempt in self.attempts
            if attempt.start <= moment
        )
        return replace(self, attempts=tuple(attempts), alive=True)

    def is_end_step(self, step: str) -> bool:
        """Return whether the flow ends with ``step``."""
        described = self.graph.get("steps", {}).get(step)
        return described["type"] == "end" if described else step == "end"


def count_foreach_tasks(snapshot: RunSnapshot) -> Iterator[tuple[str, int]]:
    """Yield each step with the number of tasks that it has, or will have as far as finished splits tell."""
    widths: dict[str, int] = {}
    steps = snapshot.graph.get("steps", {})
    for step, attempts in snapshot.by_step.items():
        known = len({attempt.task for attempt in attempts})
        for name in find_steps_before(snapshot.graph, step):
            if steps[name]["type"] in ("split-foreach", "split-parallel"):
                before = snapshot.by_step.get(name, [])
                known = max(known, sum(_count_splits(split) for split in before if split.complete))
            elif steps[step]["type"] != "join":
                known = max(known, widths.get(name, 0))
        widths[step] = known
        yield step, known


def _count_splits(attempt: TaskAttempt) -> int:
    if attempt.status != "FINISHED":
        return 0
    if attempt.key not in _SPLITS:
        splits = read_artifact_value(f"{attempt.pathspec}/_foreach_num_splits")
        _SPLITS[attempt.key] = splits if isinstance(splits, int) else 0
    return _SPLITS[attempt.key]
