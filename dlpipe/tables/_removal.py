"""Take rows out of a table by a new version, and delete the old data files that have them.

Files without such a row stay as they are. The others are written anew without it, under names that keep the
version of their first commit: so the order of the rows stays the same, and each row still says which commit
brought it.
Files of one commit are written anew together.

A table of another program has files that only delta-rs knows how to write: its own ``delete`` does it there.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dlpipe.delta import cast_views
from dlpipe.durable import write_beside
from dlpipe.errors import DlpipeError, MarkMoved, StorageUnavailable
from dlpipe.tables._appended import count_ingested_rows
from dlpipe.tables._attempt import DataFiles, LiveFile
from dlpipe.tables._commit import CommitTerms, list_live_files, retry_on_latest, write_and_commit
from dlpipe.tables._digest import ContentDigest
from dlpipe.tables._log import remove_left_copies
from dlpipe.tables._metadata import INGESTED, read_form
from dlpipe.tables._storage import (
    DATA_FILE,
    explain_storage_errors,
    filesystem,
    is_remote,
    show_path,
    storage_options,
    to_one_line,
)
from dlpipe.tables._targets import DAY, to_delta_schema
from dlpipe.tables._versions import (
    TableVersion,
    find_commit_time,
    open_table,
    read_commit_info,
    table_at,
)
from dlpipe.tables._write import ROW_GROUP_ROWS

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

FORGOTTEN_BY, FORGOTTEN_ROWS = "forgotten", "forgotten_rows"
"""What a commit calls the record of the forgetting that made it."""
ABANDONED_AFTER = 3600.0
"""Seconds after which a file that cannot be read, and that no version names, belongs to nobody."""
ATTEMPTS = 10
BLANK = "_"
QUOTING = ("dlpipe.key", "predicate")
"""What a commit says of itself that may name rows, or quote them."""


Pairs = tuple[tuple[str, Any], ...]
"""Columns, each with its value."""


class Chooser(Protocol):
    """Says which rows are to be taken out."""

    def choose(self, batch: pa.RecordBatch, location: str) -> pa.BooleanArray:
        """Return which rows of a batch these are; the batch has the columns of a file of the table there."""

    def list_conditions(self, batch: pa.RecordBatch, location: str) -> set[Pairs]:
        """Return by which values rows of a batch were chosen; each row with all values of one is to go."""

    def find_inside(self, batch: pa.RecordBatch) -> set[str]:
        """Return the columns that have what is looked for inside a list, a record or bytes."""

    def blank(self, value: str) -> str:
        """Return what a commit says of itself without the values and ids of the rows."""

    def is_secret(self, value: str) -> bool:
        """Return whether a string of a table's log tells what was in a row, whole or its beginning."""


@dataclass(frozen=True)
class FoundFile:
    """A data file with rows that are to be taken out.

    Attributes
    ----------
    name : str
    places : tuple of int
        Of these rows in the file.
    conditions : frozenset of Pairs
        By which they were chosen.
    """

    name: str
    places: tuple[int, ...]
    conditions: frozenset[Pairs]


