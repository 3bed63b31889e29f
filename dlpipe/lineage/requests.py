"""What a server was asked and answered, and the labels that came for it, by the tables of its log.

What was answered a moment ago stands in the server's journal, and is in the table some seconds later.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dlpipe.lineage.catalog import Catalog, TableKind, TableRecord
from dlpipe.lineage.graph import Edge, Facts
from dlpipe.lineage.indexed_tables import TableIndex
from dlpipe.lineage.models import parse_model_node
from dlpipe.lineage.nodes import Node
from dlpipe.lineage.reader import Reader

if TYPE_CHECKING:
    import pyarrow as pa

    from dlpipe.delta import TableFiles

REQUEST_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
REQUEST_ROW = re.compile(rf"(?P<request>{REQUEST_ID.pattern}):(?P<row>\d+)")
FEEDBACK_ID = re.compile(rf"(?P<table>[^#]+)#(?P<key>{REQUEST_ID.pattern}:\d+)")
REQUEST_COLUMNS = (
    *("request_id", "row", "rows", "kind", "model", "version", "alias", "status"),
    *("arrived", "answer", "text"),
)
FEEDBACK_COLUMNS = ("request_id", "row", "label", "source", "received", "number")
MOST_LOOKS = 10
"""Versions of models that are looked for in a log one by one, in the files that may have them. For more of them,
all of it is read once."""


class RequestReader(Reader):
    """Reads the log of requests and labels.

    Parameters
    ----------
    catalog : Catalog
    index : TableIndex
    until : int, optional
        In milliseconds since 1970: what came later is passed over.
    """

    def __init__(self, catalog: Catalog, index: TableIndex, until: int | None = None) -> None:
        self.catalog, self.index, self.until = catalog, index, until
        self._rows: dict[Node, list[Mapping[str, Any]]] = {}
        self._labels: dict[Node, list[Mapping[str, Any]]] = {}
        self._files: dict[str, TableFiles] = {}
        self._looks: Counter[str] = Counter()
        self._first_answers: dict[str, dict[tuple[str, int | None], datetime]] = {}

    def find(self, text: str) -> Iterator[tuple[Node, ...]]:
        """Yield the request with this id, a label for a row of it, or all requests of a version of a model."""
        if REQUEST_ID.fullmatch(text):
            for record in self.list_logs("requests"):
                node = Node("request", record.location, key=text)
                if self._read_rows(node):
                    # labels are for rows: of a request that had several, those with one are named, too
                    yield (node, *(row for row in self._list_rows(node) if self._find_label(row)))
        elif found := REQUEST_ROW.fullmatch(text):
            for record in self.list_logs("requests"):
                if int(found["row"]) in self.list_row_numbers(record.location, found["request"]):
                    yield (self.find_row(record.location, found["request"], int(found["row"])),)
        elif found := FEEDBACK_ID.fullmatch(text):
            for record in self.list_logs("feedback"):
                label = Node("feedback", record.location, key=found["key"])
                if found["table"] in (record.name, record.location) and self._read_labels(label):
                    yield (label,)
        elif " of models:/" in text:
            table, _, uri = text.partition(" of ")
            for record in self.list_logs("requests"):
                model = parse_model_node(uri)
                if table in (record.name, record.location) and model and self._has_answers(record, model):
                    yield (Node("requests", record.location, key=str(model)),)

    def describe(self, node: Node) -> Facts | None:
        """Return when a request came and what it was answered."""
        if node.kind == "request":
            rows = self._read_rows(node)
            if not rows:
                return Facts(gone="the log has no such request any more")
            count = f", {len(rows)} rows" if len(rows) > 1 and node.number is None else ""
            return Facts(
                to_milliseconds(rows[0]["arrived"]), f"{rows[0]['kind']}, status {rows[0]['status']}{count}"
            )
        if node.kind == "requests":
            return Facts()
        if node.kind == "feedback":
            labels = self._read_labels(node)
            if not labels:
                return Facts(gone="the log has no such label any more")
            last = labels[-1]
            return Facts(
                to_milliseconds(last["received"]), f"{last['label']}, from {last['source'] or 'a client'}"
            )
        return None

    def find_origins(self, node: Node) -> Iterator[Edge]:
        """Yield the version of a model that answered a request, and the labels that came for it."""
        if node.kind == "request":
            if node.number is not None:
                yield Edge(node, "part of", replace(node, number=None))
            for row in self._read_rows(node)[:1] if node.number is None else ():
                if row["version"]:
                    alias = f"as {row['alias']}" if row["alias"] else ""
                    yield Edge(node, "answered with", Node("model", row["model"], row["version"]), alias)
            if label := self._find_label(node):
                yield Edge(node, "labelled by", label)
        elif node.kind == "requests" and (model := parse_model_node(node.key)):
            yield Edge(node, "answered with", model)

    def find_results(self, node: Node) -> Iterator[Edge]:
        """Yield the requests that a version has answered, as one node, and the request that a label is for."""
        if node.kind == "feedback":
            request_id, _, row = node.key.partition(":")
            for record in self.list_logs("requests"):
                request = self.find_row(record.location, request_id, int(row))
                yield from (edge for edge in self.find_origins(request) if edge.origin == node)
        elif node.kind == "request" and node.number is None:
            yield from (Edge(row, "part of", node) for row in self._list_rows(node))
        elif node.kind == "model":
            for record in self.list_logs("requests"):
                if self._has_answers(record, node):
                    # one node for all of them, which may be millions
                    yield Edge(Node("requests", record.location, key=str(node)), "answered with", node)

    def find_labelled(self, model: str, digest: str) -> Iterator[tuple[Node, Node]]:
        """Yield the requests for a text, or the rows of them, and the label that each of them has.

        Parameters
        ----------
        model : str
            As its tables are called.
        digest : str
            SHA-256 of the text.
        """
        from dlpipe.tables import find_rows

        for record in self.list_logs("requests"):
            if record.name == f"{model}_requests" and record.has_column("text_sha256"):
                columns = ["request_id", "row", "arrived"]
                for found in find_rows(record.latest, "text_sha256", digest, columns=columns):
                    place = f"{found.values['request_id']}:{found.values['row']}"
                    label = Node("feedback", name_feedback(record.location), key=place)
                    if self._is_early(found.values["arrived"]) and self._read_labels(label):
                        request_id, row = str(found.values["request_id"]), int(found.values["row"])
                        yield self.find_row(record.location, request_id, row), label

    def list_row_numbers(self, location: str, request_id: str) -> list[int]:
        """Return which rows a request had; none of one that is not in this log."""
        return [int(row["row"]) for row in self._read_rows(Node("request", location, key=request_id))]

    def find_row(self, location: str, request_id: str, row: int) -> Node:
        """Return the node of a row of a request: of one that had no other row, that of the request."""
        request = Node("request", location, key=request_id)
        return replace(request, number=row) if self._list_rows(request) else request

    def _list_rows(self, node: Node) -> list[Node]:
        """Return the rows of a request that had several."""
        rows = self._read_rows(node)
        return [replace(node, number=int(row["row"])) for row in rows] if len(rows) > 1 else []

    def _find_label(self, node: Node) -> Node | None:
        """Return the label that came for a row of a request, or for one that had a single row."""
        rows = self._read_rows(node)
        if len(rows) != 1:
            return None
        label = Node("feedback", name_feedback(node.name), key=f"{node.key}:{rows[0]['row']}")
        return label if self._read_labels(label) else None

    def read_texts(self, node: Node) -> list[str]:
        """Return the texts of a request, where the log keeps them."""
        return [str(row["text"]) for row in self._read_rows(node) if row["text"] is not None]

    def list_logs(self, kind: TableKind) -> Iterator[TableRecord]:
        """Yield the logs of requests, or of labels."""
        records = map(self.catalog.find, self.index.list_logs())
        return (record for record in records if record is not None and record.kind == kind)

    def _has_answers(self, record: TableRecord, model: Node) -> bool:
        """Return whether a version of a model has answered requests of a log."""
        location = record.location
        if location not in self._first_answers:
            self._looks[location] += 1
            if self._looks[location] <= MOST_LOOKS:
                name = model.name.replace("'", "''")
                batches = self._stream(record, ["arrived"], f"version = {model.number} and model = '{name}'")
                return any(self._is_early(at) for batch in batches for at in batch["arrived"].to_pylist())
            self._first_answers[location] = self._find_first_answers(record)
        at = self._first_answers[location].get((model.name, model.number))
        return at is not None and self._is_early(at)

    def _find_first_answers(self, record: TableRecord) -> dict[tuple[str, int | None], datetime]:
        """Return when each version of a model in a log first answered."""
        import pyarrow as pa

        first: dict[tuple[str, int | None], datetime] = {}
        for batch in self._stream(record, ["model", "version", "arrived"], batch_rows=65536):
            found = pa.Table.from_batches([batch]).group_by(["model", "version"]).aggregate([("arrived", "min")])
            for row in found.to_pylist():
                place = row["model"], row["version"]
                first[place] = min(row["arrived_min"], first.get(place, row["arrived_min"]))
        return first

    def _stream(
        self, record: TableRecord, columns: Sequence[str], where: str | None = None, batch_rows: int = 4096
    ) -> Iterator[pa.RecordBatch]:
        from dlpipe.tables import open_files, stream_table

        if record.location not in self._files:
            self._files[record.location] = open_files(record.latest)
        files = self._files[record.location]
        return stream_table(record.latest, columns=columns, where=where, batch_rows=batch_rows, files=files)

    def _is_early(self, at: datetime) -> bool:
        return self.until is None or to_milliseconds(at) <= self.until

    def _read_rows(self, node: Node) -> list[Mapping[str, Any]]:
        if node not in self._rows:
            rows = self._look_up(node.name, node.key, REQUEST_COLUMNS, "arrived")
            self._rows[node] = [row for row in rows if node.number in (None, int(row["row"]))]
        return self._rows[node]

    def _read_labels(self, node: Node) -> list[Mapping[str, Any]]:
        """Return the labels that came for a row of a request, the one that counts last."""
        if node not in self._labels:
            request_id, _, number = node.key.partition(":")
            found = self._look_up(node.name, request_id, FEEDBACK_COLUMNS, "received")
            asked = self._read_rows(Node("request", name_requests(node.name), key=request_id))
            # a label that names no row is for the only one of its request
            nameless = "0" if asked and asked[0]["rows"] == 1 else ""
            rows = [row for row in found if (nameless if row["row"] is None else str(row["row"])) == number]
            self._labels[node] = sorted(rows, key=lambda row: (row["received"], row["number"]))
        return self._labels[node]

    def _look_up(self, location: str, request_id: str, columns: Sequence[str], at: str) -> list[Mapping[str, Any]]:
        from dlpipe.tables import find_rows

        if (record := self.catalog.find(location)) is None:
            return []
        found = (row.values for row in find_rows(record.latest, "request_id", request_id, columns=columns))
        return sorted((row for row in found if self._is_early(row[at])), key=lambda row: int(row["row"] or 0))


def name_feedback(requests: str) -> str:
    """Return where the labels are for the requests of a table.

    Examples
    --------
    >>> name_feedback("/films/data/tables/reviews_requests")
    '/films/data/tables/reviews_feedback'
    """
    return f"{requests.removesuffix('_requests')}_feedback"


def name_requests(feedback: str) -> str:
    """Return where the requests are that the labels of a table are for.

    Examples
    --------
    >>> name_requests("/films/data/tables/reviews_feedback")
    '/films/data/tables/reviews_requests'
    """
    return f"{feedback.removesuffix('_feedback')}_requests"


def to_milliseconds(at: datetime) -> int:
    """Return a moment in milliseconds since 1970."""
    return int(at.timestamp() * 1000)
