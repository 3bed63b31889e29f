"""Read a file of rows with all its columns, as they stand there: CSV, JSON Lines or Parquet, batch by batch."""

from __future__ import annotations

import csv
import itertools
import json
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlpipe.errors import BadSource, SourceNotFound
from dlpipe.tables._row_writers import to_cell, to_records
from dlpipe.tables._settings import TableSettings
from dlpipe.tables._sources import expand_pattern, explain_unreadable, find_kind
from dlpipe.tables._storage import is_remote, to_one_line
from dlpipe.tables._text_files import (
    LONGEST_FIELD,
    TextFormat,
    check_text_settings,
    explain_undecodable,
    find_format,
    open_text,
    propose_encoding,
    to_readable,
)

if TYPE_CHECKING:
    import pyarrow as pa


CHARACTERS = 20_000_000
"""Of a batch, whichever comes first: texts may be books."""


@dataclass(frozen=True)
class FileRows:
    """Some rows of a file.

    Attributes
    ----------
    lines : sequence of int
        Where each begins: the line of a text file, the number of the row in Parquet, from 1.
    records : sequence of mapping
        Column -> value, in the order of the file.
    batch : pyarrow.RecordBatch or None
        The same rows with their types, of Parquet.
    """

    lines: Sequence[int]
    records: Sequence[dict[str, Any]]
    batch: pa.RecordBatch | None = None


@dataclass(frozen=True)
class RowFile:
    """A file of rows, and how it is read.

    Attributes
    ----------
    path : str
        As it was given.
    kind : str
        ``csv``, ``tsv``, ``jsonl`` or ``parquet``.
    format : TextFormat
        Of text files.
    settings : TableSettings
        Its separator and encoding.
    """

    path: str
    kind: str
    format: TextFormat
    settings: TableSettings

    @property
    def unit(self) -> str:
        """What ``FileRows.lines`` counts."""
        return "row" if self.kind == "parquet" else "line"

    def read(self, rows: int) -> Iterator[FileRows]:
        """Yield all rows, so many at a time.

        Raises
        ------
        BadSource
            When the file is not what it seems to be; the message names the line.
        """
        with explain_unreadable(self.path), explain_undecodable(self.path):
            if self.kind == "parquet":
                yield from self._read_parquet(rows)
                return
            numbered = self._read_json_lines() if self.kind == "jsonl" else self._read_csv()
            while some := _take(numbered, rows):
                yield FileRows([line for line, _ in some], [record for _, record in some])

    def _read_parquet(self, rows: int) -> Iterator[FileRows]:
        with _open_parquet(self.path) as file:
            _check_names(self.path, file.schema_arrow.names)
            first = 1
            for batch in file.iter_batches(rows):
                yield FileRows(range(first, first + batch.num_rows), to_records(batch), batch)
                first += batch.num_rows

    def _read_csv(self) -> Iterator[tuple[int, dict[str, Any]]]:
        csv.field_size_limit(LONGEST_FIELD)
        skipped = self.format.skipped
        with open_text(self.path, self.format) as stream:
            for _ in range(skipped):
                stream.readline()
            reader = csv.reader(stream, strict=True, delimiter=self.format.separator)
            header: list[str] = []
            line = 1
            try:
                for record in reader:
                    if record and not header:
                        header = record
                        self._check_decoded("".join(header), line + skipped)
                        _check_names(self.path, header)
                    elif record:
                        if len(record) != len(header):
                            raise BadSource(
                                f"{self.path!r} line {line + skipped} has {len(record)} fields, the header has "
                                f"{len(header)}; the separator is {self.format.separator!r} (--separator). Put "
                                "texts that hold it, a quote or a line break in double quotes."
                            )
                        self._check_decoded("".join(record), line + skipped)
                        yield line + skipped, dict(zip(header, record, strict=True))
                    line = reader.line_num + 1
            except csv.Error as error:
                raise BadSource(
                    f"{self.path!r} has a broken quote or row that starts on line {line + skipped}: "
                    f"{to_one_line(error)}. Close the quote, and double those inside a text."
                ) from None

    def _read_json_lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        with open_text(self.path, self.format) as stream:
            for line, written in enumerate(stream, start=1):
                if not written.strip():
                    continue
                self._check_decoded(written, line)
                try:
                    record = json.loads(written)
                except (ValueError, RecursionError) as error:
                    raise BadSource(
                        f"{self.path!r} line {line} is not JSON: {to_one_line(error)}. Write one object a line."
                    ) from None
                if not isinstance(record, dict):
                    raise BadSource(f"{self.path!r} line {line} holds no object. Write one object on each line.")
                yield line, record

    def _check_decoded(self, written: str, line: int) -> None:
        if written.isascii():
            return
        try:
            written.encode()
        except UnicodeEncodeError:
            raise BadSource(
                f"{self.path!r} line {line} has bytes that are no {self.format.encoding}. "
                f"{propose_encoding(self.path, self.settings)}"
            ) from None


