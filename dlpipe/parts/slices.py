"""Cut a table into slices of a few rows, for work that takes long for each row, such as explaining.

A part of 16,384 rows would be hours of such work to lose by a kill; a slice is minutes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from dlpipe.tables import TablePart, TableVersion, decode_texts, list_parts, read_part

if TYPE_CHECKING:
    import pyarrow as pa

MOST_SLICES = 50_000  # each is a staged file that one commit has to list


@dataclass(frozen=True)
class Slice:
    """The rows from ``start`` to ``stop`` of a split in a part of a table."""

    number: int
    part: TablePart
    split: str | None
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """How many rows these are."""
        return self.stop - self.start

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Return these columns of the rows, texts as strings."""
        return _read_part_rows(self.part, self.split, tuple(columns)).slice(self.start, self.rows)


# one part is read once for all of its slices; they come in order, so that a second part would only take memory
@functools.lru_cache(maxsize=1)
def _read_part_rows(part: TablePart, split: str | None, columns: tuple[str, ...]) -> pa.Table:
    return decode_texts(read_part(part, columns=list(columns), split=split), of=part.version)


def cut_slices(source: TableVersion, split: str | None, *, rows: int) -> tuple[list[Slice], str]:
    """Return the slices of a table version, one at least, and their cut: staged slices of another cut do not fit.

    Parameters
    ----------
    source : TableVersion
    split : str or None
        ``None`` means all of them.
    rows : int
        Of a slice at most; more where there would be more than ``MOST_SLICES``.
    """
    parts = list_parts(source)
    sizes = count_part_rows(parts, split)
    width = max(rows, -(-sum(sizes) // MOST_SLICES))
    number = count()
    slices = [
        Slice(next(number), part, split, start, min(start + width, size))
        for part, size in zip(parts, sizes, strict=True)
        for start in range(0, size, width)
    ]
    return slices or [Slice(0, parts[0], split, 0, 0)], f"{parts[0].cut}-{width}"


def count_part_rows(parts: Sequence[TablePart], split: str | None) -> list[int]:
    """Return the rows of each part that belong to ``split``; of all splits where that is ``None``."""
    if split is None:
        return [part.rows for part in parts]
    return [read_part(part, columns=["split"], split=split).num_rows for part in parts]
