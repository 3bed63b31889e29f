"""Folders that are not on the usual disk: one that is soon full, and one in memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MEMORY = "/dev/shm"
ROOM = 2**30


@contextmanager
def tiny_disk(folder: Path) -> Iterator[Path]:
    """A device of one megabyte."""
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip("mounting a small tmpfs needs root: " + made.stderr.decode().strip())
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def quick_folder() -> Iterator[Path]:
    """A folder in memory, where writing waits for no disk; elsewhere if there is no room."""
    place = MEMORY if has_room(MEMORY) else None
    with tempfile.TemporaryDirectory(prefix="dlpipe-tests-", dir=place, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def has_room(place: str) -> bool:
    """Whether files can be written there, and programs run."""
    if not os.access(place, os.W_OK) or shutil.disk_usage(place).free < ROOM:
        return False
    return not os.statvfs(place).f_flag & os.ST_NOEXEC
