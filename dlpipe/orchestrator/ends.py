"""What the end of an attempt makes of its run: the reason in one line, the wait for the next one, the event."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime

from dlpipe.orchestrator.deployments import Version
from dlpipe.orchestrator.findings import Finding
from dlpipe.orchestrator.limits import RUN_TIMED_OUT
from dlpipe.orchestrator.runs import NOT_RESUMED, Event, Run, RunAttempt
from dlpipe.terminal import make_visible

LONGEST_BACKOFF = 3600.0
CLOCK_SECONDS = 1.0
"""So much may the clock by which a keeper stops an attempt differ from the one that says when."""
EVENTS = uuid.UUID("6d1f9c0e-3b0a-5b7e-9a51-54b8a51f2f60")
"""The end of a run is an event whose id is made of this and the attempt's token: publishing it twice is once."""


def note_end(attempt: RunAttempt, finding: Finding, *, terminated: bool) -> RunAttempt:
    """The attempt with how it ended.

    Parameters
    ----------
    attempt : RunAttempt
        As the state has it, without an end.
    finding : Finding
        What was found of its end.
    terminated : bool
        Whether somebody had asked that its run be stopped.
    """
    done = finding.ended
    return replace(
        attempt,
        ended=done.ended,
        exit_code=done.exit_code,
        outcome="terminated" if terminated else finding.outcome,
        began=finding.began,
        step=finding.step,
        reason=make_visible(finding.reason),  # an exception may say what no database and no terminal takes
    )


def apply_deadline(run: Run, finding: Finding, next_attempt: float) -> Finding:
    """The finding, without a next attempt if the run's time is up or would be by then.

    Parameters
    ----------
    run : Run
        Its deadline counts; 0 is none.
    finding : Finding
        How its last attempt ended.
    next_attempt : float
        When the next attempt would begin, in seconds since 1970.
    """
    if not run.deadline or finding.outcome == "succeeded" or not finding.may_pass or next_attempt < run.deadline:
        return finding
    if finding.outcome == "timed out" and finding.ended.ended >= run.deadline - CLOCK_SECONDS:
        return replace(finding, may_pass=False, reason=RUN_TIMED_OUT)
    return replace(finding, may_pass=False, reason=f"{finding.reason}; the run's time is up, so it is not resumed")


def describe_failure(attempt: RunAttempt) -> str:
    """How the attempt failed, in one line."""
    where = f"{attempt.step}: " if attempt.step else ""
    return f"{where}{attempt.reason or attempt.outcome}"


def describe_refusal(run: Run, why: str) -> str:
    """Why a run that is not begun has failed: how its last attempt did, if there was one, stays to be read."""
    return f"{describe_failure(run.attempts[-1])}; {NOT_RESUMED}{why}" if run.attempts else why


def describe_stop(run: Run) -> str:
    """Why a run that waited was stopped, and what it waited after."""
    last = run.attempts[-1] if run.attempts else None
    return f"stopped by hand while it waited, after {describe_failure(last)}" if last else "stopped by hand"


def compute_backoff(version: Version, attempts: int) -> float:
    """Seconds before the next attempt, after so many."""
    return float(min(version.policies.backoff * 2.0 ** min(attempts - 1, 30), LONGEST_BACKOFF))


def make_end_event(version: Version, attempt: RunAttempt, finding: Finding) -> Event:
    """The event that the end of a run is, as a task on Argo publishes it.

    Parameters
    ----------
    version : Version
        What the run ran; it names the event.
    attempt : RunAttempt
        The one that succeeded; its token makes the event's id.
    finding : Finding
        Its end, with the pathspec of the end step's task.
    """
    flow, run_id, step, task = finding.end_pathspec.split("/")
    at = datetime.fromtimestamp(finding.ended.ended, UTC)
    identity = str(uuid.uuid5(EVENTS, attempt.token))
    payload = {
        "name": version.end_event,
        "id": finding.end_pathspec,
        "pathspec": finding.end_pathspec,
        "timestamp": int(at.timestamp()),
        "utc_date": at.strftime("%Y%m%d"),
        "generated-by-metaflow": True,
        "auto-generated-by-metaflow": "True",
        "flow_name": flow,
        "run_id": run_id,
        "step_name": step,
        "task_id": task,
        "deployment": version.deployment,
        "project_flow_name": f"{version.project}.{version.branch}.{version.flow}" if version.project else "",
        "project_name": version.project,
        "branch_name": version.branch,
        "is_user_branch": str(version.branch.startswith("user.")) if version.project else "",
        "is_production": str(version.branch.startswith("prod")) if version.project else "",
    }
    return Event(
        identity, version.end_event, {key: value for key, value in payload.items() if value}, at.timestamp()
    )
