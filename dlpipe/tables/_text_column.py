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
    """Return ``rows`` of the table version ``of`` with the column ``text``, and ``row_id``, as strings.

    Bytes are read as UTF-8; those that are none stand as U+FFFD.

    Raises
    ------
    SchemaMismatch
        When the column holds numbers or something else that is no text.

    Examples
    --------
    >>> import pyarrow as pa
    >>> rows = pa.table({"row_id": ["a", "b"], "text": [b"caf\\xc3\\xa9", b"caf\\xe9"]})
    >>> decode_texts(rows, of=TableVersion("/t", 0, 2, "", 0))["text"].to_pylist()
    ['café', 'caf\\ufffd']
    """
    import pyarrow as pa

    kind = rows.schema.field(TEXT).type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        values = rows.column(TEXT).to_pylist()
        texts = [None if value is None else value.decode("utf-8", "replace") for value in values]
        rows = rows.set_column(rows.schema.get_field_index(TEXT), TEXT, pa.array(texts, pa.string()))
    elif not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise _no_text(str(of), str(kind))
    for place, field in enumerate(rows.schema):
        if field.name in (TEXT, "row_id") and not pa.types.is_string(field.type):
            rows = rows.set_column(place, field.name, rows.column(place).cast(pa.string()))
    return rows


def _no_text(version: str, kind: str) -> SchemaMismatch:
    return SchemaMismatch(
        f"The column {TEXT!r} of {version!r} holds values of type {kind}, not text. Name another table, or ingest "
        "the column that has the texts (--text-column)."
    )
