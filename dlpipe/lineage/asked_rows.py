"""Rows that a table got from a server: texts that were asked, with labels that came for them.

`dlpipe feedback` appends them from a file of its own, which is gone afterwards. The text itself leads back: the
log has its SHA-256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from dlpipe.errors import DlpipeError
from dlpipe.lineage.catalog import Catalog
from dlpipe.lineage.graph import Edge
from dlpipe.lineage.nodes import Node
from dlpipe.lineage.reader import Reader
from dlpipe.lineage.requests import RequestReader
from dlpipe.lineage.row_origins import RowOrigins
from dlpipe.lineage.tables import FEEDBACK_FILE


class AskedRowReader(Reader):
    """Reads texts of rows and of requests; of rows that are more than a text nothing leads back."""

    def __init__(self, catalog: Catalog, rows: RowOrigins, requests: RequestReader) -> None:
        self.catalog, self.rows, self.requests = catalog, rows, requests

    def find_origins(self, node: Node) -> Iterator[Edge]:
        """Yield the requests with whose text a row came, and the labels that it got from those for them."""
        if node.kind != "row" or (record := self.catalog.find(node.name)) is None:
            return
        brought = record.commits.get(node.number or 0, {})
        filled = self.rows.find_labelling(node, record.latest.version)
        if model := find_model(brought):
            for request, label in self._find_labelled(node, model):
                yield Edge(node, "ingested from", request)
                yield Edge(node, "labelled by", label)
        if filled is not None and (model := find_model(record.commits.get(filled, {}))):
            for _, label in self._find_labelled(node, model):
                yield Edge(node, "labelled by", label, f"in v{filled}")

    def _find_labelled(self, row: Node, model: str) -> Iterator[tuple[Node, Node]]:
        if (text := self._read_text(row)) is not None:
            digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
            yield from self.requests.find_labelled(model, digest)

    def find_results(self, node: Node) -> Iterator[Edge]:
        """Yield the rows that a request became once there was a label for it, and those that a label is of."""
        if node.kind == "request":
            requests = [node]
        elif node.kind == "feedback":
            edges = self.requests.find_results(node)
            requests = [edge.result for edge in edges if edge.how == "labelled by"]
        else:
            return
        for request in requests:
            model = request.name.rpartition("/")[2].removesuffix("_requests")
            for location, number in self.rows.index.find_commits(f"file feedback-{model}.jsonl"):
                for row in self._find_rows(location, number, request, model):
                    yield from (edge for edge in self.find_origins(row) if edge.origin == node)

    def _find_rows(self, location: str, version: int, request: Node, model: str) -> Iterator[Node]:
        from dlpipe.tables import read_form, table_at, to_row_id

        record = self.catalog.find(location)
        if record is None or record.kind != "data" or find_model(record.commits.get(version, {})) != model:
            return
        form = read_form(table_at(location, version=version))
        for text in self.requests.read_texts(request) if form.is_text else ():
            row = self.rows.find_row(location, version, to_row_id(form.identify((text,))))
            if row is not None:
                yield row

    def _read_text(self, row: Node) -> str | None:
        """Return the text of a row; ``None`` where it is more than a text, or cannot be read."""
        from dlpipe.tables import find_rows, read_form, table_at

        try:
            version = table_at(row.name, version=row.number)
            form = read_form(version)
            name = form.inputs[0].name
            found = next(find_rows(version, "row_id", row.key, columns=[name]), None) if form.is_text else None
        except DlpipeError:
            return None
        return None if found is None else str(found.values[name])


def find_model(commit: Mapping[str, Any]) -> str:
    """Return the model, as its tables are called, whose requests became the rows of a commit; else nothing.

    Examples
    --------
    >>> find_model({"sources": [{"name": "/tmp/tmp1/feedback-reviews.jsonl"}]}), find_model({})
    ('reviews', '')
    """
    names = (FEEDBACK_FILE.fullmatch(str(source["name"])) for source in commit.get("sources") or ())
    return next((found["model"] for found in names if found), "")
