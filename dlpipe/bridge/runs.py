"""What Metaflow's metadata says of a run: its attempts, their times and how they ended."""

from __future__ import annotations

import os
import re
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dlpipe.bridge.datastore import holds
from dlpipe.bridge.marks import Mark, mark_of
from dlpipe.bridge.metadata import OWN_RUN, OWN_TAG, USES, artifact_value, listed, provider
from dlpipe.bridge.records import Status
from dlpipe.errors import RunNotFound

QUIET_SECONDS = 30.0
LAUNCHER_SECONDS = 60.0
"""How long after a task's end a living launcher's logs are waited for: it writes them last, after the cards."""
LOG_SECONDS = {"local": 5.0, "": 30.0}
"""The same where no launcher is known to live, locally and elsewhere; without one, none come."""


@dataclass(frozen=True)
class Attempt:
    """One attempt of a task; times in milliseconds since 1970.

    Attributes
    ----------
    status : str
        How it ended, ``RUNNING`` while it has not.
    settled : bool
        Whether everything that belongs to it is written: artifacts, cards and logs.
    origin : str or None
        Pathspec of the task that ``resume`` took the results from.
    place : str
        Where it stands in its foreaches, such as ``[2]`` or ``[2][0]``; empty outside.
    uses_mlflow : bool
        Whether the step logged to MLflow itself.
    has_cards : bool
        Whether it made cards.
    """

    pathspec: str
    number: int
    start: int
    end: int | None
    status: Status
    settled: bool = True
    origin: str | None = None
    place: str = ""
    uses_mlflow: bool = False
    has_cards: bool = False

    @property
    def key(self) -> str:
        """Key of its record."""
        return f"{self.pathspec}/{self.number}"

    @property
    def step(self) -> str:
        """Name of its step."""
        return self.pathspec.split("/")[2]

    @property
    def task(self) -> str:
        """Id of its task."""
        return self.pathspec.split("/")[3]


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
        if any(one.status == "FINISHED" and self.is_end(one.step) for one in self.last_attempts.values()):
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

    def is_end(self, step: str) -> bool:
        """Return whether the flow ends with ``step``."""
        described = self.graph.get("steps", {}).get(step)
        return described["type"] == "end" if described else step == "end"

    def before(self, step: str) -> list[str]:
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
    def mark(self) -> Mark:
        """What the launcher left beside it."""
        return mark_of(self.pathspec)

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
        me = provider().get_object("run", "self", {}, None, self.flow, self.run_id)
        if not me:
            raise RunNotFound(f"{self.flow} has no run {self.run_id!r} here.")
        self._created = self._created or self._begun(me)
        self._graph = self._graph or self._read_graph()
        launcher = "is gone" if launcher_gone else self.mark.launcher()
        # looked at first: what is read after the last process has gone is all that there will be
        works = launcher == "lives" or has_process(self.run_id)
        said = self._tasks(only)
        alive = works or (launcher == "unknown" and self._has_traces(said))
        attempts = tuple(
            one for task in said for one in self._attempts_of(task, alive=alive, closed=closed, launcher=launcher)
        )
        return Snapshot(
            pathspec=self.pathspec,
            created=self._created,
            user_tags=tuple(sorted(tag for tag in me.get("tags", []) if not tag.startswith(OWN_TAG))),
            system_tags=tuple(sorted(me.get("system_tags", []))),
            graph=self._graph,
            code=self._code,
            origin=self._origin,
            alive=alive,
            attempts=attempts,
        )

    def _tasks(self, only: str) -> list[TaskSaid]:
        """Return what the metadata of each task says, by step as steps began; of settled tasks nothing."""
        listed_tasks = [one for one in listed("run", "task", self.flow, self.run_id) if one["step_name"][0] != "_"]
        tasks = [(self._path(one), one["step_name"], int(one["ts_epoch"])) for one in listed_tasks]
        began: dict[str, int] = {}
        for _, step, at in tasks:
            began[step] = min(at, began.get(step, at))
        tasks.sort(key=lambda one: (began[one[1]], one[1], one[2], one[0]))
        wanted = [(path, at) for path, _, at in tasks if only in ("", path)]
        return [TaskSaid(path, at, () if path in self._settled else self._entries(path)) for path, at in wanted]

    def _attempts_of(self, task: TaskSaid, *, alive: bool, closed: str, launcher: str) -> list[Attempt]:
        if task.path in self._settled:
            return self._settled[task.path]
        attempts = task.attempts(alive=alive, closed=closed, launcher=launcher)
        if attempts and all(one.settled for one in attempts) and not self._may_retry(attempts[-1], alive):
            self._settled[task.path] = attempts
        return attempts

    def _may_retry(self, last: Attempt, alive: bool) -> bool:
        return alive and last.origin is None and last.number < _retries(self._graph, last.step)

    def _has_traces(self, tasks: list[TaskSaid]) -> bool:
        """Return whether a run of whose launcher nothing is known may go on: it left traces a moment ago.

        Not if a task failed for good.
        """
        known = [self._settled.get(task.path) or task.attempts(alive=False, closed="") for task in tasks]
        last = [attempts[-1] for attempts in known if attempts]
        if any(one.status == "FAILED" and one.number >= _retries(self._graph, one.step) for one in last):
            return False
        latest = max((task.last_sign for task in tasks), default=self._created)
        return time.time() - latest / 1000 < QUIET_SECONDS

    def _path(self, task: Mapping[str, Any]) -> str:
        return f"{self.pathspec}/{task['step_name']}/{task.get('task_name') or task['task_id']}"

    def _begun(self, me: dict[str, Any]) -> int:
        """Return when the run began: the run's own time changes with each tag that somebody adds."""
        tasks = listed("step", "task", self.flow, self.run_id, "_parameters")
        if not tasks and self.mark.launcher() == "lives":
            raise RunNotFound(f"{self.pathspec} has only just begun.")
        if tasks:
            return int(tasks[0]["ts_epoch"])
        # killed before it had any task; the local provider makes ids of microseconds
        return int(self.run_id) // 1000 if re.fullmatch(r"\d{16}", self.run_id) else int(me["ts_epoch"])

    def _read_graph(self) -> dict[str, Any]:
        return dict(artifact_value(f"{self.pathspec}/_parameters/{self.parameters_task()}/_graph_info") or {})

    def parameters_task(self) -> str:
        """Return the id of the task that holds the parameters."""
        if not self._parameters_task:
            tasks = listed("step", "task", self.flow, self.run_id, "_parameters")
            self._parameters_task = str(tasks[0]["task_id"]) if tasks else ""
        return self._parameters_task or "0"

    def _entries(self, path: str) -> tuple[Mapping[str, Any], ...]:
        found = provider().get_object("task", "metadata", {}, None, *path.split("/"))
        entries = tuple(sorted((one for one in found or [] if one), key=lambda one: int(one["ts_epoch"])))
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


