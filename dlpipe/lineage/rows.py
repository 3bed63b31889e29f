"""Rows of data sets, the lines of files that they stood on, and the models that learnt from them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dlpipe.errors import DlpipeError, NodeNotFound, TableVersionNotFound
from dlpipe.lineage.catalog import Catalog, TableRecord
from dlpipe.lineage.graph import Edge, Facts, How
from dlpipe.lineage.models import ModelReader
from dlpipe.lineage.nodes import FEWEST_CHARACTERS, OF_TABLES, Node
from dlpipe.lineage.reader import Reader
from dlpipe.lineage.row_origins import RowOrigins
from dlpipe.lineage.tables import TableReader, make_table_node
from dlpipe.registry import MADE_FROM
from dlpipe.terminal import is_utf8
from dlpipe.time_formats import format_moment, to_moment

if TYPE_CHECKING:
    from dlpipe.tables import ForgottenRows, FoundRow, TableVersion

LINE = re.compile(r"(?P<file>.+):(?P<line>\d+)")
SPLIT_HOWS: Mapping[str, How] = {"train": "trained on", "valid": "evaluated on", "test": "evaluated on"}
LONGEST_TEXT = 60


class RowReader(Reader):
    """Reads rows, and the files that they came from, where these are still as they were."""

    def __init__(self, catalog: Catalog, tables: TableReader, rows: RowOrigins, models: ModelReader) -> None:
        self.catalog, self.tables, self.rows, self.models = catalog, tables, rows, models
        self.files = tables.files
        self._lines: dict[tuple[str, int, str], Sequence[Node]] = {}
        self._reasons: dict[Node, str] = {}

    def find(self, text: str) -> Iterator[tuple[Node, ...]]:
        """Yield the row that ``reviews@v3#ROW`` means, ``reviews#ROW`` in all versions, or ``films.csv:17``."""
        name, hash_, row_id = text.partition("#")
        if hash_ and row_id:
            if not is_utf8(text):
                return
            yield from self._find_rows(name, row_id)
        elif found := LINE.fullmatch(text):
            yield from self._find_named_lines(found["file"], int(found["line"]))

    def _find_named_lines(self, name: str, number: int) -> Iterator[tuple[Node, ...]]:
        """Yield this line of each file that is called so; raise ``NodeNotFound`` where all of them lack it."""
        files = dict.fromkeys(file for file, _, _ in self.tables.find_files(name))
        reasons = {file: self._explain_missing_line(file, number) for file in files}
        if reasons and all(reasons.values()):
            raise NodeNotFound(" ".join(reasons.values()))
        yield from ((Node("line", file.name, number, file.key),) for file, reason in reasons.items() if not reason)

    def _explain_missing_line(self, file: Node, number: int) -> str:
        """Return why a file has no such line; nothing where it has, or where nobody can look any more."""
        from dlpipe.tables import explain_missing_line

        for other, record, version in self.tables.find_files(file.name):
            for source in record.list_sources(version) if other == file and record.kind == "data" else ():
                if self.tables.make_source_node(source) == file:
                    commit = record.commits[version]
                    if self.files.find_row_id(source, commit, number) is not None:
                        return ""
                    with suppress(DlpipeError, OSError):
                        return explain_missing_line(source, commit, number)
        return ""

    def _find_rows(self, name: str, row_id: str) -> Iterator[tuple[Node, ...]]:
        table, _, number = name.partition("@v")
        record = self.tables.find_record(table)
        if record is None or (number and (not number.isdecimal() or int(number) not in record.commits)):
            return
        if record.kind == "quarantine":
            path, version = row_id.rpartition(":")[0], int(number) if number else record.latest.version
            yield from ((node,) for node in self._list_quarantined(record, version, path) if node.key == row_id)
        if record.kind != "data" or not record.has_column("row_id"):
            return
        for full in self._complete(record, row_id, number):
            versions = [int(number)] if number else list_last_versions(record)
            found = (self.rows.find_row(record.location, version, full) for version in versions)
            nodes = dict.fromkeys(node for node in found if node is not None)
            if nodes:
                yield tuple(nodes)
            elif self._was_forgotten(record, full):
                yield (Node("row", record.location, self._find_told_version(record, full), full),)

    def _was_forgotten(self, record: TableRecord, row_id: str) -> bool:
        """Return whether a row of this table was forgotten, and not one that is the same in another."""
        if (found := self.forgotten.find(row_id)) is None:
            return False
        known = [self.forgotten.describe(row_id).get("table"), *(found.done or {}).get("tables", {})]
        return found.done is None or record.name in known

    def _find_told_version(self, record: TableRecord, row_id: str) -> int | None:
        """Return the version that brought a row which was forgotten, where its record tells that of this table."""
        told = self.forgotten.describe(row_id)
        return told.get("version") if told.get("table") == record.name else None

    def _complete(self, record: TableRecord, row_id: str, number: str) -> list[str]:
        """Return the ids that begin so: people see the first twelve characters of an id."""
        from dlpipe.tables import find_remaining, table_at

        version = table_at(record.location, version=int(number)) if number else record.latest
        try:
            return self._complete_in(version, row_id)
        except TableVersionNotFound:
            # a forgetting has deleted files: the other rows are in a later version
            later = find_remaining(version)
            return [row_id] if later is None else self._complete_in(later, row_id)

    def _complete_in(self, version: TableVersion, row_id: str) -> list[str]:
        from dlpipe.tables import find_rows

        groups = self.rows.index.find_groups(version.path, row_id)
        exact = next(find_rows(version, "row_id", row_id, columns=["row_id"], groups=groups), None)
        if len(row_id) < FEWEST_CHARACTERS or exact is not None:
            return [row_id]
        found = find_rows(version, "row_id", row_id, columns=["row_id"], prefix=True)
        return sorted({str(row.values["row_id"]) for row in found}) or [row_id]

    def describe(self, node: Node) -> Facts | None:
        """Return the label and the beginning of a row; of a line, whether its file is still there."""
        if node.kind == "row":
            return self._describe_row(node)
        if node.kind == "quarantined":
            record = self.catalog.find(node.name)
            at = record.commits.get(node.number or 0, {}).get("timestamp") if record else None
            return Facts(at, self._reasons.get(node, ""))
        if node.kind != "line":
            return None
        return self.tables.describe(Node("file", node.name, key=node.key))

    @cached_property
    def forgotten(self) -> ForgottenRows:
        """Which rows were forgotten by the moment that is asked about, and not allowed to come back by then."""
        from dlpipe.tables import read_forgotten

        until = self.catalog.until
        known = read_forgotten()
        if until is None:
            return known
        early = (record for record in known.records if record.at <= until)
        then = (replace(record, lifted_at=None) if (record.lifted_at or 0) > until else record for record in early)
        return replace(known, records=tuple(then))

    def _describe_row(self, node: Node) -> Facts:
        from dlpipe.tables import table_at

        record = self.catalog.find(node.name)
        at = record.commits.get(node.number or 0, {}).get("timestamp") if record else None
        if (forgotten := self.forgotten.find(node.key)) and not forgotten.lifted:
            when = format_moment(to_moment(forgotten.at))
            return Facts(at, gone=f"forgotten {when} on request, by record {forgotten.record}")
        try:
            version = table_at(node.name, version=node.number)
            columns = [name for name, _ in version.columns if name not in ("row_id", "split")]
            found = self._read_row(version, node.key, columns)
        except DlpipeError as error:
            return Facts(at, gone=str(error))
        return Facts(at, describe_values(found.values) if found else "")

    def _read_row(self, version: TableVersion, row_id: str, columns: Sequence[str]) -> FoundRow | None:
        """Return a row of a version; where a forgetting deleted its files, of the version that has the others."""
        from dlpipe.tables import find_remaining, find_rows

        try:
            groups = self.rows.index.find_groups(version.path, row_id)
            return next(find_rows(version, "row_id", row_id, columns=columns, groups=groups), None)
        except TableVersionNotFound:
            if (later := find_remaining(version)) is None:
                raise
            return next(find_rows(later, "row_id", row_id, columns=columns), None)

    def find_origins(self, node: Node) -> Iterator[Edge]:
        """Yield the lines of a row, the version that it came with, and the line that its label came from."""
        if node.kind == "line":
            yield Edge(node, "part of", Node("file", node.name, key=node.key))
        elif node.kind == "row" and (record := self.catalog.find(node.name)):
            version = node.number or 0
            for line in self._find_lines(record, version, node):
                yield Edge(node, "ingested from", line)
            for row in self._find_source_rows(record, version, node):
                yield Edge(node, "ingested from", row)
            for labelled in self._find_labellings(record, node):
                for line in self._find_lines(record, labelled, node):
                    yield Edge(node, "labelled by", line, f"in v{labelled}")
            yield Edge(node, "part of", make_table_node(record, version))
        elif node.kind == "quarantined" and (record := self.catalog.find(node.name)):
            yield from self._find_quarantined_origins(node, record)

    def find_results(self, node: Node) -> Iterator[Edge]:
        """Yield the rows that a line became, or the bad row, and the models that learnt from a row."""
        if node.kind == "line":
            yield from self._find_rows_of_line(node)
        elif node.kind == "row":
            yield from self._find_models(node)
            yield from self._find_copies(node)

    def find_unknown(self, node: Node) -> Iterator[str]:
        """Yield why the lines of a row cannot be named."""
        if node.kind != "row" or (record := self.catalog.find(node.name)) is None:
            return
        number = node.number or 0
        if "form" not in record.commits.get(number, {}):
            yield "its commit does not say which lines rows came from"
        for source in record.list_sources(number):
            file = self.tables.make_source_node(source)
            if file.kind == "file" and (gone := (self.tables.describe(file) or Facts()).gone):
                yield f"its line cannot be looked up: {gone}"

    # -- lines -------------------------------------------------------------------------------------------------

    def _find_lines(self, record: TableRecord, version: int, row: Node) -> Sequence[Node]:
        """Return the line of a row in the files of a commit, as a list; files that changed since are left out."""
        place = record.location, version, row.key
        if place not in self._lines:
            base, _, repeat = row.key.partition("-")
            # of rows that are the same, the second one has the second line
            wanted = int(repeat) if repeat.isdecimal() else 1
            same = itertools.islice(self._read_lines(record, version, base), wanted)
            self._lines[place] = list(same)[-1:]
        return self._lines[place]

    def _read_lines(self, record: TableRecord, version: int, row_id: str) -> Iterator[Node]:
        """Yield the lines with this row."""
        from dlpipe.tables import read_source_lines

        commit = record.commits.get(version, {})
        for source in record.list_sources(version):
            file = self.tables.make_source_node(source)
            if file.kind != "file":
                continue
            with self._note_problem(file):
                numbers: Iterable[int] | None = self.files.find_lines(source, commit, row_id)
                if numbers is None:  # which says why it cannot be, or reads the file line by line
                    lines = read_source_lines(source, commit)
                    numbers = (line.number for line in lines if line.row_id == row_id)
                yield from (Node("line", file.name, number, file.key) for number in numbers)

    @contextmanager
    def _note_problem(self, file: Node) -> Iterator[None]:
        try:
            yield
        except (DlpipeError, OSError) as error:
            self.catalog.problems[file.id] = str(error)

    def _find_rows_of_line(self, node: Node) -> Iterator[Edge]:
        file = Node("file", node.name, key=node.key)
        for other, record, number in self.tables.find_files(node.name):
            if other == file and record.kind == "quarantine":
                yield from self._find_quarantined(node, record, number)
            elif other == file and record.kind == "data":
                for row in self._find_rows_of(node, record, number):
                    yield from (edge for edge in self.find_origins(row) if edge.origin == node)

    def _find_rows_of(self, line: Node, record: TableRecord, version: int) -> Iterator[Node]:
        """Yield the rows that are the same as what stands on a line."""
        from dlpipe.tables import read_source_lines, table_at

        commit, ids = record.commits[version], set[str]()
        for source in record.list_sources(version):
            if source["name"] == line.name:
                with self._note_problem(line):
                    found = self.files.find_row_id(source, commit, line.number or 0)
                    lines = read_source_lines(source, commit, only=line.number) if found is None else ()
                    ids |= {found or "", *(read.row_id for read in lines)} - {""}
        for row_id in ids:
            there = table_at(record.location, version=version)
            for row_found in self._find_same(there, row_id):
                full = str(row_found.values["row_id"])
                if full.partition("-")[0] != row_id:
                    continue
                if row := self.rows.find_row(record.location, version, full):
                    yield row
                elif self.forgotten.find(full):
                    told = self._find_told_version(record, full)
                    yield Node("row", record.location, version if told is None else told, full)

    def _find_same(self, version: TableVersion, row_id: str) -> Sequence[FoundRow]:
        """Return the rows of a version whose ids begin so, one that was forgotten among them."""
        from dlpipe.tables import FoundRow, find_remaining, find_rows

        try:
            groups = self.rows.index.find_groups(version.path, row_id)
            return list(find_rows(version, "row_id", row_id, columns=["row_id"], prefix=True, groups=groups))
        except TableVersionNotFound:
            if (later := find_remaining(version)) is None:
                raise
            left = list(find_rows(later, "row_id", row_id, columns=["row_id"], prefix=True))
            gone = self.forgotten.find(row_id) is not None
            return [*left, *([FoundRow(version.version, {"row_id": row_id})] if gone and not left else [])]

    # -- rows of other tables ----------------------------------------------------------------------------------

    def _find_source_rows(self, record: TableRecord, version: int, row: Node) -> Iterator[Node]:
        """Yield the rows that are the same in the tables that a commit has read."""
        for source in record.list_sources(version):
            table = self.tables.make_source_node(source)
            if table.kind in OF_TABLES:
                keys = dict.fromkeys([row.key, row.key.partition("-")[0]])
                found = (self.rows.find_row(table.name, table.number or 0, key) for key in keys)
                yield from (there for there in list(filter(None, found))[:1] if there is not None)

    def _find_copies(self, row: Node) -> Iterator[Edge]:
        """Yield the rows that other tables have from a row."""
        for location, number in self.rows.index.find_commits(f"source {row.name.rpartition('/')[2]}"):
            copy = self.rows.find_row(location, number, row.key)
            if copy is not None and copy.number == number:
                yield from (edge for edge in self.find_origins(copy) if edge.origin == row)

    # -- bad rows ----------------------------------------------------------------------------------------------

    def _find_quarantined(self, line: Node, record: TableRecord, version: int) -> Iterator[Edge]:
        for node in self._list_quarantined(record, version, line.name):
            if node.key == f"{line.name}:{line.number}":
                yield Edge(node, "set aside from", line)

    def _list_quarantined(self, record: TableRecord, version: int, path: str) -> Iterator[Node]:
        """Yield the bad rows of a file."""
        from dlpipe.tables import find_rows, table_at

        there = table_at(record.location, version=version)
        for found in find_rows(there, "source", path, columns=["line", "reason"]):
            node = Node("quarantined", record.location, version, f"{path}:{found.values['line']}")
            self._reasons[node] = str(found.values["reason"])
            yield node

    def _find_quarantined_origins(self, node: Node, record: TableRecord) -> Iterator[Edge]:
        path, _, line = node.key.rpartition(":")
        for source in record.list_sources(node.number or 0):
            if source["name"] == path:
                yield Edge(node, "set aside from", Node("line", path, int(line), str(source["sha256"])))
        yield Edge(node, "part of", make_table_node(record, node.number or 0))

    # -- models ------------------------------------------------------------------------------------------------

    def _find_models(self, row: Node) -> Iterator[Edge]:
        """Yield the models that were trained or evaluated on a version with the row, by the split that it had."""
        record, told = self.forgotten.find(row.key), self.forgotten.describe(row.key).get("models", {})
        for node, version in self.models.find_trained(row.name):
            number = version.tags.get("delta.version", "")
            if MADE_FROM in version.tags or not number.isdecimal() or int(number) < (row.number or 0):
                continue
            if self.rows.find_row(row.name, int(number), row.key) == row:
                split = self.rows.find_split(row, int(number))
            else:  # what was known when it was forgotten: the rows of that version may be gone
                split = told.get(str(node), "")
            if split in SPLIT_HOWS:
                since = ", forgotten since" if record and not record.lifted and str(node) in told else ""
                yield Edge(node, SPLIT_HOWS[split], row, f"{split} split of v{number}{since}")

    def _find_labellings(self, record: TableRecord, row: Node) -> list[int]:
        """Return the version that filled in the label of a row, as a list."""
        found = self.rows.find_labelling(row, record.latest.version)
        same = self.rows.find_row(record.location, record.latest.version, row.key) == row
        return [found] if found is not None and same else []


def list_last_versions(record: TableRecord) -> list[int]:
    """Return the versions in which each row that the table ever had is found: the last before each new content."""
    numbers = sorted(record.commits)
    anew = [
        number
        for number in numbers[1:]
        if "forgotten" in record.commits[number]
        or (record.commits[number].get("mode") == "Overwrite" and "appended" not in record.commits[number])
    ]
    return [*(number - 1 for number in anew), numbers[-1]]


def describe_values(values: Mapping[str, Any]) -> str:
    """Return what a row says, its label first, on a short line.

    Examples
    --------
    >>> describe_values({"text": "A lovely film", "label": "positive"})
    'positive: A lovely film'
    """
    label = values.get("label")
    rest = [str(value) for name, value in values.items() if name != "label" and value is not None]
    text = " ".join(", ".join(rest).split())
    text = text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 3]}..."
    return text if label is None else f"{label}: {text}"
