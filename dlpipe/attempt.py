"""Which attempt of a Metaflow task this process works for: whatever keeps records names it as their maker."""

from __future__ import annotations

import os
import sys

VARIABLE = "_DLPIPE_BRIDGE_TASK"
"""Set in each task of a bridged run, and inherited by the processes that it starts."""


def find_attempt() -> str:
    """Return the key of the attempt, such as ``TrainFlow/17/train/4/0``; empty outside of a task.

    Of a task whose run is not bridged, only its own process knows, and not those that it starts.

    Examples
    --------
    >>> os.environ[VARIABLE] = "TrainFlow/17/train/4/0"
    >>> find_attempt()
    'TrainFlow/17/train/4/0'
    >>> del os.environ[VARIABLE]
    """
    return os.environ.get(VARIABLE) or _find_running_task()


def _find_running_task() -> str:
    """Return what Metaflow's ``current`` says: a process that works for a task has imported it."""
    current = getattr(sys.modules.get("metaflow"), "current", None)
    if current is None or not current.is_running_flow or current.task_id is None:
        return ""
    return f"{current.pathspec}/{current.retry_count}"
