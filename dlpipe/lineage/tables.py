"""Versions of tables and the files that they were ingested from, by the commits of Delta's log."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dlpipe.lineage.catalog import LOGS, Catalog, TableRecord
from dlpipe.lineage.graph import Edge, Facts
from dlpipe.lineage.indexed_files import FileIndex
from dlpipe.lineage.indexed_tables import TableIndex
from dlpipe.lineage.nodes import OF_TABLES, SHORT, Kind, Node
from dlpipe.lineage.reader import Reader
from dlpipe.lineage.tasks import make_task_node, read_attempt

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

    def __init__(self, catalog: Catalog, index: TableIndex, files: FileIndex) -> None:
        self.catalog, self.index, self.files = catalog, index, files

    def find(self, text: str) -> Iterator[tuple[Node, ...]]:
        """Yield the version that ``reviews@v3`` names (``reviews``: the latest), and the files of a path."""
        found = VERSION.fullmatch(text)
        if found and "#" not in text and (record := self.find_record(found["table"])):
            version = record.latest.version if found["version"] is None else int(found["version"])
            if record.has_version(version):
                yield (make_table_node(record, version),)
        if "#" not in text:
            yield from ((node,) for node in dict.fromkeys(node for node, _, _ in self.find_files(text)))

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
            return Facts(
                about=f"SHA-256 {node.key[:SHORT]}",
                gone=self.files.find_problem({"name": node.name, "sha256": node.key}),
            )
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
        if made_by := read_attempt(commit.get("made_by")):
            yield Edge(node, "made by", *make_task_node(made_by))

    def find_results(self, node: Node) -> Iterator[Edge]:
        """Yield the versions that were ingested from a file or a table, appended to it, or committed by a task."""
        if node.kind in ("file", "task", *OF_TABLES):
            for found in self.list_candidates(node):
                yield from (edge for edge in self.find_origins(found) if edge.origin == node)

    def find_results_of_table(self, location: str) -> Iterator[Edge]:
        """Yield the edges to what came of any version of a table, its first version first."""
        edges = [edge for node in self.list_users(location) for edge in self.find_origins(node)]
        there = [edge for edge in edges if edge.origin.kind in OF_TABLES and edge.origin.name == location]
        yield from sorted(there, key=lambda edge: edge.origin)

    def list_users(self, location: str) -> list[Node]:
        """Return the versions of tables that may have come of any version of a table; its own are among them."""
        found = self.index.find_commits(f"table {location}", f"source {location.rpartition('/')[2]}")
        if (record := self.catalog.find(location)) is not None:
            found += [(location, number) for number in record.commits]
        return self._make_nodes(found)

    def list_candidates(self, node: Node) -> list[Node]:
        """Return the versions of tables of which one may have come of a node: their commits name it."""
        found: list[tuple[str, int]] = []
        if node.kind == "file":
            found = self.index.find_commits(f"file {node.name}")
        elif node.kind == "model":
            found = self.index.find_commits(f"model {node}")
        elif node.kind == "requests":
            found = self.index.find_commits(f"table {node.name}")
        elif node.kind == "task":
            found = self.index.find_commits(f"task {node}")
        elif node.kind in OF_TABLES:
            version = f"@v{node.number}"
            # a commit has the name of a table that it read from, and not its place
            names = f"version {node.name}{version}", f"file {node.name.rpartition('/')[2]}{version}"
            found = [*self.index.find_commits(*names), (node.name, (node.number or 0) + 1)]
        return self._make_nodes(found)

    def _make_nodes(self, found: Iterable[tuple[str, int]]) -> list[Node]:
        records = ((self.catalog.find(location), number) for location, number in found)
        there = [
            make_table_node(record, number) for record, number in records if record and number in record.commits
        ]
        return sorted(dict.fromkeys(there), key=lambda node: (node.name, node.number or 0))

    def find_files(self, name: str) -> Iterator[tuple[Node, TableRecord, int]]:
        """Yield the files that are called so, with the commits that have read them."""
        path = split_digest(name)[0]
        words = {f"file {path}", *(f"file {other}" for other in list_other_names(path))}
        for location, number in self.index.find_commits(*words):
            if (record := self.catalog.find(location)) and number in record.commits:
                for source in record.list_sources(number):
                    node = self.make_source_node(source)
                    if node.kind == "file" and is_called(node, name):
                        yield node, record, number

    def find_unknown(self, node: Node) -> Iterator[str]:
        """Yield that nobody says who committed a version, or of what."""
        if node.kind not in OF_TABLES or (record := self.catalog.find(node.name)) is None:
            return
        commit = record.commits.get(node.number or 0, {})
        if record.kind in LOGS:
            return
        if "rows" not in commit:
            yield "another program committed it, and does not say of what"
        elif not read_attempt(commit.get("made_by")):
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
            for location in self.catalog.list_locations():
                if location.rpartition("/")[2] == found["table"] and (record := self.catalog.find(location)):
                    commit = record.commits.get(int(found["version"]), {})
                    if commit.get("digest", digest) == digest:
                        return make_table_node(record, int(found["version"]))
        return Node("file", name, key=digest)


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
    >>> describe_commit({"operation": "WRITE", "rows": 1, "forgotten": "ab12"})
    '1 row, others forgotten by record ab12'
    """
    if "forgotten" in commit:
        rest = {name: value for name, value in commit.items() if name != "forgotten"}
        return f"{describe_commit(rest)}, others forgotten by record {commit['forgotten']}"
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
    path, digest = split_digest(text)
    called = node.name == path or node.name.endswith(f"/{path}") or os.path.abspath(node.name) == path
    return called and node.key.startswith(digest)


def split_digest(text: str) -> tuple[str, str]:
    """Return the path of a file, and the digest behind it, or nothing.

    Examples
    --------
    >>> split_digest("data/films.csv@ab12ab12ab12"), split_digest("films.csv")
    (('data/films.csv', 'ab12ab12ab12'), ('films.csv', ''))
    """
    path, _, digest = text.rpartition("@") if re.search(r"@[0-9a-f]{4,64}$", text) else (text, "", "")
    return path, digest


def list_other_names(path: str) -> list[str]:
    """Return how a file that is named by its whole path may stand in a commit: as seen from the working folder."""
    return [os.path.relpath(path), f"./{os.path.relpath(path)}"] if os.path.isabs(path) else []
