"""Runs and tasks, by Metaflow's records."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dlpipe.bridge.packages import list_packages
from dlpipe.bridge.runs import MetaflowRun
from dlpipe.errors import RunNotFound
from dlpipe.lineage.graph import Edge, Facts
from dlpipe.lineage.indexed_runs import RunIndex
from dlpipe.lineage.nodes import Node
from dlpipe.lineage.reader import Reader
from dlpipe.lineage.tasks import make_run_node, make_task_node

if TYPE_CHECKING:
    from dlpipe.bridge.attempts import TaskAttempt
    from dlpipe.bridge.snapshots import RunSnapshot


CODE = re.compile(r"code:(?P<flow>[A-Za-z_]\w*)@(?P<digest>[0-9a-f]{12,})")
PATHSPEC = re.compile(r"[A-Za-z_]\w*(/\w[\w.-]*){1,4}")


class RunReader(Reader):
    """Reads Metaflow's metadata.

    Parameters
    ----------
    index : RunIndex
    until : int, optional
        In milliseconds since 1970: runs and tasks that began later are passed over.
    """

    def __init__(self, index: RunIndex, until: int | None = None) -> None:
        self.index, self.until = index, until
        self._snapshots: dict[str, RunSnapshot | None] = {}
        self._damaged: set[str] = set()
        self._packages: dict[Node, tuple[str, str, str] | None] = {}

    def find(self, text: str) -> Iterator[tuple[Node, ...]]:
        """Yield the run ``TrainFlow/17``, or the tasks of ``TrainFlow/17/train`` or ``TrainFlow/17/train/4``."""
        if package := CODE.fullmatch(text):
            asked = Node("code", package["flow"], key=package["digest"])
            codes = {code for run in self._list_users(asked) if (code := self._find_code(run))}
            yield from ((code,) for code in sorted(codes) if code.key.startswith(asked.key))
        if not PATHSPEC.fullmatch(text.strip("/")):
            return
        flow, run, *below = text.strip("/").split("/")
        if (snapshot := self._read(f"{flow}/{run}")) is None:
            return
        if not below:
            yield (make_run_node(f"{flow}/{run}"),)
            return
        found = [attempt for attempt in snapshot.attempts if attempt.step == below[0]]
        if below[1:]:
            found = [attempt for attempt in found if attempt.task == below[1]]
        if below[2:]:
            found = [attempt for attempt in found if str(attempt.number) == below[2]]
        if nodes := tuple(dict.fromkeys(make_task_node(attempt.pathspec)[0] for attempt in found)):
            yield nodes

    def describe(self, node: Node) -> Facts | None:
        """Return when a run or task began, and how it ended."""
        if node.kind == "code":
            return self._describe_code(node)
        if node.kind not in ("run", "task"):
            return None
        snapshot = self._read(make_pathspec(node))
        if make_pathspec(node) in self._damaged:
            return Facts(gone="Metaflow's records of it are damaged")
        if snapshot is None:
            return Facts(gone="Metaflow has no such run any more")
        if node.kind == "run":
            return Facts(snapshot.created, snapshot.status.lower())
        attempts = self.list_attempts(node)
        if not attempts:
            return Facts(gone="Metaflow has no such task any more")
        tries = f", {len(attempts)} attempts" if len(attempts) > 1 else ""
        return Facts(attempts[0].start, attempts[-1].status.lower() + tries)

    def find_origins(self, node: Node) -> Iterator[Edge]:
        """Yield the run of a task, and the run or task that a resumed one goes back to."""
        if node.kind == "task":
            yield Edge(node, "part of", make_run_node(str(node)))
            for attempt in self.list_attempts(node):
                if attempt.origin:
                    yield Edge(node, "resumed from", *make_task_node(attempt.origin))
        elif node.kind == "run" and (snapshot := self._read(str(node))):
            if snapshot.origin:
                yield Edge(node, "resumed from", make_run_node(snapshot.origin))
            if code := self._find_code(node):
                yield Edge(node, "ran", code)

    def find_results(self, node: Node) -> Iterator[Edge]:
        """Yield the tasks of a run, and the runs and tasks that resumed it."""
        if node.kind == "code":
            for run in self._list_users(node):
                yield from (edge for edge in self.find_origins(run) if edge.origin == node)
        if node.kind not in ("run", "task"):
            return
        if node.kind == "run" and (snapshot := self._read(str(node))):
            for pathspec in dict.fromkeys(attempt.pathspec for attempt in snapshot.attempts):
                yield Edge(make_task_node(pathspec)[0], "part of", node)
        for later in self._find_resumes(make_pathspec(node)):
            nodes = [later] if node.kind == "run" else self._list_tasks(later)
            for made in nodes:
                yield from (edge for edge in self.find_origins(made) if edge.origin == node)

    def _list_users(self, code: Node) -> list[Node]:
        """Return the runs that may have run some code."""
        return [make_run_node(f"{code.name}/{run}") for run in self.index.find_users(code.name, code.key)]

    def _find_code(self, run: Node) -> Node | None:
        package = self._find_package(run)
        return Node("code", run.name, key=package[2]) if package else None

    def _find_package(self, run: Node) -> tuple[str, str, str] | None:
        if run not in self._packages:
            self._packages[run] = next(list_packages(str(run)), None) if self._read(str(run)) else None
        return self._packages[run]

    def _describe_code(self, node: Node) -> Facts | None:
        """Return whether the package of a run is still there; ``None`` for code that no run here has run."""
        package = self._find_package_of(node, self._packages) or self._find_package_of(
            node, self._list_users(node)
        )
        if package is None:
            return None
        lost = package[0] == "local" and not Path(package[1]).is_file()
        return Facts(about="code package", gone="its code package was removed" if lost else "")

    def _find_package_of(self, code: Node, runs: Iterable[Node]) -> tuple[str, str, str] | None:
        packages = (self._find_package(run) for run in list(runs) if run.name == code.name)
        return next((package for package in packages if package and package[2] == code.key), None)

    def _list_tasks(self, run: Node) -> list[Node]:
        snapshot = self._read(str(run))
        paths = dict.fromkeys(attempt.pathspec for attempt in snapshot.attempts) if snapshot else ()
        return [make_task_node(pathspec)[0] for pathspec in paths]

    def _find_resumes(self, pathspec: str) -> Iterator[Node]:
        """Yield the runs that resumed one."""
        flow, run = pathspec.split("/")
        for later in self.index.find_resumes(flow, run):
            if (snapshot := self._read(f"{flow}/{later}")) and snapshot.origin == pathspec:
                yield make_run_node(f"{flow}/{later}")

    def list_attempts(self, node: Node) -> list[TaskAttempt]:
        """Return the attempts of a task, or of all tasks of a run; none where there is no such thing."""
        snapshot = self._read(make_pathspec(node))
        if snapshot is None:
            return []
        return [attempt for attempt in snapshot.attempts if node.kind == "run" or attempt.pathspec == str(node)]

    def _read(self, pathspec: str) -> RunSnapshot | None:
        if pathspec not in self._snapshots:
            try:
                snapshot = MetaflowRun(pathspec).read()
            except RunNotFound:  # deleted, or it has only just begun
                self._snapshots[pathspec] = None
            except ValueError:  # a file that is no JSON
                self._snapshots[pathspec] = None
                self._damaged.add(pathspec)
            else:
                if self.until is not None:
                    snapshot = snapshot.as_of(self.until)
                later = self.until is not None and snapshot.created > self.until
                self._snapshots[pathspec] = None if later else snapshot
        return self._snapshots[pathspec]


def make_pathspec(node: Node) -> str:
    """Return the pathspec of the run that a run or a task is of."""
    return str(make_run_node(str(node)))
