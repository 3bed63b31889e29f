"""Builds Arrow's tables, arrays and schemas from their buffers; nothing is used before Arrow has checked it whole.

Arrow's own way back trusts lengths and offsets, and would read outside of its buffers.
"""

from __future__ import annotations

from typing import Any

from dlpipe.bridge.opening.build import Build, Builder
from dlpipe.bridge.opening.inert import Inert, find_name
from dlpipe.bridge.opening.results import make_refusal

TYPES = (
    *("type_for_alias", "list_", "large_list", "struct", "map_", "timestamp", "time32", "time64", "duration"),
    *("decimal32", "decimal64", "decimal128", "decimal256", "binary", "dictionary", "field", "schema", "scalar"),
    "chunked_array",
)
"""Functions of pyarrow that make types, and values of checked parts; each checks its arguments."""


FARTHEST = 2**40


def _validate(made: Any) -> Any:
    made.validate(full=True)
    return made


def _build_called(build: Build, tree: Inert) -> Any:
    import pyarrow as pa

    function = getattr(pa, find_name(tree).rpartition(".")[2])
    return function(*(build.part(arg) for arg in tree._args))


def _build_buffer(build: Build, tree: Inert) -> Any:
    import pyarrow as pa

    content = build.part(*tree._args)
    if not isinstance(content, bytes | bytearray):
        raise make_refusal(tree)
    return pa.py_buffer(bytes(content))


def _build_array(build: Build, tree: Inert) -> Any:
    return _restore_array(build.part(*tree._args))


def _restore_array(parts: Any) -> Any:
    """Return an array from type, length, nulls, offset, buffers, children and dictionary."""
    import pyarrow as pa

    kind, length, nulls, offset, buffers, children, dictionary = parts
    if not (0 <= length <= FARTHEST and 0 <= offset <= FARTHEST):  # Arrow's own check lets negative offsets pass
        raise ValueError("an array that begins or ends outside of its buffers")
    if pa.types.is_dictionary(kind):
        places = _validate(pa.Array.from_buffers(kind.index_type, length, buffers, offset=offset))
        return pa.DictionaryArray.from_arrays(places, _restore_array(dictionary), ordered=kind.ordered)
    inner = [_restore_array(child) for child in children] or None
    nulls = nulls if pa.types.is_null(kind) else -1
    return _validate(pa.Array.from_buffers(kind, length, buffers, nulls, offset, inner))


def _build_table(build: Build, tree: Inert) -> Any:
    import pyarrow as pa

    columns, schema = (build.part(arg) for arg in tree._args)
    kind = pa.RecordBatch if find_name(tree).endswith("_record_batch") else pa.Table
    return _validate(kind.from_arrays(list(columns), schema=schema))


BUILDERS: dict[str, Builder] = {
    **{f"pyarrow:{name}": _build_called for name in TYPES},
    "pyarrow:py_buffer": _build_buffer,
    "pyarrow:_restore_array": _build_array,
    "pyarrow:_reconstruct_table": _build_table,
    "pyarrow:_reconstruct_record_batch": _build_table,
}
