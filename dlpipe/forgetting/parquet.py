"""Take texts out of Parquet files, whose columns are packed: their strings are read, and written anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from dlpipe.forgetting.reading import NotSearched
from dlpipe.forgetting.words import Needles

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

PARQUET = b"PAR1\x15"
"""How each begins: its sign, and the first byte of a header."""
BATCH_ROWS = 16_384
TEXTUAL = ("string", "binary", "extension")
"""In the name of a type that may have texts."""
HIDDEN = ("dictionary", "binary", "extension")
"""In that of one whose texts may not stand in its buffers as they are."""

Blank = Callable[[bytes], bytes]


def blank_parquet(content: bytes, needles: Needles, blank: Blank) -> bytes:
    """Return the content of a Parquet file without what is looked for; the same object where it has nothing of it.

    Parameters
    ----------
    content : bytes
    needles : Needles
    blank : callable
        Does so for a value that is bytes.

    Raises
    ------
    NotSearched
        When it cannot be read, or has a text in a column that cannot be written anew.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        names = {
            name
            for batch in file.iter_batches(BATCH_ROWS, columns=_list_textual(file.schema_arrow))
            for name in find_columns(batch, needles, blank)
        }
        notes = file.schema_arrow.metadata or {}
        blanked = {name: blank(note) for name, note in notes.items()}
        schema = file.schema_arrow.with_metadata(blanked or None)
        return _write(file, schema, names, needles, blank) if names or blanked != notes else content
    except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError):
        raise NotSearched("a Parquet file that is damaged, or written in a way that cannot be read") from None


def _list_textual(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if any(kind in str(field.type) for kind in TEXTUAL)]


def find_columns(batch: pa.RecordBatch, needles: Needles, blank: Blank) -> Iterator[str]:
    """Yield the columns that have something in a text, or in one inside a list, a record or bytes."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if _may_have(column, needles):
            values = column.to_pylist()
            if _blank_values(values, needles, blank) != values:
                yield name


def _may_have(column: pa.Array, needles: Needles) -> bool:
    """Return whether a column can have any of them: a quick look at its bytes."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary
    is_hidden = any(kind in str(column.type) for kind in HIDDEN)
    return is_hidden or needles.may_be_in(b"\n".join(buffer.to_pybytes() for buffer in column.buffers() if buffer))


def _write(file: ParquetFile, schema: pa.Schema, names: set[str], needles: Needles, blank: Blank) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = pa.BufferOutputStream()
    groups = (file.metadata.row_group(at) for at in range(file.num_row_groups))
    columns = (group.column(at) for group in groups for at in range(group.num_columns))
    packed = {column.path_in_schema: column.compression.replace("UNCOMPRESSED", "NONE") for column in columns}
    with pq.ParquetWriter(out, schema, compression=packed or "snappy") as writer:
        for number in range(file.num_row_groups):
            group = file.read_row_group(number)
            for at, field in enumerate(group.schema):
                if field.name in names:
                    values = _blank_values(group.column(at).to_pylist(), needles, blank)
                    group = group.set_column(at, field, pa.array(values, field.type))
            group = group.replace_schema_metadata(schema.metadata)
            writer.write_table(group, row_group_size=max(1, len(group)))
    return out.getvalue().to_pybytes()


def _blank_values(values: Sequence[Any], needles: Needles, blank: Blank) -> list[Any]:
    return [_blank_value(value, needles, blank) for value in values]


def _blank_value(value: Any, needles: Needles, blank: Blank) -> Any:
    """Return a value without what is looked for: the words of a text may be strings of their own, in a list."""
    strings = list(_list_strings(value))
    joined = "\n".join(strings)
    if strings and needles.may_be_in(joined.encode("utf-8", "replace")):
        lines = iter(needles.blank(joined).split("\n"))
        strings = ["\n".join(islice(lines, string.count("\n") + 1)) for string in strings]
    return _put_strings(value, iter(strings), blank)


def _list_strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _list_strings(list(value.values()))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _list_strings(one)


def _put_strings(value: Any, strings: Iterator[str], blank: Blank) -> Any:
    """Return a value with other strings in its place, in their order."""
    if isinstance(value, str):
        return next(strings)
    if isinstance(value, bytes):
        return blank(value)
    if isinstance(value, dict):
        return {key: _put_strings(one, strings, blank) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_put_strings(one, strings, blank) for one in value)
    return value
