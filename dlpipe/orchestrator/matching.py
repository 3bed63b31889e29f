"""Whether an event starts a run of a deployment, and which parameters it gives to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dlpipe.orchestrator.deployments import Deployment, Needed, Schedule, Trigger, Version
from dlpipe.orchestrator.runs import Event
from dlpipe.orchestrator.state import State
from dlpipe.orchestrator.timing import next_due

TRUTHS = ("true", "t", "yes", "y", "1", "false", "f", "no", "n", "0")


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
        return ", ".join(map(said, self.events))


def matches(state: State, deployment: Deployment, sequence: int, event: Event) -> Match | None:
    """What ``event`` completes for the trigger of ``deployment``; else it is held for later, if needed at all.

    Of several events of one name, the newest counts.
    """
    trigger = deployment.version.trigger
    if trigger is None or all(needed.name != event.name for needed in trigger.needed):
        return None
    if len(trigger.needed) == 1:
        return match_of(deployment.version, [event])
    state.hold_event(deployment.name, event.name, sequence)
    held = state.held_events(deployment.name)
    forgotten = [name for name, one in held.items() if is_reset(trigger, one, event)]
    state.forget_events(deployment.name, forgotten)
    if any(needed.name not in held or needed.name in forgotten for needed in trigger.needed):
        return None
    state.forget_events(deployment.name, held)
    return match_of(deployment.version, [held[needed.name] for needed in trigger.needed])


def is_reset(trigger: Trigger, held: Event, event: Event) -> bool:
    """Whether ``held`` is forgotten by the time of ``event``."""
    if not trigger.reset_at:
        return False
    return next_due(Schedule(trigger.reset_at, trigger.reset_timezone), held.at) <= event.at


def match_of(version: Version, events: list[Event]) -> Match:
    """What ``events`` give to a run of ``version``, whose trigger they are in order."""
    needed = version.trigger.needed if version.trigger else ()
    parameters: dict[str, Any] = {}
    misfits = []
    for one, event in zip(needed, events, strict=True):
        for parameter, name in mapping(version, one, alone=len(needed) == 1).items():
            value = field_of(event, name)
            if value is not None:
                parameters[parameter] = value
            misfits.append(misfit(version, parameter, event, name, value))
    given = set(parameters) | set(version.parameters)
    lacking = [name for name in version.required if name not in given]
    if lacking and not any(misfits):
        misfits.append(f"no event gives a value for the parameter {lacking[0]}, which has none of its own")
    return Match(tuple(events), parameters, next(filter(None, misfits), ""))


def mapping(version: Version, needed: Needed, *, alone: bool) -> dict[str, str]:
    """Parameter -> field of the payload; as on Argo, an event that is alone and says nothing gives all of them."""
    if alone and not needed.parameters and needed.kind == "event":
        return {name: name for name in version.parameter_names}
    known = {name.lower(): name for name in version.parameter_names}
    return {known.get(name.lower(), name): field for name, field in needed.parameters.items()}


def field_of(event: Event, name: str) -> Any:
    """A field of an event's payload, ``None`` without it; on Argo, names of parameters are in small letters."""
    value = event.payload.get(name)
    return event.payload.get(name.lower()) if value is None else value


def misfit(version: Version, parameter: str, event: Event, name: str, value: Any) -> str:
    """Why ``value`` cannot be the parameter's; empty if it can."""
    if value is None:
        missed = parameter in version.required and parameter not in version.parameters
        return (
            f"event {event.name!r} has no field {name!r}, which the parameter {parameter} needs" if missed else ""
        )
    kind = version.parameter_types.get(parameter, "")
    if fits(value, kind):
        return ""
    return f"event {event.name!r} has {name} = {shown(value)}, but the parameter {parameter} is of type {kind}"


def fits(value: Any, kind: str) -> bool:
    """Whether Metaflow can make a parameter of type ``kind`` of ``value``."""
    if kind == "JSON":
        return not isinstance(value, str) or reads(json.loads, value)
    if isinstance(value, (dict, list)):
        return not kind
    match kind:
        case "int":
            return not isinstance(value, float) and reads(int, str(value))
        case "float":
            return reads(float, str(value))
        case "bool":
            return str(value).lower() in TRUTHS
    return True


def reads(reader: Callable[[str], Any], text: str) -> bool:
    """Whether ``reader`` can read ``text``."""
    try:
        reader(text)
    except ValueError:
        return False
    return True


def shown(value: Any) -> str:
    """``value`` as JSON, shortened."""
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def said(event: Event) -> str:
    """``event`` for people."""
    flow, run = event.payload.get("flow_name"), event.payload.get("run_id")
    if event.name.startswith("metaflow.") and event.name.endswith(".end") and flow and run:
        return f"end of {flow}/{run}"
    return f"event {event.name}"


def misfits(state: State, event: Event) -> Iterator[tuple[str, str]]:
    """Deployments that ``event`` is for but that cannot run with it, each with the reason."""
    for deployment in state.deployments():
        needed = deployment.version.trigger.needed if deployment.version.trigger else ()
        if len(needed) == 1 and needed[0].name == event.name:
            reason = match_of(deployment.version, [event]).misfit
            if reason:
                yield deployment.name, reason
