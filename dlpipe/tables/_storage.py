"""Find and make the folders of tables on a disk or in a bucket, and turn what storage refuses into our errors."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dlpipe.buckets import explain_s3_error
from dlpipe.delta import open_storage
from dlpipe.durable import make_folder, move, sync_file, sync_folder
from dlpipe.errors import DlpipeError, SettingError, StorageFull, StorageUnavailable
from dlpipe.redaction import show_address

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

DATA_FILE = re.compile(r"\d{20}-[0-9a-f]{32}-\d{5}\.parquet")
STAGED = "_staged"
NAME = re.compile(r"[\w.+=@-]+(/[\w.+=@-]+)*/?")
# a table's companions, such as its quarantine, have longer names than itself
LONGEST_NAME = 200
FULL = ("no space left", "os error 28", "disk quota exceeded", "os error 122")
"""How delta-rs writes ENOSPC and EDQUOT: its errors have no number."""
# delta-rs would retry a dead endpoint for three minutes
REMOTE_OPTIONS = {"max_retries": "3", "retry_timeout": "20s", "connect_timeout": "5s"}


def tables_root() -> str:
    """Return where relative table names live: ``DLPIPE_TABLES``, or ``data/tables`` under the working folder.

    Examples
    --------
    >>> os.environ["DLPIPE_TABLES"] = "s3://bucket/tables/"
    >>> tables_root()
    's3://bucket/tables'
    >>> del os.environ["DLPIPE_TABLES"]
    """
    return _make_absolute(os.environ.get("DLPIPE_TABLES") or "data/tables")


def locate(path: str | Path) -> str:
    """Return the absolute path or ``s3://`` URI of a table.

    A relative name is taken under ``tables_root()``, one that begins with ``./`` or ``../`` under the
    working folder.

    Raises
    ------
    SettingError
        When it is empty, or a name that has blanks or other signs.

    Examples
    --------
    >>> locate("s3://bucket/reviews/")
    's3://bucket/reviews'
    >>> locate("/srv/tables/../reviews")
    '/srv/reviews'
    """
    name = str(path)
    if not name.strip():
        raise SettingError("A table's path is empty. Pass a name such as 'reviews', or a folder.")
    if is_remote(name) or name.startswith(("/", "~", "./", "../", "file://")):
        return _make_absolute(name)
    if not NAME.fullmatch(name):
        raise SettingError(
            f"{name!r} cannot name a table: use letters, digits, '-', '_' and '.', and '/' between folders. "
            "A path that is no name begins with './' or '/'."
        )
    return _make_absolute(f"{tables_root()}/{name}")


def is_remote(location: str) -> bool:
    """Return whether ``location`` is a URI of an object store."""
    return "://" in location and not location.startswith("file://")


def storage_options(location: str) -> dict[str, str] | None:
    """Return what delta-rs needs beside the usual ``AWS_*`` variables, which it reads by itself."""
    return dict(REMOTE_OPTIONS) if is_remote(location) else None


def filesystem(location: str) -> FileSystem:
    """Return the file system whose root is the folder of the table at ``location``."""
    with explain_storage_errors(location):
        return open_storage(location, storage_options(location))


def make_table_folder(location: str, name: str = ".") -> None:
    """Make the folder of the table at ``location``, or one in it, if it is missing."""
    if is_remote(location):
        filesystem(location).create_dir(name, recursive=True)
    else:
        make_folder(Path(location, name))


def sync_files(location: str, names: Iterable[str]) -> None:
    """Return when these files of the table at ``location`` are on the disk, content and name."""
    if is_remote(location):
        return
    for name in names:
        sync_file(Path(location, name))
    sync_folder(location)


def copy_file(location: str, source: str, target: str) -> None:
    """Give a file of a table a second name, which outlives the first.

    Parameters
    ----------
    location : str
        The table.
    source, target : str
        The first and the second name, under the folder of the table.
    """
    if is_remote(location):
        # its public method passes on an argument that does not exist (delta-rs 1.6)
        filesystem(location).handler._handler.copy_file(source, target)
        return
    link_or_copy(Path(location, source), Path(location, target))


def rename_file(location: str, source: str, target: str) -> None:
    """Give a file of a table another name, on the disk too; in an object store it is copied."""
    if is_remote(location):
        copy_file(location, source, target)
        filesystem(location).delete_file(source)
        return
    move(Path(location, source), Path(location, target))


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Give a file a second name, or copy it where the file system has no hard links."""
    try:
        os.link(source, target)
    except FileNotFoundError:  # another process removed it: that is no reason to copy
        raise
    except OSError:
        shutil.copyfile(source, target)


def show_path(location: str) -> str:
    """Return ``location`` as an error names it: relative to the working folder where it lies under it."""
    if is_remote(location):
        return repr(show_address(location))
    path = Path(location)
    return repr(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


@contextmanager
def explain_storage_errors(location: str) -> Iterator[None]:
    """Turn what the storage of a table refuses into ``StorageFull`` or ``StorageUnavailable``."""
    from deltalake.exceptions import DeltaError

    try:
        yield
    except DlpipeError:
        raise
    except (OSError, DeltaError) as error:
        if is_full(error):
            raise StorageFull(
                f"No space is left on the device of {show_path(location)}; nothing was committed. Free some "
                "space, or set DLPIPE_TABLES to a folder on another device."
            ) from None
        if isinstance(error, OSError):
            raise StorageUnavailable(_describe_refusal(location, error)) from None
        raise


def _describe_refusal(location: str, error: OSError) -> str:
    if is_remote(location) and (cause := explain_s3_error(str(error))):
        return f"{show_address(location)} cannot be used for tables (DLPIPE_TABLES): {cause}."
    return (
        f"The storage of {show_path(location)} does not answer as it should: {to_one_line(error)}. "
        "Check the path, the permissions and, for s3, the AWS_* variables."
    )


def to_one_line(error: BaseException) -> str:
    """Return what ``error`` says on one line of at most 300 characters, without colours or a last dot."""
    line = re.sub(r"\x1b\[[0-9;]*m|↳", "", str(error))
    # delta-rs adds a trace of its own
    line = " ".join(line.split()).partition(" 0: <unknown>")[0].rstrip(".")
    return line if len(line) <= 300 else f"{line[:297]}..."


def is_full(error: BaseException) -> bool:
    """Return whether ``error`` says that the device has no space left."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(sign in str(error).lower() for sign in FULL)


def _make_absolute(path: str) -> str:
    if is_remote(path):
        return path.rstrip("/")
    found = os.path.abspath(os.path.expanduser(path.removeprefix("file://")))
    if "\0" in found or max(len(os.fsencode(name)) for name in found.split("/")) > LONGEST_NAME:
        raise SettingError(
            f"A table's path has names of at most {LONGEST_NAME} bytes and no NUL: {found[:99]!r}. Pass another."
        )
    # delta-rs decodes the first once too often and takes the second for a slash: it would look in another folder
    if sign := next((sign for sign in "%\\" if sign in found), ""):
        raise SettingError(
            f"A table's path cannot hold {sign!r}: {found!r}. Pass another name, or set DLPIPE_TABLES to another "
            "folder."
        )
    return found
