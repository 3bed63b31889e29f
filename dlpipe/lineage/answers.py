"""Predictions, explanations and looks at drift: what a model made of a version of a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dlpipe.lineage.catalog import Catalog, TableRecord
from dlpipe.lineage.graph import Edge, Facts, How
from dlpipe.lineage.models import parse_model_node
from dlpipe.lineage.nodes import FEWEST_CHARACTERS, OF_TABLES, Kind, Node
from dlpipe.lineage.reader import Reader
from dlpipe.lineage.row_origins import RowOrigins
from dlpipe.lineage.tables import TableReader, make_table_node

OF = {"predictions": "prediction", "explanations": "explanation"}
HOWS: Mapping[str, tuple[How, How]] = {
    "predictions": ("scored", "scored with"),
    "explanations": ("explained", "explained with"),
}


class AnswerReader(Reader):
    """Reads the keys of commits, and the rows themselves."""

    def __init__(self, catalog: Catalog, tables: TableReader, rows: RowOrigins) -> None:
        self.catalog, self.tables, self.rows = catalog, tables, rows
        self._answers: dict[Node, Mapping[str, Any]] = {}

    def find(self, text: str) -> Iterator[tuple[Node, ...]]:
        """Yield the answers for a row, ``reviews_predictions#ROW``; of several models, each is one of them."""
        table, _, row_id = text.partition("#")
        name, _, number = table.partition("@v")
        if not row_id or (record := self.tables.find_record(name)) is None or record.kind not in OF:
            return
        added_by = int(number) if number.isdecimal() else None
        nodes = {node for node, _ in self._read_answers(record, row_id, added_by=added_by)}
        if not nodes and len(row_id) >= FEWEST_CHARACTERS:
            nodes = {node for node, _ in self._read_answers(record, row_id, prefix=True, added_by=added_by)}
        wanted = sorted(node for node in nodes if not number or str(node.number) == number)
        for row in dict.fromkeys(node.key for node in wanted):
            yield tuple(node for node in wanted if node.key == row)

    def describe(self, node: Node) -> Facts | None:
        """Return what was answered for a row."""
        if node.kind not in OF.values():
            return None
        values = self._read_answer(node)
        if values is None:
            return Facts(gone="the table has no such row any more")
        record = self.catalog.find(node.name)
        at = record.commits.get(node.number or 0, {}).get("timestamp") if record else None
        return Facts(at, str(values["predicted"]) if "predicted" in values else "")

    def find_origins(self, node: Node) -> Iterator[Edge]:
        """Yield the model and the rows that answers were made with and of."""
        if node.kind in HOWS:
            yield from self._find_commit_origins(node)
        elif node.kind == "look":
            yield from self._find_look_origins(node)
        elif node.kind in OF.values():
            yield from self._find_answer_origins(node)

    def find_results(self, node: Node) -> Iterator[Edge]:
        """Yield the answers of a model, for a version of a table, or for a row; the looks at them."""
        if node.kind in ("model", "requests", *OF_TABLES):
            for found in self.tables.list_candidates(node):
                yield from (edge for edge in self.find_origins(found) if edge.origin == node)
        elif node.kind == "row":
            yield from self._find_answers(node)

    def find_results_of_table(self, location: str) -> Iterator[Edge]:
        """Yield the edges to the answers for any version of a table, and the looks at any; its first one first."""
        edges = [edge for node in self.tables.list_users(location) for edge in self.find_origins(node)]
        there = [edge for edge in edges if edge.origin.kind in OF_TABLES and edge.origin.name == location]
        yield from sorted(there, key=lambda edge: edge.origin)

    def _find_commit_origins(self, node: Node) -> Iterator[Edge]:
        if (record := self.catalog.find(node.name)) is None:
            return
        key = record.read_key(node.number or 0)
        scored, by = HOWS[node.kind]
        if "source" in key and "source_version" in key:
            which = key.get("split", "*")
            note = f"{which} rows" if which != "*" else "new rows" if "after" in key else ""
            yield Edge(node, scored, self.tables.find_node(key["source"], int(key["source_version"])), note)
        if model := parse_model_node(key.get("model", "")):
            yield Edge(node, by, model)

    def _find_look_origins(self, node: Node) -> Iterator[Edge]:
        record = self.catalog.find(node.name)
        key = record.read_key(node.number or 0) if record else {}
        if "monitored" not in key:  # a commit that only added columns
            return
        model, monitored = parse_model_node(key.get("model", "")), self.catalog.find(key["monitored"])
        if monitored is not None and monitored.kind == "requests":
            yield Edge(node, "compared", Node("requests", key["monitored"], key=str(model)))
        else:
            scored = self.tables.find_node(key["monitored"], int(key["version"]), "predictions")
            yield Edge(node, "compared", scored, "new rows")
        if model is not None:
            yield Edge(node, "compared", model)

    def _find_answer_origins(self, node: Node) -> Iterator[Edge]:
        values, record = self._read_answer(node), self.catalog.find(node.name)
        if values is None or record is None:
            return
        scored, by = HOWS[record.kind]
        source, version = str(values["source"]), int(values["source_version"])
        if row := self.rows.find_row(source, version, node.key):
            yield Edge(node, scored, row, f"in v{version}")
        if model := parse_model_node(str(values["model_version"])):
            yield Edge(node, by, model)
        yield Edge(node, "part of", make_table_node(record, node.number or 0))

    def _find_answers(self, row: Node) -> Iterator[Edge]:
        for location in self.tables.index.find_tables(row.key):
            record = self.catalog.find(location)
            if record is None or record.kind not in OF:
                continue
            for node, values in self._read_answers(record, row.key):
                version = int(values["source_version"])
                if values["source"] == row.name and self.rows.find_row(row.name, version, row.key) == row:
                    yield Edge(node, HOWS[record.kind][0], row, f"in v{version}")

    def _read_answers(
        self, record: TableRecord, row_id: str, *, prefix: bool = False, added_by: int | None = None
    ) -> Iterator[tuple[Node, Mapping[str, Any]]]:
        """Yield the answers of a table for a row, each once: an explanation is many rows of its table."""
        from dlpipe.tables import find_rows

        columns = ["row_id", "model_version", "source", "source_version"]
        columns += ["predicted"] if record.has_column("predicted") else []
        kind: Kind = "prediction" if record.kind == "predictions" else "explanation"
        seen, groups = set(), None if prefix else self.tables.index.find_groups(record.location, row_id)
        for found in find_rows(
            record.latest, "row_id", row_id, columns=columns, prefix=prefix, added_by=added_by, groups=groups
        ):
            version = self._find_commit(record, found.version, found.values)
            node = Node(kind, record.location, version, str(found.values["row_id"]))
            if node not in seen:
                seen.add(node)
                yield node, found.values

    def _find_commit(self, record: TableRecord, version: int | None, values: Mapping[str, Any]) -> int:
        """Return the version that added an answer; of one in a file of another program, by the commits' keys."""
        if version is not None:
            return version
        for location, number in self.tables.index.find_commits(f"model {values['model_version']}"):
            key = record.read_key(number) if location == record.location else {}
            if (key.get("source"), key.get("model")) == (values["source"], values["model_version"]):
                return number
        return record.latest.version

    def _read_answer(self, node: Node) -> Mapping[str, Any] | None:
        if node not in self._answers:
            record = self.catalog.find(node.name)
            self._answers.update(self._read_answers(record, node.key, added_by=node.number) if record else ())
        return self._answers.get(node)
