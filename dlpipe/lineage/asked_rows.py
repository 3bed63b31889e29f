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
        """Yield the requests with whose text and label a row came."""
        record = self.catalog.find(node.name) if node.kind == "row" else None
        model = find_model(record.commits.get(node.number or 0, {})) if record else ""
        if model and (text := self._read_text(node)) is not None:
            digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
            for request in self.requests.find_labelled(model, digest):
                yield Edge(node, "ingested from", request)

    def find_results(self, node: Node) -> Iterator[Edge]:
        """Yield the rows that a request became, once there was a label for it."""
        if node.kind != "request":
            return
        model = node.name.rpartition("/")[2].removesuffix("_requests")
        for location, number in self.rows.index.find_commits(f"file feedback-{model}.jsonl"):
            record = self.catalog.find(location)
            if record and record.kind == "data" and find_model(record.commits.get(number, {})) == model:
                for row in self._find_rows(location, number, node):
                    yield from (edge for edge in self.find_origins(row) if edge.origin == node)

    def _find_rows(self, location: str, version: int, request: Node) -> Iterator[Node]:
        from dlpipe.tables import read_form, table_at, to_row_id

        form = read_form(table_at(location, version=version))
        for text in self.requests.read_texts(request) if form.is_text else ():
            row = self.rows.find_row(location, version, to_row_id(form.identify((text,))))
            if row is not None and row.number == version:
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
