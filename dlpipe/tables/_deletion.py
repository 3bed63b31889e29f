"""Delete a table with all of its versions.

The folder gets a hidden name first, in one step: a kill leaves the table or none. What a killed deletion left is
removed by the next deletion of a table of this name.

In an object store nothing is renamed, and each file is deleted by itself. A marker is written first, then the log
goes, its oldest commit first, without which no version can be read, and then the rest: a kill leaves the table, or
a place that nobody can read as one. The marker goes last: by it the next deletion knows what is left of a table.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from dlpipe.durable import sync_folder
from dlpipe.errors import SettingError, TableNotFound
from dlpipe.tables._forgotten import FORGOTTEN
from dlpipe.tables._storage import (
    STAGED,
    copy_file,
    explain_storage_errors,
    filesystem,
    is_remote,
    locate,
    show_path,
)
from dlpipe.tables._versions import LOG_FILE, make_missing_error

DELETED = ".deleted-"
FEATURES = "_features"
LOG = "_delta_log"
MARKER = f"{LOG}/.deleted"


def check_deletable(path: str | Path) -> str:
    """Return where the table at ``path`` is.

    Raises
    ------
    TableNotFound
        When there is none, nor anything that a killed deletion of it left.
    SettingError
        When it is a link, has another table in its folder, or is the record of forgotten rows.
    """
    location = locate(path)
    if location == locate(FORGOTTEN):
        raise SettingError(
            f"{show_path(location)} keeps forgotten rows from coming back. To let those of one record come back, "
            "use `dlpipe forget --lift RECORD`; `dlpipe forget --records` lists them."
        )
    if is_remote(location):
        _check_inside(location, [str(Path(file).parent) for file in _list_remote(location)])
        return location
    folder = Path(location)
    if folder.is_symlink():
        raise SettingError(f"{show_path(location)} is a link to {os.readlink(folder)}. Name the table itself.")
    if not (folder / LOG).is_dir():
        if folder.name and _find_left(folder):
            return location
        raise make_missing_error(location)
    logs = (log for depth in ("*", "*/*") for log in folder.glob(f"{depth}/{LOG}"))
    _check_inside(location, [str(log.relative_to(folder)) for log in logs])
    return location


def _check_inside(location: str, folders: Iterable[str]) -> None:
    """Raise ``SettingError`` where one of the folders in a table's place is the log of another table."""
    for folder in map(Path, folders):
        if folder.name == LOG and len(folder.parts) > 1 and STAGED not in folder.parts:
            raise SettingError(
                f"{show_path(location)} has another table in its folder, {folder.parent.name!r}. Delete that one "
                "first, or move it."
            )


def delete_table(path: str | Path) -> None:
    """Delete the table at ``path`` and the features kept of it; called again after a kill, it deletes the rest.

    Raises
    ------
    TableNotFound, SettingError
        As ``check_deletable``.

    Examples
    --------
    >>> import pyarrow as pa, tempfile
    >>> from dlpipe.tables import write_table
    >>> with tempfile.TemporaryDirectory() as root:
    ...     _ = write_table(f"{root}/reviews", pa.table({"text": ["good"]}))
    ...     delete_table(f"{root}/reviews")
    ...     os.listdir(root)
    []
    """
    location = check_deletable(path)
    delete_folder(locate_features(location))  # first: of a table that a kill leaves they are made again
    if is_remote(location):
        _delete_remote(location)
        return
    folder = Path(location)
    with explain_storage_errors(str(folder)):
        for left in _find_left(folder):
            shutil.rmtree(left)
        if not folder.is_dir():
            return
        hidden = folder.with_name(f"{DELETED}{folder.name}")
        try:
            os.rename(folder, hidden)
        except FileNotFoundError:
            raise TableNotFound(f"{show_path(str(folder))} was deleted by another process.") from None
        sync_folder(folder.parent)
        shutil.rmtree(hidden)


def locate_features(location: str) -> str:
    """Return the folder or URI beside a table in which features of it are kept, which can be made again.

    Examples
    --------
    >>> locate_features("/data/tables/reviews")
    '/data/tables/_features/reviews'
    """
    folder, _, name = location.rpartition("/")
    return f"{folder}/{FEATURES}/{name}"


def delete_folder(location: str) -> None:
    """Delete a folder, or all files below a URI; one that is gone is none."""
    if not is_remote(location):
        if Path(location).is_dir():
            shutil.rmtree(location, ignore_errors=True)
        return
    from pyarrow.fs import FileSelector, FileType

    with explain_storage_errors(location):
        store = filesystem(location)
        for file in store.get_file_info(FileSelector("", recursive=True, allow_not_found=True)):
            if file.type == FileType.File:
                store.delete_file(file.path)


def _list_remote(location: str) -> list[str]:
    """Return the files of a table in the order in which they go; ``TableNotFound`` without a log."""
    from pyarrow.fs import FileSelector, FileType

    with explain_storage_errors(location):
        there = filesystem(location).get_file_info(FileSelector("", recursive=True, allow_not_found=True))
    files = [entry.path for entry in there if entry.type == FileType.File]
    log = [file for file in files if file.startswith(f"{LOG}/")]
    if not log:
        raise make_missing_error(location)
    commits = sorted(file for file in log if LOG_FILE.fullmatch(Path(file).name))
    # a checkpoint stands for all commits before it
    others = [file for file in log if file not in commits and file != MARKER]
    return [*others, *commits, *(file for file in files if file not in log), *([MARKER] if MARKER in log else [])]


def _delete_remote(location: str) -> None:
    files, store = _list_remote(location), filesystem(location)
    with explain_storage_errors(location):
        if MARKER not in files:
            # any content will do, and delta-rs cannot write a small file (1.6)
            copy_file(location, next(file for file in files if file.startswith(f"{LOG}/")), MARKER)
            files.append(MARKER)
        for file in files:
            store.delete_file(file)


def find_deleted(root: str) -> list[Path]:
    """Return what killed deletions left of tables in a folder; in an object store nothing is renamed."""
    return [] if is_remote(root) else sorted(path for path in Path(root).glob(f"{DELETED}*") if path.is_dir())


def _find_left(folder: Path) -> list[Path]:
    """Return what a killed deletion of the table in ``folder`` left."""
    hidden = folder.with_name(f"{DELETED}{folder.name}")
    return [hidden] if hidden.is_dir() else []
