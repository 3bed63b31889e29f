"""The folder in which a model is made again; what a killed one leaves is removed by the next."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dlpipe.errors import StorageFull

PREFIX = "dlpipe-reproduce-"
FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def open_scratch(say: Callable[[str], None] = lambda line: None) -> Iterator[tuple[Path, int]]:
    """Yield a new folder and a descriptor that locks it; the folder is gone afterwards.

    Whoever inherits the descriptor keeps the folder from being removed by others.

    Parameters
    ----------
    say : callable, optional
        Gets a line for each folder that an earlier, killed process had left, and that is removed.

    Raises
    ------
    StorageFull
        When there is no space left for it.
    """
    for left in filter(_remove_if_left, Path(tempfile.gettempdir()).glob(f"{PREFIX}*")):
        say(f"removed {left}, which a reproduction that was killed had left")
    with explain_full_disk():
        folder, lock = _make_locked()
        try:
            yield folder, lock
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


@contextmanager
def explain_full_disk() -> Iterator[None]:
    """Turn a disk of temporary files that is full into ``StorageFull``."""
    try:
        yield
    except StorageFull:  # of another place
        raise
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise make_full_error() from None


def make_full_error() -> StorageFull:
    """Return the error that says where no space is left."""
    return StorageFull(
        f"No space is left in {tempfile.gettempdir()!r}, where the model is made again; nothing of it is kept. "
        "Free some space, or set TMPDIR to a folder on another device."
    )


def _make_locked() -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        lock = os.open(folder, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():  # or another process took it, not yet locked, for one that was left
            return folder, lock
        os.close(lock)


def _remove_if_left(folder: Path) -> bool:
    """Remove a folder of this user that no process has locked; return whether that was done."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # somebody else's, or removed just now
        return False
    try:
        if os.fstat(lock).st_uid != os.getuid():
            return False
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    except OSError:  # at work
        return False
    finally:
        os.close(lock)
    return True
