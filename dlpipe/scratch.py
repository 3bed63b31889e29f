"""Temporary folders; what a process that was killed leaves of them is found again, and removed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "dlpipe-scratch-"


@contextlib.contextmanager
def open_scratch() -> Iterator[Path]:
    """Yield a new temporary folder that is gone afterwards.

    Killed before that, it is one of ``find_left_scratch``: a lock on it, which ends with the process, says which
    are in use.

    Raises
    ------
    OSError
        When there is no space left for it.

    Examples
    --------
    >>> with open_scratch() as folder:
    ...     _ = (folder / "rows.csv").write_text("text")
    >>> folder.exists()
    False
    """
    with open_shared_scratch() as (folder, _):
        yield folder


@contextlib.contextmanager
def open_shared_scratch() -> Iterator[tuple[Path, int]]:
    """Yield a new temporary folder, and the descriptor that locks it.

    A process that inherits the descriptor keeps the folder in use for as long as it lives.

    Raises
    ------
    OSError
        When there is no space left for it.
    """
    folder, lock = _make_locked()
    try:
        yield folder, lock
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def find_left_scratch() -> list[Path]:
    """Return the temporary folders of this user that no process uses any more."""
    return [folder for folder in _list_scratch() if _is_left(folder)]


def find_busy_scratch() -> list[Path]:
    """Return the temporary folders of this user that processes use."""
    return [folder for folder in _list_scratch() if not _is_left(folder) and folder.exists()]


def remove_left_scratch() -> list[Path]:
    """Remove the temporary folders of this user that no process uses any more, and return them."""
    return [folder for folder in _list_scratch() if _is_left(folder, remove=True)]


def _list_scratch() -> list[Path]:
    place = Path(tempfile.gettempdir())
    found = []
    for folder in sorted(place.glob(f"{PREFIX}*")):
        with contextlib.suppress(OSError):  # removed just now
            if folder.lstat().st_uid == os.getuid() and folder.is_dir() and not folder.is_symlink():
                found.append(folder)
    return found


def _make_locked() -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        lock = os.open(folder, os.O_RDONLY)
        with contextlib.suppress(OSError):  # a file system without locks: nobody takes it for one that was left
            fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():  # or another process took it, not yet locked, for one that was left
            return folder, lock
        os.close(lock)


def _is_left(folder: Path, *, remove: bool = False) -> bool:
    """Return whether no process has locked a folder; it is removed under a lock where that is asked for."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # removed just now
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if remove:
            shutil.rmtree(folder)
    except OSError:  # in use
        return False
    finally:
        os.close(lock)
    return True
