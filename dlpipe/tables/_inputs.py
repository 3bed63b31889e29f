"""Check and decode inputs that another program may have written: texts as bytes, numbers of any width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from dlpipe.errors import SchemaMismatch
from dlpipe.tables._form import OF_TABLE, Column, to_option
from dlpipe.tables._versions import TableVersion

if TYPE_CHECKING:
    import pyarrow as pa

Rows = TypeVar("Rows", "pa.Table", "pa.RecordBatch")

TEXT = Column("text", "text", "text", setting="text_column")
STRINGS = ("string", "binary")
"""What Delta calls the types that texts come in; several programs write them as bytes."""
TYPES: Mapping[str, Sequence[str]] = {
    "text": STRINGS,
    "category": STRINGS,
    "number": ("double", "float", "long", "integer", "short", "byte", "boolean"),
}
NOUNS = {"text": "text", "category": "categories", "number": "numbers"}


def check_text(version: TableVersion) -> None:
    """Raise ``SchemaMismatch`` unless the column ``text`` of a table version holds texts."""
    if TEXT.name in dict(version.columns):
        check_inputs(version, [TEXT])


def check_inputs(version: TableVersion, columns: Sequence[Column]) -> None:
    """Raise ``SchemaMismatch`` unless a table version has these columns, with values of their kinds.

    Examples
    --------
    >>> check_inputs(TableVersion("/t", 0, 2, "", 0, (("text", "binary"),)), [Column("text", "text", "text")])
    """
    there = dict(version.columns)
    for column in columns:
        if column.name not in there:
            raise SchemaMismatch(
                f"{str(version)!r} has no column {column.name!r}; its columns are: {', '.join(there)}."
            )
        if there[column.name] not in TYPES[column.kind]:
            raise _make_type_error(str(version), column, there[column.name])


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
        elif field.name == TEXT.name and not pa.types.is_string(kind):
            raise _make_type_error(str(of), TEXT, str(kind))
        if column.type != kind:
            rows = rows.set_column(place, field.name, column)
    return rows


def _make_type_error(version: str, column: Column, kind: str) -> SchemaMismatch:
    what = NOUNS[column.kind]
    option = f" ({to_option(column.setting)})" if column.setting not in ("", OF_TABLE) else ""
    has = "the texts" if column.kind == "text" else what
    return SchemaMismatch(
        f"The column {column.name!r} of {version!r} holds values of type {kind}, not {what}. Name another table, "
        f"or ingest the column that has {has}{option}."
    )
