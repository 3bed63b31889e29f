"""Read the rows of a source as they stand there, with the line of each."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import islice
from typing import Any, NamedTuple

from dlpipe.errors import BadSource
from dlpipe.tables._cells import read_inputs, read_label
from dlpipe.tables._form import Label, RowForm, Values, suggest_column
from dlpipe.tables._parquet_folders import NO_VALUE
from dlpipe.tables._readers import READERS, SourceColumns, list_names
from dlpipe.tables._settings import FormSettings, TableSettings
from dlpipe.tables._sources import Source, check_unchanged, explain_unreadable
from dlpipe.tables._text_files import (
    describe_format,
    explain_undecodable,
    find_format,
    propose_encoding,
    to_readable,
)

LABEL = "label"
TEXT_KINDS = ("csv", "tsv", "jsonl")
FIRST_ROWS = 50
"""Rows of a source that are read before a run: what only all rows tell is left to the ingest."""
NUMBER = re.compile(r"\s*[-+]?(\d+([.,]\d*)*|\.\d+)([eE][-+]?\d+)?\s*|\s*(nan|inf)\s*", re.IGNORECASE)


class Row(NamedTuple):
    """A row as read. Bytes that are no UTF-8 stand in the strings as lone surrogates."""

    values: Values
    label: str | None
    """As ``Label`` writes it, or what stands there instead of one."""
    source: Source
    line: int

    @property
    def place(self) -> str:
        """Where a person finds the row."""
        return f"{self.source.path!r} {self.source.unit} {self.line}"


def read_rows(source: Source, settings: TableSettings, *, unlabelled: bool = False) -> Iterator[Row]:
    """Yield the rows of one source in their order.

    Parameters
    ----------
    source : Source
    settings : TableSettings
        Its form says what is read, and as what.
    unlabelled : bool
        Whether the source may lack the columns with the label.

    Raises
    ------
    BadSource
        When the source is not what it claims to be, lacks a column, or has numbers for text, which may be known
        at its end only, or when somebody writes to it meanwhile. The message names the file and, where there is
        one, the line.
    """
    form, rows = settings.form, 0
    wanted = SourceColumns.from_source(source, settings, unlabelled=unlabelled)
    columns, inputs, label = form.inputs, wanted.inputs, form.label
    # columns of texts that held nothing but numbers so far: likely the wrong column, which only the end can tell
    numbers: dict[int, Row | None] = dict.fromkeys(form.text_places)
    with explain_unreadable(source.path, form), explain_undecodable(source.path):
        for line, cells in READERS[source.kind](source, wanted):
            values = read_inputs(cells, columns, source, line)
            row = Row(values, read_label(cells[inputs:], label, source, line), source, line)
            if wanted.folders:
                _check_folder(row, wanted)
            rows += 1
            if numbers:
                _find_texts(row, numbers)
            yield row
    check_unchanged(source)
    if not rows:
        raise BadSource(f"{source.path!r} has no rows. Pass a file with rows.")
    for at, first in numbers.items():
        if first is not None:
            raise _make_numbers_error(first, at, form)


def read_record(record: Mapping[str, Any], form: RowForm, *, where: str) -> Values:
    """Return the inputs of a row from a mapping of the table's columns, as the same row of a file has them.

    Parameters
    ----------
    record : mapping
        A column that it lacks is missing.
    form : RowForm
    where : str
        What to call it in errors.

    Raises
    ------
    BadSource
        When a value is none that the column can have.

    Examples
    --------
    >>> from dlpipe.tables import Column, Label
    >>> columns = Column("age", "Age", "number"), Column("town", "Town", "category")
    >>> form = RowForm(columns, Label(("paid",), "class"))
    >>> read_record({"town": " Bern ", "age": "31"}, form, where="a request")
    (31.0, 'Bern')
    """
    source = Source(where, "jsonl", "data", 0, "")
    return read_inputs([record.get(column.name) for column in form.inputs], form.inputs, source, 1)


def parse_label(given: str, label: Label) -> Any:
    """Return what a table holds for a label that somebody gave; None where it is none of this kind.

    Examples
    --------
    >>> parse_label("war|drama", Label(("genres",), "labels")), parse_label("4", Label(("stars",), "number"))
    (['drama', 'war'], 4.0)
    >>> parse_label("good", Label(("stars",), "number"))
    """
    source = Source("the label", "jsonl", "data", 0, "")
    read = (read_label([given], replace(label, sources=label.sources[:1]), source, 1) or "").strip()
    return label.from_string(read) if read and label.is_valid(read) else None


def use_own_names(
    source: Source, settings: TableSettings, *, named: Collection[str]
) -> tuple[TableSettings, list[str]]:
    """Return settings that also read columns which a source calls as the table does, and a line for each of them.

    Parameters
    ----------
    source : Source
    settings : TableSettings
        A column that the source has under the name that they give is read from there.
    named : collection of str
        Columns of the table whose name somebody gave: no other one will do.
    """
    form = settings.form
    with explain_unreadable(source.path, form), explain_undecodable(source.path):
        there = list_names(source, settings)
    called = {column.name: column.source for column in form.inputs}
    if len(form.label.sources) == 1:
        called[LABEL] = form.label.sources[0]
    own = {
        column: name
        for column, name in called.items()
        if column not in named and name not in there and column in there and column not in form.sources
    }
    if not own:
        return settings, []
    kept = {field.name: getattr(settings, field.name) for field in fields(TableSettings)}
    renamed = FormSettings(
        **kept, rows=form.rename_sources({column: column for column in own}), task_name=settings.task
    )
    return renamed, [
        f"{source.path!r} has no column {to_readable(name)!r}: its {column!r} is read"
        for column, name in own.items()
    ]


def _find_texts(row: Row, numbers: dict[int, Row | None]) -> None:
    """Take out of ``numbers`` the columns that hold a text; of others, remember the first row with a number."""
    for at, first in list(numbers.items()):
        text = str(row.values[at] or "")
        if text.strip():
            if NUMBER.fullmatch(text) is None:
                del numbers[at]
            else:
                numbers[at] = first or row


def _check_folder(row: Row, wanted: SourceColumns) -> None:
    """Raise ``BadSource`` where a row and the name of its folder have different labels; either may be right."""
    name = wanted.labels[0]
    if len(wanted.labels) > 1 or name not in wanted.folders or not (row.label or "").strip():
        return
    folder = wanted.folders[name]
    written = read_label([folder], wanted.settings.form.label, row.source, row.line)
    if row.label != written and not _is_same(row.label or "", folder):
        raise BadSource(
            f"{row.place} has the label {to_readable(row.label or '')!r} in its column {name!r}, and the "
            f"file lies in a folder {name}={folder or NO_VALUE}. Rename the folder if the column is "
            "right; take the column out of the file if the folder is."
        )


def _is_same(label: str, folder: str | None) -> bool:
    """Return whether a label is that of a folder's name, where a number or a truth value may look different."""
    if folder is None or label.casefold().strip() == folder.casefold().strip():
        return folder is not None
    try:
        return float(label) == float(folder)
    except ValueError:
        return False


