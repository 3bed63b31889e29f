"""Locks of an MLflow store on this machine."""

from __future__ import annotations

import getpass
import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dlpipe.errors import TrackingUnavailable
from dlpipe.redaction import show_address

LOCK_SECONDS = 120.0


@contextmanager
def touch_lock(uri: str) -> Iterator[None]:
    """Hold the lock of a database server: processes that touch a fresh one at once get errors from MLflow."""
    with held(lock_file(uri, "touch"), asked=show_address(uri)):
        yield


def _lock_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"dlpipe-{getpass.getuser()}"
    folder.mkdir(exist_ok=True)
    return folder


def lock_file(uri: str, purpose: str) -> Path:
    """Return the file by which processes of this machine take turns on a store that is no file."""
    return _lock_folder() / f"{hashlib.sha256(uri.encode()).hexdigest()[:16]}.{purpose}.lock"


@contextmanager
def held(lock: Path, *, asked: str) -> Iterator[None]:
    """Hold the lock file ``lock``; ``TrackingUnavailable`` when another process holds it for minutes."""
    import filelock

    try:
        with filelock.FileLock(lock, timeout=LOCK_SECONDS):
            yield
    except filelock.Timeout:
        raise TrackingUnavailable(
            f"{asked}: another process has held {lock.name} for {LOCK_SECONDS:.0f} seconds. "
            "Wait for it, or end it, and try again."
        ) from None
