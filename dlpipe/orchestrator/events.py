"""Publishing an event by hand: what it must be, and whom it reaches."""

from __future__ import annotations

import difflib
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dlpipe.errors import EventRefused
from dlpipe.orchestrator.deployments import Deployment, Needed
from dlpipe.orchestrator.matching import misfits
from dlpipe.orchestrator.runs import Event
from dlpipe.orchestrator.state import State

NAME = re.compile(r"[A-Za-z0-9_.-]+")
OWN = "metaflow."


@dataclass(frozen=True)
class Published:
    """An event, the deployments that it reaches, and what is odd about it, a line each."""

    event: Event
    listeners: tuple[str, ...]
    warnings: tuple[str, ...]


def publish_event(state: State, name: str, payload: Mapping[str, Any], *, now: float) -> Published:
    """Publish an event.

    Raises
    ------
    EventRefused
        When the name is wrong, or the payload fits none of the deployments that wait for the event.
    """
    check_name(name)
    event = Event(str(uuid.uuid4()), name, dict(payload), now)
    deployments = state.deployments()
    heard = [one for one in deployments if any(needed.name == name for needed in needed_of(one))]
    wrong = dict(misfits(state, event))
    said = [f"{one} does not run: {why}" for one, why in wrong.items()]
    if heard and len(wrong) == len(heard):
        raise EventRefused(f"Nothing was published. {'; '.join(said)}.")
    said += [f"{one.name} does not run: it is suspended" for one in heard if one.suspended]
    state.publish(event)
    reached = tuple(one.name for one in heard if not one.suspended and one.name not in wrong)
    said += [] if heard else [unheard(name, deployments)]
    return Published(event, reached, tuple(said))


def check_name(name: str) -> None:
    """Raise ``EventRefused`` unless an event can have this name."""
    if not NAME.fullmatch(name):
        raise EventRefused(f"An event's name has letters, digits, '_', '.' and '-' only; {name!r} has others.")
    if name.startswith(OWN):
        raise EventRefused(
            f"{name!r} is an event of Metaflow's, which the end of a run publishes by itself. "
            "`local-scheduler trigger` starts a flow by hand."
        )


def needed_of(deployment: Deployment) -> tuple[Needed, ...]:
    """The events that a deployment waits for."""
    trigger = deployment.version.trigger
    return trigger.needed if trigger else ()


def unheard(name: str, deployments: list[Deployment]) -> str:
    """What to say of an event that nobody waits for."""
    known = sorted({one.name for each in deployments for one in needed_of(each) if one.kind == "event"})
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else f"; they wait for {', '.join(known)}." if known else "."
    return f"No deployment waits for {name!r}{hint}"
