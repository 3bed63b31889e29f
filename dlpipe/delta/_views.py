"""Arrow's views of texts and bytes, as delta-rs writes them: Arrow neither filters nor compares them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import pyarrow as pa

Rows = TypeVar("Rows", "pa.Table", "pa.RecordBatch")


def cast_views(rows: Rows) -> Rows:
    """Return rows with strings and bytes in place of views of such, those inside other columns too.

    Examples
    --------
    >>> import pyarrow as pa
    >>> cast_views(pa.table({"text": pa.array(["a"], pa.string_view())})).schema.field("text").type
    DataType(string)
    """
    import pyarrow as pa

    schema = pa.schema([field.with_type(to_plain_type(field.type)) for field in rows.schema])
    return rows if schema.equals(rows.schema) else rows.cast(schema)


def to_plain_type(kind: pa.DataType) -> pa.DataType:
    """Return a type without views.

    Examples
    --------
    >>> import pyarrow as pa
    >>> str(to_plain_type(pa.struct([("texts", pa.list_(pa.string_view()))])))
    'struct<texts: list<item: string>>'
    """
    import pyarrow as pa

    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        make = pa.list_ if pa.types.is_list(kind) else pa.large_list
        return make(kind.value_field.with_type(to_plain_type(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(to_plain_type(field.type)) for field in kind])
    if pa.types.is_map(kind):
        key, value = (field.with_type(to_plain_type(field.type)) for field in (kind.key_field, kind.item_field))
        return pa.map_(key, value, keys_sorted=kind.keys_sorted)
    return kind
