"""Stage rows part by part, from one process or many, and commit them together.

A part waits as a Parquet file in the folder ``_staged`` of its table, where neither readers of Delta tables nor
their vacuum look. The commit gives each of these files a second name among the data files, and so leaves them
whole for whoever commits the same key at the same time; the first names go when the commit is made.

What a kill leaves: a part is there whole or not at all, so the work goes on with those that are missing. Killed
before the commit, second names are left that no version names; killed after it, first names. Whoever commits the
same key next removes both.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dlpipe.durable import move
from dlpipe.errors import DlpipeError, MarkMoved, PartsMissing, SchemaMismatch
from dlpipe.tables._attempt import DataFiles
from dlpipe.tables._batches import rebatch
from dlpipe.tables._commit import CommitTerms, Mark, write_and_commit
from dlpipe.tables._digest import ContentDigest
from dlpipe.tables._storage import (
    DATA_FILE,
    STAGED,
    copy_file,
    explain_storage_errors,
    filesystem,
    is_remote,
    locate,
    make_table_folder,
    show_path,
)
from dlpipe.tables._targets import check_target, to_delta_schema
from dlpipe.tables._versions import KEYS, TableVersion, find_commit, read_commit_info, to_transaction_id, try_open
from dlpipe.tables._write import ROW_GROUP_ROWS

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.fs import FileInfo, FileSystem
    from pyarrow.parquet import FileMetaData

DIGEST = b"dlpipe.digest"
ABANDONED_AFTER = 7 * 24 * 3600.0
"""Seconds after which a staged file belongs to nobody: keys of runs that never came back are not known here."""


class _Adopted(NamedTuple):
    """A staged file under its second name."""

    name: str
    size: int
    rows: int
    digest: str


def stage_part(
    target: str | Path,
    rows: pa.Table | pa.RecordBatchReader,
    *,
    key: Mapping[str, str],
    part: int,
    cut: str = "",
) -> None:
    """Keep ``rows`` beside the table ``target`` until ``commit_parts``; readers of the table do not see them.

    A part appears whole or not at all, and again is harmless. It is held in memory while it is written.

    Parameters
    ----------
    target : str or Path
        The table; it is made by the commit where there is none.
    rows : pyarrow.Table or RecordBatchReader
        May be none: the part then counts as staged, and adds nothing to the commit.
    key : mapping of str to str
        What the commit will carry.
    part : int
        Its place in the commit, from 0.
    cut : str
        Parts that were cut in different ways do not mix; see ``TablePart.cut``.

    Raises
    ------
    SchemaMismatch
        When the table has other columns; nothing is staged.
    """
    import pyarrow as pa

    location = locate(target)
    check_target(location, rows.schema)
    # to the end before the file is opened: an upload to S3 that is broken off by an error is there all the same
    whole = rows if isinstance(rows, pa.Table) else rows.read_all()
    try:
        with explain_storage_errors(location):
            _write_whole(location, f"{STAGED}/{_make_stem(key, cut)}{part:05}.parquet", whole)
    except DlpipeError:
        # who commits the key removes what is still being staged for it: then the rows are in the table
        if find_commit(location, key) is None:
            raise


def find_staged_parts(target: str | Path, *, key: Mapping[str, str], cut: str = "") -> frozenset[int]:
    """Return the numbers of the parts that are staged for a commit with ``key``.

    Parameters
    ----------
    target, key, cut
        As for ``stage_part``.
    """
    return frozenset(_find_parts(locate(target), key, cut))


def commit_parts(
    target: str | Path, *, key: Mapping[str, str], parts: int, cut: str = "", marks: Sequence[Mark] = ()
) -> TableVersion:
    """Append the staged parts 0 to ``parts`` - 1, in this order, in one commit, and return its version.

    Where a commit of the table carries ``key`` already, that version comes back. Nothing staged is left for the
    key either way, and nothing that was staged in this table more than a week ago.

    Parameters
    ----------
    target, key, cut
        As for ``stage_part``.
    parts : int
        How many there are.
    marks : sequence of Mark
        The commit moves them in the same atomic step.

    Raises
    ------
    PartsMissing
        When one is not staged; nothing is committed.
    MarkMoved
        When a mark is no longer where it was; nothing is committed, and nothing staged is left for the key.

    Examples
    --------
    >>> import pyarrow as pa, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for part in (1, 0):
    ...         stage_part(f"{folder}/sums", pa.table({"part": [part]}), key={"sum": "a"}, part=part)
    ...     str(commit_parts(f"{folder}/sums", key={"sum": "a"}, parts=2))
    'sums@v0'
    """
    location = locate(target)
    try:
        done = find_commit(location, key) or _adopt_and_commit(location, key, parts, cut, marks)
    except MarkMoved:
        # the rows were chosen for where the mark was: nobody can commit these parts any more
        _remove(location, _find_staged_leftovers(location, key))
        raise
    _discard(location, key, done)
    return done


def _adopt_and_commit(
    location: str, key: Mapping[str, str], parts: int, cut: str, marks: Sequence[Mark]
) -> TableVersion:
    try:
        names = _find_all_parts(location, key, parts, cut)
        with explain_storage_errors(location):
            # of the first part; _adopt_file holds the others to it
            schema = to_delta_schema(_read_footer(location, names[0], names[0]).schema.to_arrow_schema())

        def adopt(prefix: str) -> DataFiles:
            return _adopt(location, names, schema, prefix)

        terms = CommitTerms(key=key, marks=marks)
        return write_and_commit(location, schema, adopt, terms, stem=_make_name_stem(key))[0]
    except DlpipeError:
        # another process may have committed them, and removed what was staged
        done = find_commit(location, key)
        if done is None:
            raise
        return done


def _find_all_parts(location: str, key: Mapping[str, str], parts: int, cut: str) -> list[str]:
    there = _find_parts(location, key, cut)
    missing = sorted(set(range(parts)) - set(there))
    if missing or not parts:
        few = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise PartsMissing(
            f"{len(missing)} of {parts} parts for {show_path(location)} are not staged: "
            f"{few or 'none was named'}. Stage them, then commit again."
        )
    return [there[number] for number in range(parts)]


def _adopt(location: str, names: Sequence[str], schema: pa.Schema, prefix: str) -> DataFiles:
    """Give staged files, without those that have no rows, names under which they can be committed."""
    files: list[_Adopted] = []
    for name in names:
        file = _adopt_file(location, name, f"{prefix}-{len(files):05}.parquet", schema)
        if file.rows:
            files.append(file)
        else:  # a part without rows is staged to say that it was done
            filesystem(location).delete_file(file.name)
    digest = hashlib.sha256("\n".join(file.digest for file in files).encode()).hexdigest()[:32]
    names, sizes, counts = ([getattr(file, field) for file in files] for field in ("name", "size", "rows"))
    return DataFiles(prefix, tuple(names), tuple(sizes), tuple(counts), schema, digest)


def _adopt_file(location: str, staged: str, name: str, schema: pa.Schema) -> _Adopted:
    copy_file(location, staged, name)
    # read under the second name: the first may be staged again by another process
    footer = _read_footer(location, name, staged)
    if to_delta_schema(footer.schema.to_arrow_schema()) != schema:
        raise SchemaMismatch(
            f"The parts staged for {show_path(location)} differ in their columns: one has "
            f"{', '.join(schema.names)}, "
            f"another {', '.join(footer.schema.names)}. Stage them anew, under another key."
        )
    size = filesystem(location).get_file_info(name).size
    return _Adopted(name, size, footer.num_rows, footer.metadata[DIGEST].decode())


def _read_footer(location: str, name: str, staged: str) -> FileMetaData:
    import pyarrow as pa
    import pyarrow.parquet as pq

    storage = filesystem(location)
    try:
        with storage.open_input_file(name) as file:
            return pq.read_metadata(file)  # type: ignore[no-any-return]
    except pa.ArrowInvalid:
        # else the work would take the part for staged, and every commit would stop here
        storage.delete_file(staged)
        raise PartsMissing(
            f"A part staged for {show_path(location)} was damaged ({staged}) and is removed. Stage it again, then "
            "commit."
        ) from None


def _write_whole(location: str, name: str, rows: pa.Table) -> None:
    """Write a file that is there as a whole or not at all."""
    storage = filesystem(location)
    make_table_folder(location, STAGED)
    if is_remote(location):  # an object appears when its upload is complete
        _write_parquet(storage, name, rows)
        return
    begun = f"{name}.{uuid.uuid4().hex}.tmp"
    try:
        _write_parquet(storage, begun, rows)
        # ending in .tmp until then, by which _find_parts does not take it for a part
        move(Path(location, begun), Path(location, name))
    except BaseException:
        with contextlib.suppress(OSError):
            storage.delete_file(begun)
        raise


def _write_parquet(storage: FileSystem, name: str, rows: pa.Table) -> None:
    import pyarrow.parquet as pq

    schema, digest = to_delta_schema(rows.schema), ContentDigest()
    with storage.open_output_stream(name) as sink, pq.ParquetWriter(sink, schema, store_schema=False) as writer:
        for batch in rebatch(rows.to_batches(), ROW_GROUP_ROWS):
            digest.add(batch := batch.cast(schema))
            writer.write_batch(batch, row_group_size=ROW_GROUP_ROWS)
        # in the file, so that the commit need not read again what other processes wrote
        writer.add_key_value_metadata({DIGEST.decode(): digest.hexdigest()})


def _find_parts(location: str, key: Mapping[str, str], cut: str) -> dict[int, str]:
    """Return the file of each part that is staged."""
    pattern = re.compile(re.escape(_make_stem(key, cut)) + r"(\d{5})\.parquet")
    with explain_storage_errors(location):
        found = [(pattern.fullmatch(file.base_name), file.path) for file in _list_staged_files(location)]
    return {int(match[1]): path for match, path in found if match}


def _list_staged_files(location: str) -> list[FileInfo]:
    from pyarrow.fs import FileSelector

    if not is_remote(location) and not Path(location, STAGED).is_dir():
        return []
    return filesystem(location).get_file_info(FileSelector(STAGED, allow_not_found=True))  # type: ignore[no-any-return]


def _make_stem(key: Mapping[str, str], cut: str = "") -> str:
    """Return how the names of the parts of a commit begin."""
    return f"{to_transaction_id(key).removeprefix(KEYS)}-{f'{cut}-' if cut else ''}"


def _make_name_stem(key: Mapping[str, str]) -> str:
    """Return what the names of the data files of a commit have in common, whoever makes it.

    By it ``_find_commit_leftovers`` tells the files of killed commits of the same key from those of other writers.
    """
    return _make_stem(key)[:16]


def _discard(location: str, key: Mapping[str, str], done: TableVersion) -> None:
    """Remove what is staged for ``key``, what killed commits of it left, and what somebody staged long ago."""
    # the commit is made: what cannot be removed now is removed by a later one
    with contextlib.suppress(OSError, DlpipeError):
        _remove(location, [*_find_staged_leftovers(location, key), *_find_commit_leftovers(location, key, done)])


def _remove(location: str, names: Iterable[str]) -> None:
    for name in names:
        with contextlib.suppress(OSError):
            filesystem(location).delete_file(name)


def clear_staged(target: str | Path) -> None:
    """Remove what is staged beside ``target`` for commits that are there, and what somebody staged long ago."""
    location = locate(target)
    with contextlib.suppress(OSError, DlpipeError):
        _remove(location, _find_staged_leftovers(location))


def _find_staged_leftovers(location: str, key: Mapping[str, str] | None = None) -> Iterator[str]:
    """Yield what is staged for ``key`` and for commits that are there, and what somebody staged long ago."""
    own, table = _make_stem(key) if key else None, try_open(location)
    for file in _list_staged_files(location):
        stem = file.base_name.partition("-")[0]
        # an object store does not say through Arrow when a file was made
        old = file.mtime is not None and time.time() - file.mtime.timestamp() > ABANDONED_AFTER
        done = table is not None and table.transaction_version(f"{KEYS}{stem}") is not None
        if old or done or f"{stem}-" == own:
            yield file.path


def _find_commit_leftovers(location: str, key: Mapping[str, str], done: TableVersion) -> Iterator[str]:
    """Yield data files of other tries: who tries still will find the commit that is there."""
    from pyarrow.fs import FileSelector

    committed, stem = read_commit_info(location, done.version).get("dlpipe.commit"), _make_name_stem(key)
    if not committed:  # the log no longer has the commit, so that its own files cannot be told from others
        return
    for file in filesystem(location).get_file_info(FileSelector(".")):
        name = file.base_name
        of_key = DATA_FILE.fullmatch(name) and name[21:].startswith(stem)
        if of_key and not name.startswith(committed):
            yield name
