"""Read the cells of a source by its kind of file, in the order of a form's columns, with the line of each row."""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from dlpipe.errors import BadSource
from dlpipe.tables._read import stream_table
from dlpipe.tables._settings import TableSettings
from dlpipe.tables._sources import Source
from dlpipe.tables._storage import to_one_line
from dlpipe.tables._text_files import LONGEST_FIELD, TextFormat, find_format, open_text, to_readable

if TYPE_CHECKING:
    import pyarrow as pa

DECIMAL_COMMA = re.compile(r"\s*[-+]?[0-9]+,[0-9]+\s*")
NAMED_ROWS = 50
"""Rows of JSON Lines whose columns are looked at."""
Cells = Sequence[Any]
Pick = Callable[[Sequence[Any]], Cells]
NumberedCells = tuple[int, Cells]
"""The line of a row, and its cells: those of the inputs, then those of the label."""


class SourceColumns(NamedTuple):
    """Which columns are read, and how."""

    settings: TableSettings
    names: Sequence[str]
    """Of the inputs and of the label, as the source calls them."""
    inputs: int
    """How many of them are inputs."""
    unlabelled: bool
    """Whether the columns with the label may be missing."""
    folders: Mapping[str, str | None]
    """The columns that stand in the names of a file's folders, such as ``sentiment=good``."""

    @classmethod
    def from_source(cls, source: Source, settings: TableSettings, *, unlabelled: bool = False) -> SourceColumns:
        """Return what is read of a source.

        Parameters
        ----------
        source : Source
        settings : TableSettings
            Its form names the columns.
        unlabelled : bool
            Whether the source may lack the columns with the label.
        """
        form = settings.form
        return cls(settings, form.sources, len(form.inputs), unlabelled, dict(source.folders))

    @property
    def numbers(self) -> Sequence[int]:
        """Which of them hold numbers."""
        form = self.settings.form
        inputs = [at for at, column in enumerate(form.inputs) if column.kind == "number"]
        return [*inputs, self.inputs] if form.label.kind == "number" else inputs

    @property
    def labels(self) -> Sequence[str]:
        """The names of the columns with the label."""
        return self.names[self.inputs :]

    @property
    def label_optional(self) -> bool:
        """Whether the file may lack them: it has no labels, or its folder has."""
        return self.unlabelled or (len(self.labels) == 1 and self.labels[0] in self.folders)

    def list_needed(self, there: Collection[str]) -> list[str]:
        """Return the names of the columns that a file with the names ``there`` is to have."""
        unlabelled = self.label_optional and not any(name in there for name in self.labels)
        inputs = [name for name in self.names[: self.inputs] if name in there or name not in self.folders]
        return inputs if unlabelled else [*inputs, *self.labels]

    def make_completer(self, read: Sequence[str]) -> Pick | None:
        """Return what makes whole rows of cells of the columns ``read``; None where these are all.

        The others have one value in all rows: that of a folder, or none.
        """
        missing = [name for name in self.names if name not in read]
        constants = tuple(self.folders.get(name) for name in missing)
        pick = _make_picker([[*read, *missing].index(name) for name in self.names])
        return (lambda cells: pick((*cells, *constants))) if missing else None


def list_names(source: Source, settings: TableSettings) -> list[str]:
    """Return what a source calls its columns; of JSON Lines, those of its first rows."""
    folders = [name for name, _ in source.folders]
    if source.kind == "delta":
        assert source.table is not None
        return [name for name, _ in source.table.columns]
    if source.kind == "parquet":
        return [*_list_parquet_names(source.path), *folders]
    found = find_format(source.path, source.kind, settings)
    with open_text(source.path, found) as stream:
        if source.kind == "jsonl":
            lines = itertools.islice(filter(str.strip, stream), NAMED_ROWS)
            rows = (_parse_object(line, source, at) for at, line in enumerate(lines, start=1))
            return list(dict.fromkeys([*itertools.chain.from_iterable(rows), *folders]))
        csv.field_size_limit(LONGEST_FIELD)
        for _ in range(found.skipped):
            stream.readline()
        reader = csv.reader(stream, strict=True, delimiter=found.separator)
        _, header = next(read_records(reader, source.path, after=found.skipped), (1, []))
        return [*header, *folders]


