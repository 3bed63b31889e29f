"""Which rows are asked to be forgotten: by their name, by the file that they came from, or by their text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dlpipe.errors import DlpipeError, NodeNotFound, NoRows, SchemaMismatch, SettingError
from dlpipe.forgetting.sources import find_source_inputs
from dlpipe.forgetting.words import Needle
from dlpipe.terminal import is_utf8

if TYPE_CHECKING:
    import pyarrow as pa

    from dlpipe.lineage import Node, Records
    from dlpipe.lineage.catalog import TableRecord
    from dlpipe.tables import ForgottenRows

NO_INPUTS = ("row_id", "label", "split", "source", "line", "reason")
OF_ANSWERS = ("prediction", "explanation")
NUMBERS = ("byte", "short", "integer", "long", "float", "double")
MANY_WORDS = 3
"""Beside other values, a text with no more words than these may be anybody's."""


@dataclass(frozen=True)
class AskedRow:
    """A row that is to be forgotten.

    Attributes
    ----------
    row_id : str
        That stands for its content, without ``-2`` and the like.
    name : str
        How it is written where it is listed; of a text that was given, nothing of it.
    table : str
        The location of the table that it was found in; empty for a text.
    own_id : str
        What the column ``row_id`` of that table has, where another program made it.
    version : int or None
        The version of the table whose commit brought it.
    inputs : mapping
        Its values by column; empty where only the record of an earlier forgetting knows it.
    text_columns : tuple of str
        Which of them are texts, and no categories.
    """

    row_id: str
    name: str
    table: str = ""
    own_id: str = ""
    version: int | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    text_columns: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @property
    def texts(self) -> tuple[str, ...]:
        """The strings among its inputs."""
        return tuple(value for value in self.inputs.values() if isinstance(value, str) and value.strip())

    @property
    def is_text(self) -> bool:
        """Whether it is one text and nothing else."""
        return len(self.inputs) == 1 and tuple(self.inputs) == self.text_columns

    @property
    def whole_texts(self) -> tuple[str, ...]:
        """The texts that are its by themselves, wherever they stand: beside other values, those of many words.

        Examples
        --------
        >>> told = {"answer": "I do not agree at all", "note": "The soup was cold again", "title": "Cold soup"}
        >>> AskedRow("", "", inputs=told, text_columns=("note", "title")).whole_texts
        ('The soup was cold again',)
        """
        texts = (self.inputs.get(name) for name in self.text_columns)
        return tuple(
            text
            for text in texts
            if isinstance(text, str) and text.strip() and (self.is_text or len(text.split()) > MANY_WORDS)
        )


def find_asked(
    records: Records, targets: Sequence[str], texts: Sequence[str], known: ForgottenRows
) -> tuple[AskedRow, ...]:
    """Return the rows that are asked for, each content once.

    Parameters
    ----------
    records : Records
    targets : sequence of str
        ``reviews#ROW``, ``films.csv``, ``films.csv:17``, a request id, and whatever else of lineage is one row.
    texts : sequence of str
    known : ForgottenRows
        What was forgotten before: a row that is nowhere any more is known from there.

    Raises
    ------
    NodeNotFound, NodeAmbiguous
        When a target means nothing, or several things.
    NoRows
        When a file, or a line, became no row.
    SettingError
        When a text has no word, or a target is no row.
    """
    found = [row for target in targets for row in _find_target(records, target, known)]
    found += [_make_text_row(text) for text in texts]
    rows: dict[tuple[str, str], AskedRow] = {}
    for row in found:  # of the same content in several tables, the first names it
        rows.setdefault((row.row_id, row.table and row.own_id), row)
    # what an earlier call took out of all tables may still stand in the file that brought it
    gone = {row.row_id for row in rows.values() if not row.inputs}
    left = find_source_inputs(records, gone) if gone else {}
    return tuple(
        replace(row, inputs=line.inputs, text_columns=line.texts)
        if not row.inputs and (line := left.get(row.row_id))
        else row
        for row in rows.values()
    )


def _make_text_row(text: str) -> AskedRow:
    from dlpipe.tables import TEXT_FORM, to_row_id

    if not is_utf8(text):
        raise SettingError(
            "A text to forget is no UTF-8. Write it in UTF-8, as tables have it, or name its row: TABLE#ROW."
        )
    if not Needle.from_text(text).words:
        raise SettingError(
            "A text to forget must have a word: letters or digits. Name its row instead: TABLE#ROW."
        )
    row_id = to_row_id(TEXT_FORM.identify((text,)))
    return AskedRow(row_id, "a text that was given", inputs={"text": text}, text_columns=("text",))


