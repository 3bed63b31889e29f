"""Commit data files to a table, in one atomic step, on top of whatever others committed before.

The order is: data files, their content and names on the disk, the commit that names them. A writer that is killed
before its commit leaves files that no version names and no reader sees.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dlpipe.delta import check_writable
from dlpipe.errors import DlpipeError, MarkMoved, SchemaMismatch, StorageUnavailable
from dlpipe.tables._log import copy_log
from dlpipe.tables._storage import (
    DATA_FILE,
    STAGED,
    explain_storage_errors,
    filesystem,
    is_full,
    is_remote,
    locate,
    show_path,
    storage_options,
    sync_files,
)
from dlpipe.tables._versions import (
    TableVersion,
    find_commit,
    list_columns,
    read_commit_info,
    to_mark_id,
    to_transaction_id,
    to_version,
    try_open,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import CommitProperties, DeltaTable
    from deltalake.transaction import AddAction

Mode = Literal["append", "overwrite"]

COMMIT_ATTEMPTS = 30
"""How often a commit is tried anew while others commit to the same table."""
# a version that a model is pinned to must stay readable: nothing expires by itself
TABLE_CONFIGURATION: dict[str, str | None] = {
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 36500 days",
}


@dataclass(frozen=True)
class Mark:
    """A number in the log of a table that a commit moves, if it still is where it was when the work began.

    Of two programs that begin at the same place, one commits; the other finds the mark moved, and commits nothing.
    In Delta's terms it is the version of an application's transaction, so rows and mark appear in one atomic step.
    """

    name: str
    before: int | None
    """What ``read_mark`` returned."""
    after: int


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


def write_and_commit(
    location: str,
    schema: pa.Schema,
    write: Callable[[str], DataFiles],
    *,
    mode: Mode = "append",
    key: Mapping[str, str] | None = None,
    metadata: Mapping[str, str] | None = None,
    once: bool = False,
    stem: str = "",
    marks: Sequence[Mark] = (),
    at: int | None = None,
) -> tuple[TableVersion, bool]:
    """Commit the files that ``write`` makes under a prefix; return the version, and whether it is a new one.

    Nothing is left of the files where there is no new version.

    Parameters
    ----------
    location : str
        What ``locate`` returned.
    schema : pyarrow.Schema
        Of the rows.
    write : callable
        Takes the prefix of names and returns the files that it wrote.
    mode : 'append' or 'overwrite'
    key : mapping of str to str, optional
        Where a commit carries it already, that version comes back.
    metadata : mapping of str to str, optional
        What else the commit records, under ``dlpipe.`` and the name.
    once : bool
        Whether the latest version comes back where it has this digest already.
    stem : str
        A few hex digits that become part of the names of files, by which those of killed writers are found.
    marks : sequence of Mark
        The commit moves them.
    at : int, optional
        The version that the commit must make.

    Raises
    ------
    MarkMoved
        When another program moved a mark, or made the version ``at``.
    SchemaMismatch
        When the table has other columns and rows are appended.
    StorageFull, StorageUnavailable
    """
    table = _open_or_check_empty(location)
    _check_schema(table, location, to_delta_schema(schema), mode=mode)
    prefix = f"{0 if table is None else table.version() + 1:020}-{stem}{uuid.uuid4().hex[len(stem) :]}"
    new = False
    try:
        with explain_storage_errors(location):
            files = write(prefix)
            # a commit that outlives a power cut must not name files that do not
            sync_files(location, files.names)
            version, new = _commit(
                location, files, mode=mode, key=key, metadata=metadata or {}, once=once, marks=marks, at=at
            )
        return version, new
    finally:
        # also on Ctrl-C; after a kill they stay, and no version names them
        if not new:
            _remove_uncommitted(location, prefix)


def to_delta_schema(schema: pa.Schema) -> pa.Schema:
    """Return the Arrow schema with which rows of ``schema`` come back from a Delta table."""
    import pyarrow as pa
    from deltalake import Schema

    return pa.schema(Schema.from_arrow(schema.remove_metadata()).to_arrow())


def check_target(path: str | Path, schema: pa.Schema | None = None) -> None:
    """Raise where something else is at ``path``, or a table that rows of ``schema`` cannot be appended to.

    Without ``schema``, where a table is there that cannot be written anew.
    """
    location = locate(path)
    table = _open_or_check_empty(location)
    if schema is not None:
        _check_schema(table, location, to_delta_schema(schema), mode="append")
    elif table is not None:
        _check_writable(table, location, mode="overwrite")


def _open_or_check_empty(location: str) -> DeltaTable | None:
    """Return the opened table, or None where one can be made."""
    folder, table = Path(location), try_open(location)
    if table is not None or is_remote(location) or not folder.exists():
        return table
    # a writer that was killed before its first commit leaves only these behind
    known = folder.is_dir() and all(
        x.name in ("_delta_log", STAGED) or DATA_FILE.fullmatch(x.name) for x in folder.iterdir()
    )
    if not known:
        raise SchemaMismatch(
            f"{show_path(location)} exists and is not a Delta table, so nothing is written there. "
            "Pass another table name, or move it away."
        )
    return None


def find_same_content(location: str, digest: str) -> TableVersion | None:
    """Return the latest version of the table if that is its digest."""
    table = try_open(location)
    latest = None if table is None else to_version(table, location)
    return latest if latest is not None and latest.digest == digest else None


def _commit(
    location: str,
    files: DataFiles,
    *,
    mode: Mode,
    key: Mapping[str, str] | None,
    metadata: Mapping[str, str],
    once: bool,
    marks: Sequence[Mark],
    at: int | None,
) -> tuple[TableVersion, bool]:
    """Commit on top of the latest version, again and again while others commit in between."""
    for attempt in range(COMMIT_ATTEMPTS):
        # anew each time: whoever was first may have committed the same key, moved a mark or changed the columns
        table = try_open(location)
        done = find_commit(location, key) if key else None
        done = done or (find_same_content(location, files.digest) if once else None)
        if done:
            return done, False
        _check_schema(table, location, files.schema, mode=mode)
        _check_unmoved(table, location, marks=marks, at=at)
        before = None if table is None else to_version(table, location)
        version = _describe_next_version(before, location, files, mode=mode)
        carried = _make_metadata(version, files, key=key, metadata=metadata)
        moved = list_transactions(key, marks, version.version)
        if _try_commit(table, location, files, mode=mode, moved=moved, version=version.version, carried=carried):
            made = read_commit_info(location, version.version).get("timestamp", 0)
            return replace(version, timestamp=int(made)), True
        # by chance, so that writers who lost together do not meet again
        time.sleep(random.uniform(0, 0.02 * (attempt + 1)))
    raise StorageUnavailable(
        f"Others wrote to {show_path(location)} at each of {COMMIT_ATTEMPTS} attempts; nothing was committed. "
        "Try again."
    )


def _check_unmoved(table: DeltaTable | None, location: str, *, marks: Sequence[Mark], at: int | None) -> None:
    """Raise ``MarkMoved`` where another program committed what this commit was to be the next after."""
    for mark in marks:
        there = None if table is None else table.transaction_version(to_mark_id(mark.name))
        if there != mark.before:
            raise MarkMoved(
                f"Another program moved the mark {mark.name!r} of {show_path(location)} from {mark.before} to "
                f"{there} meanwhile; nothing was committed. Begin again from there."
            )
    following = 0 if table is None else table.version() + 1
    if at is not None and following != at:
        raise MarkMoved(
            f"Another program wrote version {following - 1} of {show_path(location)} meanwhile; nothing was "
            "committed. Try again."
        )


def list_transactions(key: Mapping[str, str] | None, marks: Sequence[Mark], version: int) -> dict[str, int]:
    """Return Delta's transactions of a commit that makes ``version``: identifier -> number.

    A key has the version as its number, by which ``find_commit`` gets from the key to the commit; a mark has where
    it is then.
    """
    made = {to_transaction_id(key): version} if key else {}
    return {**made, **{to_mark_id(mark.name): mark.after for mark in marks}}


def _describe_next_version(
    before: TableVersion | None, location: str, files: DataFiles, *, mode: Mode
) -> TableVersion:
    number, rows, digest = 0 if before is None else before.version + 1, sum(files.counts), files.digest
    if before is not None and mode == "append":
        rows += before.rows
        # a chain, so that an append reads no row that the table has already
        digest = hashlib.sha256(f"{before.digest} {files.digest}".encode()).hexdigest()[:32]
    return TableVersion(location, number, rows, digest, timestamp=0, columns=list_columns(files.schema))


def _make_metadata(
    version: TableVersion, files: DataFiles, *, key: Mapping[str, str] | None, metadata: Mapping[str, str]
) -> dict[str, str]:
    # the prefix, random as it is, tells this commit from another one of the same version: see _try_commit
    carried = {"dlpipe.rows": str(version.rows), "dlpipe.digest": version.digest, "dlpipe.commit": files.prefix}
    if key:
        carried["dlpipe.key"] = json.dumps(dict(key), sort_keys=True)
    return {**carried, **{f"dlpipe.{name}": value for name, value in metadata.items()}}


def _try_commit(
    table: DeltaTable | None,
    location: str,
    files: DataFiles,
    *,
    mode: Mode,
    moved: Mapping[str, int],
    version: int,
    carried: dict[str, str],
) -> bool:
    """Commit, and return False when another writer was first."""
    from deltalake import CommitProperties, Transaction
    from deltalake.exceptions import CommitFailedError, DeltaError

    # no retries inside delta-rs: it would put an append on top of a version that was not looked at
    properties = CommitProperties(
        custom_metadata=carried,
        max_commit_retries=0,
        app_transactions=[Transaction(name, number) for name, number in moved.items()] or None,
    )
    try:
        with copy_log(location, version) as log:
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
    """Make the commit of ``version`` in the log of the table at ``log``."""
    from deltalake import DeltaTable, Schema
    from deltalake.transaction import create_table_with_add_actions

    schema, options = Schema.from_arrow(files.schema), storage_options(log)
    actions: list[Any] = _make_add_actions(files)
    if version:
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


def _check_schema(table: DeltaTable | None, location: str, schema: pa.Schema, *, mode: Mode) -> None:
    import pyarrow as pa

    if table is None:
        return
    _check_writable(table, location, mode=mode)
    has = {field.name: field.type for field in pa.schema(table.schema().to_arrow())}
    given = {field.name: field.type for field in schema}
    if mode == "append" and list(has.items()) != list(given.items()):
        raise SchemaMismatch(
            f"{show_path(location)} has the columns {_format_columns(has)}; the rows have "
            f"{_format_columns(given)}. Give the same columns in the same order, or write to another table."
        )


def _check_writable(table: DeltaTable, location: str, *, mode: Mode) -> None:
    check_writable(table, show_path(location), overwrite=mode == "overwrite")
    if table.metadata().partition_columns:
        raise SchemaMismatch(
            f"{show_path(location)} is partitioned, by another program; dlpipe writes unpartitioned tables only. "
            "Pass another table."
        )


def _format_columns(types: Mapping[str, pa.DataType]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in types.items())


def _remove_uncommitted(location: str, prefix: str) -> None:
    """Remove the data files of a write that made no version."""
    from pyarrow.fs import FileSelector

    with contextlib.suppress(OSError, DlpipeError):
        table = try_open(location)
        # the commit may stand at any version since the prefix was made: other writers came in between
        versions = range(int(prefix[:20]), 0 if table is None else table.version() + 1)
        # Ctrl-C can arrive after the commit and before it was noted
        if any(read_commit_info(location, version).get("dlpipe.commit") == prefix for version in versions):
            return
        storage = filesystem(location)
        for file in storage.get_file_info(FileSelector(".")):
            if file.base_name.startswith(prefix):
                storage.delete_file(file.base_name)
