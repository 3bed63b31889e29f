"""What Metaflow's metadata says of a run: its attempts, their times and how they ended."""

from __future__ import annotations

import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dlpipe.bridge.marks import Mark, mark_of, replace_file
from dlpipe.bridge.records import Status
from dlpipe.errors import RunNotFound

QUIET_SECONDS = 30.0
LOG_SECONDS = 5.0
OWN_RUN, OWN_TAG = "mlflow-run-id", "mlflow_run:"
"""What the bridge writes into Metaflow: metadata of a task, and the start of a tag of a run."""


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


def find_runs(pathspec: str = "") -> list[str]:
    """Return the pathspecs of the runs that ``FLOW`` or ``FLOW/RUN`` names, the oldest first; by default all.

    Raises
    ------
    RunNotFound
        The message says which there are.
    """
    flow, _, run = pathspec.partition("/")
    flows = sorted(one["flow_id"] for one in _listed("root", "flow"))
    if flow and flow not in flows:
        known = ", ".join(flows) or "none"
        raise RunNotFound(
            f"Metaflow has no flow {flow!r} here; it has {known}. "
            "Stand in the folder with `.metaflow`, or set METAFLOW_DATASTORE_SYSROOT_LOCAL."
        )
    found = []
    for name in [flow] if flow else flows:
        runs = sorted(_listed("flow", "run", name), key=lambda one: int(one["ts_epoch"]))
        found += [f"{name}/{_run_id(one)}" for one in runs]
    if run and pathspec not in found:
        latest = ", ".join(one.partition("/")[2] for one in found[:-6:-1]) or "none"
        raise RunNotFound(f"{flow} has no run {run!r}; its latest: {latest}.")
    return [pathspec] if run else found


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
        self._closed = ""
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
        self._closed = closed
        me = provider().get_object("run", "self", {}, None, self.flow, self.run_id)
        if not me:
            raise RunNotFound(f"{self.flow} has no run {self.run_id!r} here.")
        self._created = self._created or self._begun(me)
        self._graph = self._graph or self._read_graph()
        tasks = [one for one in _listed("run", "task", self.flow, self.run_id) if one["step_name"][0] != "_"]
        tasks = [one for one in tasks if only in ("", self._path(one))]
        raw = {one: self._entries(one) for task in tasks if (one := self._path(task)) not in self._settled}
        alive, launcher_gone = self._is_alive(tasks, raw, launcher_gone=launcher_gone)
        attempts: dict[str, list[Attempt]] = {}
        for task in tasks:
            path = self._path(task)
            attempts[path] = self._settled.get(path) or self._attempts(task, raw[path], alive=alive)
            if (
                attempts[path]
                and all(one.settled for one in attempts[path])
                and not _may_retry(attempts[path], self._graph, alive)
            ):
                self._settled[path] = attempts[path]
        steps: dict[str, int] = {}
        for task in tasks:
            steps[task["step_name"]] = min(int(task["ts_epoch"]), steps.get(task["step_name"], 2**62))
        tasks.sort(
            key=lambda one: (steps[one["step_name"]], one["step_name"], int(one["ts_epoch"]), self._path(one))
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
            attempts=tuple(one for task in tasks for one in attempts[self._path(task)]),
        )

    def _path(self, task: Mapping[str, Any]) -> str:
        return f"{self.pathspec}/{task['step_name']}/{task.get('task_name') or task['task_id']}"

    def _begun(self, me: dict[str, Any]) -> int:
        """Return when the run began: the run's own time changes with each tag that somebody adds."""
        tasks = _listed("step", "task", self.flow, self.run_id, "_parameters")
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
            tasks = _listed("step", "task", self.flow, self.run_id, "_parameters")
            self._parameters_task = str(tasks[0]["task_id"]) if tasks else ""
        return self._parameters_task or "0"

    def _entries(self, path: str) -> list[dict[str, Any]]:
        found = provider().get_object("task", "metadata", {}, None, *path.split("/"))
        entries = sorted((one for one in found or [] if one), key=lambda one: int(one["ts_epoch"]))
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

    def _attempts(self, task: Mapping[str, Any], entries: list[dict[str, Any]], *, alive: bool) -> list[Attempt]:
        own = [one for one in entries if one["field_name"] != OWN_RUN]
        starts: dict[int, int] = {}
        for one in own:
            if one["field_name"] == "attempt":
                starts.setdefault(int(one["value"]), int(one["ts_epoch"]))
        if not starts and alive:  # it is being started, and the time that counts is not known yet
            return []
        starts = starts or {0: int(task["ts_epoch"])}
        ends = {_number(one): one for one in own if one["field_name"] == "attempt_ok"}
        said = {one["field_name"]: one["value"] for one in own}
        origin = None
        if "origin-task-id" in said:
            origin = f"{self.flow}/{said['origin-run-id']}/{task['step_name']}/{said['origin-task-id']}"
        mlflow = {
            _number(one) for one in entries if one["field_name"] == OWN_RUN and "uses" in one.get("type", "")
        }
        cards = {_number(one) for one in own if one.get("type") == "card-info"}
        last_sign = max([int(one["ts_epoch"]) for one in own], default=int(task["ts_epoch"]))
        made = []
        for number, start in sorted(starts.items()):
            following = min((at for other, at in starts.items() if other > number), default=None)
            end, status = _ended(ends.get(number), start, following, last_sign, alive=alive)
            settled = status != "RUNNING" and (
                origin is not None
                or following is not None
                or not alive
                or self._closed == f"{self._path(task)}/{number}"
                or self._has_logs(task, number, said, end)
            )
            shown: Status = status if settled else "RUNNING"
            made.append(
                Attempt(
                    pathspec=self._path(task),
                    number=number,
                    start=start,
                    end=end if settled else None,
                    status=shown,
                    settled=settled,
                    origin=origin,
                    uses_mlflow=number in mlflow,
                    has_cards=number in cards,
                    place=_place(said, self._path(task) if origin and status != "RUNNING" else ""),
                )
            )
        return made

    def _has_logs(self, task: Mapping[str, Any], number: int, said: Mapping[str, Any], end: int | None) -> bool:
        """Return whether the launcher has written the logs of an attempt, which it does last."""
        if said.get("ds-type") == "local" and "ds-root" in said:
            folder = Path(said["ds-root"], *self._path(task).split("/"))
            if (folder / f"{number}.runtime_stderr.log").exists():
                return True
        return end is not None and time.time() - end / 1000 > LOG_SECONDS

    def _is_alive(
        self, tasks: list[Any], raw: Mapping[str, list[dict[str, Any]]], *, launcher_gone: bool
    ) -> tuple[bool, bool]:
        """Return whether somebody works on the run, and whether its launcher is known to be gone.

        The launcher's mark decides. Of a run without one, only signs are left: a process that works on a task
        names the run in its command; between two tasks there is none, so that traces of the last 30 seconds count
        as well, unless a task failed for good.
        """
        launcher = "is gone" if launcher_gone else self.mark.launcher()
        if launcher == "lives" or has_process(self.run_id):
            return True, False
        if launcher == "is gone":
            return False, True
        attempts = [one for task in tasks for one in self._judged(task, raw)]
        last = {one.pathspec: one for one in attempts}
        if any(one.status == "FAILED" and one.number >= _retries(self._graph, one.step) for one in last.values()):
            return False, False
        traces = [
            int(one["ts_epoch"]) for entries in raw.values() for one in entries if one["field_name"] != OWN_RUN
        ]
        latest = max([*traces, *(int(task["ts_epoch"]) for task in tasks)], default=0)
        return time.time() - latest / 1000 < QUIET_SECONDS, False

    def _judged(self, task: Mapping[str, Any], raw: Mapping[str, list[dict[str, Any]]]) -> list[Attempt]:
        path = self._path(task)
        return self._settled.get(path) or self._attempts(task, raw[path], alive=False)


