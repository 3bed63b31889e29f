"""The rows of a source as they stand there, with the line of each."""

from __future__ import annotations

import csv
import json
import math
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from dlpipe.errors import BadSource
from dlpipe.tables._folders import NO_VALUE
from dlpipe.tables._read import stream_table
from dlpipe.tables._settings import TableSettings
from dlpipe.tables._sources import Source, reading
from dlpipe.tables._storage import one_line
from dlpipe.tables._texts import (
    LONGEST_FIELD,
    TextFormat,
    decoding,
    describe_format,
    find_format,
    open_text,
    propose_encoding,
)

if TYPE_CHECKING:
    import pyarrow as pa

TEXT_KINDS = ("csv", "tsv", "jsonl")
FIRST_ROWS = 50
NUMBER = re.compile(r"\s*[-+]?(\d+([.,]\d*)*|\.\d+)([eE][-+]?\d+)?\s*|\s*(nan|inf)\s*", re.IGNORECASE)


class Columns(NamedTuple):
    """Which columns are read."""

    settings: TableSettings
    unlabelled: bool
    """Whether the column with the label may be missing."""
    folders: Mapping[str, str | None] = {}
    """The columns that stand in the names of a file's folders, such as ``sentiment=good``."""

    @property
    def text(self) -> str:
        return self.settings.text_column

    @property
    def label(self) -> str:
        return self.settings.label_column

    @property
    def label_optional(self) -> bool:
        return self.unlabelled or self.label in self.folders

    @property
    def folder_label(self) -> str | None:
        """The label of all rows of a file without such a column."""
        return self.folders.get(self.label)


class Row(NamedTuple):
    """A row as read. Bytes that are no UTF-8 stand in the strings as lone surrogates."""

    text: str | None
    label: str | None
    source: Source
    line: int

    @property
    def place(self) -> str:
        """Where a person finds the row."""
        return f"{self.source.path!r} {_counted(self.source)} {self.line}"


def read_rows(source: Source, settings: TableSettings, *, unlabelled: bool = False) -> Iterator[Row]:
    """Yield the rows of one source in their order; with ``unlabelled``, it may lack the column with the label.

    Raises
    ------
    BadSource
        When the source is not what it claims to be, lacks a column, or has numbers for text, which may be known
        at its end only. The message names the file and, where there is one, the line.
    """
    columns = Columns(settings, unlabelled, dict(source.folders))
    number, texts, rows = None, False, 0
    with reading(source.path), decoding(source.path):
        for line, text, label in READERS[source.kind](source, columns):
            row = Row(
                _as_text(text, source, line, settings), _as_label(label, source, line, settings), source, line
            )
            _check_folder(row, columns)
            rows += 1
            if not texts and row.text and row.text.strip():
                texts = NUMBER.fullmatch(row.text) is None
                number = number or row
            yield row
    if not rows:
        raise BadSource(f"{source.path!r} has no rows. Pass a file with rows.")
    if number is not None and not texts:
        raise _only_numbers(number, settings)


