"""Files that a process which lives may hold open: what is taken out of them is overwritten where it stands.

A file that takes the place of another is not the one that a scheduler or a run goes on writing to.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from dlpipe.forgetting.contents import overwrite_plain
from dlpipe.forgetting.reading import LARGEST
from dlpipe.forgetting.words import Needles


def overwrite_file(path: Path, needles: Needles) -> bool | None:
    """Overwrite words of a file in place, as many bytes as there are, and return whether there were any.

    A process that appends to it goes on in it, and one that has read a part finds the rest where it was.

    Returns
    -------
    bool or None
        ``None`` where it has to be replaced: it is packed, or nobody appends to it.
    """
    try:
        if not _may_be_held(path):
            return None
        with path.open("r+b", buffering=0) as file:
            before = file.readall()
            after = overwrite_plain(before, needles)
            if after is None or after is before:
                return None if after is None else False
            _write_changes(file.fileno(), before, after)
            return True
    except FileNotFoundError:
        return False


def _may_be_held(path: Path) -> bool:
    """Return whether somebody may append to a file: frozen code is read-only, and has several names."""
    there = path.stat()
    return bool(there.st_mode & stat.S_IWUSR) and there.st_nlink == 1 and there.st_size <= LARGEST


def _write_changes(descriptor: int, before: bytes, after: bytes) -> None:
    """Write from the first change to the last, at once: of a text with some of its words nobody finds the rest."""
    changed = [at for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    first, end = changed[0], changed[-1] + 1
    while first < end:
        first += os.pwrite(descriptor, after[first:end], first)
    os.fsync(descriptor)
