"""What Metaflow's metadata says of a run: its tasks with their attempts, its graph, and how it stands."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from dlpipe.bridge.artifacts import read_artifact_value
from dlpipe.bridge.attempts import Attempt, TaskMetadata, find_caught, has_process
from dlpipe.bridge.graphs import count_retries, find_decorators, read_graph
from dlpipe.bridge.marks import Launcher, RunMarks, find_marks
from dlpipe.bridge.metadata import get_provider, list_objects, read_metadata
from dlpipe.bridge.records import Status
from dlpipe.errors import RunNotFound

QUIET_SECONDS = 30.0


@dataclass(frozen=True)
class Snapshot:
    """A run as its metadata tells it at one moment.

    Attributes
    ----------
    alive : bool
        Whether somebody still works on it, as far as this machine can tell.
    attempts : tuple of Attempt
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
    attempts: tuple[Attempt, ...]

    @cached_property
    def by_step(self) -> dict[str, list[Attempt]]:
        """Attempts by step."""
        steps: dict[str, list[Attempt]] = defaultdict(list)
        for attempt in self.attempts:
            steps[attempt.step].append(attempt)
        return dict(steps)

    @property
    def last_attempts(self) -> dict[str, Attempt]:
        """The last attempt of each task, by pathspec."""
        return {attempt.pathspec: attempt for attempt in self.attempts}

    @property
    def status(self) -> Status:
        """Status of the run: from what its tasks say, never from hope."""
        if any(one.status == "FINISHED" and self.is_end_step(one.step) for one in self.last_attempts.values()):
            return "FINISHED"
        if self.alive:
            return "RUNNING"
        failed = any(one.status == "FAILED" for one in self.last_attempts.values())
        return "FAILED" if failed else "KILLED"

    @property
    def end(self) -> int | None:
        """When it ended; ``None`` while it goes on."""
        if self.status == "RUNNING":
            return None
        return max([self.created, *(one.end or one.start for one in self.attempts)])

    def is_end_step(self, step: str) -> bool:
        """Return whether the flow ends with ``step``."""
        described = self.graph.get("steps", {}).get(step)
        return described["type"] == "end" if described else step == "end"

    def find_steps_before(self, step: str) -> list[str]:
        """Return the steps that lead to ``step``."""
        return [name for name, one in self.graph.get("steps", {}).items() if step in one.get("next", [])]


