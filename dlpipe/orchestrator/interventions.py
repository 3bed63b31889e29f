"""What a person does by hand: start a run, resume it, stop it, suspend it, unsuspend it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dlpipe.errors import QueueFull, RunEnded, SettingError
from dlpipe.orchestrator.deployments import Version
from dlpipe.orchestrator.overview import has_code
from dlpipe.orchestrator.presence import find_scheduler
from dlpipe.orchestrator.processes import hold_steps
from dlpipe.orchestrator.runs import ENDED, RESUMABLE, Run
from dlpipe.orchestrator.state import State
from dlpipe.orchestrator.supervision import Supervisor
from dlpipe.orchestrator.values import explain_misfit, show_json

STOP_SECONDS = 60.0


def trigger_run(state: State, version: Version, values: Mapping[str, Any]) -> Run:
    """Queue a run of ``version``.

    Parameters
    ----------
    state : State
        Where the run is noted.
    version : Version
        What is run.
    values : mapping
        Values by parameter, over those of the version.

    Raises
    ------
    SettingError
        For parameters that the version does not know or cannot take, and the lack of one that it needs.
    QueueFull
        Where as many runs are queued as may be.
    """
    check_given(version, values)
    check_queue(state, version)
    run, _ = state.add_run(
        version.deployment,
        version=version.number,
        cause="by hand",
        key=f"manual:{uuid.uuid4()}",
        due=time.time(),
        parameters=values,
    )
    return run


def check_given(version: Version, values: Mapping[str, Any]) -> None:
    """Refuse parameters that the version does not know or cannot take, and the lack of one that it needs."""
    if unknown := [name for name in values if name not in version.parameter_names]:
        raise SettingError(
            f"Version {version.number} of {version.deployment} has no parameter {unknown[0]!r}; it has: "
            f"{', '.join(version.parameter_names) or 'none'}. `create` deploys the working tree."
        )
    for name, value in values.items():  # of the deployed version: the working tree may have other types by now
        if reason := explain_misfit(version, name, value):
            raise SettingError(f"--{name} {show_json(value)} does not fit version {version.number}, {reason}.")
    if missing := [name for name in version.required if name not in values]:
        raise SettingError(f"{version.deployment} needs a value for {', '.join(f'--{name}' for name in missing)}.")


def check_queue(state: State, version: Version) -> None:
    """Refuse a run where as many are queued as may be."""
    if (queued := state.count_queued(version.deployment)) >= version.policies.queue_limit:
        raise QueueFull(
            f"{queued} runs of {version.deployment} are queued already, as many as may be: nothing was queued. "
            "`dlpipe runs terminate` takes one away, `create --queue-limit` lets more wait."
        )


def resume_run(state: State, run: Run) -> None:
    """Let a run that failed or was terminated go on after its last finished steps.

    Raises
    ------
    RunEnded
        When there is nothing to resume, or nothing to resume it with.
    """
    with state.transaction():  # of two who resume it at once, the second one sees that it goes on
        _check_resumable(state, state.get_run(run.number))
        state.resume_run(run.number)


def _check_resumable(state: State, run: Run) -> None:
    if run.status not in RESUMABLE and run.suspended:
        raise RunEnded(
            f"Run {run.number} of {run.deployment} is suspended: `dlpipe runs unsuspend {run.number}` lets it go "
            "on."
        )
    if run.status not in RESUMABLE:
        raise RunEnded(f"Run {run.number} of {run.deployment} is {run.status}: there is nothing to resume.")
    if not has_code(state, run):
        raise RunEnded(
            f"Run {run.number} of {run.deployment} cannot be resumed: the code of version {run.version} is no "
            "longer kept. `python FLOW.py local-scheduler trigger` runs the newest version."
        )


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
