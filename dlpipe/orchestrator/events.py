"""Publishing an event: what it must be, and whom it reaches."""

from __future__ import annotations

import difflib
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dlpipe.errors import EventRefused
from dlpipe.orchestrator.deployments import Deployment, NeededEvent
from dlpipe.orchestrator.inbox import find_lacking
from dlpipe.orchestrator.matching import find_misfits
from dlpipe.orchestrator.runs import Event
from dlpipe.orchestrator.state import State

NAME = re.compile(r"[A-Za-z0-9_.-]+")
OWN = "metaflow."
PAYLOAD_BYTES = 1024 * 1024
"""As much as a message of Argo Events may be."""


@dataclass(frozen=True)
class PublishedEvent:
    """An event and whom it reaches.

    Attributes
    ----------
    listeners : tuple of str
        Deployments that run because of it.
    waiting : mapping
        Deployments that hold it -> names of the other events that they wait for.
    warnings : tuple of str
        What is odd about it, a line each.
    new : bool
        Whether nobody had published its id before.
    """

    event: Event
    listeners: tuple[str, ...]
    waiting: Mapping[str, tuple[str, ...]]
    warnings: tuple[str, ...]
    new: bool = True


def publish_event(
    state: State, name: str, payload: Mapping[str, Any], *, now: float, event_id: str = ""
) -> PublishedEvent:
    """Publish an event; one whose ``event_id`` was published before is published already.

    Parameters
    ----------
    state : State
        Where it is kept for the scheduler.
    name : str
        Letters, digits, ``_``, ``.`` and ``-``; none of Metaflow's own names.
    payload : mapping
        Values by field, as JSON can say them; at most 1 MiB.
    now : float
        Seconds since 1970.
    event_id : str, optional
        By default a new UUID.

    Raises
    ------
    EventRefused
        When the name is wrong, the payload is no JSON, or it fits none of the deployments that wait for the event.
    """
    check_name(name)
    # what nobody can run with is refused here, where its sender reads why; a scheduler could only log it
    event = Event(event_id or str(uuid.uuid4()), name, check_payload(payload), now)
    deployments = state.list_deployments()
    listeners = [
        deployment for deployment in deployments if any(needed.name == name for needed in list_needed(deployment))
    ]
    wrong = dict(find_misfits(state, event))
    warnings = [f"{listener} does not run: {why}" for listener, why in wrong.items()]
    if listeners and len(wrong) == len(listeners):
        raise EventRefused(f"Nothing was published. {'; '.join(warnings)}.")
    warnings += [
        f"{deployment.name} does not run: it is suspended" for deployment in listeners if deployment.suspended
    ]
    warnings += [
        f"{deployment.name} does not run: its queue is full"
        for deployment in listeners
        if is_queue_full(state, deployment)
    ]
    lacks = {
        deployment.name: find_lacking(state, deployment, event)
        for deployment in listeners
        if not deployment.suspended and deployment.name not in wrong
    }
    new = state.publish(event)
    warnings += [] if listeners else [explain_unheard(name, deployments)]
    waiting = {deployment: names for deployment, names in lacks.items() if names}
    return PublishedEvent(
        event, tuple(lack for lack in lacks if lack not in waiting), waiting, tuple(warnings), new
    )


def check_payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The payload as it is kept, as JSON.

    Raises
    ------
    EventRefused
        When JSON has no such values, when it is no text, or too large.
    """
    try:
        text = json.dumps(payload, ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except UnicodeEncodeError:
        raise EventRefused("Nothing was published: the payload has half a character (a lone surrogate).") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise EventRefused(f"Nothing was published: the payload is no JSON: {error}.") from None
    if size > PAYLOAD_BYTES:
        raise EventRefused(
            f"Nothing was published: the payload is {size:,} bytes long, and at most {PAYLOAD_BYTES:,} are taken. "
            "Put what is large in a table and publish its name."
        )
    return dict(json.loads(text))


def check_name(name: str) -> None:
    """Raise ``EventRefused`` unless an event can have this name."""
    if not NAME.fullmatch(name):
        raise EventRefused(f"An event's name has letters, digits, '_', '.' and '-' only; {name!r} has others.")
    if name.startswith(OWN):
        raise EventRefused(
            f"{name!r} is an event of Metaflow's, which the end of a run publishes by itself. "
            "`local-scheduler trigger` starts a flow by hand."
        )


def list_needed(deployment: Deployment) -> tuple[NeededEvent, ...]:
    """The events that a deployment waits for."""
    trigger = deployment.version.trigger
    return trigger.needed if trigger else ()


def is_queue_full(state: State, deployment: Deployment) -> bool:
    """Whether no further run of a deployment is queued."""
    return state.count_queued(deployment.name) >= deployment.version.policies.queue_limit


def explain_unheard(name: str, deployments: list[Deployment]) -> str:
    """What to say of an event that nobody waits for."""
    known = sorted(
        {needed.name for deployment in deployments for needed in list_needed(deployment) if needed.kind == "event"}
    )
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else f"; they wait for {', '.join(known)}." if known else "."
    return f"No deployment waits for {name!r}{hint}"
