"""The state as people want to see it: for the tables of ``dlpipe`` and for the status page."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

from dlpipe.errors import DeploymentNotFound, ScheduleError
from dlpipe.orchestrator import timing
from dlpipe.orchestrator.deployments import Deployment, Schedule, Trigger, Version
from dlpipe.orchestrator.inbox import Half, find_half
from dlpipe.orchestrator.runs import NOT_RESUMED, OPEN, RESUMABLE, Run, RunAttempt, Status
from dlpipe.orchestrator.state import State

TAIL_BYTES = 64 * 1024
MLFLOW_LINE = "MLflow has this run: "
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
    half : Half or None
        What its trigger has of several events; ``None`` if it waits for no other half.
    """

    deployment: Deployment
    next_due: float | None
    last_run: Run | None
    half: Half | None = None

    @property
    def schedule(self) -> str:
        """The cron line with its time zone; empty without one."""
        schedule = self.deployment.version.schedule
        return f"{schedule.cron} {name_zone(schedule)}" if schedule else ""

    @property
    def due(self) -> str:
        """The next due time in the schedule's own time zone."""
        schedule = self.deployment.version.schedule
        if schedule is None or self.next_due is None:
            return ""
        return format_time(self.next_due, name_zone(schedule))

    @property
    def triggers(self) -> str:
        """The events that start it."""
        return describe_trigger(self.deployment.version.trigger)

    @property
    def waits(self) -> str:
        """Which of several events have come, and which have not; empty if it waits for no other half."""
        if self.half is None:
            return ""
        came = ", ".join(f"{name} came {format_time(event.at // 1)}" for name, event in self.half.came.items())
        return f"{came}; waits for {', '.join(self.half.lacks)}"


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
    return [view_deployment(state, deployment, now) for deployment in state.deployments()]


def view_deployment(state: State, deployment: Deployment, now: float) -> DeploymentView:
    """One deployment as people see it."""
    shown: list[Status] = ["queued", "running", "waiting", "succeeded", "failed", "terminated"]
    last = state.runs(deployment=deployment.name, status=shown, limit=1)
    half = find_half(state, deployment, now)
    return DeploymentView(deployment, next_due(deployment, now), last[0] if last else None, half)


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
    >>> from dlpipe.orchestrator.deployments import Needed
    >>> describe_trigger(Trigger((Needed("model-drifted"), Needed("metaflow.A.end", kind="run", flow="A"))))
    'model-drifted and end of A'
    """
    if trigger is None:
        return ""
    return " and ".join(
        f"end of {needed.flow}" if needed.kind == "run" else needed.name for needed in trigger.needed
    )


def name_zone(schedule: Schedule) -> str:
    """The name of the schedule's time zone."""
    return schedule.timezone or "UTC"


def format_time(at: float, zone: str = "UTC") -> str:
    """Seconds since 1970 as date and time with the time zone.

    Examples
    --------
    >>> format_time(1795757400, "Europe/Berlin"), format_time(0)
    ('2026-11-27 06:30 Europe/Berlin', '1970-01-01 00:00 UTC')
    """
    moment = datetime.fromtimestamp(at, UTC if zone == "UTC" else ZoneInfo(zone))
    return f"{moment:%Y-%m-%d %H:%M}{f':{moment:%S}' if moment.second else ''} {zone}"


def format_span(seconds: float) -> str:
    """A length of time in its two largest units.

    Examples
    --------
    >>> [format_span(seconds) for seconds in (0.21, 4.26, 75, 3 * 3600 + 240, 2 * 86400)]
    ['0.2 s', '4.3 s', '1 min 15 s', '3 h 4 min', '2 d 0 h']
    """
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def format_distance(at: float, now: float) -> str:
    """How far ``at`` is from ``now``.

    Examples
    --------
    >>> format_distance(100, 40), format_distance(40, 100)
    ('in 1 min 0 s', '1 min 0 s ago')
    """
    return f"in {format_span(at - now)}" if at >= now else f"{format_span(now - at)} ago"


# -- what an attempt left ----------------------------------------------------------------------------------------


def find_log(attempt: RunAttempt) -> Path:
    """The file with everything that the attempt's launcher and tasks said."""
    return Path(attempt.folder, "log")


def find_mlflow_run(attempt: RunAttempt) -> str:
    """Where MLflow has the attempt's run, as the bridge said in its log: an address or words; empty if nowhere."""
    try:
        ended = find_log(attempt).stat()
        return _read_mlflow_line(str(find_log(attempt)), ended.st_size, ended.st_mtime_ns)
    except OSError:
        return ""


@lru_cache(maxsize=1024)
def _read_mlflow_line(log: str, size: int, changed: int) -> str:
    with open(log, "rb") as file:
        file.seek(max(0, size - TAIL_BYTES))
        text = file.read(TAIL_BYTES).decode(errors="replace")
    return text.rpartition(MLFLOW_LINE)[2].partition("\n")[0].strip() if MLFLOW_LINE in text else ""


@dataclass(frozen=True)
class CardFile:
    """A card of a task, as a file."""

    step: str
    task: str
    name: str
    file: Path


def find_cards(version: Version, attempt: RunAttempt) -> list[CardFile]:
    """The cards of an attempt's Metaflow run, by step, where they are files on this machine."""
    if not attempt.metaflow_run or "/" in attempt.metaflow_run:
        return []
    return sorted(_list_cards(find_card_root(version) / version.flow / "runs" / attempt.metaflow_run), key=_order)


def _order(card: CardFile) -> tuple[str, int, str, str]:
    return (card.step, len(card.task), card.task, card.name)


def _list_cards(run: Path) -> Iterator[CardFile]:
    for file in run.glob("steps/*/tasks/*/cards/*.html"):
        step, task = file.parts[-5], file.parts[-3]
        kind, _, name = file.stem.rpartition("-")[0].partition("-")
        yield CardFile(step, task, name or kind, file)


def find_card_root(version: Version) -> Path:
    """Where Metaflow puts cards: in the nearest ``.metaflow`` at or above the folder in which runs work."""
    named = version.variables.get("METAFLOW_CARD_LOCALROOT")
    if named:
        return Path(named)
    folder = Path(version.folder)
    homes = [home for home in (folder, *folder.parents) if (home / ".metaflow").is_dir()]
    return (homes[0] if homes else folder) / ".metaflow" / "mf.cards"


def build_card_command(version: Version, run: str, card: CardFile) -> str:
    """The command with which Metaflow opens a card."""
    script = Path(version.code, version.script)
    return shlex.join([version.python, str(script), "card", "view", f"{run}/{card.step}/{card.task}"])


def find_version(state: State, run: Run) -> Version | None:
    """The version that ``run`` runs; ``None`` if it is not known any more."""
    try:
        return state.version(run.deployment, run.version)
    except DeploymentNotFound:
        return None
