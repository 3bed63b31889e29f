"""Events that a flow publishes for other flows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any


def publish(name: str, payload: Mapping[str, Any], *, event_id: str, new: bool, at: float) -> str:
    """Publish an event where this run was started: on Argo, or to the local scheduler; return what to say of it.

    The same id again is the same event: a step that is done again publishes once. Argo knows no such id; there it
    is published if what it tells is ``new``.

    Parameters
    ----------
    name : str
        Of the event, as ``@trigger`` names it.
    payload : mapping
        What it tells: values for parameters of the flows that it starts.
    event_id : str
        The same for each try of one step.
    new : bool
        Whether this try was the first to find out what the event tells.
    at : float
        When that was, in seconds since 1970.

    Raises
    ------
    EventRefused
        When the local scheduler's flows cannot be given it.
    """
    if os.environ.get("ARGO_WORKFLOW_TEMPLATE"):
        if not new:
            return f"{name} was published before"
        from metaflow.integrations import ArgoEvent

        ArgoEvent(name).safe_publish(payload=dict(payload))
        return f"{name} was published on Argo"
    from dlpipe.orchestrator.events import publish_event
    from dlpipe.orchestrator.state import State

    state = State.open()
    try:
        done = publish_event(state, name, payload, now=at, event_id=event_id)
    finally:
        state.close()
    return f"{name} {'is published' if done.new else 'was published before'}"
