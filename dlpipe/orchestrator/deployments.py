"""What is deployed: a flow's frozen code under a name, in versions, with the policies by which it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

Overlap = Literal["skip", "queue", "allow"]
Missed = Literal["once", "all", "none"]
LONGEST = 10 * 365 * 86400.0
"""Seconds of ten years: what is longer is a mistake."""


@dataclass(frozen=True)
class Policies:
    """How a deployment runs; each is an option of ``local-scheduler create``.

    Attributes
    ----------
    overlap : {"skip", "queue", "allow"}
        What is done when a run is due while another of the same deployment runs.
    missed : {"once", "all", "none"}
        What is done about due times that passed while no scheduler ran.
    missed_limit : int
        Of ``all``, at most so many, the latest ones.
    time_limit : float
        Seconds that an attempt may take; 0 is no limit.
    run_time_limit : float
        Seconds that a run may take from its first attempt on, resumes and waits with it; 0 is no limit.
    resumes : int
        How often a run whose failure may pass is resumed.
    backoff : float
        Seconds before the first resume; doubled for each further one, up to an hour.
    queue_limit : int
        How many runs may be queued; what comes while there are so many is skipped.
    priority : int
        When there is no room for all runs on the machine, those of a higher one go first.
    changed_environment : {"warn", "refuse"}
        What is done when the Python packages are not those of ``create``.
    alert : str
        A command (its standard input is the alert as JSON) or a webhook (``http://`` or ``https://``, which gets
        it by POST); empty for none.
    alert_on : {"failure", "end"}
        What it is told: failures and recoveries, or the end of every run.
    """

    overlap: Overlap = "skip"
    missed: Missed = "once"
    missed_limit: Annotated[int, Ge(1), Le(1000)] = 10
    time_limit: Annotated[float, Ge(0), Le(LONGEST)] = 0.0
    run_time_limit: Annotated[float, Ge(0), Le(LONGEST)] = 0.0
    resumes: Annotated[int, Ge(0), Le(100)] = 3
    backoff: Annotated[float, Gt(0), Le(LONGEST)] = 30.0
    queue_limit: Annotated[int, Ge(1), Le(100_000)] = 1000
    priority: Annotated[int, Ge(-1000), Le(1000)] = 0
    changed_environment: Literal["warn", "refuse"] = "warn"
    alert: str = ""
    alert_on: Literal["failure", "end"] = "failure"


@dataclass(frozen=True)
class Schedule:
    """When a flow is due: a cron line in Unix' form of five fields or EventBridge's of six, and a time zone.

    ``timezone`` is a name such as ``Europe/Berlin``; empty is UTC, as on Argo.
    """

    cron: str
    timezone: str = ""

    @property
    def zone_name(self) -> str:
        """The name of the time zone, also of the default one."""
        return self.timezone or "UTC"


@dataclass(frozen=True)
class NeededEvent:
    """An event that a trigger waits for.

    Attributes
    ----------
    name : str
        Its name; the end of a flow's run is the event ``metaflow.FLOW.end``, or
        ``metaflow.PROJECT.BRANCH.FLOW.end`` in a project.
    parameters : mapping
        Parameter of the flow -> field of the event's payload that gives its value.
    kind : {"event", "run"}
        As ``MetaflowTrigger`` has it: ``run`` for the end of a flow.
    flow : str
        For ``run``, the flow's name as the decorator has it.
    """

    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    kind: Literal["event", "run"] = "event"
    flow: str = ""


@dataclass(frozen=True)
class Trigger:
    """What starts a run beside the schedule: all of the needed events (one is the usual case).

    ``reset_at`` and ``reset_timezone`` are ``cron`` and ``timezone`` of the option ``reset_at`` of Metaflow's
    decorators, at which an incomplete set of events is forgotten; empty for never.
    """

    needed: tuple[NeededEvent, ...]
    reset_at: str = ""
    reset_timezone: str = ""


@dataclass(frozen=True)
class Version:
    """One ``create``: everything that a run of it needs, independent of the working tree.

    Attributes
    ----------
    deployment : str
        Name of the deployment: the flow's name, or ``project.branch.Flow`` in a project.
    number : int
        1, 2, ...
    flow : str
        Name of the flow's class.
    code : str
        Folder with the frozen code.
    script : str
        The flow's file in it, relative.
    digest : str
        SHA-256 over the frozen code's files.
    folder : str
        The directory in which its runs work: ``.metaflow``, ``mlflow.db`` and relative paths of settings are
        there.
    python : str
        The interpreter.
    packages : mapping
        Package -> version of the interpreter's environment at ``create``.
    options : tuple of str
        What stands before ``run`` in the command, such as ``--with retry`` and ``--production``.
    run_options : tuple of str
        What stands after ``run``, such as ``--tag nightly`` and ``--max-workers 4``.
    parameters : mapping
        Parameter -> value as given on the command line of ``create``, where it is not the flow's own default.
    defaults : mapping
        Parameter -> the flow's own default as text, of those that stand in its code.
    parameter_names : tuple of str
        All parameters of the flow.
    required : tuple of str
        Those without a value: an event must bring one.
    parameter_types : mapping
        Parameter -> ``str``, ``int``, ``float``, ``bool``, ``JSON`` or ``FilePath``, as Metaflow's deployer
        names them.
    multiple : tuple of str
        Parameters that take several values, each an option of its own.
    separators : mapping
        Parameter -> what stands between the parts of its text.
    choices : mapping
        Parameter -> the only values that it takes.
    variables : mapping
        Environment variables that runs get, besides those of the scheduler.
    schedule, trigger
        As the flow's decorators say; ``None`` without.
    success_hooks, error_hooks : tuple of str
        Functions of ``@exit_hook``, by name or import path.
    namespace, token : str
        The production namespace (``production:TOKEN``) and its token.
    project, branch : str
        Of ``@project``; empty without.
    tags : tuple of str
        User tags of every run.
    created : float
        Seconds since 1970.
    author : str
        The user who made it.
    """

    deployment: str
    number: int
    flow: str
    code: str
    script: str
    digest: str
    folder: str
    python: str
    packages: Mapping[str, str]
    options: tuple[str, ...] = ()
    run_options: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    parameter_names: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    schedule: Schedule | None = None
    trigger: Trigger | None = None
    policies: Policies = field(default_factory=Policies)
    namespace: str = ""
    token: str = ""
    project: str = ""
    branch: str = ""
    tags: tuple[str, ...] = ()
    created: float = 0.0
    author: str = ""
    required: tuple[str, ...] = ()
    parameter_types: Mapping[str, str] = field(default_factory=dict)
    multiple: tuple[str, ...] = ()
    separators: Mapping[str, str] = field(default_factory=dict)
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    success_hooks: tuple[str, ...] = ()
    error_hooks: tuple[str, ...] = ()

    @property
    def end_event(self) -> str:
        """The name of the event that the end of a successful run is."""
        names = [self.project, self.branch, self.flow] if self.project else [self.flow]
        return ".".join(["metaflow", *names, "end"])


@dataclass(frozen=True)
class Deployment:
    """A name with its newest version; ``suspended`` ones start nothing by themselves."""

    name: str
    version: Version
    suspended: bool = False
    scheduled_until: float = 0.0
    """Due times up to this one have been dealt with, in seconds since 1970."""
    events_after: int = 0
    """Events published later than this one, by their sequence, reach it."""
