"""What runs had in their hands and did not make: versions of tables and models, by the artifacts of their tasks.

A run says what it used, and nobody says of a table who used it: for the way down, the index has the runs that did.
"""

from __future__ import annotations

from collections.abc import Iterator

from dlpipe.bridge.outcomes import RunOutcome, read_outcome
from dlpipe.bridge.records import Model
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
        self._outcomes: dict[Node, RunOutcome | None] = {}

    def find_origins(self, node: Node) -> Iterator[Edge]:
        """Yield the versions of tables and models that a run used; what it made itself is none of them."""
        if node.kind != "run" or (outcome := self._read(node)) is None:
            return
        for dataset in outcome.datasets:
            table = self.tables.find_node(dataset.path.rstrip("/"), dataset.version)
            made = (edge.origin for edge in self.tables.find_origins(table) if edge.how == "made by")
            if node not in map(make_run_node, map(str, made)):
                yield Edge(node, "used", table)
        for model in list_used_models(outcome):
            yield Edge(node, "used", Node("model", model.name, model.version))

    def find_results(self, node: Node) -> Iterator[Edge]:
        """Yield the runs that used a version of a table or a model."""
        if node.kind == "model" or node.kind in OF_TABLES:
            for run in self.index.find_runs(node):
                yield from (edge for edge in self.find_origins(run) if edge.origin == node)

    def _read(self, node: Node) -> RunOutcome | None:
        if node not in self._outcomes:
            try:
                outcome = read_outcome(str(node), until=self.until)
            except (DlpipeError, ValueError):  # deleted or damaged, or its datastore does not answer
                self._outcomes[node] = None
            else:
                later = self.until is not None and outcome.start > self.until
                self._outcomes[node] = None if later else outcome
        return self._outcomes[node]


def list_used_models(outcome: RunOutcome) -> list[Model]:
    """Return the models that a run used and did not make: what it registers, its later steps use.

    Examples
    --------
    >>> models = [Model("a", 1, "made"), Model("a", 1, "used"), Model("b", 7, "used")]
    >>> [str(model) for model in list_used_models(RunOutcome("F/1", "FINISHED", 0, 9, models=tuple(models)))]
    ['models:/b/7']
    """
    made = {str(model) for model in outcome.models if model.role == "made" and not model.again}
    return [model for model in outcome.models if model.role == "used" and str(model) not in made]
