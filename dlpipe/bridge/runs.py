"""A run as Metaflow's metadata has it, read again and again while it runs."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from dlpipe.bridge.artifacts import read_artifact_value
from dlpipe.bridge.attempts import TaskAttempt, TaskMetadata, find_caught, find_error, has_process
from dlpipe.bridge.graphs import count_retries, find_decorators, order_steps, read_graph
from dlpipe.bridge.marks import Launcher, RunMarks, find_marks
from dlpipe.bridge.metadata import get_provider, list_objects, read_metadata
from dlpipe.bridge.snapshots import RunSnapshot
from dlpipe.errors import RunNotFound

QUIET_SECONDS = 30.0


class MetaflowRun:
    """A run that is read again and again while it runs; what is complete is read once.

    Raises
    ------
    RunNotFound
        When Metaflow has no such run here.
    """

    def __init__(self, pathspec: str) -> None:
        self.pathspec = pathspec
        self.flow, self.run_id = pathspec.split("/")
        self._complete: dict[str, list[TaskAttempt]] = {}
        self._graph: dict[str, Any] = {}
        self._code: dict[str, str] = {}
        self._origin: str | None = None
        self._created = 0
        self._parameters_task = ""

    @property
    def marks(self) -> RunMarks:
        """What the launcher left beside it."""
        return find_marks(self.pathspec)

    def read(self, *, launcher_gone: bool = False, only: str = "", closed: str = "") -> RunSnapshot:
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
        tasks = self._read_tasks(only)
        uses = self.marks.uses()
        alive = works or (launcher == "unknown" and self._has_traces(tasks))
        attempts = tuple(
            replace(attempt, uses_mlflow=attempt.uses_mlflow or attempt.key in uses)
            for task in tasks
            for attempt in self._read_attempts(task, alive=alive, closed=closed, launcher=launcher)
        )
        return RunSnapshot(
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
        """Return what the metadata of each task says, by step as steps began; of complete tasks nothing."""
        listed_tasks = [
            task for task in list_objects("run", "task", self.flow, self.run_id) if task["step_name"][0] != "_"
        ]
        tasks = [(self._make_path(task), task["step_name"], int(task["ts_epoch"])) for task in listed_tasks]
        began: dict[str, int] = {}
        for _, step, at in tasks:
            began[step] = min(at, began.get(step, at))
        place = {step: at for at, step in enumerate(order_steps(self._graph, began))}
        tasks.sort(key=lambda task: (place[task[1]], task[2], task[0]))
        wanted = [(path, at) for path, _, at in tasks if only in ("", path)]
        return [
            TaskMetadata(path, at, () if path in self._complete else self._read_entries(path))
            for path, at in wanted
        ]

    def _read_attempts(self, task: TaskMetadata, *, alive: bool, closed: str, launcher: str) -> list[TaskAttempt]:
        if task.path in self._complete:
            return self._complete[task.path]
        attempts = self._add_exceptions(task.attempts(alive=alive, closed=closed, launcher=launcher))
        # what is complete is not asked for again: so not while an attempt is unfinished, or a next one may come
        if attempts and all(attempt.complete for attempt in attempts) and not self._may_retry(attempts[-1], alive):
            self._complete[task.path] = attempts
        return attempts

    def _add_exceptions(self, attempts: list[TaskAttempt]) -> list[TaskAttempt]:
        """Return the attempts with what failed them, and, of steps that have ``@catch``, what that took."""
        attempts = [
            replace(attempt, error=find_error(attempt.pathspec, attempt.number))
            if attempt.complete and attempt.status == "FAILED" and attempt.origin is None
            else attempt
            for attempt in attempts
        ]
        if not attempts or not find_decorators(self._graph, attempts[0].step, "catch"):
            return attempts
        return [
            replace(attempt, caught=find_caught(attempt.pathspec, attempt.number))
            if attempt.complete and attempt.status == "FINISHED"
            else attempt
            for attempt in attempts
        ]

    def _may_retry(self, last: TaskAttempt, alive: bool) -> bool:
        return alive and last.origin is None and last.number < count_retries(self._graph, last.step)

    def _has_traces(self, tasks: list[TaskMetadata]) -> bool:
        """Return whether a run of whose launcher nothing is known may go on: it left traces a moment ago.

        Not if a task failed for good.
        """
        known = [self._complete.get(task.path) or task.attempts(alive=False, closed="") for task in tasks]
        last = [attempts[-1] for attempts in known if attempts]
        if any(
            attempt.status == "FAILED" and attempt.number >= count_retries(self._graph, attempt.step)
            for attempt in last
        ):
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
        fields = {entry["field_name"]: entry["value"] for entry in entries}
        if not self._code and "script-name" in fields:
            names = ("git-info", "script-name", "code-package", "python_version", "metaflow_version")
            self._code = {name: str(fields[name]) for name in names if name in fields}
        origin = fields.get("origin-run-id")
        if self._origin is None and origin not in (None, "None", ""):
            self._origin = f"{self.flow}/{origin}"
