"""What runs had in their hands and did not make: versions of tables and models, by the artifacts of their tasks.

A run says what it used, and nobody says of a table who used it: for the way down, the index has the runs that did.
"""

from __future__ import annotations

from collections.abc import Iterator

from dlpipe.bridge.reading import RunReading
from dlpipe.bridge.records import Model
from dlpipe.bridge.totals import RunTotals
from dlpipe.errors import DlpipeError
from dlpipe.lineage.graph import Edge
from dlpipe.lineage.indexed_uses import UseIndex
from dlpipe.lineage.nodes import OF_TABLES, Node
from dlpipe.lineage.reader import Reader
from dlpipe.lineage.tables import TableReader
from dlpipe.lineage.tasks import make_run_node


class UseReader(Reader):
    """Reads the artifacts of runs.

    Parameters
    ----------
    tables : TableReader
    index : UseIndex
    until : int, optional
        In milliseconds since 1970: runs that began later are passed over.
    """

    def __init__(self, tables: TableReader, index: UseIndex, until: int | None = None) -> None:
        self.tables, self.index, self.until = tables, index, until
        self._totals: dict[Node, RunTotals | None] = {}

    def find_origins(self, node: Node) -> Iterator[Edge]:
        """Yield the versions of tables and models that a run used; what it made itself is none of them."""
        if node.kind == "run" and (totals := self._read(node)) is not None:
            yield from self.find_used(node, totals)

    def find_used(self, node: Node, totals: RunTotals) -> Iterator[Edge]:
        """Yield the same for whoever has read the artifacts of the run."""
        for dataset in totals.datasets:
            table = self.tables.find_node(dataset.path.rstrip("/"), dataset.version)
            made = (edge.origin for edge in self.tables.find_origins(table) if edge.how == "made by")
            if node not in map(make_run_node, map(str, made)):
                yield Edge(node, "used", table)
        for model in list_used_models(totals):
            yield Edge(node, "used", Node("model", model.name, model.version))

    def find_results(self, node: Node) -> Iterator[Edge]:
        """Yield the runs that used a version of a table or a model."""
        if node.kind == "model" or node.kind in OF_TABLES:
            for run in self.index.find_runs(node):
                yield from (edge for edge in self.find_origins(run) if edge.origin == node)

    def _read(self, node: Node) -> RunTotals | None:
        if node not in self._totals:
            try:
                self._totals[node] = self._read_totals(str(node))
            except (DlpipeError, ValueError):  # deleted or damaged, or its datastore does not answer
                self._totals[node] = None
        return self._totals[node]

    def _read_totals(self, run: str) -> RunTotals | None:
        reading = RunReading(run)
        snapshot = reading.read_snapshot()
        if self.until is not None and snapshot.created > self.until:
            return None
        return reading.read_run_totals(snapshot if self.until is None else snapshot.as_of(self.until))


def list_used_models(totals: RunTotals) -> list[Model]:
    """Return the models that a run used and did not make: what it registers, its later steps use.

    Examples
    --------
    >>> models = [Model("a", 1, "made"), Model("a", 1, "used"), Model("b", 7, "used")]
    >>> [str(model) for model in list_used_models(RunTotals(models=tuple(models)))]
    ['models:/b/7']
    """
    made = {str(model) for model in totals.models if model.role == "made" and not model.again}
    return [model for model in totals.models if model.role == "used" and str(model) not in made]