@dataclass(frozen=True)
class TaskSaid:
    """What the metadata of a task says: ``entries`` as the provider has them, the oldest first."""

    path: str
    created: int
    entries: tuple[Mapping[str, Any], ...]

    def attempts(self, *, alive: bool, closed: str, launcher: str = "") -> list[Attempt]:
        """Return its attempts; none while it is being started, when the time that counts is not known yet."""
        starts = self._starts or ({} if alive else {0: self.created})
        ends = {_number(one): one for one in self._own if one["field_name"] == "attempt_ok"}
        made = []
        for number, start in sorted(starts.items()):
            following = min((at for other, at in starts.items() if other > number), default=None)
            end, status = _ended(ends.get(number), start, following, self.last_sign, alive=alive)
            settled = status != "RUNNING" and (
                self.origin is not None
                or following is not None
                or not alive
                or closed == f"{self.path}/{number}"
                or self._has_logs(number, end, launcher)
            )
            made.append(
                Attempt(
                    pathspec=self.path,
                    number=number,
                    start=start,
                    end=end if settled else None,
                    status=status if settled else "RUNNING",
                    settled=settled,
                    origin=self.origin,
                    place=self._place(settled),
                    uses_mlflow=any(_number(one) == number for one in self.entries if one.get("type") == USES),
                    has_cards=any(_number(one) == number for one in self._own if one.get("type") == "card-info"),
                )
            )
        return made

    @cached_property
    def _own(self) -> list[Mapping[str, Any]]:
        """The entries that are not the bridge's."""
        return [one for one in self.entries if one["field_name"] != OWN_RUN]

    @cached_property
    def _said(self) -> dict[str, Any]:
        return {one["field_name"]: one["value"] for one in self._own}

    @property
    def last_sign(self) -> int:
        """The time of the latest entry, in milliseconds since 1970."""
        return max([int(one["ts_epoch"]) for one in self._own], default=self.created)

    @property
    def origin(self) -> str | None:
        """The task that ``resume`` took the results from."""
        if "origin-task-id" not in self._said:
            return None
        flow, _, step, _ = self.path.split("/")
        return f"{flow}/{self._said['origin-run-id']}/{step}/{self._said['origin-task-id']}"

    @property
    def _starts(self) -> dict[int, int]:
        starts: dict[int, int] = {}
        for one in self._own:
            if one["field_name"] == "attempt":
                starts.setdefault(int(one["value"]), int(one["ts_epoch"]))
        return starts

    def _place(self, settled: bool) -> str:
        """Return the places in the foreaches; a clone says them only in an artifact."""
        if path := str(self._said.get("foreach-execution-path") or ""):
            return "".join(f"[{one.rpartition(':')[2]}]" for one in path.split(","))
        stack = artifact_value(f"{self.path}/_foreach_stack") if self.origin and settled else None
        return "".join(f"[{frame.index}]" for frame in stack or [])

    def _has_logs(self, number: int, end: int | None, launcher: str) -> bool:
        """Return whether the launcher has written the logs of an attempt, which it does last."""
        kind, root = str(self._said.get("ds-type")), str(self._said.get("ds-root", ""))
        if root and holds(kind, root, f"{self.path}/{number}.runtime_stderr.log"):
            return True
        patience = LAUNCHER_SECONDS if launcher == "lives" else LOG_SECONDS.get(kind, LOG_SECONDS[""])
        return end is not None and time.time() - end / 1000 > patience


