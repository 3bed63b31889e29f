"""Runs carried from attempt to attempt: started, looked at when they have ended, resumed or ended for good.

The order of notes makes every step safe against a kill: an attempt is in the state before its keeper is started,
it is begun once (see ``processes``), it has ended before the next one is noted, and what it left behind was ended
before that. Nothing is kept in memory that a new scheduler would miss.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlpipe.errors import DlpipeError, RunEnded
from dlpipe.orchestrator.attempts import build_command, build_environment, make_attempt
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
from dlpipe.orchestrator.environment import find_changes
from dlpipe.orchestrator.exit_hooks import ExitHooks
from dlpipe.orchestrator.findings import Finding, NotInspected, end_and_examine, examine, is_overdue, make_unknown
from dlpipe.orchestrator.limits import TIME_IS_UP, compute_deadline, compute_limit, is_over
from dlpipe.orchestrator.processes import (
    count_starts,
    has_begun,
    has_keeper,
    hold_steps,
    is_alive,
    reap,
    start_attempt,
)
from dlpipe.orchestrator.runs import ENDED, Run, RunAttempt
from dlpipe.orchestrator.state import State

STARTS = 5  # keepers that died before they had begun
LOOKERS = 4
LOOKS = 5  # at an attempt of which Metaflow cannot say what became of it
STOP_SECONDS = 60.0
LOG = logging.getLogger(__name__)


class Supervisor:
    """Starts attempts, notes how they ended, and lets runs go on whose failure may pass.

    Parameters
    ----------
    on_end : callable
        Called with each run that has succeeded, failed or was terminated, after that is in the state.
    """

    def __init__(self, state: State, *, on_end: Callable[[Run], object] = lambda run: None) -> None:
        self._state = state
        self._on_end = on_end
        self._pool = ThreadPoolExecutor(LOOKERS, thread_name_prefix="look")
        self._looks: dict[tuple[int, int], Future[Finding | None]] = {}
        self._tried: dict[tuple[int, int], _Tried] = {}

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of what is looked at; runs go on."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def busy(self) -> bool:
        """Whether something that ended is being looked at."""
        return bool(self._looks)

    def has_ended_attempt(self) -> bool:
        """A cheap sign that ``reconcile`` has something to do."""
        return any(look.done() for look in self._looks.values()) or any(
            (run.number, run.attempts[-1].number) not in self._looks
            and not is_alive(Path(run.attempts[-1].folder), run.attempts[-1].token)
            for run in self._state.runs(status=["running"])
        )

    def start(self, number: int, now: float) -> Run:
        """Begin the next attempt of a queued or waiting run, unless its deployment refuses."""
        run = self._state.run(number)
        if run.status not in ("queued", "waiting") or run.suspended:
            return run
        version = self._state.version(run.deployment, run.version)
        if not Path(version.code).is_dir():
            return self._end(
                run, "failed", describe_refusal(run, f"the code of version {version.number} is no longer kept")
            )
        if is_over(run, now):
            return self._end(run, "failed", describe_refusal(run, TIME_IS_UP))
        if changed := _describe_changes(version):
            if version.policies.changed_environment == "refuse":
                return self._end(run, "failed", describe_refusal(run, changed))
            LOG.warning("run %s of %s: %s", number, run.deployment, changed)
        attempt = make_attempt(self._state, run, now)
        with contextlib.suppress(RunEnded):  # its deployment was deleted meanwhile
            self._state.add_attempt(number, attempt, deadline=compute_deadline(version, run, now))
            self._begin(version, self._state.run(number), attempt)
        return self._state.run(number)

    def _begin(self, version: Version, run: Run, attempt: RunAttempt) -> None:
        """Start the attempt's processes; what cannot be started now, ``reconcile`` starts later."""
        try:
            start_attempt(
                Path(attempt.folder),
                build_command(version, run, attempt),
                cwd=version.folder,
                variables=build_environment(version, run, attempt),
                token=attempt.token,
                time_limit=compute_limit(version, run, attempt),
            )
        except OSError as error:
            LOG.warning("run %s: %s", run.number, error)

    def reconcile(self, now: float, *, wait: bool = False, only: int | None = None) -> None:
        """Carry on every run: what has ended is noted, what has died may be resumed, what is to stop is stopped.

        What ended is looked at beside, and dealt with by a later call; with ``wait``, on return. The state is not
        locked meanwhile: a keeper may take many seconds to begin, and events are published all the time. With
        ``only``, the number of a run, others are left alone.
        """
        reap()
        stopping = set(self._state.stop_requested())
        for run in self._state.runs(status=["running", "waiting", "queued"]):
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
            if (run.number, attempt.number) not in self._looks:
                self._look_at(run, attempt, stop=run.number in stopping)
        for key, look_ in list(self._looks.items()):
            if wait or look_.done():
                self._deal_with(key, now)

    def _look_at(self, run: Run, attempt: RunAttempt, *, stop: bool) -> None:
        key = (run.number, attempt.number)
        if time.monotonic() < self._tried.get(key, _Tried()).again:
            return
        version = self._state.version(run.deployment, run.version)
        if not stop and not has_begun(Path(attempt.folder)) and self._is_begun_later(version, run, attempt):
            return
        overdue = is_overdue(attempt)
        if stop or overdue or not is_alive(Path(attempt.folder), attempt.token):
            self._looks[key] = self._pool.submit(
                end_and_examine if stop or overdue else examine, version, run, attempt
            )

    def _is_begun_later(self, version: Version, run: Run, attempt: RunAttempt) -> bool:
        """Whether an attempt that nobody has begun is begun now, or soon; its starter was killed."""
        folder = Path(attempt.folder)
        if has_keeper(folder):
            return True
        if count_starts(folder) >= STARTS:
            return False
        self._tried.setdefault((run.number, attempt.number), _Tried()).failed()
        self._begin(version, run, attempt)
        return True

    def _deal_with(self, key: tuple[int, int], now: float) -> None:
        number, attempt_number = key
        task = self._looks.pop(key)
        tried = self._tried.setdefault(key, _Tried())
        try:
            finding = task.result()
        except Exception as error:  # no memory, no space: it is looked at again
            tried.failed()
            LOG.warning("run %s cannot be looked at: %s: %s", number, type(error).__name__, error)
            if tried.times < LOOKS or not isinstance(error, NotInspected):
                return
            finding = make_unknown(self._state.run(number).attempts[-1], error)
        run = self._state.run(number)
        if finding is None or run.status in ENDED or run.attempts[-1].number != attempt_number:
            return
        self._apply(run, finding, now)
        del self._tried[key]

    def _apply(self, run: Run, finding: Finding, now: float) -> None:
        """Note what has become of the attempt and of its run, in one commit with what is to be told of it."""
        version = self._state.version(run.deployment, run.version)
        seconds = compute_backoff(version, len(run.attempts))
        finding = apply_deadline(run, finding, now + seconds)
        with self._state.transaction():
            terminated = run.number in self._state.stop_requested() and finding.outcome != "succeeded"
            attempt = note_end(run.attempts[-1], finding, terminated=terminated)
            self._state.set_attempt(run.number, attempt)
            if finding.outcome == "succeeded":
                if finding.end_pathspec:
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
            self._tell(self._state.run(run.number))

    def _end(self, run: Run, status: Any, reason: str) -> Run:
        with self._state.transaction():
            self._state.set_status(run.number, status, reason=reason)
            ended_run = self._state.run(run.number)
            self._tell(ended_run)
        return ended_run

    def _tell(self, run: Run) -> None:
        if run.status not in ENDED:
            return
        try:
            ExitHooks(self._state).note(run)
            self._on_end(run)
        except Exception:  # an alert that cannot be sent changes nothing of the run
            LOG.exception("the end of run %s could not be told", run.number)


