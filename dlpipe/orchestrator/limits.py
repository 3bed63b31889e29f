"""How long a run and its attempts may take."""

from __future__ import annotations

from dlpipe.orchestrator.deployments import Version
from dlpipe.orchestrator.runs import Run, RunAttempt

RUN_TIMED_OUT = "stopped at the time limit of the whole run"
TIME_IS_UP = "the time limit of the whole run is up"
SHORTEST = 0.05
"""Seconds that an attempt has at least: a limit of 0 is none."""


def compute_deadline(version: Version, run: Run, now: float) -> float:
    """When a run whose next attempt begins ``now`` is stopped, in seconds since 1970; 0 for never.

    Time counts from the first attempt on, and goes on while the run waits or is suspended, as on Argo.

    Parameters
    ----------
    version : Version
        Its policy ``run_time_limit`` is the limit.
    run : Run
        One that has a deadline keeps it.
    now : float
        When its first attempt begins, in seconds since 1970.
    """
    limit = version.policies.run_time_limit
    return run.deadline or (now + limit if limit else 0.0)


def is_over(run: Run, now: float) -> bool:
    """Whether the time of the whole run is up."""
    return 0 < run.deadline <= now


def compute_limit(version: Version, run: Run, attempt: RunAttempt) -> float:
    """Seconds that an attempt may take: its own limit, or what is left of the run's; 0 for no limit.

    Parameters
    ----------
    version : Version
        Its policy ``time_limit`` is the attempt's own limit.
    run : Run
        Its deadline is that of all attempts.
    attempt : RunAttempt
        Its start counts.
    """
    limits = [version.policies.time_limit] if version.policies.time_limit else []
    if run.deadline:
        limits.append(max(run.deadline - attempt.started, SHORTEST))
    return min(limits, default=0.0)
