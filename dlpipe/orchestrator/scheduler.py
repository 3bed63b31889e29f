"""The process that puts the orchestrator together: it looks, decides, starts runs, and sleeps.

Everything that it knows is in the state, so it may be killed at any moment; the runs that it started go on
without it.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import math
import os
import select
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from dlpipe.errors import DlpipeError, RunEnded, StateUnusable, StorageFull
from dlpipe.orchestrator.alerts import Alerts
from dlpipe.orchestrator.database import DAMAGED
from dlpipe.orchestrator.decisions import decide
from dlpipe.orchestrator.exit_hooks import ExitHooks
from dlpipe.orchestrator.logfile import logging_to
from dlpipe.orchestrator.overview import find_failure, next_due
from dlpipe.orchestrator.presence import ABOUT, only_scheduler, write_about
from dlpipe.orchestrator.retention import Retention
from dlpipe.orchestrator.runs import Run
from dlpipe.orchestrator.state import FILE, State
from dlpipe.orchestrator.supervision import Supervisor
from dlpipe.orchestrator.watching import Watch

POLL_SECONDS = 0.5
"""How soon the end of a run is noticed; where the kernel tells nothing, also what other processes change."""
WATCH_SECONDS = 10.0
"""How long it sleeps at most while nothing runs: a clock that jumps is noticed by then."""
TOLD_SECONDS = 5.0
"""After a change was told, it looks for so long: the kernel tells of a file before what is in it is committed."""
BUSY_SECONDS = 0.1
LOOK_SECONDS = 60.0
"""Everything is looked at so often, signs or not."""
LONGEST_PAUSE = 60.0
HOOK_SECONDS = 1.0
"""How soon the end of exit hooks is noticed."""

log = logging.getLogger(__name__)


class Scheduler:
    """Looks what has ended, decides what is to run, and starts it.

    Parameters
    ----------
    state : State
        All that it knows.
    max_runs : int
        Runs of this machine at a time.
    keep_days : int
        Runs that ended longer ago are forgotten; 0 for never.
    clock : callable
        The time in seconds since 1970.
    clean : callable
        Takes credentials out of what alerts say.
    """

    def __init__(
        self,
        state: State,
        *,
        max_runs: int,
        keep_days: int = 0,
        clock: Callable[[], float] = time.time,
        clean: Callable[[str], str] = str,
    ) -> None:
        self._state = state
        self._max_runs = max_runs
        self._clock = clock
        self._alerts = Alerts(state, clean=clean, clock=clock)
        self._hooks = ExitHooks(state)
        self._supervisor = Supervisor(state, on_end=self._note_end)
        self._retention = Retention(state, days=keep_days)
        self._file = file_of(state)
        self._running = False
        self._over: set[str] = set()
        self._seen = 0
        self._last = -math.inf
        self._next = -math.inf
        self._watch = Watch(state.folder)
        self._stop = StopSignal(self._watch)

    def tick(self) -> list[int]:
        """Do all that is to be done now; return the numbers of the runs that were begun."""
        if file_of(self._state) != self._file:
            raise StateUnusable(f"{self._state.folder / FILE} was moved or replaced; start the scheduler again.")
        now = self._last = self._clock()
        self._seen = self._state.data_version()
        self._supervisor.reconcile(now)
        self._over.update(self._hooks.look())
        while self._over:
            self._retention.look_after(self._over.pop())
        begun = [self._begin(run, now) for run in decide(self._state, now, max_runs=self._max_runs)]
        self._alerts.send()
        self._retention.look(now)
        self._running = bool(self._state.runs(status=["running"], limit=1))
        self._next = next_moment(self._state, now)
        return begun

    def is_time(self) -> bool:
        """Whether there may be something to do: by the clock, or by a cheap sign of change."""
        now = self._clock()
        if now >= self._next or not self._last <= now < self._last + LOOK_SECONDS:
            return True
        if self._state.data_version() != self._seen or file_of(self._state) != self._file:
            return True
        return self._running and self._supervisor.has_ended_attempt()

    def run(self) -> None:
        """Go on until SIGTERM or Ctrl-C; what cannot be done now, for want of space or a lock, is tried again.

        Raises
        ------
        StateUnusable
            When the state is damaged or was replaced: nothing more can be done about it here.
        """
        pause = 1.0
        with self._stop.on_signals():
            while not self._stop.asked:
                try:
                    if self.is_time():
                        self.tick()
                    pause = 1.0
                    self._stop.wait(self._until_next_look())
                except Exception as error:
                    self._log_error(error)
                    self._stop.wait(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
        self.close()

    def close(self) -> None:
        """Let go; the runs go on, and alerts that are not sent yet are kept."""
        self._supervisor.close()
        self._alerts.close()
        self._watch.close()

    def _until_next_look(self) -> float:
        quiet = self._watch.descriptor is not None and self._stop.told < time.monotonic() - TOLD_SECONDS
        longest = WATCH_SECONDS if quiet and not self._running else POLL_SECONDS
        if self._supervisor.busy:
            longest = BUSY_SECONDS
        return min(longest, max(self._next - self._clock(), 0.0))

    def _begin(self, run: Run, now: float) -> int:
        """Begin a run; what is wrong with one does not keep others from beginning."""
        try:
            begun = self._supervisor.start(run.number, now)
        except (StateUnusable, StorageFull):
            raise
        except RunEnded:  # its deployment was deleted meanwhile
            return run.number
        except Exception:
            log.exception("run %d of %s cannot begin", run.number, run.deployment)
            return run.number
        if begun.status == "running":
            log.info("run %d of %s begins: %s", run.number, run.deployment, run.cause)
        return run.number

    def _note_end(self, run: Run) -> None:
        step, why = find_failure(run)
        words = ": ".join(filter(None, (step, why)))
        level = logging.WARNING if run.status == "failed" else logging.INFO
        log.log(level, "run %d of %s %s%s", run.number, run.deployment, run.status, f": {words}" if words else "")
        self._alerts.note(run)
        self._over.add(run.deployment)

    def _log_error(self, error: Exception) -> None:
        """Log what went wrong; raise it when it cannot pass."""
        if isinstance(error, StateUnusable) and not may_pass(error):
            raise error
        if isinstance(error, DlpipeError | OSError):
            log.error("%s", error)
        else:
            log.exception("a mistake in the scheduler; it goes on")
        self._next = -math.inf


def may_pass(error: StateUnusable) -> bool:
    """Whether the state can be used again without a person: a lock passes, damage does not."""
    cause = error.__cause__
    return isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorcode", 0) & 0xFF not in DAMAGED


def file_of(state: State) -> tuple[int, int] | None:
    """Which file the state is in; ``None`` if it was moved away."""
    try:
        found = (state.folder / FILE).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def next_moment(state: State, now: float) -> float:
    """When something is to be done next by the clock: a due time, a run that waits, an alert."""
    dues = [
        due
        for deployment in state.deployments()
        if (due := next_due(deployment, deployment.scheduled_until)) is not None
    ]
    waiting = state.runs(status=["waiting"])
    waits = [at for run in waiting for at in (run.not_before, run.deadline) if at > now]
    alert = state.next_alert()
    hooks = [now + HOOK_SECONDS] if state.hooks() else []
    return min([*dues, *waits, *hooks, *([max(alert, now + 1)] if alert is not None else []), math.inf])


class StopSignal:
    """The wish to end, which signals bring and which ends a wait at once; so does what ``watch`` tells.

    ``told`` is when it did so last, on the monotonic clock.
    """

    def __init__(self, watch: Watch) -> None:
        self.asked = False
        self.told = -math.inf
        self._watch = watch
        self._reading, self._writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def wait(self, seconds: float) -> None:
        """Wait so long, or until the end is asked for or something has changed."""
        watched = [] if self._watch.descriptor is None else [self._watch.descriptor]
        ready, _, _ = select.select([self._reading, *watched], [], [], seconds)
        if self._watch.descriptor in ready:
            self._watch.take()
            self.told = time.monotonic()

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Take SIGTERM, SIGHUP and Ctrl-C as the wish to end."""
        before = {
            number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        with contextlib.suppress(BlockingIOError):
            os.write(self._writing, b"!")


def schedule(
    folder: Path,
    *,
    max_runs: int,
    port: int,
    keep_days: int,
    with_token: bool = True,
    clock: Callable[[], float] = time.time,
    clean: Callable[[str], str] = str,
) -> None:
    """Work on the state in ``folder`` until SIGTERM or Ctrl-C, with a page on ``port`` unless it is 0.

    Without ``with_token`` everybody with an account on this machine can read the page.
    Runs that ended more than ``keep_days`` ago are forgotten, unless it is 0.

    Raises
    ------
    SchedulerRunning
        When another scheduler does so already.
    StateUnusable, StorageFull
        When the state cannot be used.
    """
    state = State.open(folder, check=True)
    with contextlib.closing(state), only_scheduler(folder), logging_to(folder):
        about = {"pid": os.getpid(), "port": 0, "page": "", "started": clock(), "max_runs": max_runs}
        # it knows its file before others know of it: one that is replaced from now on is noticed
        scheduler = Scheduler(state, max_runs=max_runs, keep_days=keep_days, clock=clock, clean=clean)
        write_about(folder, about)
        try:
            log.info(
                "the scheduler begins: pid %d, at most %d runs at a time, state %s", about["pid"], max_runs, folder
            )
            if port and (page := open_page(folder, port, about, clock, with_token=with_token)):
                write_about(folder, {**about, "port": port, "page": page})
            scheduler.run()
            log.info("the scheduler ends; runs go on")
        except StateUnusable as error:
            log.error("the scheduler ends: %s", error)
            raise
        finally:
            with contextlib.suppress(OSError):
                (folder / ABOUT).unlink()


def open_page(
    folder: Path, port: int, about: dict[str, Any], clock: Callable[[], float], *, with_token: bool
) -> str:
    """Open the status page and return its address; empty, with a word in the log, if the port is taken.

    The address with the token goes to standard error and not into the log's file.
    """
    from dlpipe import __version__
    from dlpipe.orchestrator.page import ADDRESS, make_app, serve
    from dlpipe.orchestrator.page_token import read_token

    token = read_token(folder) if with_token else ""
    shown = {"dlpipe": __version__, "pid": about["pid"], "at most": f"{about['max_runs']} runs at a time"}
    try:
        serve(make_app(State.open(folder), token=token, about=shown, clock=clock), port)
    except OSError as error:
        log.warning(
            "no status page: port %d cannot be used (%s). Choose another with --port.", port, error.strerror
        )
        return ""
    address = f"http://{ADDRESS}:{port}"
    log.info("status page: %s", address)
    if token:
        address += f"/?token={token}"
        print(f"Open {address}", file=sys.stderr, flush=True)
    return address
