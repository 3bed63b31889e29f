"""A folder for what Ray keeps while it runs here: its sockets take neither long names nor letters beyond ASCII."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

LONGEST = 30
"""Characters of the temporary folder; Ray adds up to 70, and the kernel takes 107 for a socket's name."""
SHORT = ("/tmp", "/dev/shm", "/var/tmp", f"/run/user/{os.getuid()}")


@contextlib.contextmanager
def room_for_ray() -> Iterator[dict[str, str]]:
    """Yield the option of ``ray.init`` that names a short folder, where the temporary folder does not do.

    Examples
    --------
    >>> with room_for_ray() as options:
    ...     print(set(options) <= {"_temp_dir"})
    True
    """
    usual = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    short = next((folder for folder in SHORT if os.access(folder, os.W_OK | os.X_OK)), None)
    if (usual.isascii() and len(usual) <= LONGEST and Path(usual).is_dir()) or short is None:
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="ray-", dir=short, ignore_cleanup_errors=True) as folder:
        yield {"_temp_dir": folder}