def has_process(run_id: str) -> bool:
    """Return whether a process of this machine works on a task of the run: its command names it.

    A card is made by a process of its own, which outlives a task that is killed.
    """
    marks = [
        text.encode() for text in (f"\0--run-id\0{run_id}\0", f"\0--run-id={run_id}\0", f"\0create\0{run_id}/")
    ]
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes()
        except OSError:  # it has ended
            continue
        if int(entry.parent.name) != os.getpid() and any(mark in command for mark in marks):
            return True
    return False


def _number(entry: Mapping[str, Any]) -> int:
    tagged = (tag.partition(":")[2] for tag in entry.get("tags", []) if tag.startswith("attempt_id:"))
    return int(next(tagged, 0))


def _ended(
    said: Mapping[str, Any] | None, start: int, following: int | None, last_sign: int, *, alive: bool
) -> tuple[int | None, Status]:
    if said is not None:
        finished: Status = "FINISHED" if following is None else "KILLED"  # a next one: killed after it had said so
        return max(start, int(said["ts_epoch"])), finished if said["value"] == "True" else "FAILED"
    if following is None and alive:
        return None, "RUNNING"
    return max(start, following or last_sign), "KILLED"


def _retries(graph: Mapping[str, Any], step: str) -> int:
    described = graph.get("steps", {}).get(step, {})
    retry = [one["attributes"] for one in described.get("decorators", []) if one["name"] == "retry"]
    return max((int(attributes.get("times", 0)) for attributes in retry), default=0)


def foreach_width(snapshot: Snapshot) -> Iterator[tuple[str, int]]:
    """Yield each step with the number of tasks that it has, or will have as far as finished splits tell."""
    widths: dict[str, int] = {}
    steps = snapshot.graph.get("steps", {})
    for step, attempts in snapshot.by_step.items():
        known = len({one.task for one in attempts})
        for name in snapshot.before(step):
            if steps[name]["type"] in ("split-foreach", "split-parallel"):
                known = max(known, sum(_splits(one) for one in snapshot.by_step.get(name, []) if one.settled))
            elif steps[step]["type"] != "join":
                known = max(known, widths.get(name, 0))
        widths[step] = known
        yield step, known


_SPLITS: dict[str, int] = {}


def _splits(attempt: Attempt) -> int:
    if attempt.status != "FINISHED":
        return 0
    if attempt.key not in _SPLITS:
        _SPLITS[attempt.key] = int(artifact_value(f"{attempt.pathspec}/_foreach_num_splits") or 0)
    return _SPLITS[attempt.key]
