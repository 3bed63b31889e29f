"""What is to run now: a function of the state and the clock, with no process touched.

Due times and events become runs, once each whatever the clock does: a run's key names its cause, and a cause that
has its run makes no second one. A due time is late when it is found a minute or more after it passed, because no
scheduler ran, the machine slept or the clock jumped forward: then the policy ``missed`` says what is made up. A
clock that jumps back makes times come again; those that had their run have it already.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from graphlib import CycleError, TopologicalSorter

from dlpipe.errors import ScheduleError
from dlpipe.orchestrator.deployments import Deployment, Policies, Schedule, Version
from dlpipe.orchestrator.kept_runs import OpenRun
from dlpipe.orchestrator.matching import Match, find_match
from dlpipe.orchestrator.runs import OPEN, Run, Status
from dlpipe.orchestrator.state import State
from dlpipe.orchestrator.timing import next_due, parse
from dlpipe.time_formats import format_iso

LATE_SECONDS = 60.0
LONGEST_BACKOFF = 3600.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WantedRun:
    """A run that a due time or events ask for.

    Attributes
    ----------
    match : Match or None
        The events and what they give; ``None`` for a due time.
    made_up : bool
        Whether it is one of several that make up for downtime: these wait for each other.
    """

    deployment: Deployment
    due: float
    match: Match | None = None
    made_up: bool = False


def decide(state: State, now: float, *, max_runs: int) -> list[Run]:
    """Make runs of what is due at ``now``, in one commit, and return those that may start.

    Parameters
    ----------
    state : State
        What is known.
    now : float
        Seconds since 1970.
    max_runs : int
        How many runs may run at a time on this machine.

    Returns
    -------
    list of Run
        The oldest first. They stay as they are in the state until their attempt is noted there.
    """
    with state.transaction():  # what was dealt with and its runs are noted together: no due time is lost or twice
        deployments = state.list_deployments()
        wanted = [*find_due_runs(state, deployments, now), *find_event_runs(state, deployments)]
        for run in sorted(wanted, key=lambda run: (run.due, run.deployment.name)):
            add_run(state, run)
        return choose_startable(state, deployments, now, max_runs)


# -- due times ---------------------------------------------------------------------------------------------------


def find_due_runs(state: State, deployments: Sequence[Deployment], now: float) -> Iterator[WantedRun]:
    """What schedules ask for; noted as dealt with.

    Parameters
    ----------
    state : State
        Where the due times that were dealt with are noted.
    deployments : sequence of Deployment
        All of them; suspended ones, and those without a schedule, are left out.
    now : float
        Seconds since 1970.
    """
    for deployment in deployments:
        schedule = deployment.version.schedule
        if schedule is None or deployment.suspended:
            continue
        if deployment.scheduled_until > now:  # the clock has jumped back
            state.set_scheduled_until(deployment.name, now)
            continue
        try:
            if next_due(schedule, deployment.scheduled_until) <= now:
                yield from find_passed(deployment, schedule, now)
                state.set_scheduled_until(deployment.name, now)
        except ScheduleError as error:
            log.error("%s has no due times: %s", deployment.name, error)


def find_passed(deployment: Deployment, schedule: Schedule, now: float) -> Iterator[WantedRun]:
    """Due times since the last ones dealt with; of late ones, those that the policy makes up.

    Parameters
    ----------
    deployment : Deployment
        Its policies say what is made up.
    schedule : Schedule
        That of the deployment.
    now : float
        Seconds since 1970; what is due up to now has passed.
    """
    times, policies = parse(schedule), deployment.version.policies
    since = deployment.scheduled_until
    until = max(since, now - LATE_SECONDS)
    in_time = list(times.between(until, now))
    late: list[float] = []
    if next_due(schedule, since) <= until:
        late = times.latest(since, until, count_made_up(policies, bool(in_time)))
        log.warning(
            "%s: due times were missed since %s; %d are made up", deployment.name, format_iso(since), len(late)
        )
    for due in late:
        yield WantedRun(deployment, due, made_up=policies.missed == "all")
    for due in in_time:
        yield WantedRun(deployment, due)


def count_made_up(policies: Policies, in_time: bool) -> int:
    """How many of the late due times are made up; ``in_time`` is whether another one is due just now."""
    match policies.missed:
        case "all":
            return policies.missed_limit
        case "once":
            return 0 if in_time else 1
        case "none":
            return 0


# -- events ------------------------------------------------------------------------------------------------------


def find_event_runs(state: State, deployments: Sequence[Deployment]) -> Iterator[WantedRun]:
    """What events ask for; noted as dealt with."""
    events = state.list_events_after(state.get_events_dealt())
    for sequence, event in events:
        for deployment in deployments:
            if deployment.suspended or sequence <= deployment.events_after:
                continue
            match = find_match(state, deployment, sequence, event)
            if match is not None:
                yield WantedRun(deployment, max(event.at for event in match.events), match)
    if events:
        state.set_events_dealt(events[-1][0])


# -- runs --------------------------------------------------------------------------------------------------------


def add_run(state: State, wanted: WantedRun) -> None:
    """Add the run that is wanted, or note why it is skipped."""
    name, version = wanted.deployment.name, wanted.deployment.version
    status, reason = choose_status(state, wanted)
    if wanted.match is not None:
        match = wanted.match
        if status == "skipped":  # unlike a due time, it does not come again
            log.warning("%s does not run after %s: %s", name, match.cause, reason)
        key = "event:" + "+".join(event.id for event in match.events)
        state.add_run(
            name,
            cause=match.cause,
            key=key,
            due=wanted.due,
            parameters=match.parameters,
            events=match.events,
            status=status,
            reason=reason,
        )
    else:
        key = f"schedule:{datetime.fromtimestamp(wanted.due, UTC):%Y-%m-%dT%H:%M:%SZ}"
        zone = parse(version.schedule).zone if version.schedule else UTC
        cause = f"schedule {format_iso(wanted.due, zone)}"
        state.add_run(name, cause=cause, key=key, due=wanted.due, status=status, reason=reason)


def choose_status(state: State, wanted: WantedRun) -> tuple[Status, str]:
    """Whether the run is queued or skipped, and why."""
    if wanted.match is not None and wanted.match.misfit:
        return "skipped", wanted.match.misfit
    policies = wanted.deployment.version.policies
    if (queued := state.count_queued(wanted.deployment.name)) >= policies.queue_limit:
        return "skipped", f"the queue is full: {queued} runs wait in it"
    if policies.overlap != "skip" or wanted.made_up:
        return "queued", ""
    going = state.list_runs(deployment=wanted.deployment.name, status=OPEN, limit=1)
    return ("skipped", f"run {going[0].number} goes on") if going else ("queued", "")


def choose_startable(state: State, deployments: Sequence[Deployment], now: float, max_runs: int) -> list[Run]:
    """Runs that may start now, as many as there is room for on the machine: by priority, the oldest first.

    One that is suspended takes no room, and when it is queued, those behind it go first.

    Parameters
    ----------
    state : State
        Its queued, waiting and running runs.
    deployments : sequence of Deployment
        All of them; the policies of their newest versions count, also for runs of older ones.
    now : float
        Seconds since 1970.
    max_runs : int
        Runs of this machine at a time, those that run already among them.
    """
    newest = {deployment.name: deployment.version.policies for deployment in deployments}
    runs = state.list_open_runs()
    policies = {
        run.number: newest.get(run.deployment) or state.get_version(run.deployment, run.version).policies
        for run in runs
    }
    room = max_runs - sum(run.status == "running" and not run.suspended for run in runs)
    # a run that goes on, or waits to be resumed, is before those of its deployment that are queued
    first = {run.deployment: run.number for run in reversed(runs) if run.status == "waiting"}
    first |= {run.deployment: run.number for run in runs if run.status == "running"}
    chosen: list[Run] = []
    for run in sorted(runs, key=lambda run: (-policies[run.number].priority, run.number)):
        if len(chosen) >= room:
            break
        its = policies[run.number]
        if run.status == "running" or run.stopping or run.suspended or not may_start(run, its, now):
            continue
        if its.overlap == "allow" or first.setdefault(run.deployment, run.number) == run.number:
            chosen.append(state.get_run(run.number))
    return chosen


def may_start(run: OpenRun, policies: Policies, now: float) -> bool:
    """Whether a run need wait no longer; no wait is as long as one that a clock that jumped back has made.

    Parameters
    ----------
    run : OpenRun
        Its ``not_before`` is the end of its wait.
    policies : Policies
        Their ``backoff`` may be longer than an hour.
    now : float
        Seconds since 1970.
    """
    return not now < run.not_before <= now + max(LONGEST_BACKOFF, policies.backoff)


# -- cycles ------------------------------------------------------------------------------------------------------


def find_cycle(versions: Sequence[Version]) -> list[str]:
    """Deployments each of which starts the next one by its end, the first again at the end; empty if none do.

    ``versions`` are the newest ones of all deployments.
    """
    graph = {
        version.deployment: [
            other.deployment
            for other in versions
            if version.trigger and any(needed.name == other.end_event for needed in version.trigger.needed)
        ]
        for version in versions
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []
