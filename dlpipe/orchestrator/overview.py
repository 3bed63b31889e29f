"""The state as people want to see it: for the tables of ``dlpipe`` and for the status page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dlpipe.errors import DeploymentNotFound, ScheduleError
from dlpipe.orchestrator import timing
from dlpipe.orchestrator.deployments import Deployment, Trigger, Version
from dlpipe.orchestrator.inbox import HeldEvents, find_held
from dlpipe.orchestrator.runs import NOT_RESUMED, OPEN, RESUMABLE, Run, Status
from dlpipe.orchestrator.state import State
from dlpipe.time_formats import format_time

FROZEN = "--max-num-splits option"
"""In what Metaflow says of a limit that belongs to the version: a resume meets it again."""


@dataclass(frozen=True)
class DeploymentView:
    """A deployment, when it is due next and what it did last.

    Attributes
    ----------
    next_due : float or None
        Seconds since 1970; ``None`` without a schedule, while it is suspended, and after a schedule's last year.
    last_run : Run or None
        The newest one that was not skipped.
    held : HeldEvents or None
        What its trigger has of several events; ``None`` if it waits for no others.
    """

    deployment: Deployment
    next_due: float | None
    last_run: Run | None
    held: HeldEvents | None = None

    @property
    def schedule(self) -> str:
        """The cron line with its time zone; empty without one."""
        schedule = self.deployment.version.schedule
        return f"{schedule.cron} {schedule.zone_name}" if schedule else ""

    @property
    def due(self) -> str:
        """The next due time in the schedule's own time zone."""
        schedule = self.deployment.version.schedule
        if schedule is None or self.next_due is None:
            return ""
        return format_time(self.next_due, schedule.zone_name)

    @property
    def triggers(self) -> str:
        """The events that start it."""
        return describe_trigger(self.deployment.version.trigger)

    @property
    def waits(self) -> str:
        """Which of several events have come, and which have not; empty if it waits for no others."""
        if self.held is None:
            return ""
        came = ", ".join(f"{name} came {format_time(event.at // 1)}" for name, event in self.held.came.items())
        return f"{came}; waits for {', '.join(self.held.lacks)}"


@dataclass(frozen=True)
class RunView:
    """A run, and what a person asks of it.

    Attributes
    ----------
    started, ended : float
        Of its first and its last attempt, in seconds since 1970; 0 for not yet.
    step, why : str
        The step that failed, and why in one line; empty unless it failed or was stopped.
    resume : str
        The command that resumes it; empty where there is nothing to resume.
    """

    run: Run
    started: float
    ended: float
    step: str
    why: str
    resume: str

    def took(self, now: float) -> float | None:
        """Seconds from its first attempt's start to its end, or to ``now``; ``None`` before it began."""
        return (self.ended or now) - self.started if self.started else None


def view_deployments(state: State, now: float) -> list[DeploymentView]:
    """All deployments, by name."""
    return [view_deployment(state, deployment, now) for deployment in state.list_deployments()]


def list_failed(views: Sequence[DeploymentView]) -> list[Run]:
    """Return the last run of each deployment whose last run has failed."""
    last = [view.last_run for view in views]
    return [run for run in last if run is not None and run.status == "failed"]


def summarize(views: Sequence[DeploymentView], open_runs: Sequence[RunView]) -> str:
    """Return the state of all deployments in a sentence.

    Examples
    --------
    >>> summarize([], [])
    'Nothing is deployed.'
    """
    if failed := list_failed(views):
        first = ", ".join(f"{run.deployment} (run {run.number} failed)" for run in failed[:3])
        more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
        return f"Look at {first}{more}."
    if not views:
        return "Nothing is deployed."
    going = [view for view in open_runs if view.run.status == "running"]
    waiting = len(open_runs) - len(going)
    words = f"{len(going) or 'No'} run{' goes' if len(going) == 1 else 's go'} on"
    return f"{words}{f', {waiting} wait' + 's' * (waiting == 1) if waiting else ''}; nothing has failed."


