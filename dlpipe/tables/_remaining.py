"""What is left of a version of a table whose old data files a forgetting has deleted.

Its rows, but for those that were forgotten, stand in the version that the forgetting made, in files whose names
keep the version that brought them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlpipe.tables._commit import list_live_files
from dlpipe.tables._lookup import OWN_FILE
from dlpipe.tables._origins import RowOrigin, find_row_origin
from dlpipe.tables._read import open_columns
from dlpipe.tables._removal import FORGOTTEN_BY
from dlpipe.tables._storage import filesystem
from dlpipe.tables._versions import TableVersion, open_table, read_commit_info, table_at

if TYPE_CHECKING:
    import pyarrow as pa


def find_remaining(version: TableVersion) -> TableVersion | None:
    """Return the version that has what is left of ``version``; ``None`` where nobody can tell.

    That is where no forgetting made it unreadable, or its rows were replaced before that.
    """
    latest = open_table(version.path).version()
    for number in range(version.version + 1, latest + 1):
        info = read_commit_info(version.path, number)
        if f"dlpipe.{FORGOTTEN_BY}" in info:
            later = table_at(version.path, version=number)
            return find_remaining(later) if is_purged(later) else later
        if str(info.get("operationParameters", {}).get("mode")) == "Overwrite":
            return None
    return None


def is_purged(version: TableVersion) -> bool:
    """Return whether a data file of a version is gone."""
    names = [file.name for file in list_live_files(open_table(version.path, version=version.version))]
    return any(info.size is None for info in filesystem(version.path).get_file_info(names))


def read_remaining(version: TableVersion, *, columns: Sequence[str], added: bool = False) -> pa.Table | None:
    """Return some columns of the rows that are left of a version which a forgetting made unreadable.

    Parameters
    ----------
    version : TableVersion
    columns : sequence of str
    added : bool, optional
        Only the rows that the commit of this version brought.

    Returns
    -------
    pyarrow.Table or None
        As ``find_remaining``.
    """
    import pyarrow as pa

    if (there := find_remaining(version)) is None:
        return None
    files, names = open_columns(there, columns=columns)
    batches: list[pa.RecordBatch] = []
    for fragment in files.fragments:
        name = OWN_FILE.fullmatch(fragment.path)
        brought = int(name[1]) if name else version.version
        if brought == version.version or (brought < version.version and not added):
            batches.extend(files.scan(fragment, columns=names, rows=65536))
    return pa.Table.from_batches(batches, schema=pa.schema([files.schema.field(name) for name in names]))


def find_remaining_origin(version: TableVersion, row_id: str) -> RowOrigin | None:
    """Return which commit brought a row of a version that a forgetting made unreadable; ``None`` as ever."""
    there = find_remaining(version)
    origin = None if there is None else find_row_origin(there, row_id)
    return origin if origin is not None and origin.version <= version.version else None
