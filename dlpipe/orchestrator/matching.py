"""Whether an event starts a run of a deployment, and which parameters it gives to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dlpipe.orchestrator.deployments import Deployment, NeededEvent, Schedule, Trigger, Version
from dlpipe.orchestrator.runs import Event
from dlpipe.orchestrator.state import State
from dlpipe.orchestrator.timing import next_due
from dlpipe.orchestrator.values import explain_misfit, show_json
from dlpipe.redaction import show_value


@dataclass(frozen=True)
class Match:
    """The events that a trigger needed.

    Attributes
    ----------
    events : tuple of Event
        In the order of the trigger.
    parameters : mapping
        Parameter of the flow -> value.
    misfit : str
        Why the flow cannot run with them; empty if it can.
    """

    events: tuple[Event, ...]
    parameters: Mapping[str, Any]
    misfit: str = ""

    @property
    def cause(self) -> str:
        """What happened, for people."""
        return ", ".join(map(describe_event, self.events))


def find_match(state: State, deployment: Deployment, sequence: int, event: Event) -> Match | None:
    """What ``event`` completes for the trigger of ``deployment``; else it is held for later, if needed at all.

    Of several events of one name, the newest counts that the flow can run with: one that does not fit is a match
    of its own, with the reason, and changes nothing of what is held.

    Parameters
    ----------
    state : State
        Where incomplete sets of events are held.
    deployment : Deployment
        Its newest version's trigger counts.
    sequence : int
        The one with which the event was published.
    event : Event
        One that no trigger has seen yet.
    """
    version, trigger = deployment.version, deployment.version.trigger
    needed = find_needed(version, event)
    if trigger is None or needed is None:
        return None
    if len(trigger.needed) == 1:
        return make_match(version, [event])
    if wrong := explain_misfit_with(version, needed, event):
        return Match((event,), {}, wrong)
    state.hold_event(deployment.name, event.name, sequence)
    held = state.get_held_events(deployment.name)
    forgotten = [
        name for name, other in held.items() if is_reset(trigger, other, event.at) or is_unfit(version, other)
    ]
    state.forget_events(deployment.name, forgotten)
    if any(needed.name not in held or needed.name in forgotten for needed in trigger.needed):
        return None
    state.forget_events(deployment.name, held)
    return make_match(version, [held[needed.name] for needed in trigger.needed])


def find_needed(version: Version, event: Event) -> NeededEvent | None:
    """What the trigger of ``version`` says of ``event``; ``None`` if it does not wait for it."""
    needed = version.trigger.needed if version.trigger else ()
    return next((wanted for wanted in needed if wanted.name == event.name), None)


def is_unfit(version: Version, held: Event) -> bool:
    """Whether a newer version of the flow cannot run with an event that was held for an older one."""
    needed = find_needed(version, held)
    return needed is None or bool(explain_misfit_with(version, needed, held))


def is_reset(trigger: Trigger, held: Event, at: float) -> bool:
    """Whether ``held`` is forgotten by the time ``at``.

    Parameters
    ----------
    trigger : Trigger
        Its ``reset_at`` says when incomplete sets are forgotten.
    held : Event
        An event that waits for others.
    at : float
        Seconds since 1970.
    """
    if not trigger.reset_at:
        return False
    return next_due(Schedule(trigger.reset_at, trigger.reset_timezone), held.at) <= at


def make_match(version: Version, events: list[Event]) -> Match:
    """What ``events`` give to a run of ``version``, whose trigger they are in order."""
    needed = version.trigger.needed if version.trigger else ()
    pairs = list(zip(needed, events, strict=True))
    parameters = {
        parameter: value
        for pair, event in pairs
        for parameter, name in map_parameters(version, pair).items()
        if (value := get_field(event, name)) is not None
    }
    wrong = [explain_misfit_with(version, pair, event) for pair, event in pairs]
    return Match(tuple(events), parameters, next(filter(None, [*wrong, explain_lack(version, parameters)]), ""))


def explain_misfit_with(version: Version, needed: NeededEvent, event: Event) -> str:
    """Why a run of ``version`` cannot begin with ``event``, whatever comes besides; empty if it can.

    Parameters
    ----------
    version : Version
        Its parameters have types, and some need a value.
    needed : NeededEvent
        What its trigger says of the event.
    event : Event
        What came.
    """
    fields = map_parameters(version, needed).items()
    return next(
        filter(None, (explain_field_misfit(version, parameter, event, name) for parameter, name in fields)), ""
    )


def explain_lack(version: Version, parameters: Mapping[str, Any]) -> str:
    """Which parameter has no value, though the flow needs one; empty if none."""
    lacks = [name for name in version.required if name not in {*parameters, *version.parameters}]
    return f"no event gives a value for the parameter {lacks[0]}, which has none of its own" if lacks else ""


def map_parameters(version: Version, needed: NeededEvent) -> dict[str, str]:
    """Parameter -> field of the payload; as on Argo, an event that is alone and says nothing gives all of them."""
    alone = version.trigger is not None and len(version.trigger.needed) == 1
    if alone and not needed.parameters and needed.kind == "event":
        return {name: name for name in version.parameter_names}
    known = {name.lower(): name for name in version.parameter_names}
    return {known.get(name.lower(), name): field for name, field in needed.parameters.items()}


def get_field(event: Event, name: str) -> Any:
    """A field of an event's payload, ``None`` without it; on Argo, names of parameters are in small letters."""
    value = event.payload.get(name)
    return event.payload.get(name.lower()) if value is None else value


def explain_field_misfit(version: Version, parameter: str, event: Event, name: str) -> str:
    """Why the field ``name`` of ``event`` cannot be the parameter's value; empty if it can.

    Parameters
    ----------
    version : Version
        It says what the parameter takes.
    parameter : str
        Name of a parameter of the flow.
    event : Event
        What came.
    name : str
        Field of the event's payload.
    """
    value = get_field(event, name)
    if value is None:
        missed = parameter in version.required and parameter not in version.parameters
        return (
            f"event {event.name!r} has no field {name!r}, which the parameter {parameter} needs" if missed else ""
        )
    reason = explain_misfit(version, parameter, value)
    return f"event {event.name!r} has {name} = {show_value(name, show_json(value))}, {reason}" if reason else ""


def describe_event(event: Event) -> str:
    """``event`` for people."""
    flow, run = event.payload.get("flow_name"), event.payload.get("run_id")
    if event.name.startswith("metaflow.") and event.name.endswith(".end") and flow and run:
        return f"end of {flow}/{run}"
    return f"event {event.name}"


def find_misfits(state: State, event: Event) -> Iterator[tuple[str, str]]:
    """Deployments that ``event`` is for but that cannot run with it, each with the reason."""
    for deployment in state.list_deployments():
        version = deployment.version
        needed = find_needed(version, event)
        if version.trigger is None or needed is None:
            continue
        alone = len(version.trigger.needed) == 1
        if reason := make_match(version, [event]).misfit if alone else explain_misfit_with(version, needed, event):
            yield deployment.name, reason
