"""What a person does to one run, with or without a scheduler: stop it, suspend it, unsuspend it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from dlpipe.orchestrator.presence import find_scheduler
from dlpipe.orchestrator.processes import hold_steps
from dlpipe.orchestrator.runs import ENDED, Run
from dlpipe.orchestrator.state import State
from dlpipe.orchestrator.supervision import Supervisor

STOP_SECONDS = 60.0


def terminate(state: State, run: Run) -> None:
    """Ask the scheduler to stop a run; without one, stop it and note that, with its alert, which is sent later.

    Raises
    ------
    RunEnded
        When it has ended already.
    """
    from dlpipe.orchestrator.alerts import Alerts
    from dlpipe.redaction import redact

    state.request_stop(run.number)
    if find_scheduler(state.folder) is None:
        stop(state, run, time.time(), on_end=Alerts(state, clean=redact).note)


def suspend_run(state: State, run: Run, suspended: bool) -> None:
    """Let a run begin no further attempt and no further step, or take that back.

    Parameters
    ----------
    state : State
        Where that is noted.
    run : Run
        One that has not ended.
    suspended : bool
        Whether it is suspended; ``False`` unsuspends it.

    Raises
    ------
    RunEnded
        When it has ended already.
    """
    state.suspend_run(run.number, suspended)
    for attempt in run.attempts[-1:]:  # at once; a scheduler sees to it as well
        hold_steps(Path(attempt.folder), suspended)


def stop(state: State, run: Run, now: float, *, on_end: Callable[[Run], object] = lambda run: None) -> None:
    """Stop a run and return when that is done: its tasks get Ctrl-C's signal and seconds to end, then SIGKILL.

    Other runs are left alone.

    Parameters
    ----------
    state : State
        Where that is noted.
    run : Run
        One that has not ended.
    now : float
        Seconds since 1970.
    on_end : callable, optional
        Called with the run when it has ended; alerts are noted by it.
    """
    state.request_stop(run.number)
    until = time.monotonic() + STOP_SECONDS
    with Supervisor(state, on_end=on_end) as supervisor:
        supervisor.reconcile(now, wait=True, only=run.number)
        # on a busy machine Metaflow may have no answer yet to how it ended
        while state.get_run(run.number).status not in ENDED and time.monotonic() < until:
            time.sleep(0.5)
            supervisor.reconcile(now, wait=True, only=run.number)