class FileSearch:
    """Looks through the data files of a table, each once: a file never changes under its name.

    Parameters
    ----------
    location : str
        What ``locate`` returned.
    chooser : Chooser
    """

    def __init__(self, location: str, chooser: Chooser) -> None:
        self.location, self.chooser = location, chooser
        self._known: dict[str, FoundFile | None] = {}
        self.unreadable: dict[str, str] = {}
        self.inside: set[str] = set()

    def look(self, name: str) -> FoundFile | None:
        """Return what is found in a file; ``None`` where there is nothing, or the file is gone or unreadable."""
        if name not in self._known or name in self.unreadable:  # which may have been half of one then
            self.unreadable.pop(name, None)
            self._known[name] = self._look(name)
        return self._known[name]

    def list_files(self) -> list[str]:
        """Return all Parquet files in the folder of the table, but those of its log; a version may name them."""
        from pyarrow.fs import FileSelector, FileType

        with explain_storage_errors(self.location):
            there = filesystem(self.location).get_file_info(FileSelector("", recursive=True))
        names = [entry.path for entry in there if entry.type == FileType.File and entry.path.endswith(".parquet")]
        return sorted(name for name in names if not name.startswith("_delta_log/") and "/_delta_log/" not in name)

    def find_all(self) -> list[FoundFile]:
        """Return the files that have such rows, of any version or none."""
        return [found for name in self.list_files() if (found := self.look(name))]

    def _look(self, name: str) -> FoundFile | None:
        import pyarrow as pa
        import pyarrow.compute as pc

        places: list[int] = []
        conditions: set[Pairs] = set()
        start = 0
        for batch in self._read(name):
            chosen = self.chooser.choose(batch, self.location)
            self.inside |= self.chooser.find_inside(batch.filter(pc.invert(chosen)))
            mask = chosen.to_pylist()
            hits = [at for at, hit in enumerate(mask) if hit]
            if hits:
                conditions |= self.chooser.list_conditions(batch.take(pa.array(hits)), self.location)
            places += [start + at for at in hits]
            start += batch.num_rows
        is_whole = name not in self.unreadable
        return FoundFile(name, tuple(places), frozenset(conditions)) if places and is_whole else None

    def _read(self, name: str) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a file; of one that is damaged, or half of one, those before that."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with filesystem(self.location).open_input_file(name) as stream:
                yield from map(cast_views, pq.ParquetFile(stream).iter_batches(65536))
        except FileNotFoundError:
            return
        except (OSError, pa.ArrowException) as error:
            self.unreadable[name] = to_one_line(error)


@dataclass(frozen=True)
class RemovedRows:
    """What was taken out of a table.

    Attributes
    ----------
    version : TableVersion
        The first version without the rows.
    rows : int
    """

    version: TableVersion
    rows: int


def explain_left(search: FileSearch) -> list[str]:
    """Return what stays in a table all the same, once all its files were looked at.

    It is what data files have that some version names and that cannot be read, and what is inside other values.
    """
    named = _list_named(search.location) if search.unreadable else set()
    for name in named & search.unreadable.keys():  # whole by now, unless it is damaged
        search.look(name)
    columns = ", ".join(sorted(search.inside))
    inside = [
        f"{show_path(search.location)} has what is to be forgotten inside lists, records or bytes ({columns}), "
        "which are not changed. Take it out with the program that writes them, and have that delete its old files."
    ]
    return [*(inside if columns else ()), *_explain_damaged(search, named)]


def _explain_damaged(search: FileSearch, named: set[str]) -> list[str]:
    return [
        f"The data file {name!r} of {show_path(search.location)} cannot be read, and may have rows that are to be "
        f"forgotten: {why}. Bring it back from a copy, or delete the table."
        for name, why in search.unreadable.items()
        if name in named
    ]


def _list_named(location: str) -> set[str]:
    """Return the data files that any version names."""
    named: set[str] = set()
    for number in range(open_table(location).version() + 1):
        with contextlib.suppress(DlpipeError):
            named |= {file.name for file in list_live_files(open_table(location, version=number))}
    return named


def count_rows_to_remove(search: FileSearch) -> tuple[int, list[str]]:
    """Return how many rows the latest version has that are to be taken out, and which other files have some."""
    table = open_table(search.location)
    live = {file.name for file in list_live_files(table)}
    found = search.find_all()
    rows = sum(len(file.places) for file in found if file.name in live)
    return rows, [file.name for file in found if file.name not in live]


def remove_rows(search: FileSearch, record: str) -> RemovedRows | None:
    """Take rows out of the latest version of a table, in one commit; ``None`` where it has none.

    Parameters
    ----------
    search : FileSearch
    record : str
        What the commit names.

    Raises
    ------
    StorageUnavailable
        When others commit each time first, or the table has a feature with which it cannot be written.
    """
    return retry_on_latest(search.location, lambda before: _remove_from(search, before, record))


