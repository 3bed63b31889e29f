"""The one scheduler of a state: which process it is, whether it lives, and how it is stopped."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from dlpipe.durable import write_file
from dlpipe.errors import SchedulerRunning
from dlpipe.time_formats import format_time

LOCK = "scheduler.lock"
ABOUT = "scheduler.json"
STOP_SECONDS = 30.0

log = logging.getLogger(__name__)


@contextlib.contextmanager
def only_scheduler(folder: Path) -> Iterator[None]:
    """Be the only scheduler of ``folder``; the kernel lets go of that however the process ends."""
    # the file is never removed: who did so would let a second scheduler lock a new one of the same name
    with (folder / LOCK).open("a") as lock:
        if not take_lock(lock):
            raise SchedulerRunning(f"A scheduler works on {folder} already: {describe_scheduler(folder)}.")
        yield


def take_lock(lock: IO[str]) -> bool:
    """Take a lock; somebody may hold it for a moment, only to see whether there is a scheduler."""
    for _ in range(10):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.1)
    return False


def describe_scheduler(folder: Path) -> str:
    """Who the scheduler of ``folder`` is, for a message."""
    about = read_about(folder)
    page = f", page {about['page']}" if about.get("page") else ""
    since = f", since {format_time(about['started'] // 1)}" if about.get("started") else ""
    return f"pid {about.get('pid', 'unknown')}{page}{since}. `dlpipe scheduler stop` ends it"


def find_scheduler(folder: Path) -> dict[str, Any] | None:
    """What the scheduler of ``folder`` has written about itself (pid, page, start); ``None`` if there is none."""
    try:
        with (folder / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return read_about(folder)
    except OSError:
        return None
    return None


def stop_scheduler(folder: Path, seconds: float = STOP_SECONDS) -> int | None:
    """End the scheduler of ``folder`` and return its pid when it has ended; ``None`` if there was none."""
    about = find_scheduler(folder)
    if about is None:
        return None
    pid = about.get("pid")
    if not isinstance(pid, int):
        raise SchedulerRunning(f"The scheduler of {folder} has only just begun. Try again.")
    os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + seconds
    while find_scheduler(folder) is not None:
        if time.monotonic() > until:
            raise SchedulerRunning(f"The scheduler with pid {pid} has not ended within {seconds:.0f} seconds.")
        time.sleep(0.1)
    return pid


def read_about(folder: Path) -> dict[str, Any]:
    """What the scheduler of ``folder`` wrote about itself; empty if nothing can be read."""
    try:
        return dict(json.loads((folder / ABOUT).read_text()))
    except (OSError, ValueError):
        return {}


def write_about(folder: Path, about: dict[str, Any]) -> None:
    """Let others know who the scheduler is; it works without that."""
    try:
        write_file(folder / ABOUT, json.dumps(about), mode=0o600)  # it has the token of the page
    except OSError as error:
        log.warning("%s cannot be written: %s", folder / ABOUT, error.strerror)
