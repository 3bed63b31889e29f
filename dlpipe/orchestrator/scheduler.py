"""The process that puts the orchestrator together: it looks, decides, starts runs, and sleeps.

Everything that it knows is in the state, so it may be killed at any moment; the runs that it started go on
without it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
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
from typing import IO, Any

from dlpipe.errors import DlpipeError, RunEnded, SchedulerRunning, StateUnusable, StorageFull
from dlpipe.orchestrator.alerts import Alerts
from dlpipe.orchestrator.database import DAMAGED
from dlpipe.orchestrator.decisions import decide
from dlpipe.orchestrator.overview import failure_of, next_due, said_time
from dlpipe.orchestrator.processes import end_all
from dlpipe.orchestrator.retention import Retention
from dlpipe.orchestrator.runs import Run
from dlpipe.orchestrator.state import FILE, State
from dlpipe.orchestrator.supervision import Supervisor
from dlpipe.orchestrator.watching import Watch

LOCK = "scheduler.lock"
ABOUT = "scheduler.json"
LOG = "scheduler.log"
LOG_BYTES = 5 * 1024 * 1024
LOG_FILES = 5
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
STOP_SECONDS = 30.0

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
        self._supervisor = Supervisor(state, on_end=self._ended)
        self._retention = Retention(state, days=keep_days)
        self._file = file_of(state)
        self._running = False
        self._seen = 0
        self._last = -math.inf
        self._next = -math.inf
        self._watch = Watch(state.folder)
        self._stop = Stop(self._watch)

    def tick(self) -> list[int]:
        """Do all that is to be done now; return the numbers of the runs that were begun."""
        if file_of(self._state) != self._file:
            raise StateUnusable(f"{self._state.folder / FILE} was moved or replaced; start the scheduler again.")
        now = self._last = self._clock()
        self._seen = self._state.data_version()
        with self._state.transaction():  # a run's end and the alert of it are one commit
            self._supervisor.reconcile(now)
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
        return self._running and self._supervisor.something_ended()

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
                    self._say(error)
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

    def _ended(self, run: Run) -> None:
        step, why = failure_of(run)
        said = ": ".join(filter(None, (step, why)))
        level = logging.WARNING if run.status == "failed" else logging.INFO
        log.log(level, "run %d of %s %s%s", run.number, run.deployment, run.status, f": {said}" if said else "")
        self._alerts.note(run)

    def _say(self, error: Exception) -> None:
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
    dues = [due for one in state.deployments() if (due := next_due(one, one.scheduled_until)) is not None]
    waits = [run.not_before for run in state.runs(status=["waiting"]) if run.not_before > now]
    alert = state.next_alert()
    return min([*dues, *waits, *([max(alert, now + 1)] if alert is not None else []), math.inf])


class Stop:
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
        before = {one: signal.signal(one, self._ask) for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        with contextlib.suppress(BlockingIOError):
            os.write(self._writing, b"!")


# -- one process a state -----------------------------------------------------------------------------------------


def schedule(
    folder: Path,
    *,
    max_runs: int,
    port: int,
    keep_days: int,
    clock: Callable[[], float] = time.time,
    clean: Callable[[str], str] = str,
) -> None:
    """Work on the state in ``folder`` until SIGTERM or Ctrl-C, with a page on ``port`` unless it is 0.

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
        write_about(folder, about)
        scheduler = Scheduler(state, max_runs=max_runs, keep_days=keep_days, clock=clock, clean=clean)
        try:
            log.info(
                "the scheduler begins: pid %d, at most %d runs at a time, state %s", about["pid"], max_runs, folder
            )
            if port and (page := open_page(folder, port, about, clock)):
                write_about(folder, {**about, "port": port, "page": page})
            scheduler.run()
            log.info("the scheduler ends; runs go on")
        except StateUnusable as error:
            log.error("the scheduler ends: %s", error)
            raise
        finally:
            with contextlib.suppress(OSError):
                (folder / ABOUT).unlink()


@contextlib.contextmanager
def only_scheduler(folder: Path) -> Iterator[None]:
    """Be the only scheduler of ``folder``; the kernel lets go of that however the process ends."""
    with (folder / LOCK).open("a") as lock:
        if not taken(lock):
            raise SchedulerRunning(f"A scheduler works on {folder} already: {said_about(folder)}.")
        yield