def open_row_file(
    path: str | Path, *, settings: TableSettings | None = None, columns: Collection[str] = ()
) -> RowFile:
    """Return how the rows of a file are read; they are when its ``read`` is called.

    Parameters
    ----------
    path : str or Path
        Its ending says what it is; text files may be compressed.
    settings : TableSettings, optional
        Its separator and encoding.
    columns : collection of str
        Those that are known, by which a separator is found.

    Raises
    ------
    SourceNotFound, BadSource, SettingError
        When there is no such file, or it is another kind of file.
    """
    settings, path = settings or TableSettings(), str(path)
    check_text_settings(settings)
    if is_remote(path):
        raise BadSource(f"{path!r} is a remote file. Copy it here.")
    if not os.path.lexists(os.path.expanduser(path)):
        expand_pattern(path)  # says what there is
        raise SourceNotFound(f"{path!r} names several files. Pass one.")
    path = os.path.expanduser(path)
    if not os.path.isfile(path):
        raise BadSource(f"{path!r} is no file. Pass a CSV, JSON Lines or Parquet file.")
    kind = find_kind(path)
    with explain_unreadable(path), explain_undecodable(path):
        if not os.path.getsize(path):
            raise BadSource(f"{path!r} is empty. Pass a file with a header and rows.")
        found = TextFormat("") if kind == "parquet" else find_format(path, kind, settings, columns)
    return RowFile(path, kind, found, settings)


class SchemaFinder:
    """Finds the columns and types of rows as they go by, for a file that declares none.

    Text and numbers, or lists and objects, in one column are strings: as in a CSV.
    """

    def __init__(self) -> None:
        self.kinds: dict[str, set[type]] = {}
        self.declared: pa.Schema | None = None

    def add(self, rows: FileRows) -> None:
        """Look at some rows."""
        if rows.batch is not None:
            self.declared = rows.batch.schema
            return
        for record in rows.records:
            for name, value in record.items():
                huge = isinstance(value, int) and not -(2**63) <= value < 2**63
                self.kinds.setdefault(name, set()).add(str if huge else type(value))

    def make_schema(self) -> pa.Schema:
        """Return the columns of all rows that went by, in the order in which they came."""
        import pyarrow as pa

        if self.declared is not None:
            return self.declared.remove_metadata()
        return pa.schema([(to_readable(name), _choose_type(kinds)) for name, kinds in self.kinds.items()])


def make_batch(rows: FileRows, schema: pa.Schema) -> pa.RecordBatch:
    """Return rows of a file with the types of ``schema``, which a ``SchemaFinder`` made of all of them."""
    import pyarrow as pa

    if rows.batch is not None:
        return rows.batch.cast(schema)
    arrays = []
    for field in schema:
        values = [record.get(field.name) for record in rows.records]
        if pa.types.is_string(field.type):
            values = [None if value is None else to_cell(value) for value in values]
        arrays.append(pa.array(values, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _take(numbered: Iterator[tuple[int, dict[str, Any]]], rows: int) -> list[tuple[int, dict[str, Any]]]:
    """Return the next rows, fewer where they are long."""
    some: list[tuple[int, dict[str, Any]]] = []
    characters = 0
    for line, record in itertools.islice(numbered, rows):
        some.append((line, record))
        characters += sum(len(value) for value in record.values() if isinstance(value, str))
        if characters > CHARACTERS:
            break
    return some


def _choose_type(kinds: set[type]) -> pa.DataType:
    import pyarrow as pa

    there = kinds - {type(None)}
    if there == {bool}:
        return pa.bool_()
    if there == {int}:
        return pa.int64()
    return pa.float64() if there and there <= {int, float} else pa.string()


def _check_names(path: str, names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadSource(f"{path!r} has two columns {to_readable(twice)!r}. Give one of them another name.")


@contextmanager
def _open_parquet(path: str) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise BadSource(f"{path!r} is not a readable Parquet file: {to_one_line(error)}. Write it anew.") from None
