"""What a version of a table is: its rows by split and label, and what changed since the version before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dlpipe.delta import TableFiles
from dlpipe.errors import TableVersionNotFound
from dlpipe.tables._read import explain_missing_files, open_files, stream_table
from dlpipe.tables._versions import TableVersion, table_at

if TYPE_CHECKING:
    import pyarrow as pa

GROUPINGS = (("label", "split"), ("predicted", "model_version"), ("reason", "split"))
"""The columns that rows are counted by: of a data set, of predictions, of a quarantine."""
DRIFTED = "drifted"
"""A column of the looks of the monitor flow, whose ``predicted`` is a distance and no label."""
BATCH_ROWS = 65_536


@dataclass(frozen=True)
class RowCounts:
    """Rows by what two columns hold.

    Attributes
    ----------
    value, group : str
        The columns; ``group`` is empty where the table has the first alone.
    counts : mapping of group to mapping of value to int
        A list counts for each of its values; a number under no value. A missing value is ``None``.
    rows : mapping of group to int
        All rows.
    """

    value: str
    group: str
    counts: Mapping[str | None, Mapping[str | None, int]]
    rows: Mapping[str | None, int]


@dataclass(frozen=True)
class TableChange:
    """What a commit changed.

    Attributes
    ----------
    since : int
        The version before.
    added, gone : int
        Rows, by their ``row_id``, or by their number alone where the table has none.
    relabelled : int
        Rows that are in both with another label.
    moved : int
        Rows that are in both in another split.
    """

    since: int
    added: int
    gone: int
    relabelled: int = 0
    moved: int = 0


def count_rows(version: TableVersion) -> RowCounts | None:
    """Return the rows of a version by split and label, or what it has instead; ``None`` where it has neither."""
    there = [name for name, _ in version.columns]
    found = next((pair for pair in GROUPINGS if pair[0] in there), None) if DRIFTED not in there else None
    if found is None:
        return None
    value, group = found
    columns = [name for name in found if name in there]
    counts: dict[str | None, Counter[str | None]] = {}
    rows: Counter[str | None] = Counter()
    for batch in stream_table(version, columns=columns, batch_rows=BATCH_ROWS):
        for cells, count in _count_cells(batch):
            values, at = cells if len(columns) > 1 else (*cells, None)
            rows[at] += count
            counts.setdefault(at, Counter()).update(dict.fromkeys(_list_values(values), count))
    return RowCounts(value, group if len(columns) > 1 else "", counts, rows)


def _count_cells(batch: pa.RecordBatch) -> Iterator[tuple[tuple[Any, ...], int]]:
    """Yield each combination of cells of a batch with the number of its rows; with lists, row by row."""
    import pyarrow as pa

    if any(pa.types.is_nested(column.type) for column in batch.columns):
        yield from ((cells, 1) for cells in zip(*(column.to_pylist() for column in batch.columns), strict=True))
        return
    names = batch.schema.names
    found = pa.Table.from_batches([batch]).group_by(names).aggregate([([], "count_all")])
    cells = zip(*(found[name].to_pylist() for name in names), strict=True)
    yield from zip(cells, found["count_all"].to_pylist(), strict=True)


def _list_values(value: Any) -> Sequence[str | None]:
    if isinstance(value, float | int) and not isinstance(value, bool):
        return ()
    return value if isinstance(value, list) else (None if value is None else str(value),)


def find_change(version: TableVersion) -> TableChange | None:
    """Return what the commit of ``version`` changed; ``None`` of the first, or where the one before is gone.

    Files that both versions have are the same rows: only the others are read.
    """
    if version.version == 0:
        return None
    try:
        before = table_at(version.path, version=version.version - 1)
        return _compare(before, version)
    except TableVersionNotFound:
        return None


def _compare(before: TableVersion, after: TableVersion) -> TableChange:
    import pyarrow.compute as pc

    columns: list[str] = [
        name
        for name in ("row_id", "label", "split")
        if name in dict(before.columns) and name in dict(after.columns)
    ]
    if "row_id" not in columns:
        more = after.rows - before.rows
        return TableChange(before.version, max(more, 0), max(-more, 0))
    files = [open_files(version) for version in (before, after)]
    shared = set.intersection(*({fragment.path for fragment in found.fragments} for found in files))
    old, new = (
        _read_rest(version, found, shared, columns) for version, found in zip((before, after), files, strict=True)
    )
    added = new.num_rows - int(pc.sum(pc.is_in(new["row_id"], old["row_id"])).as_py() or 0)
    gone = old.num_rows - int(pc.sum(pc.is_in(old["row_id"], new["row_id"])).as_py() or 0)
    changed = _count_differences(old, new, columns[1:])
    return TableChange(before.version, added, gone, changed.get("label", 0), changed.get("split", 0))


def _read_rest(version: TableVersion, files: TableFiles, shared: set[str], columns: list[str]) -> pa.Table:
    """Return rows of the files that only one of two versions has, labels as texts that can be compared."""
    import pyarrow as pa

    own = replace(files, fragments=tuple(file for file in files.fragments if file.path not in shared))
    with explain_missing_files(version):
        read = own.read(columns)
    for place, field in enumerate(read.schema):
        if pa.types.is_nested(field.type):
            read = read.set_column(place, field.name, pa.array([repr(value) for value in read[place].to_pylist()]))
    return read


def _count_differences(old: pa.Table, new: pa.Table, columns: Sequence[str]) -> dict[str, int]:
    """Return how many rows of both have another value, by column."""
    import pyarrow.compute as pc

    both = old.join(new, keys="row_id", join_type="inner", right_suffix="_new")
    found = {}
    for name in columns:
        first, second = both[name], both[f"{name}_new"]
        one_missing = pc.xor(pc.is_null(first), pc.is_null(second))
        differs = pc.or_(one_missing, pc.fill_null(pc.not_equal(first, second), False))
        found[name] = len(both.filter(differs)["row_id"].unique())
    return found
