"""All records together, as they were at a moment: a node by what people call it, and the neighbours of a node."""

from __future__ import annotations

from collections.abc import Iterator

from dlpipe.errors import NodeAmbiguous, NodeNotFound
from dlpipe.lineage.answers import AnswerReader
from dlpipe.lineage.asked_rows import AskedRowReader
from dlpipe.lineage.catalog import Catalog
from dlpipe.lineage.checkpoints import CheckpointReader
from dlpipe.lineage.graph import Edge, Facts
from dlpipe.lineage.index import Index, find_index_path
from dlpipe.lineage.indexed_files import FileIndex
from dlpipe.lineage.indexed_models import ModelIndex
from dlpipe.lineage.indexed_runs import RunIndex
from dlpipe.lineage.indexed_tables import TableIndex
from dlpipe.lineage.indexed_uses import UseIndex
from dlpipe.lineage.models import ModelReader, find_registry_address
from dlpipe.lineage.near_misses import explain_near_miss
from dlpipe.lineage.nodes import Node
from dlpipe.lineage.reader import Reader
from dlpipe.lineage.requests import RequestReader
from dlpipe.lineage.row_origins import RowOrigins
from dlpipe.lineage.rows import RowReader
from dlpipe.lineage.runs import RunReader
from dlpipe.lineage.schedules import ScheduleReader
from dlpipe.lineage.tables import TableReader
from dlpipe.lineage.trials import TrialReader
from dlpipe.lineage.uses import UseReader
from dlpipe.time_formats import format_moment, to_moment

FORMS = (
    "reviews@v3, reviews@v3#ROW, films.csv, films.csv:17, models:/reviews@champion, reviews_predictions#ROW, "
    "TrainFlow/17, TrainFlow/17/train/4, a request id, an event id, deployment:TrainFlow, code:TrainFlow@DIGEST"
)
MOST_LISTED = 20


class Records:
    """What Delta's commits, the registry, Metaflow and the scheduler's state say.

    Parameters
    ----------
    until : int, optional
        In milliseconds since 1970: what came later is passed over; by default nothing is.

    Attributes
    ----------
    readers : tuple of Reader
        One for each kind of records.
    """

    def __init__(self, until: int | None = None) -> None:
        self.until, self.catalog = until, Catalog(until)
        self.index = Index(find_index_path())
        tables = TableIndex(self.catalog, self.index)
        self.tables = TableReader(self.catalog, tables, FileIndex(self.index))
        self.models = ModelReader(ModelIndex(self.index), until)
        rows = RowOrigins(self.catalog, tables)
        self.answers = AnswerReader(self.catalog, self.tables, rows)
        self.runs, self.checkpoints = RunReader(RunIndex(self.index), until), CheckpointReader(until)
        self.schedules = ScheduleReader(self.catalog, until)
        self.requests = RequestReader(self.catalog, tables, until)
        self.readers: tuple[Reader, ...] = (
            self.tables,
            RowReader(self.catalog, self.tables, rows, self.models),
            self.answers,
            self.models,
            self.runs,
            TrialReader(self.runs),
            self.checkpoints,
            UseReader(self.tables, UseIndex(self.index), until),
            self.schedules,
            self.requests,
            AskedRowReader(self.catalog, rows, self.requests),
        )

    def check_something(self) -> None:
        """Raise ``NodeNotFound`` where there is neither a table, nor a model, nor a run."""
        from dlpipe.bridge.marks import find_state_root
        from dlpipe.tables import tables_root

        runs = find_state_root()
        if not (self.catalog.list_names() or self.models.records or self.models.problem or runs.is_dir()):
            raise NodeNotFound(
                f"There is nothing here: no table in {tables_root()!r}, no model in {find_registry_address()!r}, "
                f"no run in {str(runs)!r}. Stand in the folder of the project."
            )

    def find(self, text: str) -> tuple[Node, ...]:
        """Return what ``text`` means: one node, or several that are one thing, such as a row in several versions.

        Parameters
        ----------
        text : str
            As people or ``Node.id`` write it.

        Raises
        ------
        NodeNotFound
            When it means nothing.
        NodeAmbiguous
            When it means more than one thing; the message lists them.
        """
        from dlpipe.tables import tables_root

        text = text.strip()
        readers = () if text.endswith("#") else self.readers  # a row without its id
        found = list(dict.fromkeys(nodes for reader in readers for nodes in reader.find(text)))
        if len(found) == 1:
            return found[0]
        if not found:
            then = "" if self.until is None else f" at {format_moment(to_moment(self.until))}"
            if there := explain_near_miss(self, text):
                raise NodeNotFound(f"Nothing is called {text!r}{then}. {there}")
            raise NodeNotFound(
                f"Nothing is called {text!r}{then} (looked in {tables_root()!r} for tables and in "
                f"{find_registry_address()!r} for models). Stand in the folder of the project. Write {FORMS}."
            )
        first = [nodes[0] for nodes in found]
        same = len({str(node) for node in first}) < len(first)
        listed = [f"{node.id if same else node} ({node.kind})" for node in first]
        more = f" and {len(listed) - MOST_LISTED} more" if len(listed) > MOST_LISTED else ""
        raise NodeAmbiguous(
            f"{text!r} is the name of several things. Pass one of: {', '.join(listed[:MOST_LISTED])}{more}."
        )

    def describe(self, node: Node) -> Facts:
        """Return what there is to say of a node."""
        found = (reader.describe(node) for reader in self.readers)
        return next((facts for facts in found if facts is not None), Facts())

    def find_origins(self, node: Node) -> Iterator[Edge]:
        """Yield the edges to what a node came of."""
        for reader in self.readers:
            yield from reader.find_origins(node)

    def find_results(self, node: Node) -> Iterator[Edge]:
        """Yield the edges to what came of a node."""
        for reader in self.readers:
            yield from reader.find_results(node)

    def find_results_of_table(self, location: str) -> Iterator[Edge]:
        """Yield the edges to what came of any version of the table at a location, but for rows."""
        for reader in (self.models, self.tables, self.answers):
            yield from reader.find_results_of_table(location)

    def list_problems(self) -> tuple[str, ...]:
        """Return why something could not be read so far, so that lineage may lack what it says."""
        damaged = (self.catalog.problems.get(location) for _, location in self.catalog.list_names())
        return tuple(filter(None, (self.models.problem, *damaged)))

    def find_unknown(self, node: Node) -> tuple[str, ...]:
        """Return what the records do not say of a node's origins, a sentence each."""
        return tuple(problem for reader in self.readers for problem in reader.find_unknown(node))
