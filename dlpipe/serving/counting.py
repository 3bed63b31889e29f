"""Which label of a row counts: the last that came; and for which row one is that does not say."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlpipe.serving.log_rows import REQUESTS, name_table, to_day
from dlpipe.serving.logged import stream_logged

if TYPE_CHECKING:
    import pyarrow as pa

LATEST = 253_402_300_799_000
ID, ROW, ROWS, LABEL = "request_id", "row", "rows", "label"
Place = tuple[str, int | None]
"""The id of a request, and the number of a row in it; ``None`` where a label does not say which."""


@dataclass(frozen=True)
class Counting:
    """The label of a row that counts, and how many different ones it has had."""

    label: str
    received: Any
    source: str
    different: int


def find_counting(model: str, feedback: pa.Table, *, root: Path | None = None) -> dict[Place, Counting]:
    """Return the label that counts of each row that has one: the last that came.

    A label that names no row is for the only row of its request; where the log has no such request, or several
    rows of it, it stays without a row.

    Parameters
    ----------
    model : str
    feedback : pyarrow.Table
        Labels for what was asked of it.
    root : Path, optional
        The folder of journals.
    """
    import pyarrow.compute as pc

    nameless = feedback.filter(pc.is_null(feedback[ROW]))[ID].unique().to_pylist()
    counts = count_rows(model, nameless, root=root)
    found: dict[Place, Counting] = {}
    different: dict[Place, set[str]] = {}
    for row in sorted(feedback.to_pylist(), key=lambda row: (row["received"], row["number"])):
        place = find_place(row[ID], row[ROW], counts.get(row[ID]))
        different.setdefault(place, set()).add(row[LABEL])
        found[place] = Counting(row[LABEL], row["received"], row["source"], len(different[place]))
    return found


def find_place(request_id: str, row: int | None, rows: int | None) -> Place:
    """Return the row that a label is for, of a request that had so many rows.

    Examples
    --------
    >>> [find_place("id", row, rows) for row, rows in ((2, 3), (None, 1), (None, 3), (None, None))]
    [('id', 2), ('id', 0), ('id', None), ('id', None)]
    """
    return request_id, 0 if row is None and rows == 1 else row


def count_rows(model: str, requests: Collection[str], *, root: Path | None = None) -> dict[str, int]:
    """Return how many rows those of some requests had that are in the log of a model."""
    import pyarrow as pa
    import pyarrow.compute as pc

    counts: dict[str, int] = {}
    if not requests:
        return counts
    wanted = pa.array(sorted(requests))
    table, since = name_table(model, REQUESTS), find_first_day(requests)
    for rows in stream_logged(table, columns=[ID, ROWS], since=since, root=root):
        found = rows.filter(pc.is_in(rows[ID], wanted))
        counts.update(zip(found[ID].to_pylist(), found[ROWS].to_pylist(), strict=True))
    return counts


def find_first_day(requests: Iterable[str]) -> str:
    """Return the day of the earliest of some requests; empty where one does not say."""
    return min(map(find_day, requests))


def find_day(request_id: str) -> str:
    """Return the day of a request by its id, which begins with its time; empty for an id of another kind."""
    made = uuid.UUID(request_id)
    return to_day((made.int >> 80) / 1000) if made.version == 7 and made.int >> 80 < LATEST else ""
