"""Tables of what happens: partitioned by day, appended to every few seconds, compacted, and old days go.

Their data files lie beside each other like those of other tables; the log says of which day each is.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from dlpipe.errors import DlpipeError, MarkMoved, TableVersionNotFound
from dlpipe.tables._attempt import DataFiles, LiveFile
from dlpipe.tables._commit import CommitTerms, Mark, list_live_files, write_and_commit
from dlpipe.tables._digest import ContentDigest
from dlpipe.tables._storage import DATA_FILE, filesystem, is_remote, locate, make_table_folder
from dlpipe.tables._targets import DAY, to_delta_schema
from dlpipe.tables._versions import TableVersion, open_table, read_mark, to_version, try_open
from dlpipe.tables._write import ROW_GROUP_ROWS

if TYPE_CHECKING:
    import pyarrow as pa

TIDY = "tidy"
"""The mark that a tidying moves to its time, in seconds: it says when files were last taken out."""
KEPT_FROM = "kept-from"
"""The mark that a tidying moves to the first day that it keeps, as an ordinal, when it takes out older ones."""
TIDY_SECONDS = 3600.0
"""Between two tidyings; who reads a version has so long before its files are deleted."""
MANY_FILES = 8
"""From so many on, the small files of a day are written anew as one."""
SMALL_BYTES, MERGED_BYTES = 64 * 2**20, 128 * 2**20
LOST_AFTER = 7 * 24 * 3600.0
"""Seconds after which a data file that no version names belongs to nobody."""


def prepare_appends() -> None:
    """Import what ``append_by_day`` needs: a quarter of a second, for which the first one need not wait."""
    import deltalake.transaction  # noqa: F401
    import pyarrow.compute
    import pyarrow.fs
    import pyarrow.parquet

    pyarrow.array([""])  # has pandas imported


def append_by_day(
    path: str | Path, rows: pa.Table, *, marks: Sequence[Mark] = (), at: int | None = None
) -> TableVersion:
    """Append ``rows`` to a table of days in one atomic commit, and return its version.

    Parameters
    ----------
    path : str or Path
        The table is made where there is none.
    rows : pyarrow.Table
        With a column ``day`` of strings such as ``2026-01-31``.
    marks : sequence of Mark
        The commit moves them.
    at : int, optional
        The version that the commit must make.

    Raises
    ------
    MarkMoved
        When a mark is no longer where it was, or another program made the version ``at``; nothing is committed.
    SchemaMismatch
        When the table has other columns, or is none of days.
    StorageFull, StorageUnavailable

    Examples
    --------
    >>> import pyarrow as pa, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rows = pa.table({"day": ["2026-01-31", "2026-02-01"], "asked": [3, 4]})
    ...     str(append_by_day(f"{folder}/requests", rows))
    'requests@v0'
    """
    location = locate(path)

    def write(prefix: str) -> DataFiles:
        return _write_days(location, prefix, _split_by_day(rows), rows.schema)

    return write_and_commit(location, rows.schema, write, CommitTerms(marks=marks, at=at, by_day=True))[0]


def list_days(version: TableVersion) -> list[str]:
    """Return the days of which a version of a table of days has rows, in their order."""
    return sorted({file.day for file in list_live_files(open_table(version.path, version=version.version))})


def tidy_days(path: str | Path, *, keep_days: int = 0, now: float | None = None) -> TableVersion | None:
    """Write the small files of each day anew as one, take out old days, and delete what no version needs.

    Once an hour, whoever asks; another process that does it at the same time does no harm.

    Parameters
    ----------
    path : str or Path
        A table of days.
    keep_days : int
        Days that are kept, today among them, in UTC; 0 for all.
    now : float, optional
        Seconds since the epoch.

    Returns
    -------
    TableVersion or None
        The new version; None where the table was tidied within the hour, is none of days, or there is none.
    """
    location, now = locate(path), time.time() if now is None else now
    table = try_open(location)
    last = None if table is None else read_mark(location, TIDY)
    if table is None or list(table.metadata().partition_columns) != [DAY]:
        return None
    if last is not None and now - last < TIDY_SECONDS:
        return None
    _delete_unneeded(location, now)
    today = datetime.fromtimestamp(now, UTC).date()
    day = today - timedelta(days=keep_days - 1)
    files = list_live_files(table)
    old = [file for file in files if keep_days and file.day < day.isoformat()]
    merged = _choose_merged([file for file in files if file not in old], today.isoformat())
    mark = Mark(TIDY, last, int(now))
    version: TableVersion | None = None
    plans: list[tuple[Sequence[LiveFile], Sequence[LiveFile]]] = [(few, few) for few in merged]
    kept = read_mark(location, KEPT_FROM)
    kept_from = Mark(KEPT_FROM, kept, max(kept or 0, day.toordinal()))
    for removed, rows in [(old, []), *plans] if old else plans:
        try:
            version = _replace_files(location, removed, rows, [mark] if rows else [mark, kept_from])
        except (MarkMoved, TableVersionNotFound):  # another process is doing it, or did
            return version
        mark = Mark(TIDY, mark.after, int(now))
    return version


def find_first_kept_day(path: str | Path) -> date | None:
    """Return the day before which tidying has taken out rows of a table of days; None where it has taken none."""
    first = read_mark(path, KEPT_FROM)
    return None if first is None else date.fromordinal(first)


def _choose_merged(files: Sequence[LiveFile], today: str) -> list[list[LiveFile]]:
    """Return the files to write as one, for each day that has many small ones."""
    days: dict[str, list[LiveFile]] = defaultdict(list)
    for file in files:
        if file.size < SMALL_BYTES:
            days[file.day].append(file)
    chosen = []
    for day, small in days.items():
        # a day that is over gets one file; one that still grows would be written anew each hour
        if len(small) >= (2 if day < today else MANY_FILES):
            taken: list[LiveFile] = []
            for file in small:
                if sum(one.size for one in taken) + file.size <= MERGED_BYTES:
                    taken.append(file)
            chosen.append(taken)
    return chosen


def _replace_files(
    location: str, removed: Sequence[LiveFile], kept: Sequence[LiveFile], marks: Sequence[Mark]
) -> TableVersion:
    """Take files out of the table, and put the rows of ``kept`` among them into a new one, in one commit."""
    import pyarrow as pa
    from deltalake import Schema

    table = open_table(location)
    schema = pa.schema(Schema.from_json(table.schema().to_json()).to_arrow())
    names = {file.name for file in kept}

    def write(prefix: str) -> DataFiles:
        batches = _read_files(to_version(table, location), names)
        return _write_days(location, prefix, [(kept[0].day, batches)] if kept else [], schema)

    terms = CommitTerms(marks=marks, by_day=True, removed=removed, metadata={"tidied": str(len(removed))})
    return write_and_commit(location, schema, write, terms)[0]


def _read_files(version: TableVersion, names: set[str]) -> Iterator[pa.RecordBatch]:
    from dlpipe.tables._read import explain_missing_files, open_files

    files = open_files(version)
    with explain_missing_files(version):
        for fragment in files.fragments:
            if fragment.path in names:
                yield from files.scan(fragment, columns=files.schema.names, rows=ROW_GROUP_ROWS)


def _split_by_day(rows: pa.Table) -> Iterator[tuple[str, list[pa.RecordBatch]]]:
    import pyarrow.compute as pc

    for day in sorted(rows[DAY].unique().to_pylist()):
        yield day, rows.filter(pc.equal(rows[DAY], day)).to_batches()


def _write_days(
    location: str, prefix: str, days: Iterable[tuple[str, Iterable[pa.RecordBatch]]], schema: pa.Schema
) -> DataFiles:
    """Write a file for each day, without the column that says which."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    storage, whole, digest = filesystem(location), to_delta_schema(schema), ContentDigest()
    make_table_folder(location)
    inside = pa.schema([field for field in whole if field.name != DAY])
    names: list[str] = []
    sizes: list[int] = []
    counts: list[int] = []
    of_days: list[str] = []
    for day, batches in days:
        names.append(f"{prefix}-{len(names):05}.parquet")
        of_days.append(day)
        counts.append(0)
        with storage.open_output_stream(names[-1]) as sink:
            with pq.ParquetWriter(sink, inside, store_schema=False, compression="zstd") as writer:
                for batch in batches:
                    digest.add(batch.cast(whole))
                    writer.write_batch(batch.select(inside.names).cast(inside), row_group_size=ROW_GROUP_ROWS)
                    counts[-1] += batch.num_rows
            sizes.append(sink.tell())
    return DataFiles(
        prefix, tuple(names), tuple(sizes), tuple(counts), whole, digest.hexdigest(), days=tuple(of_days)
    )


def _delete_unneeded(location: str, now: float) -> None:
    """Delete data files that were taken out before this hour, and those that killed writers left a week ago."""
    from deltalake.exceptions import DeltaError

    # what is not deleted now is deleted by a later tidying
    with contextlib.suppress(OSError, DlpipeError, DeltaError):
        table = open_table(location)
        there = {file.name for file in list_live_files(table)}
        taken_out = set(table.vacuum(retention_hours=0, dry_run=True, enforce_retention_duration=False)) - there
        storage = filesystem(location)
        for name in sorted(taken_out | set(_find_lost(location, there, now))):
            with contextlib.suppress(OSError):
                storage.delete_file(name)
        table.cleanup_metadata()


def _find_lost(location: str, there: set[str], now: float) -> Iterator[str]:
    if is_remote(location):  # an object store does not say through Arrow when a file was made
        return
    for entry in os.scandir(location):
        lost = DATA_FILE.fullmatch(entry.name) and entry.name not in there
        if lost and now - entry.stat().st_mtime > LOST_AFTER:
            yield entry.name
