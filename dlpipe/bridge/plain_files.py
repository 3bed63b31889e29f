"""Opening files that others may have put there: a link may lead to what only this account can read."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable


class NotPlainFile(OSError):
    """What stands under a file's name is a pipe, a device or the like, which may give no end."""


def open_plain_file(path: str, flags: int, folder: int | None = None) -> int:
    """Return the descriptor of a file that is one; for ``open`` as its ``opener``.

    Parameters
    ----------
    path : str
        A link under this name is not followed.
    flags : int
        As for ``os.open``.
    folder : int, optional
        Descriptor of the folder in which ``path`` is looked for.

    Raises
    ------
    NotPlainFile
        When it is none.
    OSError
        With ``errno.ELOOP`` for a link.
    """
    # without waiting: a pipe to which nobody writes would hold the opening for ever
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotPlainFile(errno.EINVAL, "no plain file", path)
    return descriptor


def make_opener(root: str) -> Callable[[str, int], int]:
    """Return an ``opener`` of plain files below ``root``, on a way without links."""

    def open_below(path: str, flags: int) -> int:
        *folders, name = path.removeprefix(root).strip(os.sep).split(os.sep)
        place = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for folder in folders:  # one by one: O_NOFOLLOW is for the last part of a path alone
                inner = _open_folder(place, folder)
                os.close(place)
                place = inner
            return open_plain_file(name, flags, place)
        finally:
            os.close(place)

    return open_below


def _open_folder(place: int, name: str) -> int:
    if name == os.pardir or stat.S_ISLNK(os.lstat(name, dir_fd=place).st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place)
