"""Try to commit data files as one version of a table; another writer may be first.

delta-rs must not retry by itself here: it would put the files on top of a version that nobody looked at.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlpipe.tables._log import copy_log
from dlpipe.tables._storage import is_full, storage_options
from dlpipe.tables._targets import DAY, Mode
from dlpipe.tables._versions import read_commit_info

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import CommitProperties, DeltaTable
    from deltalake.transaction import AddAction, RemoveAction

# a version that a model is pinned to must stay readable: nothing expires by itself
TABLE_CONFIGURATION: dict[str, str | None] = {
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 36500 days",
}
# a table of what happens: a commit every few seconds, and what is old goes
DAYS_CONFIGURATION: dict[str, str | None] = {
    "delta.enableExpiredLogCleanup": "true",
    "delta.logRetentionDuration": "interval 7 days",
    "delta.deletedFileRetentionDuration": "interval 7 days",
}


@dataclass(frozen=True)
class DataFiles:
    """Data files that are written but not committed yet.

    Attributes
    ----------
    prefix : str
        How all their names begin: the version to be, in 20 digits, and a random part. A reader takes files in the
        order of their names, which is so that of the commits.
    names : tuple of str
        In the order of their rows, under the folder of the table.
    sizes, counts : tuple of int
        Bytes and rows of each.
    schema : pyarrow.Schema
        As Delta gives it back; see ``to_delta_schema``.
    digest : str
        32 hex characters, of the content of all of them.
    days : tuple of str
        The day of the rows of each, in a table of days; else empty.
    """

    prefix: str
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    counts: tuple[int, ...]
    schema: pa.Schema
    digest: str
    days: tuple[str, ...] = ()


@dataclass(frozen=True)
class LiveFile:
    """A data file that a version of a table names.

    Attributes
    ----------
    name : str
        Under the folder of the table.
    day : str
        Of its rows, in a table of days; else empty.
    size, rows : int
    """

    name: str
    day: str
    size: int
    rows: int


def try_commit(
    table: DeltaTable | None,
    location: str,
    files: DataFiles,
    version: int,
    *,
    mode: Mode,
    metadata: dict[str, str],
    moved: Mapping[str, int],
    by_day: bool = False,
    removed: Sequence[LiveFile] = (),
    drops_rows: bool = False,
) -> bool:
    """Commit files as ``version``, and return False when another writer was first.

    Parameters
    ----------
    table : deltalake.DeltaTable or None
        The version before; None where there is no table.
    location : str
    files : DataFiles
    version : int
        The one after that of ``table``.
    mode : 'append' or 'overwrite'
    metadata : dict of str to str
        What the commit records; ``dlpipe.commit`` is the prefix of the files.
    moved : mapping of str to int
        Delta's transactions, by identifier.
    by_day : bool
        Whether it is a table of days.
    removed : sequence of LiveFile
        What it takes out.
    drops_rows : bool
        Whether rows go with these files.
    """
    from deltalake import CommitProperties, Transaction
    from deltalake.exceptions import CommitFailedError, DeltaError

    properties = CommitProperties(
        custom_metadata=metadata,
        max_commit_retries=0,
        app_transactions=[Transaction(name, number) for name, number in moved.items()] or None,
    )
    try:
        with copy_log(location, version) as log:
            # a table that was opened elsewhere would commit there, and not to the copy
            before = table if log == location else None
            # rows that only move to other files are no change to those who follow the table
            change = drops_rows or not (files.names and removed)
            actions = [*_make_add_actions(files, change), *_make_remove_actions(removed, change)]
            _commit_actions(
                before, log, version, files.schema, actions, mode=mode, by_day=by_day, properties=properties
            )
    except (DeltaError, OSError) as error:
        # what follows a commit (a checkpoint) can fail after the commit itself was made
        if read_commit_info(location, version).get("dlpipe.commit") == files.prefix:
            return True
        # FileExistsError comes from the link in copy_log: another writer had the name of this version
        lost = isinstance(error, CommitFailedError | FileExistsError) or "already exists" in str(error)
        if not lost or is_full(error):
            raise
        return False
    return True


def _commit_actions(
    before: DeltaTable | None,
    log: str,
    version: int,
    columns: pa.Schema,
    actions: list[Any],
    *,
    mode: Mode,
    by_day: bool,
    properties: CommitProperties,
) -> None:
    """Make the commit of ``version`` in the log of the table at ``log``, the table itself or a copy of its log."""
    from deltalake import DeltaTable, Schema
    from deltalake.transaction import create_table_with_add_actions

    schema, options = Schema.from_arrow(columns), storage_options(log)
    partition = [DAY] if by_day else None
    if version:  # the first commit makes the table
        before = before or DeltaTable(log)
        before.create_write_transaction(actions, mode, schema, partition, commit_properties=properties)
        return
    create_table_with_add_actions(
        log,
        schema,
        actions,
        mode="error",
        partition_by=partition,
        configuration=DAYS_CONFIGURATION if by_day else TABLE_CONFIGURATION,
        storage_options=options,
        commit_properties=properties,
    )


def _make_add_actions(files: DataFiles, change: bool) -> list[AddAction]:
    from deltalake.transaction import AddAction

    now = int(time.time() * 1000)
    written = zip(files.names, files.sizes, files.counts, files.days or [""] * len(files.names), strict=True)
    return [
        AddAction(
            name, size, {DAY: day} if day else {}, now, data_change=change, stats=json.dumps({"numRecords": count})
        )
        for name, size, count, day in written
    ]


def _make_remove_actions(removed: Sequence[LiveFile], change: bool) -> list[RemoveAction]:
    from deltalake.transaction import RemoveAction

    now = int(time.time() * 1000)
    return [
        RemoveAction(file.name, change, now, file.size, {DAY: file.day} if file.day else {}) for file in removed
    ]