def _find_target(records: Records, target: str, known: ForgottenRows) -> list[AskedRow]:
    try:
        nodes = records.find(target)
    except NodeNotFound:
        if row := _find_known(target, known):
            return [row]
        raise
    rows = [row for node in nodes for row in _find_rows(records, node, known)]
    if not rows and (row := _find_known(target, known)):
        return [row]
    if not rows:
        kind = nodes[0].kind
        if kind in ("file", "line") and (gone := records.describe(nodes[0]).gone):
            raise NodeNotFound(
                f"Which rows {target!r} became cannot be looked up: {gone} Or name its rows (TABLE#ROW), or "
                "pass the text with --text."
            )
        if kind in ("file", "line"):
            raise NoRows(f"{target!r} taught nothing: no table has a row of it, and no quarantine either.")
        if kind == "request":
            raise NoRows(
                f"The log has no text of {target!r}: it came a moment ago, or the server keeps no texts. Pass "
                "what was asked with --text."
            )
        raise SettingError(
            f"{target!r} is no row but a {kind}. Name rows (TABLE#ROW), a file that was ingested or a line of it "
            "(films.csv:17), a request id, or give the text with --text."
        )
    return rows


def _find_known(target: str, known: ForgottenRows) -> AskedRow | None:
    _, _, row_id = target.partition("#")
    base = row_id.partition("-")[0]
    return AskedRow(base, target) if base and known.find(base) else None


def _find_rows(records: Records, node: Node, known: ForgottenRows) -> Iterator[AskedRow]:
    if node.kind == "row":
        yield from _read_row(records, node, known)
    elif node.kind in OF_ANSWERS:
        origins = [edge.origin for edge in records.find_origins(node) if edge.origin.kind == "row"]
        for origin in origins:
            yield from _read_row(records, origin, known)
    elif node.kind == "quarantined":
        yield from _read_quarantined(records, node)
    elif node.kind == "request":
        yield from _read_request(node)
    elif node.kind == "line":
        for edge in records.find_results(node):
            yield from _find_rows(records, edge.result, known)
    elif node.kind == "file":
        yield from _read_file(records, node, known)


def _read_row(records: Records, node: Node, known: ForgottenRows) -> Iterator[AskedRow]:
    from dlpipe.tables import find_rows, table_at

    if (record := records.catalog.find(node.name)) is None:
        return
    for version in dict.fromkeys([node.number or 0, record.latest.version]):
        try:
            there = table_at(node.name, version=version)
            columns = list_inputs(record)
            found = next(find_rows(there, "row_id", node.key, columns=columns), None)
        except DlpipeError:  # its files were deleted, by a killed forgetting or another program
            continue
        if found is not None:
            yield replace(_make_row(record, node.key, found.values), version=node.number)
            return
    if known.find(node.key):  # nothing of it is left
        yield AskedRow(node.key.partition("-")[0], f"{record.name}#{node.key}")


def list_inputs(record: TableRecord) -> list[str]:
    """Return the columns of a table that say what a row is."""
    from dlpipe.tables import read_form

    try:
        return [column.name for column in read_form(record.latest).inputs]
    except SchemaMismatch:  # of another program
        kinds = ("string", *NUMBERS)
        return [name for name, kind in record.latest.columns if kind in kinds and name not in NO_INPUTS]


def _make_row(record: TableRecord, key: str, values: Mapping[str, Any]) -> AskedRow:
    from dlpipe.tables import read_form, to_row_id

    base = key.partition("-")[0]
    name = f"{record.name}#{key}"
    try:
        form = read_form(record.latest)
        row_id = to_row_id(form.identify(tuple(values[column.name] for column in form.inputs)))
        texts = form.text_names
    except SchemaMismatch:
        strings = [name for name, kind in record.latest.columns if kind == "string" and name in values]
        texts = tuple(strings) if len(strings) == 1 else ()  # of several, any may be a category
        row_id = _identify_strange(values, texts)
    own_id = "" if row_id == base else key
    return AskedRow(row_id, name, record.location, own_id, inputs=dict(values), text_columns=texts)


