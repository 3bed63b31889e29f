"""Cut record batches anew to an even size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def rebatch(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Return the same rows in batches of ``rows`` rows (the last one may have fewer).

    Examples
    --------
    >>> import pyarrow as pa
    >>> given = [pa.record_batch({"n": part}) for part in ([1], [], [2, 3, 4, 5])]
    >>> [batch["n"].to_pylist() for batch in rebatch(given, 2)]
    [[1, 2], [3, 4], [5]]
    """
    held: list[pa.RecordBatch] = []
    missing = rows
    for batch in batches:
        while batch.num_rows:
            held.append(batch.slice(0, missing))
            batch = batch.slice(missing)
            missing -= held[-1].num_rows
            if not missing:
                yield _concat(held)
                held, missing = [], rows
    if held:
        yield _concat(held)


def _concat(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    import pyarrow as pa

    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)
