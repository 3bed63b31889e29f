"""Which attempt of a Metaflow task this process works for: whatever keeps records names it as their maker."""

from __future__ import annotations

import os

VARIABLE = "_DLPIPE_BRIDGE_TASK"
"""Set in each task of a bridged run, and inherited by the processes that it starts."""


def find_attempt() -> str:
    """Return the key of the attempt, such as ``TrainFlow/17/train/4/0``; empty outside of a bridged task.

    Examples
    --------
    >>> os.environ[VARIABLE] = "TrainFlow/17/train/4/0"
    >>> find_attempt()
    'TrainFlow/17/train/4/0'
    >>> del os.environ[VARIABLE]
    """
    return os.environ.get(VARIABLE, "")