def taken(lock: IO[str]) -> bool:
    """Take a lock; somebody may hold it for a moment, only to see whether there is a scheduler."""
    for _ in range(10):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.1)
    return False


def said_about(folder: Path) -> str:
    """Who the scheduler of ``folder`` is, for a message."""
    about = read_about(folder)
    page = f", page {about['page']}" if about.get("page") else ""
    since = f", since {said_time(about['started'] // 1)}" if about.get("started") else ""
    return f"pid {about.get('pid', 'unknown')}{page}{since}. `dlpipe scheduler stop` ends it"


def running_scheduler(folder: Path) -> dict[str, Any] | None:
    """What the scheduler of ``folder`` says of itself (pid, page, since when); ``None`` if there is none."""
    try:
        with (folder / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return read_about(folder)
    except OSError:
        return None
    return None


def stop_running(folder: Path, seconds: float = STOP_SECONDS) -> int | None:
    """End the scheduler of ``folder`` and return its pid when it has ended; ``None`` if there was none."""
    about = running_scheduler(folder)
    if about is None:
        return None
    pid = about.get("pid")
    if not isinstance(pid, int):
        raise SchedulerRunning(f"The scheduler of {folder} has only just begun. Try again.")
    os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + seconds
    while running_scheduler(folder) is not None:
        if time.monotonic() > until:
            raise SchedulerRunning(f"The scheduler with pid {pid} has not ended within {seconds:.0f} seconds.")
        time.sleep(0.1)
    return pid


def terminate(state: State, run: Run) -> None:
    """Ask the scheduler to stop a run; without one, end its processes now, which the next scheduler notes.

    Raises
    ------
    RunEnded
        When it has ended already.
    """
    state.request_stop(run.number)
    if running_scheduler(state.folder) is None and run.attempts and not run.attempts[-1].ended:
        end_all(run.attempts[-1].token)


def read_about(folder: Path) -> dict[str, Any]:
    """What the scheduler of ``folder`` wrote about itself; empty if nothing can be read."""
    try:
        return dict(json.loads((folder / ABOUT).read_text()))
    except (OSError, ValueError):
        return {}


def write_about(folder: Path, about: dict[str, Any]) -> None:
    """Let others know who the scheduler is; it works without that."""
    made = folder / f"{ABOUT}.new"
    try:
        made.write_text(json.dumps(about))
        made.replace(folder / ABOUT)
    except OSError as error:
        log.warning("%s cannot be written: %s", folder / ABOUT, error.strerror)


# -- page and log ------------------------------------------------------------------------------------------------


def open_page(folder: Path, port: int, about: dict[str, Any], clock: Callable[[], float]) -> str:
    """Open the status page and return its address; empty, with a word in the log, if the port is taken."""
    from dlpipe import __version__
    from dlpipe.orchestrator.page import ADDRESS, make_app, serve

    shown = {"dlpipe": __version__, "pid": about["pid"], "at most": f"{about['max_runs']} runs at a time"}
    try:
        serve(make_app(State.open(folder), about=shown, clock=clock), port)
    except OSError as error:
        log.warning(
            "no status page: port %d cannot be used (%s). Choose another with --port.", port, error.strerror
        )
        return ""
    address = f"http://{ADDRESS}:{port}"
    log.info("status page: %s", address)
    return address


@contextlib.contextmanager
def logging_to(folder: Path) -> Iterator[None]:
    """Log to standard error, and to a file in ``folder`` that is rotated."""
    form = logging.Formatter("%(asctime)s UTC %(levelname)-7s %(message)s", "%Y-%m-%d %H:%M:%S")
    form.converter = time.gmtime
    logger = logging.getLogger("dlpipe")
    handlers = [logging.StreamHandler(sys.stderr), *file_handlers(folder)]
    for handler in handlers:
        handler.setFormatter(form)
        logger.addHandler(handler)
    before, propagated = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.propagate = propagated
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()


def file_handlers(folder: Path) -> list[logging.Handler]:
    """The handler that writes the log's file; none when it cannot be written."""
    try:
        return [LogFile(folder / LOG, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8", delay=False)]
    except OSError as error:
        print(f"{folder / LOG} cannot be written: {error.strerror}", file=sys.stderr)
        return []


class LogFile(logging.handlers.RotatingFileHandler):
    """A file that a full disk leaves incomplete, without a traceback for each line."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Lose the line: it stands on standard error as well."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)
