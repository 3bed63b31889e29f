"""Runs carried from attempt to attempt: begun, examined when they have ended, resumed or ended for good.

The order of notes makes every step safe against a kill:

1. An attempt is in the state before its keeper is started: a scheduler that is killed in between leaves one that
   nobody has begun, and the next scheduler begins it.
2. It is begun once, however often it is started (see ``keeper``): so starting it again is always safe.
3. What it left behind is ended before its end is noted, so that two attempts of one run never work at a time.
4. Its end is in the state before the next attempt is, in one commit with the run's status and with the event, the
   alert and the hooks that follow from it: no end is told that a kill then undoes, and none stays untold.

Nothing is kept in memory that a new scheduler would miss.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dlpipe.errors import RunEnded
from dlpipe.orchestrator.attempts import make_attempt
from dlpipe.orchestrator.deployments import Version
from dlpipe.orchestrator.ends import (
    apply_deadline,
    compute_backoff,
    describe_failure,
    describe_refusal,
    describe_stop,
    make_end_event,
    note_end,
)
from dlpipe.orchestrator.examinations import Examinations, Key
from dlpipe.orchestrator.exit_hooks import ExitHooks
from dlpipe.orchestrator.findings import Finding, NotInspected, is_overdue, make_unknown
from dlpipe.orchestrator.limits import TIME_IS_UP, compute_deadline, is_over
from dlpipe.orchestrator.processes import count_starts, has_begun, has_keeper, hold_steps, is_alive, reap
from dlpipe.orchestrator.runs import ENDED, Run, RunAttempt
from dlpipe.orchestrator.starting import begin_attempt, find_refusal
from dlpipe.orchestrator.state import State

STARTS = 5
"""So often is an attempt started of which no keeper has begun: then its end is noted as lost."""
INSPECTIONS = 5
"""So often is Metaflow asked what became of an attempt: then a person has to look."""

log = logging.getLogger(__name__)


class Supervisor:
    """Starts attempts, notes how they ended, and resumes runs whose failure may pass.

    Parameters
    ----------
    on_end : callable
        Called with each run that has succeeded, failed or was terminated, after that is in the state.
    """

    def __init__(self, state: State, *, on_end: Callable[[Run], object] = lambda run: None) -> None:
        self._state = state
        self._on_end = on_end
        self._examinations = Examinations()

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait for no examination; runs continue."""
        self._examinations.close()

    @property
    def busy(self) -> bool:
        """Whether something that ended is being examined."""
        return bool(self._examinations)

    def has_ended_attempt(self) -> bool:
        """A cheap sign that ``reconcile`` has something to do."""
        return self._examinations.has_done() or any(
            (run.number, run.attempts[-1].number) not in self._examinations
            and not is_alive(Path(run.attempts[-1].folder), run.attempts[-1].token)
            for run in self._state.list_runs(status=["running"])
        )

    def start(self, number: int, now: float) -> Run:
        """Begin the next attempt of a queued or waiting run, unless its deployment refuses."""
        run = self._state.get_run(number)
        if run.status not in ("queued", "waiting") or run.suspended:
            return run
        version = self._state.get_version(run.deployment, run.version)
        if refusal := find_refusal(version, run, now):
            return self._end(run, "failed", refusal)
        attempt = make_attempt(self._state, run, now)
        with contextlib.suppress(RunEnded):  # its deployment was deleted meanwhile
            # the note first: processes that no note knows would be found by nobody
            self._state.add_attempt(number, attempt, deadline=compute_deadline(version, run, now))
            begin_attempt(version, self._state.get_run(number), attempt)
        return self._state.get_run(number)

    def reconcile(self, now: float, *, wait: bool = False, only: int | None = None) -> None:
        """Carry on every run: what has ended is noted, what has died may be resumed, what is to stop is stopped.

        What ended is examined beside, and dealt with by a later call; with ``wait``, on return. The state is not
        locked meanwhile: a keeper may take many seconds to begin, and events are published all the time.

        Parameters
        ----------
        now : float
            Seconds since 1970.
        wait : bool, optional
            Return when all that has ended is dealt with.
        only : int, optional
            Number of a run; others are left alone.
        """
        reap()
        stopping = set(self._state.list_stop_requested())
        for run in self._state.list_runs(status=["running", "waiting", "queued"]):
            if only not in (None, run.number):
                continue
            if run.status != "running":
                if run.number in stopping:
                    self._end(run, "terminated", describe_stop(run))
                elif run.status == "waiting" and is_over(run, now):
                    self._end(run, "failed", describe_refusal(run, TIME_IS_UP))
                continue
            attempt = run.attempts[-1]
            hold_steps(Path(attempt.folder), run.suspended)
            if (run.number, attempt.number) not in self._examinations:
                self._examine(run, attempt, stop=run.number in stopping)
        for key in self._examinations.list_done(wait=wait):
            self._deal_with(key, now)

    def _examine(self, run: Run, attempt: RunAttempt, *, stop: bool) -> None:
        key = (run.number, attempt.number)
        if self._examinations.is_pausing(key):
            return
        version = self._state.get_version(run.deployment, run.version)
        if not stop and not has_begun(Path(attempt.folder)) and self._is_begun_later(version, run, attempt):
            return
        end = stop or is_overdue(attempt)
        if end or not is_alive(Path(attempt.folder), attempt.token):
            self._examinations.begin(version, run, attempt, end=end)

    def _is_begun_later(self, version: Version, run: Run, attempt: RunAttempt) -> bool:
        """Whether an attempt that nobody has begun is begun now, or soon; its starter was killed."""
        folder = Path(attempt.folder)
        if has_keeper(folder):
            return True
        if count_starts(folder) >= STARTS:
            return False
        self._examinations.note_failure((run.number, attempt.number))
        begin_attempt(version, run, attempt)
        return True

    def _deal_with(self, key: Key, now: float) -> None:
        number, attempt_number = key
        try:
            finding = self._examinations.take(key)
        except Exception as error:  # no memory, no space: it is examined again
            failures = self._examinations.note_failure(key)
            log.warning("run %s cannot be looked at: %s: %s", number, type(error).__name__, error)
            if failures < INSPECTIONS or not isinstance(error, NotInspected):
                return
            finding = make_unknown(self._state.get_run(number).attempts[-1], error)
        run = self._state.get_run(number)
        # meanwhile another process may have stopped the run, or a person may have resumed it
        if finding is None or run.status in ENDED or run.attempts[-1].number != attempt_number:
            return
        self._apply(run, finding, now)
        self._examinations.forget_failures(key)

    def _apply(self, run: Run, finding: Finding, now: float) -> None:
        """Note what has become of the attempt and of its run, in one commit with what is to be told of it."""
        version = self._state.get_version(run.deployment, run.version)
        seconds = compute_backoff(version, len(run.attempts))
        finding = apply_deadline(run, finding, now + seconds)
        with self._state.transaction():
            # asked inside: a wish to stop that came while the attempt was examined is not lost
            terminated = run.number in self._state.list_stop_requested() and finding.outcome != "succeeded"
            attempt = note_end(run.attempts[-1], finding, terminated=terminated)
            self._state.set_attempt(run.number, attempt)
            if finding.outcome == "succeeded":
                if finding.end_pathspec:
                    # its id is made of the attempt's token: a second scheduler publishes the same event, once
                    self._state.publish(make_end_event(version, attempt, finding))
                self._state.set_status(run.number, "succeeded", reason="")
            elif terminated:
                self._state.set_status(run.number, "terminated", reason="stopped by hand")
            elif finding.may_pass and len(run.attempts) <= version.policies.resumes:
                self._state.set_status(
                    run.number, "waiting", reason=describe_failure(attempt), not_before=now + seconds
                )
            else:
                self._state.set_status(run.number, "failed", reason=describe_failure(attempt))
            self._tell(self._state.get_run(run.number))

    def _end(self, run: Run, status: Any, reason: str) -> Run:
        with self._state.transaction():
            self._state.set_status(run.number, status, reason=reason)
            ended_run = self._state.get_run(run.number)
            self._tell(ended_run)
        return ended_run

    def _tell(self, run: Run) -> None:
        if run.status not in ENDED:
            return
        try:
            ExitHooks(self._state).note(run)
            self._on_end(run)
        except Exception:  # an alert that cannot be sent changes nothing of the run
            log.exception("the end of run %s could not be told", run.number)


def reconcile(state: State, now: float) -> None:
    """Carry on every run of ``state`` once, and return when all that had ended is dealt with."""
    with Supervisor(state) as supervisor:
        supervisor.reconcile(now, wait=True)