class MetaflowRun:
    """A run that is read again and again while it goes on; what is settled is read once.

    Raises
    ------
    RunNotFound
        When Metaflow has no such run here.
    """

    def __init__(self, pathspec: str) -> None:
        self.pathspec = pathspec
        self.flow, self.run_id = pathspec.split("/")
        self._settled: dict[str, list[Attempt]] = {}
        self._graph: dict[str, Any] = {}
        self._code: dict[str, str] = {}
        self._origin: str | None = None
        self._created = 0
        self._parameters_task = ""

    @property
    def marks(self) -> RunMarks:
        """What the launcher left beside it."""
        return find_marks(self.pathspec)

    def read(self, *, launcher_gone: bool = False, only: str = "", closed: str = "") -> Snapshot:
        """Return the run as it is now.

        Parameters
        ----------
        launcher_gone : bool, optional
            Whether the caller knows that nothing will start another task of this run.
        only : str, optional
            Pathspec of the one task that is wanted.
        closed : str, optional
            Key of an attempt that is known to have ended.
        """
        me = get_provider().get_object("run", "self", {}, None, self.flow, self.run_id)
        if not me:
            raise RunNotFound(f"{self.flow} has no run {self.run_id!r} here.")
        launcher: Launcher = "is gone" if launcher_gone else self.marks.launcher()
        self._created = self._created or self._find_begin(me, launcher)
        self._graph = self._graph or self._read_graph()
        # looked at first: what is read after the last process has gone is all that there will be
        works = launcher == "lives" or has_process(self.run_id)
        said = self._read_tasks(only)
        uses = self.marks.uses()
        alive = works or (launcher == "unknown" and self._has_traces(said))
        attempts = tuple(
            replace(one, uses_mlflow=one.uses_mlflow or one.key in uses)
            for task in said
            for one in self._read_attempts(task, alive=alive, closed=closed, launcher=launcher)
        )
        return Snapshot(
            pathspec=self.pathspec,
            created=self._created,
            user_tags=tuple(sorted(map(str, me.get("tags") or ()))),
            system_tags=tuple(sorted(map(str, me.get("system_tags") or ()))),
            graph=self._graph,
            code=self._code,
            origin=self._origin,
            alive=alive,
            attempts=attempts,
        )

    def _read_tasks(self, only: str) -> list[TaskMetadata]:
        """Return what the metadata of each task says, by step as steps began; of settled tasks nothing."""
        listed_tasks = [
            one for one in list_objects("run", "task", self.flow, self.run_id) if one["step_name"][0] != "_"
        ]
        tasks = [(self._make_path(one), one["step_name"], int(one["ts_epoch"])) for one in listed_tasks]
        began: dict[str, int] = {}
        for _, step, at in tasks:
            began[step] = min(at, began.get(step, at))
        tasks.sort(key=lambda one: (began[one[1]], one[1], one[2], one[0]))
        wanted = [(path, at) for path, _, at in tasks if only in ("", path)]
        return [
            TaskMetadata(path, at, () if path in self._settled else self._read_entries(path))
            for path, at in wanted
        ]

    def _read_attempts(self, task: TaskMetadata, *, alive: bool, closed: str, launcher: str) -> list[Attempt]:
        if task.path in self._settled:
            return self._settled[task.path]
        attempts = self._add_caught(task.attempts(alive=alive, closed=closed, launcher=launcher))
        if attempts and all(one.settled for one in attempts) and not self._may_retry(attempts[-1], alive):
            self._settled[task.path] = attempts
        return attempts

    def _add_caught(self, attempts: list[Attempt]) -> list[Attempt]:
        """Return the attempts with the exceptions that ``@catch`` took, of steps that have it."""
        if not attempts or not find_decorators(self._graph, attempts[0].step, "catch"):
            return attempts
        return [
            replace(one, caught=find_caught(one.pathspec, one.number))
            if one.settled and one.status == "FINISHED"
            else one
            for one in attempts
        ]

    def _may_retry(self, last: Attempt, alive: bool) -> bool:
        return alive and last.origin is None and last.number < count_retries(self._graph, last.step)

    def _has_traces(self, tasks: list[TaskMetadata]) -> bool:
        """Return whether a run of whose launcher nothing is known may go on: it left traces a moment ago.

        Not if a task failed for good.
        """
        known = [self._settled.get(task.path) or task.attempts(alive=False, closed="") for task in tasks]
        last = [attempts[-1] for attempts in known if attempts]
        if any(one.status == "FAILED" and one.number >= count_retries(self._graph, one.step) for one in last):
            return False
        latest = max((task.last_sign for task in tasks), default=self._created)
        return time.time() - latest / 1000 < QUIET_SECONDS

    def _make_path(self, task: Mapping[str, Any]) -> str:
        return f"{self.pathspec}/{task['step_name']}/{task.get('task_name') or task['task_id']}"

    def _find_begin(self, me: dict[str, Any], launcher: Launcher) -> int:
        """Return when the run began: the run's own time changes with each tag that somebody adds.

        MLflow keeps the first time it is told. So a run that may have a task in a moment has none yet.
        """
        if tasks := list_objects("step", "task", self.flow, self.run_id, "_parameters"):
            return int(tasks[0]["ts_epoch"])
        # the local provider makes ids of microseconds
        made = int(self.run_id) // 1000 if re.fullmatch(r"\d{16}", self.run_id) else int(me["ts_epoch"])
        young = time.time() - made / 1000 < QUIET_SECONDS
        if launcher == "lives" or (launcher == "unknown" and young):
            raise RunNotFound(f"{self.pathspec} has only just begun.")
        return made  # killed before it had any task

    def _read_graph(self) -> dict[str, Any]:
        return read_graph(
            read_artifact_value(f"{self.pathspec}/_parameters/{self.find_parameters_task()}/_graph_info")
        )

    def find_parameters_task(self) -> str:
        """Return the id of the task that holds the parameters."""
        if not self._parameters_task:
            tasks = list_objects("step", "task", self.flow, self.run_id, "_parameters")
            self._parameters_task = str(tasks[0]["task_id"]) if tasks else ""
        return self._parameters_task or "0"

    def _read_entries(self, path: str) -> tuple[Mapping[str, Any], ...]:
        entries = read_metadata(path)
        if not self._code or self._origin is None:
            self._learn(entries)
        return entries

    def _learn(self, entries: Collection[Mapping[str, Any]]) -> None:
        """Keep what each task says of the whole run: where its code is from, and the run it resumes."""
        said = {one["field_name"]: one["value"] for one in entries}
        if not self._code and "script-name" in said:
            names = ("git-info", "script-name", "code-package", "python_version", "metaflow_version")
            self._code = {name: str(said[name]) for name in names if name in said}
        origin = said.get("origin-run-id")
        if self._origin is None and origin not in (None, "None", ""):
            self._origin = f"{self.flow}/{origin}"


def count_foreach_tasks(snapshot: Snapshot) -> Iterator[tuple[str, int]]:
    """Yield each step with the number of tasks that it has, or will have as far as finished splits tell."""
    widths: dict[str, int] = {}
    steps = snapshot.graph.get("steps", {})
    for step, attempts in snapshot.by_step.items():
        known = len({one.task for one in attempts})
        for name in snapshot.find_steps_before(step):
            if steps[name]["type"] in ("split-foreach", "split-parallel"):
                known = max(
                    known, sum(_count_splits(one) for one in snapshot.by_step.get(name, []) if one.settled)
                )
            elif steps[step]["type"] != "join":
                known = max(known, widths.get(name, 0))
        widths[step] = known
        yield step, known


_SPLITS: dict[str, int] = {}


def _count_splits(attempt: Attempt) -> int:
    if attempt.status != "FINISHED":
        return 0
    if attempt.key not in _SPLITS:
        splits = read_artifact_value(f"{attempt.pathspec}/_foreach_num_splits")
        _SPLITS[attempt.key] = splits if isinstance(splits, int) else 0
    return _SPLITS[attempt.key]
