"""Try to commit data files as one version of a table; another writer may be first.

delta-rs must not retry by itself here: it would put the files on top of a version that nobody looked at.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlpipe.tables._log import copy_log
from dlpipe.tables._storage import is_full, storage_options
from dlpipe.tables._targets import Mode
from dlpipe.tables._versions import read_commit_info

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import CommitProperties, DeltaTable
    from deltalake.transaction import AddAction

# a version that a model is pinned to must stay readable: nothing expires by itself
TABLE_CONFIGURATION: dict[str, str | None] = {
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 36500 days",
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
    """

    prefix: str
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    counts: tuple[int, ...]
    schema: pa.Schema
    digest: str


def try_commit(
    table: DeltaTable | None,
    location: str,
    files: DataFiles,
    version: int,
    *,
    mode: Mode,
    metadata: dict[str, str],
    moved: Mapping[str, int],
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
            _commit_actions(before, log, version, files, mode=mode, properties=properties)
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
    files: DataFiles,
    *,
    mode: Mode,
    properties: CommitProperties,
) -> None:
    """Make the commit of ``version`` in the log of the table at ``log``, the table itself or a copy of its log."""
    from deltalake import DeltaTable, Schema
    from deltalake.transaction import create_table_with_add_actions

    schema, options = Schema.from_arrow(files.schema), storage_options(log)
    actions: list[Any] = _make_add_actions(files)
    if version:  # the first commit makes the table
        before = before or DeltaTable(log)
        before.create_write_transaction(actions, mode, schema, commit_properties=properties)
        return
    create_table_with_add_actions(
        log,
        schema,
        actions,
        mode="error",
        configuration=TABLE_CONFIGURATION,
        storage_options=options,
        commit_properties=properties,
    )


def _make_add_actions(files: DataFiles) -> list[AddAction]:
    from deltalake.transaction import AddAction

    now = int(time.time() * 1000)
    written = zip(files.names, files.sizes, files.counts, strict=True)
    return [
        AddAction(name, size, {}, now, data_change=True, stats=json.dumps({"numRecords": count}))
        for name, size, count in written
    ]