def _check_folder(row: Row, columns: Columns) -> None:
    """Raise ``BadSource`` where a row and the name of its folder have different labels; either may be right."""
    if columns.label not in columns.folders or not (row.label or "").strip():
        return
    folder = columns.folder_label
    if not _is_same(row.label or "", folder):
        raise BadSource(
            f"{row.place} has the label {readable(row.label or '')!r} in its column {columns.label!r}, and the "
            f"file lies in a folder {columns.label}={folder or NO_VALUE}. Rename the folder if the column is "
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


def check_readable(source: Source, settings: TableSettings) -> None:
    """Raise ``BadSource`` when the first rows of a source cannot be read, or it lacks a column.

    What only the whole source can tell, such as too many bad rows, is not looked for.
    """
    with reading(source.path), decoding(source.path):
        rows = READERS[source.kind](source, Columns(settings, False, dict(source.folders)))
        first = list(islice(rows, FIRST_ROWS))
        if not first:
            raise BadSource(f"{source.path!r} has no rows. Pass a file with rows.")
        if any(all(row[column] is None for row in first) for column in (1, 2)):
            deque(rows, maxlen=0)  # JSON Lines lack a column when no line has it


def _csv_rows(source: Source, columns: Columns) -> Iterator[tuple[int, Any, Any]]:
    # csv refuses fields over 128 kB by default; the limit is the module's, not the reader's
    csv.field_size_limit(LONGEST_FIELD)
    found = find_format(source.path, source.kind, columns.settings)
    with open_text(source.path, found) as stream:
        for _ in range(found.skipped):
            stream.readline()
        reader = csv.reader(stream, strict=True, delimiter=found.separator)
        records = _csv_records(reader, source, after=found.skipped)
        _, header = next(records, (1, []))
        if not header:
            raise BadSource(f"{source.path!r} is empty. Pass a file with a header and rows.")
        text, label = _find_columns(header, source, columns, found)
        for line, record in records:
            if len(record) != len(header):
                raise BadSource(
                    f"{source.path!r} line {line} has {len(record)} fields, the header has {len(header)}. Put "
                    "texts that hold the separator, a quote or a line break in double quotes; the separator is "
                    f"{found.separator!r} (--separator)."
                )
            yield line, record[text], columns.folder_label if label is None else record[label]


def _csv_records(reader: Any, source: Source, *, after: int) -> Iterator[tuple[int, list[str]]]:
    """Return each record with the line on which it starts; blank lines are passed over."""
    while True:
        line = reader.line_num + 1 + after
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise BadSource(
                f"{source.path!r} has a broken quote or row that starts on line {line}: {one_line(error)} (seen "
                f"on line {max(line, reader.line_num + after)}). Close the quote, and double those inside a text."
            ) from None
        if record:
            yield line, record


def _find_columns(
    header: Sequence[str], source: Source, columns: Columns, found: TextFormat | None = None
) -> tuple[int, int | None]:
    """Return the positions of the text and the label column."""
    names = list(header)
    without = columns.label_optional and columns.label not in names
    for name in (columns.text, *(() if without else (columns.label,))):
        if names.count(name) != 1:
            raise _no_column(name, header, source, found)
    return names.index(columns.text), None if without else names.index(columns.label)


def _no_column(name: str, header: Iterable[str], source: Source, found: TextFormat | None = None) -> BadSource:
    names = [readable(column) for column in header]
    has = "two columns" if names.count(name) > 1 else "no column"
    listed = ", ".join(repr(column) for column in names[:30])
    how = f" They are read with the separator {found.separator!r} (--separator)." if found else ""
    return BadSource(
        f"{source.path!r} has {has} {name!r}; its columns are: {listed}.{how} "
        "Set text_column and label_column (--text-column, --label-column), or rename the column."
    )


def _jsonl_rows(source: Source, columns: Columns) -> Iterator[tuple[int, Any, Any]]:
    names = (columns.text, columns.label)
    seen: dict[str, None] = {}
    record = None
    with open_text(source.path, find_format(source.path, source.kind, columns.settings)) as stream:
        for line, written in enumerate(stream, start=1):
            if written.strip():
                record = _json_object(written, source, line)
                seen.update(dict.fromkeys(record))
                yield line, record.get(names[0]), record.get(names[1], columns.folder_label)
    # one row may lack a key, which is then missing; all rows cannot
    for name in names[:1] if columns.label_optional else names:
        if record is not None and name not in seen:
            raise _no_column(name, seen, source)


def _json_object(written: str, source: Source, line: int) -> dict[str, Any]:
    try:
        record = json.loads(written)
    except (ValueError, RecursionError) as error:
        raise BadSource(
            f"{source.path!r} line {line} is not JSON: {one_line(error)}. Write one object on each line."
        ) from None
    if not isinstance(record, dict):
        raise BadSource(
            f"{source.path!r} line {line} holds a JSON {type(record).__name__}, not an object. "
            "Write one object on each line (JSON Lines)."
        )
    return record


def _parquet_rows(source: Source, columns: Columns) -> Iterator[tuple[int, Any, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(source.path) as file:
            names = _found_names(file.schema_arrow.names, source, columns)
            yield from _arrow_rows(file.iter_batches(4096, columns=names), names, columns)
    except pa.ArrowException as error:
        raise BadSource(
            f"{source.path!r} is not a readable Parquet file: {one_line(error)}. Write it anew."
        ) from None


def _delta_rows(source: Source, columns: Columns) -> Iterator[tuple[int, Any, Any]]:
    from dlpipe.tables._versions import open_table

    assert source.table is not None
    schema = open_table(source.table.path, version=source.table.version).schema()
    names = _found_names([field.name for field in schema.fields], source, columns)
    yield from _arrow_rows(stream_table(source.table, columns=names), names, columns)


def _found_names(header: Sequence[str], source: Source, columns: Columns) -> list[str]:
    """Return the names of the columns to read: that of the text, and that of the label if it is there."""
    _, label = _find_columns(header, source, columns)
    return [columns.text] if label is None else [columns.text, columns.label]


def _arrow_rows(
    batches: Iterable[pa.RecordBatch], names: Sequence[str], columns: Columns
) -> Iterator[tuple[int, Any, Any]]:
    line = 0
    for batch in batches:
        texts = _values(batch.column(names[0]))
        labels = _values(batch.column(names[1])) if len(names) > 1 else [columns.folder_label] * len(texts)
        for text, label in zip(texts, labels, strict=True):
            line += 1
            yield line, text, label


def _values(column: pa.Array) -> list[Any]:
    """Return Python values; text from its bytes, since to_pylist would stop at the first that is no UTF-8."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type):
        column = column.cast(pa.binary())
    if pa.types.is_large_string(column.type):
        column = column.cast(pa.large_binary())
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.binary_view())
    values = column.to_pylist()
    return [value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value for value in values]


def _as_text(value: Any, source: Source, line: int, settings: TableSettings) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value != value:
        return None
    raise BadSource(
        f"The text column {settings.text_column!r} of {source.path!r} holds {_kind(value)}, not text "
        f"({value!r} on {_counted(source)} {line}). Name the text column with text_column (--text-column)."
    )


def _as_label(value: Any, source: Source, line: int, settings: TableSettings) -> str | None:
    """Return a label as a string; whole numbers and truth values are labels too."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, bool | int):
        return str(value)
    # whole numbers with nulls become floating point on their way through pandas, and databases have decimals
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        return str(int(value))
    raise BadSource(
        f"The label column {settings.label_column!r} of {source.path!r} holds {_kind(value)}, not classes "
        f"({value!r} on {_counted(source)} {line}). Name the label column with label_column (--label-column)."
    )


def _only_numbers(first: Row, settings: TableSettings) -> BadSource:
    """Return the error for a source in which every text is a number."""
    source = first.source
    return BadSource(
        f"The text column {settings.text_column!r} of {source.path!r} holds numbers, not text "
        f"({first.text!r} on {_counted(source)} {first.line}). "
        "Name the text column with text_column (--text-column)."
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


def encoding_hint(rows: Iterable[Row], settings: TableSettings) -> str:
    """Return what encoding the first text file of ``rows`` is likely in; nothing where there is none."""
    path = next((row.source.path for row in rows if row.source.kind in TEXT_KINDS), None)
    return "" if path is None else propose_encoding(path, settings)


def readable(text: str) -> str:
    r"""Return text that can be stored as UTF-8: what could not be decoded stands as ``\xff``.

    Examples
    --------
    >>> readable(b"caf\xe9".decode("utf-8", "surrogateescape"))
    'caf\\xe9'
    """
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()


def _counted(source: Source) -> str:
    return "row" if source.kind in ("parquet", "delta") else "line"


def _kind(value: Any) -> str:
    return (
        "numbers" if isinstance(value, bool | int | float | Decimal) else f"values of type {type(value).__name__}"
    )


READERS: Mapping[str, Any] = {
    "csv": _csv_rows,
    "tsv": _csv_rows,
    "jsonl": _jsonl_rows,
    "parquet": _parquet_rows,
    "delta": _delta_rows,
}