def check_first_rows(source: Source, settings: TableSettings) -> None:
    """Raise ``BadSource`` when the first rows of a source cannot be read, or it lacks a column.

    What only the whole source can tell, such as too many bad rows, is not looked for.
    """
    with explain_unreadable(source.path, settings.form), explain_undecodable(source.path):
        rows = READERS[source.kind](source, SourceColumns.from_source(source, settings))
        first = list(islice(rows, FIRST_ROWS))
        if not first:
            raise BadSource(f"{source.path!r} has no rows. Pass a file with rows.")
        if any(all(cell is None for cell in cells) for cells in zip(*(cells for _, cells in first), strict=True)):
            deque(rows, maxlen=0)  # JSON Lines lack a column when no line has it


def _make_numbers_error(first: Row, at: int, form: RowForm) -> BadSource:
    """Return the error for a source in which every text of a column is a number."""
    source, column = first.source, form.inputs[at]
    return BadSource(
        f"The {column.name} column {column.source!r} of {source.path!r} holds numbers, not text "
        f"({first.values[at]!r} on {source.unit} {first.line}).{suggest_column(column.name, column.setting)}"
    )


def describe_sources(sources: Sequence[Source], settings: TableSettings) -> list[str]:
    """Return a line for each text file whose separator or encoding is not what its ending stands for."""
    lines = []
    for source in sources:
        if source.kind in TEXT_KINDS:
            found = find_format(source.path, source.kind, settings)
            lines.append(describe_format(source.path, source.kind, found, settings))
    told = [line for line in lines if line]
    return [*told[:3], *([f"So are {len(told) - 3} more files."] if len(told) > 3 else [])]


def suggest_encoding(rows: Iterable[Row], settings: TableSettings) -> str:
    """Return what encoding the first text file of ``rows`` is likely in; nothing where there is none."""
    path = next((row.source.path for row in rows if row.source.kind in TEXT_KINDS), None)
    return "" if path is None else propose_encoding(path, settings)