def _list_parquet_names(path: str) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            return list(file.schema_arrow.names)
    except pa.ArrowException as error:
        raise _make_parquet_error(path, error) from None


def _read_csv(source: Source, wanted: SourceColumns) -> Iterator[NumberedCells]:
    # csv refuses fields over 128 kB by default; the limit is the module's, not the reader's
    csv.field_size_limit(LONGEST_FIELD)
    found = find_format(source.path, source.kind, wanted.settings)
    with open_text(source.path, found) as stream:
        for _ in range(found.skipped):
            stream.readline()
        # strict: a quote that is never closed would swallow the rest of the file as one field
        reader = csv.reader(stream, strict=True, delimiter=found.separator)
        records = read_records(reader, source.path, after=found.skipped)
        _, header = next(records, (1, []))
        if not header:
            raise BadSource(f"{source.path!r} is empty. Pass a file with a header and rows.")
        names = _find_names(header, source, wanted, found)
        pick, complete = _make_picker([header.index(name) for name in names]), wanted.make_completer(names)
        of_numbers = {wanted.names[at] for at in wanted.numbers}
        numbers = [at for at, name in enumerate(names) if name in of_numbers]
        if numbers and found.separator != ",":
            pick = _make_decimal_picker(pick, numbers)
        for line, record in records:
            if len(record) != len(header):
                raise make_width_error(record, header, source.path, line, found)
            yield line, complete(pick(record)) if complete else pick(record)


def read_records(reader: Any, path: str, *, after: int) -> Iterator[tuple[int, list[str]]]:
    """Yield each record of a CSV with the line on which it starts; blank lines are passed over.

    Parameters
    ----------
    reader : csv.reader
        A strict one: a quote that is never closed would swallow the rest of the file as one field.
    path : str
        For messages.
    after : int
        Lines that were read before.

    Raises
    ------
    BadSource
        When a quote or a row is broken.
    """
    while True:
        line = reader.line_num + 1 + after
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise BadSource(
                f"{path!r} has a broken quote or row that starts on line {line}: {to_one_line(error)} "
                f"(seen on line {max(line, reader.line_num + after)}). Close the quote, and double those inside a "
                "text."
            ) from None
        if record:
            yield line, record


def make_width_error(
    record: Sequence[str], header: Sequence[str], path: str, line: int, found: TextFormat
) -> BadSource:
    """Return the error for a row of a CSV that has more or fewer fields than the header."""
    return BadSource(
        f"{path!r} line {line} has {len(record)} fields, the header has {len(header)}. Put texts that hold the "
        f"separator, a quote or a line break in double quotes; the separator is {found.separator!r} (--separator)."
    )


def _find_names(
    header: Sequence[str], source: Source, wanted: SourceColumns, found: TextFormat | None = None
) -> Sequence[str]:
    """Return the names of the columns to read, each of which is there once."""
    names = list(header)
    read = wanted.list_needed(names)
    for name in read:
        if names.count(name) != 1:
            raise _make_column_error(name, header, source, wanted, found)
    return read


def _make_picker(places: Sequence[int]) -> Pick:
    """Return a function that takes the cells at these places from a record."""
    if len(places) > 1:
        return itemgetter(*places)
    if not places:
        return lambda record: ()
    (only,) = places
    return lambda record: (record[only],)


def _make_decimal_picker(
    pick: Callable[[Sequence[Any]], Cells], numbers: Sequence[int]
) -> Callable[[Sequence[Any]], Cells]:
    """Return ``pick`` with decimal commas of some cells as points: where commas separate nothing, they may be."""

    def pick_with_points(record: Sequence[Any]) -> Cells:
        cells = list(pick(record))
        for at in numbers:
            if DECIMAL_COMMA.fullmatch(cells[at]):
                cells[at] = cells[at].replace(",", ".")
        return cells

    return pick_with_points