def reconcile(state: State, now: float) -> None:
    """Carry on every run of ``state`` once, and return when all that had ended is dealt with."""
    with Supervisor(state) as supervisor:
        supervisor.reconcile(now, wait=True)


def stop(state: State, run: Run, now: float, *, on_end: Callable[[Run], object] = lambda run: None) -> None:
    """Stop a run and return when that is done: its tasks get Ctrl-C's signal and seconds to end, then SIGKILL.

    Other runs are left alone; ``on_end`` is called with it.
    """
    state.request_stop(run.number)
    until = time.monotonic() + STOP_SECONDS
    with Supervisor(state, on_end=on_end) as supervisor:
        supervisor.reconcile(now, wait=True, only=run.number)
        # on a busy machine Metaflow may have no answer yet to how it ended
        while state.run(run.number).status not in ENDED and time.monotonic() < until:
            time.sleep(0.5)
            supervisor.reconcile(now, wait=True, only=run.number)


@dataclass
class _Tried:
    """How often something failed, and when it may be tried again, on the monotonic clock."""

    times: int = 0
    again: float = 0.0

    def failed(self) -> None:
        self.times += 1
        self.again = time.monotonic() + min(2.0**self.times, 60.0)


def _describe_changes(version: Version) -> str:
    """How the Python packages differ from those of ``create``; empty if they do not."""
    try:
        changed = find_changes(version)
    except (OSError, DlpipeError) as error:
        changed = [str(error)]
    more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
    words = "; ".join(changed[:5]) + more
    return f"the Python packages are not those of `create`: {words}" if changed else ""
