"""Rows that are the same, found column by column."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


def number_rows(rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Return where each different row of a table stands first, and for each row the number of its own.

    Numbers follow the order of first places. Columns of lists or structures are compared by what they print.

    Examples
    --------
    >>> import pyarrow as pa
    >>> first, which = number_rows(pa.table({"a": [1, 2, 1, None], "b": ["x", "x", "x", None]}))
    >>> first.tolist(), which.tolist()
    ([0, 1, 3], [0, 1, 0, 2])
    """
    import numpy as np

    codes = np.zeros(len(rows), np.int64)
    for column in rows.columns:
        own = encode_column(column)
        # numbered anew after each column, so that the product of many columns stays small
        codes = np.unique(codes * (int(own.max(initial=0)) + 1) + own, return_inverse=True)[1].reshape(-1)
    _, first, which = np.unique(codes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty_like(order)
    number[order] = np.arange(len(order))
    return first[order], number[which.reshape(-1)]


def encode_column(column: pa.ChunkedArray) -> np.ndarray:
    """Return a number for each value of a column: the same for equal ones, and for those that are missing."""
    import numpy as np
    import pyarrow as pa

    if not len(column):
        return np.empty(0, np.int64)
    values = column.combine_chunks()
    if pa.types.is_nested(values.type):
        values = pa.array(map(repr, values.to_pylist()), pa.string())
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    codes: np.ndarray = values.dictionary_encode(null_encoding="encode").indices.to_numpy().astype(np.int64)
    return codes
