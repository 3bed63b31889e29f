"""Whether the next attempt of a run may begin, and its beginning."""

from __future__ import annotations

import logging
from pathlib import Path

from dlpipe.orchestrator.attempts import build_command, build_environment
from dlpipe.orchestrator.deployments import Version
from dlpipe.orchestrator.ends import describe_refusal
from dlpipe.orchestrator.environment import describe_changes
from dlpipe.orchestrator.limits import TIME_IS_UP, compute_limit, is_over
from dlpipe.orchestrator.processes import start_attempt
from dlpipe.orchestrator.runs import Run, RunAttempt

log = logging.getLogger(__name__)


def find_refusal(version: Version, run: Run, now: float) -> str:
    """Why the next attempt of a run may not begin; empty if it may.

    Parameters
    ----------
    version : Version
        What the run runs; its code may be pruned, and its packages may have changed since ``create``.
    run : Run
        Queued or waiting; its deadline counts.
    now : float
        Seconds since 1970.
    """
    if not Path(version.code).is_dir():
        return describe_refusal(run, f"the code of version {version.number} is no longer kept")
    if is_over(run, now):
        return describe_refusal(run, TIME_IS_UP)
    if changes := describe_changes(version):
        if version.policies.changed_environment == "refuse":
            return describe_refusal(run, changes)
        log.warning("run %s of %s: %s", run.number, run.deployment, changes)
    return ""


def begin_attempt(version: Version, run: Run, attempt: RunAttempt) -> None:
    """Start the attempt's processes, unless they were started before.

    What cannot be started now, for want of space or memory, is no error: the attempt is in the state, and the next
    look at it starts it.

    Parameters
    ----------
    version : Version
        What the run runs.
    run : Run
        With this attempt as its last.
    attempt : RunAttempt
        One that is in the state already.
    """
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
        log.warning("run %s: %s", run.number, error)
