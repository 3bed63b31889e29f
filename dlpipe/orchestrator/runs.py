"""What ran or is to run: runs, each with its attempts, and the events that caused them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["queued", "running", "waiting", "succeeded", "failed", "terminated", "skipped"]
Outcome = Literal["succeeded", "failed", "killed", "timed out", "lost", "terminated", "refused"]
ENDED: tuple[Status, ...] = ("succeeded", "failed", "terminated", "skipped")
OPEN: tuple[Status, ...] = ("queued", "running", "waiting")
RESUMABLE: tuple[Status, ...] = ("failed", "terminated")
NOT_RESUMED = "not resumed: "
"""Between how a run failed and why its next attempt was not begun."""


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes
    ----------
    id : str
        A UUID: publishing the same id twice is publishing it once.
    name : str
        Its name.
    payload : mapping
        Values by field.
    at : float
        Seconds since 1970.
    """

    id: str
    name: str
    payload: Mapping[str, Any]
    at: float


@dataclass(frozen=True)
class RunAttempt:
    """One launcher of a run: Metaflow's ``run`` for the first, ``resume`` for later ones.

    Attributes
    ----------
    number : int
        0, 1, ...
    token : str
        A UUID in the environment of all its processes (``_DLPIPE_ATTEMPT``), by which they are found.
    folder : str
        Holds ``log``, ``lock``, ``metaflow-run`` and ``ended.json``.
    origin : str
        Id of the Metaflow run that it resumes; empty for a first run.
    metaflow_run : str
        Id of its Metaflow run, which is there once the launcher has registered it.
    started, ended : float
        Seconds since 1970; ``ended`` is 0 while it runs.
    exit_code : int or None
        Of the launcher; negative for a signal, ``None`` if nobody saw it.
    outcome : str
        How it ended; empty while it runs.
    step, reason : str
        The step that failed, and why in one line.
    began : bool
        Whether a task of its own began, from which the next attempt can resume; known when it has ended.
    """

    number: int
    token: str
    folder: str
    origin: str = ""
    metaflow_run: str = ""
    started: float = 0.0
    ended: float = 0.0
    exit_code: int | None = None
    outcome: Outcome | Literal[""] = ""
    step: str = ""
    reason: str = ""
    began: bool = True


@dataclass(frozen=True)
class Run:
    """A run that was due once.

    Attributes
    ----------
    number : int
        Its number on this machine.
    deployment, version : str, int
        What runs.
    cause : str
        For people: ``schedule 2026-11-27T03:00:00+01:00``, ``event model-drifted``, ``end of PredictFlow/17``,
        ``by hand``.
    key : str
        Unique with the deployment: the same cause makes one run, whoever notes it and how often.
    due : float
        When it was due, in seconds since 1970.
    parameters : mapping
        Parameter -> value, over those of the version.
    events : tuple of Event
        What triggered it.
    status : str
        Where it stands. ``waiting`` is before its next attempt.
    not_before : float
        The next attempt starts no earlier.
    reason : str
        Why it failed, was skipped or waits, in one line.
    deadline : float
        When the run is stopped, attempts to come with it, in seconds since 1970; 0 for never, and before it began.
    suspended : bool
        Whether no further attempt, and no further step of the one that goes on, begins.
    attempts : tuple of RunAttempt
        The oldest first.
    """

    number: int
    deployment: str
    version: int
    cause: str
    key: str
    due: float
    parameters: Mapping[str, Any] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    status: Status = "queued"
    not_before: float = 0.0
    reason: str = ""
    deadline: float = 0.0
    suspended: bool = False
    attempts: tuple[RunAttempt, ...] = ()


@dataclass(frozen=True)
class Hook:
    """The exit hooks of a run that has ended for good.

    Attributes
    ----------
    run, attempts : int
        The run, and how many attempts it had then: one that is resumed by hand ends again.
    token : str
        A UUID in the environment of the hooks' processes, as attempts have one.
    functions : tuple of str
        What is to be called.
    """

    run: int
    attempts: int
    token: str
    functions: tuple[str, ...]


@dataclass(frozen=True)
class Alert:
    """What somebody is to be told about a run.

    Attributes
    ----------
    number : int
        Its number on this machine.
    deployment : str
        What ran.
    key : str
        Unique: the same news is one alert, whoever notes it and how often.
    kind : {"failed", "recovered", "refused", "succeeded", "terminated"}
        The news.
    body : mapping
        What is sent.
    at : float
        When it was noted, in seconds since 1970.
    tries : int
        How often it was tried to send it.
    """

    number: int
    deployment: str
    key: str
    kind: Literal["failed", "recovered", "refused", "succeeded", "terminated"]
    body: Mapping[str, Any]
    at: float
    tries: int = 0