def _make_column_error(
    name: str, header: Iterable[str], source: Source, wanted: SourceColumns, found: TextFormat | None = None
) -> BadSource:
    names = [to_readable(column) for column in header]
    has = "two columns" if names.count(name) > 1 else "no column"
    listed = ", ".join(repr(column) for column in names[:30])
    how = f" They are read with the separator {found.separator!r} (--separator)." if found else ""
    return BadSource(
        f"{source.path!r} has {has} {name!r}; its columns are: {listed}.{how} "
        f"{wanted.settings.form.suggest_settings()}, or rename the column."
    )


def _read_jsonl(source: Source, wanted: SourceColumns) -> Iterator[NumberedCells]:
    columns = [(name, wanted.folders.get(name)) for name in wanted.names]
    seen: dict[str, None] = {}
    record = None
    with open_text(source.path, find_format(source.path, source.kind, wanted.settings)) as stream:
        for line, written in enumerate(stream, start=1):
            if written.strip():
                record = _parse_object(written, source, line)
                seen.update(dict.fromkeys(record))
                yield line, [record.get(name, default) for name, default in columns]
    # one row may lack a key, which is then missing; all rows cannot
    for name in wanted.list_needed(seen):
        if record is not None and name not in seen:
            raise _make_column_error(name, seen, source, wanted)


def _parse_object(written: str, source: Source, line: int) -> dict[str, Any]:
    try:
        record = json.loads(written)
    except (ValueError, RecursionError) as error:
        raise BadSource(
            f"{source.path!r} line {line} is not JSON: {to_one_line(error)}. Write one object on each line."
        ) from None
    if not isinstance(record, dict):
        raise BadSource(
            f"{source.path!r} line {line} holds a JSON {type(record).__name__}, not an object. "
            "Write one object on each line (JSON Lines)."
        )
    return record


def _read_parquet(source: Source, wanted: SourceColumns) -> Iterator[NumberedCells]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(source.path) as file:
            names = _find_names(file.schema_arrow.names, source, wanted)
            yield from _read_batches(file.iter_batches(4096, columns=list(names)), names, wanted)
    except pa.ArrowException as error:
        raise _make_parquet_error(source.path, error) from None


def _make_parquet_error(path: str, error: Exception) -> BadSource:
    return BadSource(f"{path!r} is not a readable Parquet file: {to_one_line(error)}. Write it anew.")


def _read_delta(source: Source, wanted: SourceColumns) -> Iterator[NumberedCells]:
    from dlpipe.tables._versions import open_table

    assert source.table is not None
    schema = open_table(source.table.path, version=source.table.version).schema()
    names = _find_names([field.name for field in schema.fields], source, wanted)
    yield from _read_batches(stream_table(source.table, columns=names), names, wanted)


def _read_batches(
    batches: Iterable[pa.RecordBatch], names: Sequence[str], wanted: SourceColumns
) -> Iterator[NumberedCells]:
    line, complete = 0, wanted.make_completer(names)
    for batch in batches:
        columns = [_to_values(batch.column(name)) for name in names]
        rows: Iterable[Cells] = zip(*columns, strict=True) if columns else itertools.repeat((), batch.num_rows)
        for cells in rows:
            line += 1
            yield line, complete(cells) if complete else cells


def _to_values(column: pa.Array) -> list[Any]:
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
    if pa.types.is_list(column.type) and pa.types.is_string(column.type.value_type):
        column = column.cast(pa.list_(pa.binary()))
    return [_decode(value) for value in column.to_pylist()]


def _decode(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return [_decode(part) for part in value] if isinstance(value, list) else value


READERS: Mapping[str, Callable[[Source, SourceColumns], Iterator[NumberedCells]]] = {
    "csv": _read_csv,
    "tsv": _read_csv,
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
    "delta": _read_delta,
}
