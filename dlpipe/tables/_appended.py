"""Which rows of a data set were appended: a later ingest keeps these, and replaces those that came from sources.

Each ingest and append records how many rows come from sources, and these are the first ones. Another program may
write rows anew in an order of its own; from then on rows that came from sources are known by their ``row_id``, as
the last version has them that recorded their number. A row of which that cannot be told counts as appended.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlpipe.errors import TableDamaged, TableVersionNotFound
from dlpipe.tables._attempt import LiveFile
from dlpipe.tables._commit import list_live_files
from dlpipe.tables._metadata import APPENDED, INGESTED
from dlpipe.tables._read import open_files, read_table
from dlpipe.tables._storage import explain_storage_errors
from dlpipe.tables._versions import TableVersion, find_restored, open_table, read_log_lines, table_at

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

ROW_ID = "row_id"
REPLACING = ("CREATE OR REPLACE", "REPLACE TABLE")


@dataclass(frozen=True)
class AppendedPlaces:
    """Which rows of a version were appended.

    Attributes
    ----------
    every : array of bool
        Of each row, whether it was.
    in_order : bool
        Whether they are the last ones.
    unsure : bool
        Whether some are among them of which it cannot be told.
    """

    every: np.ndarray
    in_order: bool
    unsure: bool = False

    @property
    def rows(self) -> int:
        """How many they are."""
        return int(self.every.sum())

    @property
    def first(self) -> int:
        """Where the first one is; the number of all rows where there is none."""
        return int(self.every.argmax()) if self.every.any() else len(self.every)


@dataclass(frozen=True)
class _Count:
    """A version of which it is recorded, or follows from what it is, how many rows come from sources.

    Attributes
    ----------
    number : int
    rows : int
        The first ones.
    in_order : bool
        Whether they are the first ones of the version that was asked about as well.
    """

    number: int
    rows: int
    in_order: bool


def find_appended(version: TableVersion) -> AppendedPlaces:
    """Return which rows of a version of a data set were appended, or may have been."""
    import numpy as np

    count = _find_count(version)
    if count is not None and count.in_order:
        return AppendedPlaces(np.arange(version.rows) >= count.rows, in_order=True)
    if count is None or ROW_ID not in dict(version.columns):
        return AppendedPlaces(np.ones(version.rows, bool), in_order=True, unsure=bool(version.rows))
    ids, whole = _read_source_ids(version.path, count)
    every = ~_find_known(_to_ids(read_table(version, columns=[ROW_ID])[ROW_ID]), ids)
    return AppendedPlaces(every, in_order=False, unsure=not whole and bool(every.any()))


def count_ingested_rows(version: TableVersion) -> int | None:
    """Return how many of the rows of a version come from sources, where they are the first ones; else ``None``."""
    count = _find_count(version)
    return min(count.rows, version.rows) if count is not None and count.in_order else None


def stay_first(version: TableVersion, rows: int) -> bool:
    """Return whether the first rows of a version are the first ones too once another commit adds a file."""
    files = _take_files(list_live_files(open_table(version.path, version=version.version)), rows)
    return not files or files[-1].name < f"{version.version + 1:020}"


def describe_unsure(version: TableVersion, rows: int) -> str:
    """Return a line on rows that stay since nobody can tell whether they were appended."""
    return (
        f"Which rows of {str(version)!r} were appended can no longer be told: another program wrote it anew, and "
        f"the files or commits that would tell are gone. So all {rows:,} rows stay that the sources lack."
    )


def _find_count(version: TableVersion) -> _Count | None:
    """Return the last version that tells rows of sources from others; ``None`` where the log has none any more."""
    location, number, moved = version.path, version.version, False
    appended: int | None = None
    while actions := _read_actions(location, number):
        info: dict[str, Any] = next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
        if f"dlpipe.{INGESTED}" in info:
            return _make_count(version, number, int(info[f"dlpipe.{INGESTED}"]), moved=moved)
        if _is_whole(info, number) and "dlpipe.rows" in info:
            return _make_count(version, number, int(info["dlpipe.rows"]), moved=moved)
        if _is_whole(info, number):  # of another program: what dlpipe added to it was appended
            last = version if appended is None else table_at(location, version=appended - 1)
            return _make_count(version, last.version, last.rows, moved=moved)
        restored = find_restored(location, number, info)
        if restored is not None:
            moved = moved or _list_names(location, number) != _list_names(location, restored)
            number = restored
            continue
        moved = moved or any("remove" in action for action in actions)
        appended = number if f"dlpipe.{APPENDED}" in info else appended
        number -= 1
    return None


def _make_count(version: TableVersion, number: int, rows: int, *, moved: bool) -> _Count:
    """Return that the first ``rows`` of an earlier version come from sources.

    Parameters
    ----------
    version : TableVersion
        The one that was asked about.
    number, rows : int
    moved : bool
        Whether rows were written anew in between.
    """
    in_order = number == version.version or (not moved and _stand_first(version, number, rows))
    return _Count(number, rows, in_order)


def _read_actions(location: str, number: int) -> list[dict[str, Any]]:
    with explain_storage_errors(location):
        return [json.loads(line) for line in read_log_lines(location, number) if line.strip()]


def _is_whole(info: Mapping[str, Any], number: int) -> bool:
    """Return whether a commit wrote all rows that its version has."""
    terms = info.get("operationParameters") or {}
    if terms.get("mode") == "Overwrite" and terms.get("predicate") in (None, "", "[]"):
        return True
    return number == 0 or str(info.get("operation", "")).startswith(REPLACING)


def _list_names(location: str, number: int) -> list[str]:
    try:
        return [file.name for file in list_live_files(open_table(location, version=number))]
    except TableVersionNotFound:
        return [str(number)]  # like no other


def _take_files(files: list[LiveFile], rows: int) -> list[LiveFile]:
    """Return the files that have the first rows of a version."""
    taken: list[LiveFile] = []
    for file in files:
        if rows <= 0:
            break
        taken.append(file)
        rows -= file.rows
    return taken


def _stand_first(version: TableVersion, number: int, rows: int) -> bool:
    """Return whether the files with the first rows of an earlier version are the first ones of this one."""
    try:
        former = _take_files(list_live_files(open_table(version.path, version=number)), rows)
    except TableVersionNotFound:
        return False
    names = _list_names(version.path, version.version)
    return [file.name for file in former] == names[: len(former)]


def _read_source_ids(location: str, count: _Count) -> tuple[pa.ChunkedArray, bool]:
    """Return the ids of the rows of sources in a version, and whether all of its files were there to be read."""
    import pyarrow as pa

    found, left, whole = list[Any](), count.rows, True
    try:
        files = open_files(table_at(location, version=count.number))
        sizes = {file.name: file.rows for file in list_live_files(open_table(location, version=count.number))}
    except TableVersionNotFound:
        return pa.chunked_array([], pa.string()), False
    if ROW_ID not in files.schema.names:
        return pa.chunked_array([], pa.string()), False
    for fragment in files.fragments:
        if left <= 0:
            break
        size = 0
        try:
            for batch in files.scan(fragment, columns=[ROW_ID], rows=65536):
                found.append(batch[ROW_ID].slice(0, max(left - size, 0)))
                size += batch.num_rows
        except (FileNotFoundError, TableDamaged):
            whole, size = False, sizes.get(fragment.path, 0)
            if not size:
                break  # where the next file begins is not known
        left -= size
    return _to_ids(pa.chunked_array(found, files.schema.field(ROW_ID).type)), whole


def _to_ids(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa

    return column.cast(pa.string())


def _find_known(there: pa.ChunkedArray, ids: pa.ChunkedArray) -> np.ndarray:
    """Return which rows have one of these ids; not those that have it more often than it is among them."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    ids = ids.drop_null()
    known = pc.is_in(there, value_set=pa.chunked_array(ids.chunks, pa.string()).combine_chunks())
    counts = pc.value_counts(there.filter(known))
    often = {
        one["values"]: one["counts"] for one in counts.filter(pc.greater(counts.field("counts"), 1)).to_pylist()
    }
    if often:
        names = pa.array(list(often), pa.string())
        given = Counter(ids.filter(pc.is_in(ids, value_set=names)).to_pylist())
        unclear = pa.array([name for name, rows in often.items() if rows > given[name]], pa.string())
        known = pc.and_not(known, pc.is_in(there, value_set=unclear))
    return np.asarray(known.to_numpy(), bool)
