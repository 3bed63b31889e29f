"""What every reader of the records answers: which neighbours a node has, as far as its records say."""

from __future__ import annotations

from collections.abc import Iterator

from dlpipe.lineage.graph import Edge, Facts
from dlpipe.lineage.nodes import Node


class Reader:
    """Reads one kind of records, each when it is first asked for.

    Whatever it is asked for a node of which its records say nothing, it has no answer.
    """

    def find(self, text: str) -> Iterator[tuple[Node, ...]]:
        """Yield what ``text`` may mean: several nodes together are one thing, such as a row in two versions."""
        yield from ()

    def describe(self, node: Node) -> Facts | None:
        """Return what there is to say of a node; ``None`` where these records do not know it."""
        return None

    def find_origins(self, node: Node) -> Iterator[Edge]:
        """Yield the edges to what a node came of."""
        yield from ()

    def find_results(self, node: Node) -> Iterator[Edge]:
        """Yield the edges to what came of a node."""
        yield from ()

    def find_unknown(self, node: Node) -> Iterator[str]:
        """Yield what these records should say of a node's origins and do not, a sentence each."""
        yield from ()
