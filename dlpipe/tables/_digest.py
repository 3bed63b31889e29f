"""A digest of rows that depends on their values and order only, not on how they are cut into batches.

The digests of tables that exist are made so: any change here, also of the order in which parts are added, makes
every table look changed.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


class ContentDigest:
    """The running SHA-256 of rows that arrive batch by batch.

    Examples
    --------
    >>> import pyarrow as pa
    >>> whole, halves = ContentDigest(), ContentDigest()
    >>> rows = pa.record_batch({"text": ["good", None, "bad"], "scores": [[0.5], [], None]})
    >>> whole.add(rows)
    >>> halves.add(rows.slice(0, 1)), halves.add(rows.slice(1))
    (None, None)
    >>> whole.hexdigest() == halves.hexdigest()
    True
    """

    def __init__(self) -> None:
        # one hash a column and part (nulls, lengths, content): one for all would hash the batches one after the
        # other, and so where they are cut
        self._parts: dict[str, Any] = {}

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in the rows of ``batch``."""
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            self._add_array(f"{name}:{column.type}", column)

    def hexdigest(self) -> str:
        """Return 32 hex characters."""
        whole = hashlib.sha256()
        for name, part in self._parts.items():
            whole.update(f"{name} {part.hexdigest()}\n".encode())
        return whole.hexdigest()[:32]

    def _add_array(self, name: str, array: pa.Array) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        # a null and an empty or zero value have the same bytes
        self._update(f"{name}?", _to_bytes(array.is_valid()))
        kind = array.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
            # lengths, since "ab", "c" and "a", "bc" have the same characters
            self._update(f"{name}#", _to_bytes(pc.binary_length(array)))
            self._update(name, _view_characters(array))
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            self._update(f"{name}#", _to_bytes(pc.list_value_length(array)))
            self._add_array(f"{name}[]", array.flatten())
        elif pa.types.is_timestamp(kind):  # NumPy's times have no zone; the type in the name has it
            self._update(name, _to_bytes(array.cast(pa.int64())))
        elif pa.types.is_primitive(kind) and not pa.types.is_temporal(kind):
            self._update(name, _to_bytes(array))
        else:
            self._update(name, "".join(f"{value!r}\n" for value in array.to_pylist()).encode())

    def _update(self, name: str, data: Any) -> None:
        self._parts.setdefault(name, hashlib.sha256()).update(data)


def _to_bytes(array: pa.Array) -> bytes:
    import pyarrow as pa

    fill = False if pa.types.is_boolean(array.type) else 0
    return bytes(array.fill_null(fill).to_numpy(zero_copy_only=False).tobytes())


def _view_characters(array: pa.Array) -> Any:
    """Return the bytes of all strings, one after the other, without copying them."""
    import pyarrow as pa

    filled = array.fill_null(b"" if pa.types.is_binary(array.type) else "")
    _, offsets, data = filled.buffers()
    if data is None or len(filled) == 0:
        return b""
    # a slice has the buffers of the whole: what it covers stands between its first and its last offset
    width = 8 if pa.types.is_large_string(filled.type) else 4
    ends = memoryview(offsets).cast("B")
    start = int.from_bytes(ends[filled.offset * width :][:width], "little")
    stop = int.from_bytes(ends[(filled.offset + len(filled)) * width :][:width], "little")
    return memoryview(data)[start:stop]