def has_process(run_id: str) -> bool:
    """Return whether a process of this machine works on a task of the run: its command names it."""
    marks = [f"\0--run-id\0{run_id}\0".encode(), f"\0--run-id={run_id}\0".encode()]
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes()
        except OSError:  # it has ended
            continue
        if int(entry.parent.name) != os.getpid() and any(mark in command for mark in marks):
            return True
    return False


def provider() -> Any:
    """Return Metaflow's metadata provider, as its client uses it, for every user's runs."""
    import metaflow

    metaflow.namespace(None)
    return metaflow.Metaflow().metadata


def artifact_value(pathspec: str) -> Any:
    """Return the value of an artifact; ``None`` when there is none that can be read here."""
    import metaflow

    try:
        return metaflow.DataArtifact(pathspec).data
    except Exception:  # killed before it was written, or made of classes that are not here
        return None


def artifacts_of(pathspec: str, number: int) -> list[Any]:
    """Return the artifacts of an attempt by name, as Metaflow's client has them, without its own (``_...``)."""
    import metaflow

    names = sorted(one["name"] for one in _artifact_entries(pathspec, number))
    return [
        metaflow.DataArtifact(f"{pathspec}/{name}", attempt=number) for name in names if not name.startswith("_")
    ]


def artifact_digests(pathspec: str, number: int) -> frozenset[tuple[str, str]]:
    """Return name and SHA-1 of each artifact of an attempt."""
    return frozenset((one["name"], one["sha"]) for one in _artifact_entries(pathspec, number))


