"""The texts of a table that another program may have written: as strings, as bytes, or as something else."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from dlpipe.errors import SchemaMismatch
from dlpipe.tables._versions import TableVersion

if TYPE_CHECKING:
    import pyarrow as pa

Rows = TypeVar("Rows", "pa.Table", "pa.RecordBatch")

TEXT = "text"
TYPES = ("string", "binary")
"""What Delta calls the types that texts come in; several programs write them as bytes."""


def check_text(version: TableVersion) -> None:
    """Raise ``SchemaMismatch`` unless the column ``text`` of a table version holds texts."""
    kind = dict(version.columns).get(TEXT, "string")
    if kind not in TYPES:
        raise _no_text(str(version), kind)


def decode_texts(rows: Rows, *, of: TableVersion) -> Rows:
    """Return ``rows`` of the table version ``of`` with its columns of texts, and ``row_id``, as strings.

    Bytes are read as UTF-8; those that are none stand as U+FFFD. Columns of other types stay as they are.

    Raises
    ------
    SchemaMismatch
        When the column ``text`` holds numbers or something else that is no text.

    Examples
    --------
    >>> import pyarrow as pa
    >>> rows = pa.table({"row_id": ["a", "b"], "text": [b"caf\\xc3\\xa9", b"caf\\xe9"]})
    >>> decode_texts(rows, of=TableVersion("/t", 0, 2, "", 0))["text"].to_pylist()
    ['café', 'caf\\ufffd']
    """
    import pyarrow as pa

    for place, field in enumerate(rows.schema):
        kind, column = field.type, rows.column(place)
        if field.name == "row_id" or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
            column = column if pa.types.is_string(kind) else column.cast(pa.string())
        elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
            texts = [None if value is None else value.decode("utf-8", "replace") for value in column.to_pylist()]
            column = pa.array(texts, pa.string())
        elif field.name == TEXT and not pa.types.is_string(kind):
            raise _no_text(str(of), str(kind))
        if column.type != kind:
            rows = rows.set_column(place, field.name, column)
    return rows


def _no_text(version: str, kind: str) -> SchemaMismatch:
    return SchemaMismatch(
        f"The column {TEXT!r} of {version!r} holds values of type {kind}, not text. Name another table, or ingest "
        "the column that has the texts (--text-column)."
    )
