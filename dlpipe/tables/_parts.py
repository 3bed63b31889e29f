"""Parts of a table version: bounded pieces of work that any process can read on its own, in any order.

A part is a run of row groups, since Parquet is read by these: cutting inside them would read them several times.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from dlpipe.delta import TableFiles
from dlpipe.errors import SettingError, TableVersionNotFound
from dlpipe.tables._read import explain_missing_files, open_columns, open_files, to_filter
from dlpipe.tables._versions import TableVersion

if TYPE_CHECKING:
    import pyarrow as pa

PART_ROWS = 16_384
"""Sorted by length, 2,048 rows had 4 % of padding and 7,800 had 1 %: more gain nothing, a kill costs a part."""
PART_BYTES = 32 * 2**20  # long texts: a part is held in memory


@dataclass(frozen=True)
class RowGroups:
    """A run of row groups of one data file."""

    file: str
    first: int
    stop: int


@dataclass(frozen=True)
class TablePart:
    """A run of rows of a table version, in the order of ``read_table``."""

    version: TableVersion
    number: int
    rows: int
    """Of all splits."""
    groups: tuple[RowGroups, ...]
    cut: str
    """The same for all parts that were cut together, and for no others."""

    def __str__(self) -> str:
        return f"{self.version} part {self.number}"


@dataclass(frozen=True)
class _Group:
    file: str
    number: int
    rows: int
    bytes: int


def list_parts(version: TableVersion, *, rows: int = PART_ROWS) -> tuple[TablePart, ...]:
    """Return the parts of a table version: always the same ones for the same ``rows``, and at least one.

    Parameters
    ----------
    version : TableVersion
    rows : int
        The most rows of a part. Row groups are not cut: those of tables that dlpipe wrote have 8,192 rows, and a
        larger one of another program is a part of its own. Long texts make smaller parts.

    Raises
    ------
    TableVersionNotFound
        When another program has removed its data files.

    Examples
    --------
    >>> import pyarrow as pa, tempfile
    >>> from dlpipe.tables import write_table
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     version = write_table(f"{folder}/numbers", pa.table({"n": list(range(20_000))}))
    ...     parts = list_parts(version, rows=10_000)
    ...     [part.rows for part in parts], read_part(parts[2], columns=["n"])["n"].to_pylist()[:3]
    ([8192, 8192, 3616], [16384, 16385, 16386])
    """
    if rows < 1:
        raise SettingError(f"A part of {rows} rows was asked for. Pass 1 or more.")
    with explain_missing_files(version):
        runs = list(_cut_runs(_list_groups(open_files(version)), rows))
    counts = [sum(group.rows for group in run) for run in runs]
    # what is staged for other parts must not be taken for these, so names of staged files have the cut
    cut = hashlib.sha256(f"{version.digest} {counts}".encode()).hexdigest()[:8]
    return tuple(
        TablePart(version, number, count, tuple(_join_groups(run)), cut)
        for number, (run, count) in enumerate(zip(runs, counts, strict=True))
    )


def read_part(part: TablePart, *, columns: Sequence[str] | None = None, split: str | None = None) -> pa.Table:
    """Return the rows of ``part``, or those of one split, in the order of ``read_table``.

    Parameters
    ----------
    part : TablePart
    columns, split
        As for ``read_table``.

    Raises
    ------
    TableVersionNotFound
        When another program has removed its data files, or made the table anew.
    """
    import pyarrow as pa

    files, names = open_columns(part.version, columns=columns, split=split)
    schema = pa.schema([files.schema.field(name) for name in names])
    fragments = {fragment.path: fragment for fragment in files.fragments}
    batches: list[pa.RecordBatch] = []
    with explain_missing_files(part.version):
        for groups in part.groups:
            if groups.file not in fragments:
                raise TableVersionNotFound(
                    f"{str(part.version)!r} was made anew by another program after it had been cut into parts. "
                    "Begin again with the version that is there now."
                )
            piece = fragments[groups.file].subset(row_group_ids=list(range(groups.first, groups.stop)))
            batches.extend(files.scan(piece, columns=names, rows=part.rows, where=to_filter(split)))
    return pa.Table.from_batches(batches, schema=schema)


def _list_groups(files: TableFiles) -> Iterator[_Group]:
    for fragment in files.fragments:
        for group in files.row_groups(fragment):
            yield _Group(fragment.path, group.id, group.num_rows, group.total_byte_size)


def _cut_runs(groups: Iterator[_Group], rows: int) -> Iterator[list[_Group]]:
    """Yield runs of row groups within the bounds, where one alone is not over them already."""
    run: list[_Group] = []
    for group in groups:
        held = [*run, group]
        if run and (sum(group.rows for group in held) > rows or sum(group.bytes for group in held) > PART_BYTES):
            yield run
            held = [group]
        run = held
    yield run


def _join_groups(run: list[_Group]) -> Iterator[RowGroups]:
    for file, groups in groupby(run, key=lambda group: group.file):
        numbers = [group.number for group in groups]
        yield RowGroups(file, numbers[0], numbers[-1] + 1)
