"""An event of OpenLineage: what is to be told once, and its way into JSON."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from openlineage.client.event_v2 import DatasetEvent, JobEvent, RunEvent
from openlineage.client.facet_v2 import set_producer
from openlineage.client.serde import Serde

from dlpipe.redaction import redact

ADAPTER = importlib.metadata.version("dlpipe")
PRODUCER = f"urn:dlpipe:{ADAPTER}"
"""Says in each event, and in each facet, who made it."""
set_producer(PRODUCER)

EventType = Literal["START", "COMPLETE", "FAIL", "ABORT"]


Body = Mapping[str, Any]
"""An event in JSON's own types, with no credentials."""


@dataclass(frozen=True)
class Event:
    """Something to tell a receiver, which is put into words when it is told.

    Attributes
    ----------
    key : str
        What it is known by, the same each time: see ``find_key``.
    at : int
        When it happened, in milliseconds since 1970.
    make : callable
        Returns it in JSON's own types.
    """

    key: str
    at: int
    make: Callable[[], Body]


@dataclass(frozen=True)
class Group:
    """What is to be told of one thing, such as a run.

    Attributes
    ----------
    key : str
        What it is known by.
    at : int
        When it began, in milliseconds since 1970.
    list_events : callable
        Returns its events in the order in which they happened.
    is_final : bool
        Whether nothing more will come of it: once told, it need not be looked at again.
    """

    key: str
    at: int
    list_events: Callable[[], Sequence[Event]]
    is_final: bool = True


def find_key(body: Body) -> str:
    """Return what an event is known by: the id of its run and how that stands, or what it says, of what and when.

    Examples
    --------
    >>> find_key({"eventType": "START", "run": {"runId": "01a2"}, "job": {"namespace": "dlpipe", "name": "Flow"}})
    '01a2 START'
    >>> dataset = {"namespace": "mlflow://db", "name": "reviews", "facets": {"tags": {}, "version": {}}}
    >>> find_key({"eventTime": "2026-11-28T22:53:44Z", "dataset": dataset})
    '2026-11-28T22:53:44Z mlflow://db reviews: tags, version'
    """
    if "run" in body:
        return f"{body['run']['runId']} {body.get('eventType', '')}"
    about = body.get("dataset") or body.get("job") or {}
    more = [*about.get("facets", {})]
    for dataset in (*body.get("inputs", ()), *body.get("outputs", ())):
        version = dataset.get("facets", {}).get("version", {}).get("datasetVersion", "")
        more.append(f"{dataset['name']} {version}".strip())
    return f"{body.get('eventTime', '')} {about.get('namespace')} {about.get('name')}: {', '.join(sorted(more))}"


def to_body(event: RunEvent | JobEvent | DatasetEvent) -> Body:
    """Return an event of openlineage-python in JSON's own types."""
    return dict(_redact_texts(_leave_out_empty(Serde.to_dict(event)), functools.cache(redact)))


def make_event(event: RunEvent | JobEvent | DatasetEvent, at: int) -> Event:
    """Return an event of openlineage-python as one to tell."""
    body = to_body(event)
    return Event(find_key(body), at, lambda: body)


def _leave_out_empty(value: Any) -> Any:
    """Return it without mappings that hold nothing: openlineage-python writes each facet's list, used or not."""
    if isinstance(value, dict):
        made = {name: _leave_out_empty(inner) for name, inner in value.items()}
        return {name: inner for name, inner in made.items() if inner != {}}
    return [_leave_out_empty(inner) for inner in value] if isinstance(value, list) else value


def _redact_texts(value: Any, hide: Any) -> Any:
    if isinstance(value, dict):
        return {name: inner if _is_given(name) else _redact_texts(inner, hide) for name, inner in value.items()}
    if isinstance(value, list):
        return [_redact_texts(inner, hide) for inner in value]
    return hide(value) if isinstance(value, str) else value


def _is_given(name: str) -> bool:
    """Return whether what stands under a name is ours or the standard's: ids, addresses of schemas."""
    return name in ("_producer", "_schemaURL", "producer", "schemaURL", "runId", "eventTime", "eventType")
