"""Versions of tables and the files that they were ingested from, by the commits of Delta's log."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from dlpipe.errors import DlpipeError
from dlpipe.lineage.catalog import Catalog, TableRecord
from dlpipe.lineage.graph import Edge, Facts, group_by_origin, select_of_table
from dlpipe.lineage.nodes import OF_TABLES, SHORT, Kind, Node
from dlpipe.lineage.reader import Reader
from dlpipe.lineage.tasks import make_task_node

VERSION = re.compile(r"(?P<table>.+?)(@v(?P<version>\d+))?")
TABLE_SOURCE = re.compile(r"(?P<table>.+)@v(?P<version>\d+)")
FEEDBACK_FILE = re.compile(r".*/feedback-(?P<model>[^/]+)\.jsonl")
"""The file by which `dlpipe feedback` appends what was asked to a table; it is gone afterwards."""
NODE_KINDS: Mapping[str, Kind] = {
    "predictions": "predictions",
    "explanations": "explanations",
    "looks": "look",
}


class TableReader(Reader):
    """Reads what commits say."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog

    def find(self, text: str) -> Iterator[tuple[Node, ...]]:
        """Yield the version that ``reviews@v3`` names (``reviews``: the latest), and the files of a path."""
        found = VERSION.fullmatch(text)
        if found and "#" not in text and (record := self.find_record(found["table"])):
            version = record.latest.version if found["version"] is None else int(found["version"])
            if record.has_version(version):
                yield (make_table_node(record, version),)
        if "#" not in text:
            yield from ((node,) for node in dict.fromkeys(self._list_files()) if is_called(node, text))

    def find_record(self, name: str) -> TableRecord | None:
        """Return the table that is called so: by its name under the tables root, or by its place."""
        by_name = dict(self.catalog.list_names())
        location = by_name.get(name.rstrip("/"))
        if location is None and ("/" in name or os.sep in name):
            location = name.rstrip("/") if "://" in name else os.path.abspath(os.path.expanduser(name))
        return None if location is None else self.catalog.find(location)

    def describe(self, node: Node) -> Facts | None:
        """Return when a version was committed, and of how many rows; whether a file is still as it was."""
        if node.kind == "file" and FEEDBACK_FILE.fullmatch(node.name):
            return Facts(about="what was asked and labelled")
        if node.kind == "file":
            return Facts(about=f"SHA-256 {node.key[:SHORT]}", gone=self._find_why_gone(node))
        if node.kind not in OF_TABLES:
            return None
        record = self.catalog.find(node.name)
        if record is None:
            return Facts(gone=self.catalog.problems.get(node.name, "there is no such table"))
        commit = record.commits.get(node.number or 0)
        if commit is None:
            gone = "" if record.has_version(node.number or 0) else "its log has no such commit any more"
            return Facts(about="a log of requests and labels" if not gone else "", gone=gone)
        return Facts(commit["timestamp"], describe_commit(commit))

    def find_origins(self, node: Node) -> Iterator[Edge]:
        """Yield the sources of a version, the version that it was appended to, and the task that committed it."""
        if node.kind not in OF_TABLES or (record := self.catalog.find(node.name)) is None:
            return
        number = node.number or 0
        commit = record.commits.get(number, {})
        for source in record.list_sources(number):
            split = "" if source.get("split", "data") == "data" else str(source["split"])
            yield Edge(node, "ingested from", self.make_source_node(source), split)
        if node.kind == "table" and builds_on_former(commit) and number - 1 in record.commits:
            yield Edge(node, "appended to", make_table_node(record, number - 1))
        if made_by := commit.get("made_by"):
            yield Edge(node, "made by", *make_task_node(made_by))

    def find_results(self, node: Node) -> Iterator[Edge]:
        """Yield the versions that were ingested from a file or a table, appended to it, or committed by a task."""
        yield from self._by_origin.get(node, ())

    def find_results_of_table(self, location: str) -> Iterator[Edge]:
        """Yield the edges to what came of any version of a table."""
        yield from select_of_table(self._by_origin, location)

    @cached_property
    def _by_origin(self) -> Mapping[Node, Sequence[Edge]]:
        return group_by_origin(
            edge
            for record in self.catalog.list_records()
            for number in record.commits
            for edge in self.find_origins(make_table_node(record, number))
        )

    def find_unknown(self, node: Node) -> Iterator[str]:
        """Yield that nobody says who committed a version, or of what."""
        if node.kind not in OF_TABLES or (record := self.catalog.find(node.name)) is None:
            return
        commit = record.commits.get(node.number or 0, {})
        if not record.commits:  # a log
            return
        if "rows" not in commit:
            yield "another program committed it, and does not say of what"
        elif "made_by" not in commit:
            yield "no task is named that committed it: that was before dlpipe recorded tasks, or outside a flow"

    def find_node(self, location: str, version: int, kind: Kind = "table") -> Node:
        """Return the node of a version of a table that a record names; of this kind where it is not there."""
        record = self.catalog.find(location)
        there = record is not None and record.has_version(version)
        return make_table_node(record, version) if record and there else Node(kind, location, version)

    def make_source_node(self, source: Mapping[str, Any]) -> Node:
        """Return the node of a source as commits record it: a file, or a version of a table."""
        name, digest = str(source["name"]), str(source.get("sha256", ""))
        if found := TABLE_SOURCE.fullmatch(name):
            for record in self.catalog.list_records():
                commit = record.commits.get(int(found["version"]), {})
                if record.name == found["table"] and commit.get("digest", digest) == digest:
                    return make_table_node(record, int(found["version"]))
        return Node("file", name, key=digest)

    def _list_files(self) -> Iterator[Node]:
        for record in self.catalog.list_records():
            for number in record.commits:
                for source in record.list_sources(number):
                    if (node := self.make_source_node(source)).kind == "file":
                        yield node

    def _find_why_gone(self, node: Node) -> str:
        from dlpipe.tables import find_source_again

        try:
            find_source_again({"name": node.name, "split": "data", "sha256": node.key})
        except (DlpipeError, OSError) as error:
            return str(error)
        return ""