def _remove_from(search: FileSearch, before: TableVersion | None, record: str) -> RemovedRows | None:
    if before is None:
        return None
    table = open_table(search.location, version=before.version)
    live = list_live_files(table)
    found = {file.name: hit for file in live if (hit := search.look(file.name))}
    if not found:
        return None
    rows = sum(len(file.places) for file in found.values())
    if not _is_own(table, live):
        return RemovedRows(_remove_by_delta(search, found.values(), record, rows), rows)
    stems = {name[:20] for name in found}
    group = [file for file in live if file.name[:20] in stems]
    metadata = {FORGOTTEN_BY: record, FORGOTTEN_ROWS: str(rows), **_count_ingested(before, live, found)}
    by_day = list(table.metadata().partition_columns) == [DAY]
    schema = _read_schema(table)

    def write(prefix: str) -> DataFiles:
        return _write_anew(search.location, prefix, group, found, schema, by_day=by_day)

    terms = CommitTerms(metadata=metadata, by_day=by_day, removed=group, drops_rows=True)
    version, _ = write_and_commit(search.location, schema, write, terms)
    return RemovedRows(version, rows)


def count_removed_rows(location: str, record: str, *, since: int) -> int:
    """Return how many rows the commits of a record have taken out of a table.

    Parameters
    ----------
    location : str
    record : str
    since : int
        When the record began, in milliseconds since 1970.
    """
    count = 0
    for version in range(open_table(location).version(), -1, -1):
        info = read_commit_info(location, version)
        if find_commit_time(info) < since:
            break
        if info.get(f"dlpipe.{FORGOTTEN_BY}") == record:
            count += int(info[f"dlpipe.{FORGOTTEN_ROWS}"])
    return count


def _is_own(table: DeltaTable, live: Sequence[LiveFile]) -> bool:
    """Return whether dlpipe has written all files of a table."""
    partitions = list(table.metadata().partition_columns)
    return partitions in ([], [DAY]) and all(DATA_FILE.fullmatch(file.name) for file in live)


def _read_schema(table: DeltaTable) -> pa.Schema:
    import pyarrow as pa
    from deltalake import Schema

    return pa.schema(Schema.from_json(table.schema().to_json()).to_arrow())


def _count_ingested(
    before: TableVersion, live: Sequence[LiveFile], found: Mapping[str, FoundFile]
) -> dict[str, str]:
    """Return how many of the rows that stay come from sources, as each commit of a data set says."""
    try:
        read_form(before)
    except DlpipeError:
        return {}
    if not any(f"dlpipe.{INGESTED}" in read_commit_info(before.path, at) for at in range(before.version + 1)):
        return {}
    if (first := count_ingested_rows(before)) is None:
        return {}
    start, gone = 0, 0
    for file in live:
        if hit := found.get(file.name):
            gone += sum(start + place < first for place in hit.places)
        start += file.rows
    return {INGESTED: str(first - gone)}


