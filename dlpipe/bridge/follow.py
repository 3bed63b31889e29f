"""The process beside a live run: ``python -m dlpipe.bridge.follow FLOW/RUN``, started by the launcher.

It mirrors the run again and again. When its standard input ends, the launcher has ended or was killed: it mirrors
the run a last time, as soon as no task runs any more, tells the launcher what it does meanwhile, prints in one
line where the run stands, and ends. If MLflow cannot be used then, the run is marked as behind, and the next
follower, or ``dlpipe bridge sync``, catches up.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable

from dlpipe.bridge.following import Following
from dlpipe.bridge.mirroring import format_error
from dlpipe.collector import collect_seldom
from dlpipe.terminal import make_visible

INTERVAL, LONGEST = 1.0, 30.0
SHARE = 0.05
"""Of one core, at most, for looking at a run in which little happens."""
GIVE_UP_SECONDS = 24 * 3600.0  # for orphans that outlive their launcher
# an outage shows after seconds here: nobody waits for this process, and the next look is a second away
ANSWER_SECONDS = 3.0
DOING = "doing: "
"""Before a line for the launcher that says what this process does; the last line has it not."""
RESOURCES = "_DLPIPE_BRIDGE_RESOURCES"
"""Names the seconds between two looks at what the tasks take; without it, none are taken."""
IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


def main(pathspec: str, closed: str = "") -> None:
    """Follow the run until it has ended, print one line, then catch up with runs that are behind.

    With the key of an attempt that has just ended, mirror the run once: so does a task beside which no process
    follows the run.
    """
    collect_seldom()
    for name, value in IMPATIENT.items():
        os.environ.setdefault(name, value)
    if closed:
        start_following(pathspec).step(closed=closed)
        return
    launcher = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what libraries print is not for the launcher

    def tell(doing: str) -> None:
        with contextlib.suppress(OSError):  # it may not wait any more
            if wait_for_launcher(0.0):  # until then nobody reads, and the pipe would fill
                print(make_visible(f"{DOING}{doing}"), file=launcher, flush=True)

    line = follow(pathspec, tell)
    with contextlib.suppress(OSError), launcher:  # it may not wait any more
        print(make_visible(line), file=launcher, flush=True)
    if line.startswith("MLflow has"):
        catch_up(pathspec)


def follow(pathspec: str, tell: Callable[[str], None]) -> str:
    """Mirror the run until it has ended, and return the line that says where it stands.

    ``tell`` is called with what it does.
    """
    from dlpipe.bridge.marks import STARTED, find_marks

    mark = find_marks(pathspec)
    mark.keep_diff(read_uncommitted())
    if interval := float(os.environ.get(RESOURCES, 0)):
        from dlpipe.bridge.sampling import Sampler

        Sampler(mark, interval).start()
    following: Following | None = None
    wait, deadline, gone = 0.0, 0.0, False
    while True:
        if not gone and rest(wait, following):
            gone, deadline = True, time.monotonic() + GIVE_UP_SECONDS
        elif gone:
            time.sleep(wait)
        began, first = time.process_time(), following is None
        try:
            following = following or start_following(pathspec, tell)
            done = following.step(launcher_gone=gone)
            if mark.problem() and done.status == "RUNNING":  # it has passed
                mark.set_behind(STARTED)
            if gone and (done.status != "RUNNING" or time.monotonic() > deadline):
                return following.where()
            if gone:
                tell("waiting for tasks that have not ended")
        except Exception as error:  # an outage that may pass, or a run whose files are being written
            mark.set_behind(format_error(error))
            if gone:
                return f"MLflow is behind ({format_error(error)}). To catch up: dlpipe bridge sync {pathspec}"
        # the first look imports MLflow, which says nothing of what the others take
        took = 0.0 if first else time.process_time() - began
        wait = INTERVAL if gone else min(max(INTERVAL, took / SHARE), LONGEST)


def rest(seconds: float, following: Following | None) -> bool:
    """Wait for the launcher's end, and return whether it came; what tasks report meanwhile is written each second.

    Parameters
    ----------
    seconds : float
        How long; less where a task has begun to report that is not known yet.
    following : Following or None
        The run, once it can be written.
    """
    until = time.monotonic() + seconds
    while True:
        left = max(0.0, until - time.monotonic())
        if wait_for_launcher(min(INTERVAL, left)):
            return True
        if left <= INTERVAL:
            return False
        with contextlib.suppress(Exception):  # the look at the whole run, which comes next, says what it is
            if following is None or (following.write_points() >= 0 and not following.has_new_reporting()):
                continue
        return False


def start_following(pathspec: str, tell: Callable[[str], None] = lambda doing: None) -> Following:
    """Return the run on its way into the store that the environment names; ``tell`` is told what it does."""
    from dlpipe.tracking import open_store

    tell("asking MLflow")
    return Following(pathspec, open_store(answer_seconds=ANSWER_SECONDS, create=True), on_progress=tell)


def wait_for_launcher(seconds: float) -> bool:
    """Wait up to ``seconds`` for the end of standard input, and return whether it came."""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(ready) and not sys.stdin.read(1)


def catch_up(pathspec: str) -> None:
    """Mirror the runs that an outage or a kill has left behind, but for those whose launcher lives."""
    from dlpipe.bridge.marks import list_behind

    for mark in list_behind():
        if mark.pathspec != pathspec and mark.launcher() != "lives":
            with contextlib.suppress(Exception):  # it stays marked
                start_following(mark.pathspec).sync()


def read_uncommitted() -> bytes:
    """Return what is not committed in the repository around the working directory, as ``git diff`` says it."""
    try:
        done = subprocess.run(["git", "diff", "HEAD"], capture_output=True, check=False, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return b""
    return done.stdout if done.returncode == 0 else b""


if __name__ == "__main__":
    main(*sys.argv[1:3])
