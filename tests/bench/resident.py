"""How much memory this process has, as the kernel counts it."""

from __future__ import annotations

import re
from pathlib import Path


def read_resident(which: str) -> float:
    """Return MiB: ``VmRSS`` is what it has, ``VmHWM`` the most that it had.

    ``ru_maxrss`` is at least what the process had that started this one.
    """
    found = re.search(rf"{which}:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024