def _artifact_entries(pathspec: str, number: int) -> list[dict[str, Any]]:
    found = provider().get_object("task", "artifact", {}, number, *pathspec.split("/")) or []
    return [found] if isinstance(found, dict) else list(found)  # the local provider does not list a single one


def _listed(kind: str, below: str, *names: str) -> list[dict[str, Any]]:
    return [one for one in provider().get_object(kind, below, {}, None, *names) or [] if one]


def _run_id(run: Mapping[str, Any]) -> str:
    return str(run.get("run_id") or run["run_number"])


def _number(entry: Mapping[str, Any]) -> int:
    tagged = (tag.partition(":")[2] for tag in entry.get("tags", []) if tag.startswith("attempt_id:"))
    return int(next(tagged, 0))


def _place(said: Mapping[str, Any], cloned: str) -> str:
    """Return the places in the foreaches; a clone says them only in an artifact."""
    if path := str(said.get("foreach-execution-path") or ""):
        return "".join(f"[{one.rpartition(':')[2]}]" for one in path.split(","))
    stack = artifact_value(f"{cloned}/_foreach_stack") if cloned else None
    return "".join(f"[{frame.index}]" for frame in stack or [])


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


def _may_retry(attempts: list[Attempt], graph: Mapping[str, Any], alive: bool) -> bool:
    last = attempts[-1]
    return alive and last.origin is None and last.number < _retries(graph, last.step)


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


def say_mlflow_runs(pathspec: str, run_id: str, ids: Mapping[Attempt, str], *, address: str) -> None:
    """Leave with Metaflow where its run and tasks stand in MLflow: a tag of the run, metadata of the tasks.

    What is there already is not written again. Providers other than the local one take tags only.
    """
    flow, run = pathspec.split("/")
    me = provider().get_object("run", "self", {}, None, flow, run) or {}
    tag = f"{OWN_TAG}{run_id}"
    stale = [one for one in me.get("tags", []) if one.startswith(OWN_TAG) and one != tag]
    if tag not in me.get("tags", []):
        provider().mutate_user_tags_for_run(flow, run, tags_to_add=[tag], tags_to_remove=stale)
    for attempt, own in ids.items():
        if attempt.settled:
            say_mlflow_run(attempt, own, address=address)


def say_mlflow_run(attempt: Attempt, run_id: str, *, address: str = "", uses: bool = False) -> None:
    """Leave with a task where its attempt stands in MLflow; ``uses`` says that the step logs there itself."""
    entry = _metadata_file(attempt, uses=uses)
    if entry is None or entry.exists():
        return
    flow, run, step, task = attempt.pathspec.split("/")
    said = {
        "flow_id": flow,
        "run_number": run,
        "step_name": step,
        "task_id": task,
        "field_name": OWN_RUN,
        "type": f"{OWN_RUN} uses" if uses else OWN_RUN,
        "value": json.dumps({"run_id": run_id, "address": address}) if address else run_id,
        "tags": [f"attempt_id:{attempt.number}"],
        "user_name": "mlflow_bridge",
        "ts_epoch": attempt.end or attempt.start,
    }
    replace_file(entry, json.dumps(said).encode())


def _metadata_file(attempt: Attempt, *, uses: bool) -> Path | None:
    """Return the file that the local provider reads this entry from; ``None`` for another provider."""
    local = provider()
    if local.TYPE != "local":
        return None
    folder = local._get_metadir(*attempt.pathspec.split("/"))
    kind = "uses" if uses else "stands"
    return Path(folder) / f"sysmeta_{OWN_RUN}_{kind}_{attempt.number}.json" if folder else None