def _write_anew(
    location: str,
    prefix: str,
    group: Sequence[LiveFile],
    found: Mapping[str, FoundFile],
    schema: pa.Schema,
    *,
    by_day: bool,
) -> DataFiles:
    """Write files without the rows that are to go; one of which nothing stays is not written."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    storage, digest, whole = filesystem(location), ContentDigest(), to_delta_schema(schema)
    names, sizes, counts, days = list[str](), list[int](), list[int](), list[str]()
    numbers: dict[str, int] = {}
    for file in group:
        gone = set(found[file.name].places) if file.name in found else set()
        with storage.open_input_file(file.name) as stream:
            source = pq.ParquetFile(stream)
            if source.metadata.num_rows == len(gone):
                continue
            stem = file.name[:20]
            numbers[stem] = numbers.get(stem, -1) + 1
            name = f"{stem}{prefix[20:]}-{numbers[stem]:05}.parquet"
            codec = source.metadata.row_group(0).column(0).compression.lower()
            kept, start = 0, 0
            with storage.open_output_stream(name) as sink:
                with pq.ParquetWriter(
                    sink,
                    source.schema_arrow,
                    store_schema=False,
                    compression=codec.replace("uncompressed", "none"),
                ) as writer:
                    for batch in source.iter_batches(ROW_GROUP_ROWS):
                        mask = pa.array([start + at not in gone for at in range(batch.num_rows)], pa.bool_())
                        start += batch.num_rows
                        if (some := batch.filter(mask)).num_rows:
                            writer.write_batch(some, row_group_size=ROW_GROUP_ROWS)
                            kept += some.num_rows
                            digest.add(_complete(some, whole, file.day))
                names.append(name)
                sizes.append(sink.tell())
                counts.append(kept)
                days.append(file.day)
    return DataFiles(
        prefix, tuple(names), tuple(sizes), tuple(counts), whole, digest.hexdigest(), tuple(days) if by_day else ()
    )


def _complete(batch: pa.RecordBatch, schema: pa.Schema, day: str) -> pa.RecordBatch:
    """Return rows of a file with all columns of the table: the day, and those that came later."""
    import pyarrow as pa

    there = set(batch.schema.names)
    columns = [
        batch[field.name].cast(field.type)
        if field.name in there
        else pa.array([day if field.name == DAY else None] * batch.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _remove_by_delta(search: FileSearch, found: Any, record: str, rows: int) -> TableVersion:
    """Have delta-rs delete the rows of a table of another program."""
    from deltalake import CommitProperties, DeltaTable
    from deltalake.exceptions import CommitFailedError, DeltaError

    predicate = " OR ".join(sorted({_to_sql(condition) for file in found for condition in file.conditions}))
    metadata = {f"dlpipe.{FORGOTTEN_BY}": record, f"dlpipe.{FORGOTTEN_ROWS}": str(rows)}
    properties = CommitProperties(custom_metadata=metadata)
    for attempt in range(ATTEMPTS):
        table = DeltaTable(search.location, storage_options=storage_options(search.location))
        try:
            told = table.delete(predicate, commit_properties=properties)
        except DeltaError as error:
            if not isinstance(error, CommitFailedError) or attempt == ATTEMPTS - 1:
                raise StorageUnavailable(
                    f"Rows cannot be taken out of {show_path(search.location)}, a table of another program: "
                    f"{to_one_line(error)}. Take them out with that program."
                ) from None
            time.sleep(0.05 * (attempt + 1))
        else:
            if told["num_deleted_rows"] < rows:
                raise StorageUnavailable(
                    f"Not all rows were taken out of {show_path(search.location)}, a table of another program: "
                    f"{told['num_deleted_rows']} of {rows}. Call this again; if it stays, take them out with that "
                    "program."
                )
            break
    return table_at(search.location)


def _to_sql(condition: Pairs) -> str:
    """Return a condition in the SQL that delta-rs reads.

    Examples
    --------
    >>> _to_sql((("city", "L'Aquila"), ("age", 0.1), ("note", None), ("score", math.nan)))
    "(`city` = 'L''Aquila' AND `age` = 0.1 AND `note` IS NULL AND isnan(`score`))"
    """
    return f"({' AND '.join(_compare_in_sql(f'`{name}`', value) for name, value in condition)})"


def _compare_in_sql(name: str, value: Any) -> str:
    if value is None:
        return f"{name} IS NULL"
    if isinstance(value, float) and math.isnan(value):
        return f"isnan({name})"
    if isinstance(value, float) and math.isinf(value):
        return f"{name} = CAST('{value}' AS DOUBLE)"
    if isinstance(value, bool | int | float):
        return f"{name} = {str(value).lower()}"
    return f"{name} = '{str(value).replace(chr(39), chr(39) * 2)}'"


def find_unreadable_versions(search: FileSearch) -> list[int]:
    """Return the versions that nobody can read any more once rows were taken out and old files deleted."""
    latest = open_table(search.location).version()
    doomed = {file.name for file in search.find_all()}
    found = []
    for number in range(latest + 1):
        with contextlib.suppress(DlpipeError):
            there = open_table(search.location, version=number)
            if doomed & {file.name for file in list_live_files(there)}:
                found.append(number)
    return found


def purge_rows(search: FileSearch, *, on_file: Any = None) -> int:
    """Delete the data files that have such rows and that the latest version does not name, and clean the log.

    Returns
    -------
    int
        How many files were deleted.

    Raises
    ------
    MarkMoved
        When the latest version still has such rows: they came after ``remove_rows``.
    """
    location = search.location
    live = {file.name for file in list_live_files(open_table(location))}
    found = search.find_all()
    if any(file.name in live for file in found):
        raise MarkMoved(f"Rows that are to be forgotten came to {show_path(location)} meanwhile. Try again.")
    _clean_log(search)
    storage = filesystem(location)
    named = _list_named(location) if search.unreadable else set()
    gone = [file.name for file in found]
    gone += [name for name in search.unreadable if _is_abandoned(location, name, named)]
    # the first one last: by what is in it a killed forgetting finds the row again
    for name in sorted(gone, reverse=True):
        if on_file:
            on_file(name)
        with contextlib.suppress(FileNotFoundError):
            storage.delete_file(name)
    return len(gone)


def _is_abandoned(location: str, name: str, named: set[str]) -> bool:
    if name in named or is_remote(location):
        return False
    with contextlib.suppress(OSError):
        return time.time() - Path(location, name).stat().st_mtime > ABANDONED_AFTER
    return False


def _clean_log(search: FileSearch) -> None:
    """Take out of the log the least and greatest values of columns that tell what was in a row.

    dlpipe writes none; other programs do, in commits and in checkpoints.
    """
    if is_remote(search.location):
        return
    remove_left_copies(Path(search.location))
    log = Path(search.location, "_delta_log")
    for file in sorted(log.glob("*.json")):
        before = file.read_bytes()
        lines = [_clean_line(line, search.chooser) for line in before.splitlines()]
        after = b"\n".join(lines) + (b"\n" if before.endswith(b"\n") else b"")
        if after != before:
            with write_beside(file) as beside:
                beside.write_bytes(after)
    _renew_checkpoints(search, log)


def _renew_checkpoints(search: FileSearch, log: Path) -> None:
    import pyarrow.parquet as pq

    told = [
        file
        for file in sorted(log.glob("*.checkpoint*.parquet"))
        if any(search.chooser.is_secret(text) for text in _list_bounds(pq.read_table(file).to_pylist()))
    ]
    if told:
        open_table(search.location).create_checkpoint()
        latest = f"{open_table(search.location).version():020}"
        for file in told:
            if not file.name.startswith(latest):
                file.unlink(missing_ok=True)


def _list_bounds(value: Any, *, inside: bool = False) -> Iterator[str]:
    """Yield the strings in the statistics of a checkpoint's actions."""
    if isinstance(value, list):
        for item in value:
            yield from _list_bounds(item, inside=inside)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name == "stats" and isinstance(item, str):
                with contextlib.suppress(ValueError):
                    yield from _list_bounds(json.loads(item), inside=True)
            else:
                yield from _list_bounds(item, inside=inside or name in ("stats_parsed", "partitionValues"))
    elif inside and isinstance(value, str):
        yield value


def _clean_line(line: bytes, chooser: Chooser) -> bytes:
    if b'"stats"' not in line and b'"commitInfo"' not in line:
        return line
    try:
        action = json.loads(line)
    except ValueError:
        return line
    changed = False
    for kind in ("add", "remove"):
        stats = (action.get(kind) or {}).get("stats")
        if isinstance(stats, str):
            told = json.loads(stats)
            for bounds in ("minValues", "maxValues"):
                for column, value in list((told.get(bounds) or {}).items()):
                    if isinstance(value, str) and chooser.is_secret(value):
                        del told[bounds][column]
                        changed = True
            action[kind]["stats"] = json.dumps(told)
    # what a delete was asked for, and the rows that were asked to be explained
    info = action.get("commitInfo") or {}
    for told in (info, info.get("operationParameters") or {}):
        for name, value in told.items():
            if name not in QUOTING or not isinstance(value, str):
                continue
            # by what a forgetting has chosen rows is all that was in them
            is_own = name == "predicate" and f"dlpipe.{FORGOTTEN_BY}" in info
            if (blank := BLANK if is_own else chooser.blank(value)) != value:
                told[name] = blank
                changed = True
    return json.dumps(action, separators=(",", ":"), ensure_ascii=False).encode() if changed else line