def view_deployment(state: State, deployment: Deployment, now: float) -> DeploymentView:
    """One deployment as people see it.

    Parameters
    ----------
    state : State
        It is only read.
    deployment : Deployment
        As the state has it.
    now : float
        Seconds since 1970.
    """
    shown: list[Status] = ["queued", "running", "waiting", "succeeded", "failed", "terminated"]
    last = state.list_runs(deployment=deployment.name, status=shown, limit=1)
    held = find_held(state, deployment, now)
    return DeploymentView(deployment, next_due(deployment, now), last[0] if last else None, held)


def next_due(deployment: Deployment, now: float) -> float | None:
    """When ``deployment`` is due next by its schedule."""
    schedule = deployment.version.schedule
    if schedule is None or deployment.suspended:
        return None
    try:
        due = timing.next_due(schedule, max(now, deployment.scheduled_until))
    except ScheduleError:  # a time zone that this machine has no more
        return None
    return due if due < math.inf else None


def view_run(state: State, run: Run) -> RunView:
    """One run as people see it; it is offered to be resumed where its code is kept."""
    return make_run_view(run, has_code=run.status in RESUMABLE and has_code(state, run))


def has_code(state: State, run: Run) -> bool:
    """Whether the code of a run's version is kept; that of a deleted deployment is not."""
    version = find_version(state, run)
    return version is not None and Path(version.code).is_dir()


def make_run_view(run: Run, *, has_code: bool = True) -> RunView:
    """One run as people see it.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from dlpipe.orchestrator.runs import RunAttempt
    >>> attempt = RunAttempt(0, "", "", started=10.0, ended=70.0, outcome="failed", step="train", reason="no")
    >>> run = Run(17, "Train", 1, "", "", 0.0, status="failed", reason="train: no", attempts=(attempt,))
    >>> seen = make_run_view(run)
    >>> seen.took(now=100.0), seen.step, seen.why, seen.resume
    (60.0, 'train', 'no', 'dlpipe runs resume 17')
    >>> make_run_view(replace(run, reason="train: raise the maximum with the --max-num-splits option")).resume
    ''
    """
    last = run.attempts[-1] if run.attempts else None
    over = run.status not in OPEN
    step, why = find_failure(run)
    return RunView(
        run=run,
        started=run.attempts[0].started if run.attempts else 0.0,
        ended=last.ended if last and over else 0.0,
        step=step,
        why=why,
        resume=f"dlpipe runs resume {run.number}"
        if has_code and run.status in RESUMABLE and FROZEN not in why
        else "",
    )


def find_failure(run: Run) -> tuple[str, str]:
    """The step that failed, and why a run failed, waits, was skipped or stopped, in one line."""
    if run.status in ("running", "succeeded"):
        return "", ""
    last = run.attempts[-1] if run.attempts else None
    why = " ".join((run.reason or (last.reason if last else "")).split())
    step = last.step if last and why.startswith(f"{last.step}: ") else ""
    return step, why.removeprefix(f"{step}: ") if step else why


def was_refused(run: Run) -> bool:
    """Whether a run failed because its next attempt was not begun: what it says is not how its last one ended."""
    last = run.attempts[-1] if run.attempts else None
    if run.status != "failed" or last is None:
        return run.status == "failed"
    why = find_failure(run)[1]
    return NOT_RESUMED in why or why not in (" ".join(last.reason.split()), last.outcome)


def describe_trigger(trigger: Trigger | None) -> str:
    """What starts a run, in words.

    Examples
    --------
    >>> from dlpipe.orchestrator.deployments import NeededEvent
    >>> end = NeededEvent("metaflow.A.end", kind="run", flow="A")
    >>> describe_trigger(Trigger((NeededEvent("model-drifted"), end)))
    'model-drifted and end of A'
    """
    if trigger is None:
        return ""
    return " and ".join(
        f"end of {needed.flow}" if needed.kind == "run" else needed.name for needed in trigger.needed
    )


# -- what an attempt left ----------------------------------------------------------------------------------------


def find_version(state: State, run: Run) -> Version | None:
    """The version that ``run`` runs; ``None`` if it is not known any more."""
    try:
        return state.get_version(run.deployment, run.version)
    except DeploymentNotFound:
        return None