def _identify_strange(values: Mapping[str, Any], texts: tuple[str, ...]) -> str:
    """Return the row id of a row of another program: that of its text, where it has one, or of all its values."""
    from dlpipe.tables import TEXT_FORM, Column, Label, RowForm, to_row_id

    if whole := AskedRow("", "", inputs=values, text_columns=texts).whole_texts:
        return to_row_id(TEXT_FORM.identify((whole[0],)))
    columns = [
        Column(name, name, "category" if isinstance(value, str) else "number") for name, value in values.items()
    ]
    given = [float(value) if isinstance(value, int) else value for value in values.values()]
    return to_row_id(RowForm(tuple(columns), Label(("label",), "class")).identify(tuple(given)))


def _read_quarantined(records: Records, node: Node) -> Iterator[AskedRow]:
    from dlpipe.tables import find_rows, table_at

    if (record := records.catalog.find(node.name)) is None:
        return
    path, _, line = node.key.rpartition(":")
    there = table_at(record.location, version=node.number)
    for found in find_rows(there, "source", path, columns=["line", *_list_bad_inputs(record)]):
        if str(found.values["line"]) == line:
            yield _make_bad_row(record, found.values, node.key)


def _list_bad_inputs(record: TableRecord) -> list[str]:
    return [name for name, _ in record.latest.columns if name not in NO_INPUTS]


def _make_bad_row(record: TableRecord, values: Mapping[str, Any], key: str) -> AskedRow:
    from dlpipe.tables import TEXT_FORM, name_bad_inputs, read_form, read_record, table_at, to_row_id

    inputs = {name: value for name, value in values.items() if name != "line" and value is not None}
    form = TEXT_FORM  # where there is no data set
    with suppress(DlpipeError):
        form = read_form(table_at(record.location.removesuffix("_quarantine")))
    row = AskedRow("", f"{record.name}#{key}", record.location, inputs=inputs, text_columns=form.text_names)
    try:  # as the data set has it, so that it cannot come back with a label
        own = dict(zip(name_bad_inputs(form), (column.name for column in form.inputs), strict=True))
        named = {own.get(name, name): value for name, value in values.items()}
        row_id = to_row_id(form.identify(read_record(named, form, where=key)))
    except DlpipeError:  # bad in its values
        row_id = to_row_id(TEXT_FORM.identify((next(iter(row.whole_texts), key),)))
    return replace(row, row_id=row_id)


def _read_request(node: Node) -> Iterator[AskedRow]:
    from dlpipe.tables import find_rows, table_at

    there = table_at(node.name)
    for found in find_rows(there, "request_id", node.key, columns=["row", "text"]):
        # the others may be of other people
        is_meant = node.number is None or found.values["row"] == node.number
        if is_meant and (text := found.values["text"]):
            yield replace(_make_text_row(str(text)), name=f"{node.key}:{found.values['row']}")


def _read_file(records: Records, node: Node, known: ForgottenRows) -> Iterator[AskedRow]:
    """Yield the rows that came of a file, and the bad ones."""
    from dlpipe.tables import read_source_lines, read_table, table_at

    for record in records.catalog.list_records("data", "quarantine"):
        for version, commit in record.commits.items():
            for source in record.list_sources(version):
                if records.tables.make_source_node(source) != node:
                    continue
                if record.kind == "quarantine":
                    yield from _read_all_bad(record, version, node.name)
                    continue
                ids = {line.row_id for line in read_source_lines(source, commit)} - {""}
                try:
                    rows = read_table(
                        table_at(record.location, version=version), columns=["row_id", *list_inputs(record)]
                    )
                except DlpipeError:  # its files were deleted: what is left of it are the rows that stay
                    yield from (
                        AskedRow(row_id, f"{record.name}#{row_id}") for row_id in ids if known.find(row_id)
                    )
                    rows = _read_left(record, version)
                for values in [] if rows is None else rows.to_pylist():
                    if values["row_id"].partition("-")[0] in ids:
                        key = values.pop("row_id")
                        yield _make_row(record, key, values)


def _read_left(record: TableRecord, version: int) -> pa.Table | None:
    from dlpipe.tables import read_remaining, table_at

    there = table_at(record.location, version=version)
    return read_remaining(there, columns=["row_id", *list_inputs(record)])


def _read_all_bad(record: TableRecord, version: int, path: str) -> Iterator[AskedRow]:
    from dlpipe.tables import find_rows, table_at

    there = table_at(record.location, version=version)
    for found in find_rows(there, "source", path, columns=["line", *_list_bad_inputs(record)]):
        yield _make_bad_row(record, found.values, f"{path}:{found.values['line']}")
