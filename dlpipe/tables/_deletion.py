"""Delete a table with all of its versions.

The folder gets a hidden name first, in one step: a kill leaves the table or none. What a killed deletion left is
removed by the next deletion of a table of this name.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from dlpipe.durable import sync_folder
from dlpipe.errors import SettingError, TableNotFound
from dlpipe.tables._storage import explain_storage_errors, is_remote, locate, show_path
from dlpipe.tables._versions import make_missing_error

DELETED = ".deleted-"


def check_deletable(path: str | Path) -> str:
    """Return where the table at ``path`` is.

    Raises
    ------
    TableNotFound
        When there is none, nor anything that a killed deletion of it left.
    SettingError
        When it is in an object store, is a link, or has another table in its folder.
    """
    location = locate(path)
    if is_remote(location):
        raise SettingError(
            f"{show_path(location)} is in an object store, where nothing is deleted in one step. Delete its files "
            "with the tools of the store, those of _delta_log last."
        )
    folder = Path(location)
    if folder.is_symlink():
        raise SettingError(f"{show_path(location)} is a link to {os.readlink(folder)}. Name the table itself.")
    if not (folder / "_delta_log").is_dir():
        if _find_left(folder):
            return location
        raise make_missing_error(location)
    inside = [log.parent for depth in ("*", "*/*") for log in folder.glob(f"{depth}/_delta_log")]
    if tables := [table for table in inside if "_staged" not in table.relative_to(folder).parts]:
        raise SettingError(
            f"{show_path(location)} has another table in its folder, {tables[0].name!r}. Delete that one first, "
            "or move it."
        )
    return location


def delete_table(path: str | Path) -> None:
    """Delete the table at ``path``; called again after a kill, it deletes the rest.

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
    folder = Path(check_deletable(path))
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


def _find_left(folder: Path) -> list[Path]:
    """Return what a killed deletion of the table in ``folder`` left."""
    hidden = folder.with_name(f"{DELETED}{folder.name}")
    return [hidden] if hidden.is_dir() else []
