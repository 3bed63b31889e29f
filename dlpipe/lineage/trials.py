"""Trials of a search for settings, by the artifact in which a step keeps what the search found."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from dlpipe.bridge.artifacts import read_artifact_digests, read_artifact_value
from dlpipe.bridge.opening import read_fields
from dlpipe.lineage.graph import Edge, Facts
from dlpipe.lineage.nodes import Node
from dlpipe.lineage.reader import Reader
from dlpipe.lineage.runs import RunReader
from dlpipe.lineage.tasks import make_run_node, make_task_node

ARTIFACT = "tuned"
"""The name under which flows keep what a search found: its trials, and the values that were taken."""
TRIAL = re.compile(r"(?P<task>[A-Za-z_]\w*/\w[\w.-]*/\w+/\w+) trial (?P<number>\d+)")


class TrialReader(Reader):
    """Reads the artifacts of tasks that have searched."""

    def __init__(self, runs: RunReader) -> None:
        self.runs = runs
        self._searches: dict[Node, tuple[Node, Mapping[int, Mapping[str, Any]], Mapping[str, Any]] | None] = {}

    def find(self, text: str) -> Iterator[tuple[Node, ...]]:
        """Yield the trial that ``TrainFlow/17/tune/2 trial 3`` means."""
        if found := TRIAL.fullmatch(text):
            node = make_trial_node(make_task_node(found["task"])[0], int(found["number"]))
            if self._find_trial(node) is not None:
                yield (node,)

    def describe(self, node: Node) -> Facts | None:
        """Return the values of a trial, and why it failed if it did."""
        if node.kind != "trial":
            return None
        trial = self._find_trial(node)
        if trial is None:
            return Facts(gone="Metaflow has no such trial any more")
        values = ", ".join(f"{name}={value}" for name, value in (trial.get("values") or {}).items())
        return Facts(about=f"failed: {values}" if trial.get("error") else values)

    def find_origins(self, node: Node) -> Iterator[Edge]:
        """Yield the task of a trial, and the trial whose values a run has trained with."""
        if node.kind == "trial" and self._find_trial(node) is not None:
            yield Edge(node, "part of", find_task(node))
        elif node.kind == "run" and (search := self._read(node)):
            task, trials, best = search
            for number, trial in trials.items():
                if best and not trial.get("error") and dict(trial.get("values") or {}) == dict(best):
                    yield Edge(node, "tuned by", make_trial_node(task, number))
                    return

    def find_results(self, node: Node) -> Iterator[Edge]:
        """Yield the trials of a task, and the run that has trained with the values of a trial."""
        if node.kind == "task":
            search = self._read(make_run_node(str(node)))
            if search is not None and search[0] == node:
                yield from (Edge(make_trial_node(node, number), "part of", node) for number in search[1])
        elif node.kind == "trial":
            run = make_run_node(str(find_task(node)))
            yield from (edge for edge in self.find_origins(run) if edge.origin == node)

    def _find_trial(self, node: Node) -> Mapping[str, Any] | None:
        search = self._read(make_run_node(str(find_task(node))))
        return search[1].get(node.number or 0) if search and search[0] == find_task(node) else None

    def _read(self, run: Node) -> tuple[Node, Mapping[int, Mapping[str, Any]], Mapping[str, Any]] | None:
        """Return the task of a run that has searched, its trials by number, and the values that were taken."""
        if run not in self._searches:
            self._searches[run] = self._read_search(run)
        return self._searches[run]

    def _read_search(self, run: Node) -> tuple[Node, Mapping[int, Mapping[str, Any]], Mapping[str, Any]] | None:
        # each step has the artifacts of those before it, so the first one that has it has made it
        for attempt in sorted(self.runs.list_attempts(run), key=lambda attempt: attempt.start):
            names = {name for name, _ in read_artifact_digests(attempt.pathspec, attempt.number)}
            if attempt.status != "FINISHED" or ARTIFACT not in names:
                continue
            fields = read_fields(read_artifact_value(f"{attempt.pathspec}/{ARTIFACT}", attempt.number))
            trials = [read_fields(trial) for trial in fields.get("trials") or ()]
            if not trials:
                return None
            task = make_task_node(attempt.origin or attempt.pathspec)[0]
            return task, {int(trial["number"]): trial for trial in trials}, fields.get("best") or {}
        return None


def make_trial_node(task: Node, number: int) -> Node:
    """Return the node of a trial of a task."""
    return replace(task, kind="trial", number=number)


def find_task(trial: Node) -> Node:
    """Return the task that a trial is part of.

    Examples
    --------
    >>> task, _ = make_task_node("TrainFlow/17/tune/2")
    >>> print(make_trial_node(task, 3), find_task(make_trial_node(task, 3)))
    TrainFlow/17/tune/2 trial 3 TrainFlow/17/tune/2
    """
    return replace(trial, kind="task", number=None)
