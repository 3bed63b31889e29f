"""Locks of an MLflow store on this machine."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dlpipe.errors import TrackingUnavailable
from dlpipe.redaction import show_address

LOCK_SECONDS = 120.0


@contextmanager
def hold_touch_lock(uri: str) -> Iterator[None]:
    """Hold the lock of a database server: processes that touch a fresh one at once get errors from MLflow."""
    with hold_lock(find_lock_file(uri, "touch"), asked=show_address(uri)):
        yield


def _find_lock_folder() -> Path:
    """Where locks are: in the user's home; for one without, in a temporary folder that is theirs alone."""
    home = Path(os.path.expanduser("~/.local/state/dlpipe/locks"))
    with suppress(OSError):
        home.mkdir(parents=True, exist_ok=True)
        if os.access(home, os.W_OK):
            return home
    folder = Path(tempfile.gettempdir()) / f"dlpipe-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    made = folder.lstat()  # others can make it first, to hold the locks or to lead elsewhere by a link
    if not stat.S_ISDIR(made.st_mode) or made.st_uid != os.getuid() or made.st_mode & 0o022:
        raise TrackingUnavailable(
            f"{folder}, where locks would be, is not this user's alone. Give this user a home (HOME), or another "
            "TMPDIR."
        )
    return folder


def find_lock_file(uri: str, purpose: str) -> Path:
    """Return the file by which processes of this machine take turns on a store that is no file."""
    return _find_lock_folder() / f"{hashlib.sha256(uri.encode()).hexdigest()[:16]}.{purpose}.lock"


@contextmanager
def hold_lock(lock: Path, *, asked: str, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold the lock file ``lock``; ``TrackingUnavailable`` when another process holds it for ``seconds`` more.

    Parameters
    ----------
    lock : Path
        Made when missing; it stays.
    asked : str
        What is held, for the error.
    seconds : float, optional
        How long another holder is waited for; -1 waits as long as it lives.
    """
    import filelock

    try:
        # the file stays: one who removed it while another waits would let a third lock a new file of that name
        with filelock.FileLock(lock, timeout=seconds):
            yield
    except filelock.Timeout:
        raise TrackingUnavailable(
            f"{asked}: another process has held {lock.name} for {seconds:.0f} seconds. "
            "Wait for it, or end it, and try again."
        ) from None
