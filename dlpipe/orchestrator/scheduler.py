"""The process that puts the orchestrator together: it looks, decides, starts runs, and sleeps.

Everything that it knows is in the state, so it may be killed at any moment; the runs that it started continue
without it.
"""

from __future__ import annotations

import logging
import logging.handlers
import math
import sqlite3
import time
from collections.abc import Callable

from dlpipe.errors import DlpipeError, RunEnded, StateUnusable, StorageFull
from dlpipe.orchestrator.alerts import Alerts
from dlpipe.orchestrator.database import DAMAGED
from dlpipe.orchestrator.decisions import decide
from dlpipe.orchestrator.exit_hooks import ExitHooks
from dlpipe.orchestrator.overview import find_failure, next_due
from dlpipe.orchestrator.retention import Retention
from dlpipe.orchestrator.runs import Run
from dlpipe.orchestrator.state import FILE, State
from dlpipe.orchestrator.stop_signal import StopSignal
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
        # read before the work: what others change meanwhile is a change since then, and the next tick sees it
        self._seen = self._state.get_data_version()
        # ends before decisions: they make room, and publish the events that start other runs
        self._supervisor.reconcile(now)
        self._over.update(self._hooks.look())
        while self._over:
            self._retention.look_after(self._over.pop())
        begun = [self._begin(run, now) for run in decide(self._state, now, max_runs=self._max_runs)]
        self._alerts.send()
        self._retention.look(now)
        self._running = bool(self._state.list_runs(status=["running"], limit=1))
        self._next = next_moment(self._state, now)
        return begun

    def is_time(self) -> bool:
        """Whether there may be something to do: by the clock, or by a cheap sign of change."""
        now = self._clock()
        if now >= self._next or not self._last <= now < self._last + LOOK_SECONDS:
            return True
        if self._state.get_data_version() != self._seen or file_of(self._state) != self._file:
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
        """Close what is open; runs continue, and alerts that are not sent yet are kept."""
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
        for deployment in state.list_deployments()
        if (due := next_due(deployment, deployment.scheduled_until)) is not None
    ]
    waiting = state.list_runs(status=["waiting"])
    waits = [at for run in waiting for at in (run.not_before, run.deadline) if at > now]
    alert = state.find_next_alert()
    hooks = [now + HOOK_SECONDS] if state.list_hooks() else []
    return min([*dues, *waits, *hooks, *([max(alert, now + 1)] if alert is not None else []), math.inf])
