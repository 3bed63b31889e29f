"""Which runs had a version of a table or a model in their hands, by the index: only their artifacts tell."""

from __future__ import annotations

from functools import cached_property

from dlpipe.bridge.held_versions import HeldVersions
from dlpipe.lineage.index import Index
from dlpipe.lineage.indexed_runs import RunIndex
from dlpipe.lineage.nodes import Node
from dlpipe.lineage.tasks import make_run_node


class UseIndex(RunIndex):
    """Keeps the index up to date with what the artifacts of runs hold, and asks it.

    Each run is looked into once, when it has ended; one that runs is looked into by whoever walks from it.
    """

    what = "uses"

    def __init__(self, index: Index) -> None:
        super().__init__(index)
        self._held = HeldVersions()

    @cached_property
    def _flows(self) -> list[str]:
        return self._held.list_flows()

    def find_runs(self, node: Node) -> list[Node]:
        """Return the runs that may have had a version of a table or a model."""
        name = f"models:/{node.name}" if node.kind == "model" else node.name
        word = f"held {name}@{node.number}"
        return [make_run_node(f"{flow}/{run}") for flow in self._flows for run in self.find(flow, word)]

    def read_words(self, flow: str, run: str) -> list[str] | None:
        """Return the versions that a run held, as they are looked for; ``None`` while it may hold more."""
        held = self._held.read(flow, run)
        return None if held is None else [f"held {name}@{number}" for name, number in sorted(held)]
