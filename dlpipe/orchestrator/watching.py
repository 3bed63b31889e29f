"""A folder's changes, as the kernel reports them (Linux' inotify): nobody has to look again and again."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

CHANGES = 0x2 | 0x40 | 0x80 | 0x100 | 0x200  # modified, moved away, moved here, made, deleted
FLAGS = os.O_CLOEXEC | os.O_NONBLOCK


class Watch:
    """Wakes who waits for its descriptor when a file of ``folder`` itself is written, made, moved or deleted.

    Attributes
    ----------
    descriptor : int or None
        For ``select``; ``None`` where the kernel tells nothing: then somebody has to look.
    """

    def __init__(self, folder: Path) -> None:
        self.descriptor: int | None = None
        with contextlib.suppress(OSError, AttributeError):  # not Linux, or too many watches of this user
            libc = ctypes.CDLL(None, use_errno=True)
            descriptor = check_result(libc.inotify_init1(FLAGS))
            try:
                check_result(libc.inotify_add_watch(descriptor, os.fsencode(folder), ctypes.c_uint32(CHANGES)))
            except OSError:
                os.close(descriptor)
                raise
            self.descriptor = descriptor

    def take(self) -> None:
        """Take what was told, so that the descriptor waits for the next change."""
        with contextlib.suppress(BlockingIOError):
            while self.descriptor is not None and os.read(self.descriptor, 65536):
                pass

    def close(self) -> None:
        """Let go of it."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


def check_result(result: int) -> int:
    """What a function of the C library returned, which says by -1 that it failed."""
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