def make_table_node(record: TableRecord, version: int) -> Node:
    """Return the node of a version; its kind says what its commit is, or what the table holds."""
    key = record.read_key(version)
    kind: Kind = NODE_KINDS.get(record.kind, "table")
    if "monitored" in key:
        kind = "look"
    elif "source" in key:
        kind = "explanations" if "method" in key else "predictions"
    return Node(kind, record.location, version)


def builds_on_former(commit: Mapping[str, Any]) -> bool:
    """Return whether the rows of the version before are in this one, too.

    Examples
    --------
    >>> builds_on_former({"operation": "WRITE", "mode": "Overwrite", "ingested": 60, "rows": 60})
    False
    >>> builds_on_former({"operation": "WRITE", "mode": "Overwrite", "ingested": 60, "rows": 61})
    True
    >>> builds_on_former({"operation": "OPTIMIZE"})
    True
    """
    if commit.get("operation") != "WRITE" or commit.get("mode") == "Append" or "appended" in commit:
        return True
    return "ingested" in commit and commit.get("rows", 0) > commit["ingested"]


def describe_commit(commit: Mapping[str, Any]) -> str:
    """Return how many rows a version has, or what was done to it.

    Examples
    --------
    >>> describe_commit({"operation": "WRITE", "rows": 1200}), describe_commit({"operation": "OPTIMIZE"})
    ('1,200 rows', 'OPTIMIZE')
    """
    if "rows" not in commit:
        return str(commit.get("operation", ""))
    return f"{commit['rows']:,} row{'' if commit['rows'] == 1 else 's'}"


def is_called(node: Node, text: str) -> bool:
    """Return whether a file is called so: by its path, its last parts, or with a digest after it.

    Examples
    --------
    >>> node = Node("file", "data/films.csv", key="ab12" * 16)
    >>> [is_called(node, text) for text in ("films.csv", "data/films.csv@ab12ab12ab12", "ilms.csv", "b.csv")]
    [True, True, False, False]
    """
    path, _, digest = text.rpartition("@") if re.search(r"@[0-9a-f]{4,64}$", text) else (text, "", "")
    called = node.name == path or node.name.endswith(f"/{path}") or os.path.abspath(node.name) == path
    return called and node.key.startswith(digest)
