"""Events that came: what each of them started, and where one waits for the others that a trigger needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dlpipe.orchestrator.deployments import Deployment
from dlpipe.orchestrator.kept_runs import StartedRun
from dlpipe.orchestrator.matching import is_reset, is_unfit
from dlpipe.orchestrator.runs import Event
from dlpipe.orchestrator.state import State


@dataclass(frozen=True)
class HeldEvents:
    """What a trigger that needs several events has of them.

    Attributes
    ----------
    deployment : str
        Whose trigger it is.
    came : mapping
        Name -> the event that is held.
    lacks : tuple of str
        Names of those that have not come.
    """

    deployment: str
    came: Mapping[str, Event]
    lacks: tuple[str, ...]


@dataclass(frozen=True)
class EventView:
    """An event and what it came to.

    Attributes
    ----------
    dealt : bool
        Whether triggers have been told of it.
    runs : tuple of StartedRun
        Those that it started, alone or with others, and those that were skipped.
    waits : mapping
        Deployment -> names of the events for which it waits there.
    """

    event: Event
    dealt: bool
    runs: tuple[StartedRun, ...]
    waits: Mapping[str, tuple[str, ...]]


def view_events(state: State, now: float, *, limit: int, name: str | None = None) -> list[EventView]:
    """The newest events, at most so many, with what they came to; of one name or of all.

    Parameters
    ----------
    state : State
        It is only read.
    now : float
        Seconds since 1970; what a trigger would have forgotten by then is not waited for.
    limit : int
        At most so many.
    name : str, optional
        Only events of this name; by default of any.
    """
    events = state.list_last_events(limit, name=name)
    if not events:
        return []
    dealt = state.get_events_dealt()
    started = state.list_runs_of_events(min(event.at for _, event in events))
    incomplete = [held for deployment in state.list_deployments() if (held := find_held(state, deployment, now))]
    return [
        EventView(
            event,
            sequence <= dealt,
            tuple(run for run in started if event.id in run.events),
            {held.deployment: held.lacks for held in incomplete if held.came.get(event.name) == event},
        )
        for sequence, event in events
    ]


def find_held(state: State, deployment: Deployment, now: float) -> HeldEvents | None:
    """What the trigger of a deployment has of the events that it needs; ``None`` if it waits for no others.

    Parameters
    ----------
    state : State
        It is only read.
    deployment : Deployment
        One with a trigger or without.
    now : float
        Seconds since 1970; what the trigger would have forgotten by then is left out.
    """
    trigger = deployment.version.trigger
    if trigger is None or len(trigger.needed) == 1:
        return None
    held = {
        name: event
        for name, event in state.get_held_events(deployment.name).items()
        if not is_reset(trigger, event, now) and not is_unfit(deployment.version, event)
    }
    if not held:
        return None
    return HeldEvents(
        deployment.name, held, tuple(needed.name for needed in trigger.needed if needed.name not in held)
    )


def find_lacking(state: State, deployment: Deployment, event: Event) -> tuple[str, ...]:
    """Which events a deployment still waits for once ``event`` has come, counting what no trigger knows yet.

    Parameters
    ----------
    state : State
        It is only read.
    deployment : Deployment
        One that waits for the event.
    event : Event
        One that is about to be published.
    """
    trigger = deployment.version.trigger
    held = find_held(state, deployment, event.at)
    known = {event.name, *(held.came if held else ())}
    known |= {other.name for _, other in state.list_events_after(state.get_events_dealt())}
    return tuple(needed.name for needed in trigger.needed if needed.name not in known) if trigger else ()
