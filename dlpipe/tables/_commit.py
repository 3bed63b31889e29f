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
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote

from dlpipe.attempt import find_attempt
from dlpipe.errors import DlpipeError, MarkMoved, StorageUnavailable
from dlpipe.tables._attempt import DataFiles, LiveFile, try_commit
from dlpipe.tables._storage import explain_storage_errors, filesystem, rename_file, show_path, sync_files
from dlpipe.tables._targets import DAY, Mode, check_schema, open_or_check_empty, to_delta_schema
from dlpipe.tables._versions import (
    TableVersion,
    find_commit,
    list_columns,
    read_commit_info,
    table_at,
    to_mark_id,
    to_transaction_id,
    to_version,
    try_open,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

Result = TypeVar("Result")

COMMIT_ATTEMPTS = 30
"""How often a commit is tried anew while others commit to the same table."""


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
class CommitTerms:
    """What a commit carries beside its files, and when it may be made.

    Attributes
    ----------
    mode : 'append' or 'overwrite'
    key : mapping of str to str, optional
        Where a commit of the table carries it already, that version comes back.
    metadata : mapping of str to str
        What else the commit records, under ``dlpipe.`` and the name.
    once : bool
        Whether the latest version comes back where it has this digest already.
    marks : sequence of Mark
        The commit moves them.
    at : int, optional
        The version that the commit must make.
    by_day : bool
        Whether the table is one of days.
    removed : sequence of LiveFile
        Files that the commit takes out, and that must be there.
    drops_rows : bool
        Whether rows go with these files; else they only move to other files.
    """

    mode: Mode = "append"
    key: Mapping[str, str] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    once: bool = False
    marks: Sequence[Mark] = ()
    at: int | None = None
    by_day: bool = False
    removed: Sequence[LiveFile] = ()
    drops_rows: bool = False


def write_and_commit(
    location: str,
    schema: pa.Schema,
    write: Callable[[str], DataFiles],
    terms: CommitTerms,
    *,
    stem: str = "",
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
    terms : CommitTerms
    stem : str
        A few hex digits that become part of the names of files, by which those of killed writers are found.

    Raises
    ------
    MarkMoved
        When another program moved a mark, or made the version ``terms.at``.
    SchemaMismatch
        When the table has other columns and rows are appended.
    StorageFull, StorageUnavailable
    """
    table = open_or_check_empty(location)
    check_schema(table, location, to_delta_schema(schema), mode=terms.mode, by_day=terms.by_day)
    prefix = f"{0 if table is None else table.version() + 1:020}-{stem}{uuid.uuid4().hex[len(stem) :]}"
    new = False
    try:
        with explain_storage_errors(location):
            files = write(prefix)
            # a commit that outlives a power cut must not name files that do not
            sync_files(location, files.names)
            version, new = _commit(location, files, terms)
        return version, new
    finally:
        # also on Ctrl-C; after a kill they stay, and no version names them
        if not new:
            _remove_uncommitted(location, prefix)


def retry_on_latest(location: str, commit: Callable[[TableVersion | None], Result]) -> Result:
    """Return what ``commit`` returns for the latest version, again and again while others commit in between.

    Parameters
    ----------
    location : str
    commit : callable
        Takes the latest version of the table, None where there is none, and raises ``MarkMoved`` where another
        program commits before it does.

    Raises
    ------
    StorageUnavailable
        When others are first each time.
    """
    for _ in range(COMMIT_ATTEMPTS):
        before = None if try_open(location) is None else table_at(location)
        try:
            return commit(before)
        except MarkMoved:
            continue
    raise StorageUnavailable(
        f"Others write to {show_path(location)} all the time; nothing was committed. Try again."
    )


def find_same_content(location: str, digest: str) -> TableVersion | None:
    """Return the latest version of the table if that is its digest."""
    table = try_open(location)
    latest = None if table is None else to_version(table, location)
    return latest if latest is not None and latest.digest == digest else None


def _commit(location: str, files: DataFiles, terms: CommitTerms) -> tuple[TableVersion, bool]:
    """Commit on top of the latest version, again and again while others commit in between."""
    for attempt in range(COMMIT_ATTEMPTS):
        # anew each time: whoever was first may have committed the same key, moved a mark or changed the columns
        table = try_open(location)
        if done := _find_done(location, files, terms):
            return done, False
        check_schema(table, location, files.schema, mode=terms.mode, by_day=terms.by_day)
        # after the key: whoever tries again what is committed would find the marks moved, by that commit
        _check_unmoved(table, location, terms)
        before = None if table is None else to_version(table, location)
        version = _describe_next_version(before, location, files, terms)
        files = _name_after(version.version, location, files)
        metadata, moved = _make_custom_metadata(version, files, terms), list_transactions(terms, version.version)
        if try_commit(
            table,
            location,
            files,
            version.version,
            mode=terms.mode,
            metadata=metadata,
            moved=moved,
            by_day=terms.by_day,
            removed=terms.removed,
            drops_rows=terms.drops_rows,
        ):
            made = read_commit_info(location, version.version).get("timestamp", 0)
            return replace(version, timestamp=int(made)), True
        # by chance, so that writers who lost together do not meet again
        time.sleep(random.uniform(0, 0.02 * (attempt + 1)))
    raise StorageUnavailable(
        f"Others wrote to {show_path(location)} at each of {COMMIT_ATTEMPTS} attempts; nothing was committed. "
        "Try again."
    )


def _name_after(number: int, location: str, files: DataFiles) -> DataFiles:
    """Return the files, named after the version that they are to be committed as.

    Their names were made before anything was written, and others may have committed since. Rows that only move to
    other files keep the version in the names of these.
    """
    prefix = f"{number:020}{files.prefix[20:]}"
    if prefix == files.prefix:
        return files
    names = [prefix + name[len(prefix) :] if name.startswith(files.prefix) else name for name in files.names]
    for old, new in zip(files.names, names, strict=True):
        if old != new:
            rename_file(location, old, new)
    return replace(files, prefix=prefix, names=tuple(names))


def _find_done(location: str, files: DataFiles, terms: CommitTerms) -> TableVersion | None:
    """Return the version that makes this commit needless."""
    done = find_commit(location, terms.key) if terms.key else None
    return done or (find_same_content(location, files.digest) if terms.once else None)


def _check_unmoved(table: DeltaTable | None, location: str, terms: CommitTerms) -> None:
    """Raise ``MarkMoved`` where another program committed what this commit was to be the next after."""
    for mark in terms.marks:
        there = None if table is None else table.transaction_version(to_mark_id(mark.name))
        if there != mark.before:
            raise MarkMoved(
                f"Another program moved the mark {mark.name!r} of {show_path(location)} from {mark.before} to "
                f"{there} meanwhile; nothing was committed. Begin again from there."
            )
    if terms.removed:
        files = set() if table is None else {file.name for file in list_live_files(table)}
        if any(file.name not in files for file in terms.removed):
            raise MarkMoved(
                f"Another program rewrote files of {show_path(location)} meanwhile; nothing was committed. "
                "Try again."
            )
    following = 0 if table is None else table.version() + 1
    if terms.at is not None and following != terms.at:
        raise MarkMoved(
            f"Another program wrote version {following - 1} of {show_path(location)} meanwhile; nothing was "
            "committed. Try again."
        )


def list_live_files(table: DeltaTable) -> list[LiveFile]:
    """Return the data files of an opened table, in the order of their names, which is that of their rows."""
    import pyarrow as pa

    found = (
        LiveFile(
            unquote(file["path"]),
            str((file.get("partition") or {}).get(DAY) or ""),
            file["size_bytes"],
            file["num_records"] or 0,
        )
        for file in pa.table(table.get_add_actions()).to_pylist()
    )
    return sorted(found, key=lambda file: file.name)


def list_transactions(terms: CommitTerms, version: int) -> dict[str, int]:
    """Return Delta's transactions of a commit that makes ``version``: identifier -> number.

    A key has the version as its number, by which ``find_commit`` gets from the key to the commit; a mark has where
    it is then.
    """
    made = {to_transaction_id(terms.key): version} if terms.key else {}
    return {**made, **{to_mark_id(mark.name): mark.after for mark in terms.marks}}


def _describe_next_version(
    before: TableVersion | None, location: str, files: DataFiles, terms: CommitTerms
) -> TableVersion:
    number, rows, digest = 0 if before is None else before.version + 1, sum(files.counts), files.digest
    if before is not None and terms.mode == "append":
        rows += before.rows - sum(file.rows for file in terms.removed)
        # a chain, so that an append reads no row that the table has already
        digest = hashlib.sha256(f"{before.digest} {files.digest}".encode()).hexdigest()[:32]
    return TableVersion(location, number, rows, digest, timestamp=0, columns=list_columns(files.schema))


def _make_custom_metadata(version: TableVersion, files: DataFiles, terms: CommitTerms) -> dict[str, str]:
    # the prefix is random, and so tells this commit from another writer's of the same version: see try_commit
    made = {"dlpipe.rows": str(version.rows), "dlpipe.digest": version.digest, "dlpipe.commit": files.prefix}
    if terms.key:
        made["dlpipe.key"] = json.dumps(dict(terms.key), sort_keys=True)
    if attempt := find_attempt():
        made["dlpipe.made_by"] = attempt
    return {**made, **{f"dlpipe.{name}": value for name, value in terms.metadata.items()}}


def _remove_uncommitted(location: str, prefix: str) -> None:
    """Remove the data files of a write that made no version."""
    from pyarrow.fs import FileSelector

    with contextlib.suppress(OSError, DlpipeError):
        table = try_open(location)
        # the commit may stand at any version since the prefix was made: other writers came in between
        versions = range(int(prefix[:20]), 0 if table is None else table.version() + 1)
        # Ctrl-C can arrive after the commit and before it was noted
        made = (str(read_commit_info(location, version).get("dlpipe.commit")) for version in versions)
        # by the random part: rows that move to other files keep the version in the names of these, and files are
        # renamed where others commit first
        if any(commit[20:] == prefix[20:] for commit in made):
            return
        storage = filesystem(location)
        for file in storage.get_file_info(FileSelector(".")):
            if file.base_name[20:].startswith(prefix[20:]):
                storage.delete_file(file.base_name)
