"""Checkpoints that tasks have saved while they trained."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dlpipe.bridge.checkpoints import SavedCheckpoint, list_checkpoints
from dlpipe.lineage.graph import Edge, Facts
from dlpipe.lineage.nodes import Node
from dlpipe.lineage.reader import Reader
from dlpipe.lineage.tasks import make_task_node

CHECKPOINT = re.compile(r"(?P<attempt>[A-Za-z_]\w*/\w[\w.-]*/\w+/\w+/\d+) checkpoint (?P<number>\d+)")


class CheckpointReader(Reader):
    """Reads the notes of metaflow-checkpoint.

    Parameters
    ----------
    until : int, optional
        In milliseconds since 1970: checkpoints that came later are passed over.
    """

    def __init__(self, until: int | None = None) -> None:
        self.until = until
        self._found: dict[Node, dict[Node, SavedCheckpoint]] = {}

    def find(self, text: str) -> Iterator[tuple[Node, ...]]:
        """Yield the checkpoint that ``TrainFlow/17/train/3/0 checkpoint 2`` means."""
        if found := CHECKPOINT.fullmatch(text):
            flow, _, key = found["attempt"].partition("/")
            node = Node("checkpoint", flow, int(found["number"]), key)
            if node in self._list(find_task(node)):
                yield (node,)

    def describe(self, node: Node) -> Facts | None:
        """Return when a checkpoint was saved, and whether its files are there."""
        if node.kind != "checkpoint":
            return None
        saved = self._list(find_task(node)).get(node)
        if saved is None:
            return Facts(gone="Metaflow has no such checkpoint any more")
        return Facts(saved.at, gone="" if saved.is_there else "its files were removed")

    def find_origins(self, node: Node) -> Iterator[Edge]:
        """Yield the task that saved a checkpoint."""
        if node.kind == "checkpoint" and node in self._list(find_task(node)):
            yield Edge(node, "made by", find_task(node))

    def find_results(self, node: Node) -> Iterator[Edge]:
        """Yield the checkpoints of a task."""
        if node.kind == "task":
            yield from (Edge(checkpoint, "made by", node) for checkpoint in self._list(node))

    def _list(self, task: Node) -> dict[Node, SavedCheckpoint]:
        if task not in self._found:
            self._found[task] = {
                Node("checkpoint", task.name, saved.number, f"{task.key}/{saved.attempt}"): saved
                for saved in list_checkpoints(str(task))
                if self.until is None or saved.at <= self.until
            }
        return self._found[task]


def find_task(checkpoint: Node) -> Node:
    """Return the task that saved a checkpoint.

    Examples
    --------
    >>> node = Node("checkpoint", "TrainFlow", 2, "17/train/3/0")
    >>> print(node, find_task(node))
    TrainFlow/17/train/3/0 checkpoint 2 TrainFlow/17/train/3
    """
    return make_task_node(f"{checkpoint.name}/{checkpoint.key}")[0]
