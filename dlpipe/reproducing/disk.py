"""What is said where the disk on which a model is made again is full."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from dlpipe.errors import StorageFull

FULL = (errno.ENOSPC, errno.EDQUOT)


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
