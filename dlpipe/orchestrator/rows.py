"""The tables of the state, and its dataclasses as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from dlpipe.orchestrator.deployments import NeededEvent, Policies, Schedule, Trigger, Version
from dlpipe.orchestrator.runs import Alert, Event, RunAttempt

T = TypeVar("T")

MIGRATIONS = (
    """
    CREATE TABLE versions (
        deployment TEXT NOT NULL, number INTEGER NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (deployment, number)
    );
    CREATE TABLE deployments (
        name TEXT PRIMARY KEY, version INTEGER NOT NULL, suspended INTEGER NOT NULL, scheduled_until REAL NOT NULL,
        events_after INTEGER NOT NULL
    );
    CREATE TABLE runs (
        number INTEGER PRIMARY KEY AUTOINCREMENT, deployment TEXT NOT NULL, version INTEGER NOT NULL,
        cause TEXT NOT NULL, key TEXT NOT NULL, due REAL NOT NULL, parameters TEXT NOT NULL, events TEXT NOT NULL,
        status TEXT NOT NULL, not_before REAL NOT NULL, reason TEXT NOT NULL, stop INTEGER NOT NULL DEFAULT 0,
        UNIQUE (deployment, key)
    );
    CREATE INDEX runs_by_status ON runs (status, number);
    CREATE INDEX runs_by_deployment ON runs (deployment, number);
    CREATE INDEX runs_by_both ON runs (deployment, status, number);
    CREATE INDEX runs_to_stop ON runs (number) WHERE stop = 1;
    CREATE TABLE attempts (
        run INTEGER NOT NULL REFERENCES runs (number), number INTEGER NOT NULL, metaflow_run TEXT NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (run, number)
    );
    CREATE INDEX attempts_by_metaflow_run ON attempts (metaflow_run);
    CREATE TABLE events (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, body TEXT NOT NULL
    );
    CREATE TABLE dealt (one INTEGER PRIMARY KEY CHECK (one = 1), sequence INTEGER NOT NULL);
    INSERT INTO dealt VALUES (1, 0);
    CREATE TABLE held (
        deployment TEXT NOT NULL, name TEXT NOT NULL, sequence INTEGER NOT NULL REFERENCES events (sequence),
        PRIMARY KEY (deployment, name)
    );
    CREATE TABLE alerts (
        number INTEGER PRIMARY KEY AUTOINCREMENT, deployment TEXT NOT NULL, key TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL, body TEXT NOT NULL, at REAL NOT NULL, tries INTEGER NOT NULL DEFAULT 0, next_try REAL
    );
    CREATE INDEX alerts_to_send ON alerts (next_try) WHERE next_try IS NOT NULL;
    CREATE INDEX alerts_by_deployment ON alerts (deployment, number)
    """,
    """
    ALTER TABLE runs ADD COLUMN deadline REAL NOT NULL DEFAULT 0;
    ALTER TABLE runs ADD COLUMN suspended INTEGER NOT NULL DEFAULT 0
    """,
    """
    CREATE TABLE hooks (
        run INTEGER NOT NULL, attempts INTEGER NOT NULL, token TEXT NOT NULL, functions TEXT NOT NULL,
        PRIMARY KEY (run, attempts)
    )
    """,
)
"""The scripts that made the schema; a change is a further one."""

RUN_COLUMNS = (
    "number, deployment, version, cause, key, due, parameters, events, status, not_before, reason, "
    "deadline, suspended"
)
ALERT_COLUMNS = "number, deployment, key, kind, body, at, tries"


def to_json(value: Any) -> str:
    """``value``, a dataclass of the orchestrator or plain values, as JSON."""
    plain = dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
    return json.dumps(plain, default=to_plain, separators=(",", ":"))


def to_plain(value: Any) -> Any:
    """What JSON can say of ``value``."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{value!r} is no value for JSON")


TUPLES = (
    *("options", "run_options", "parameter_names", "tags", "required", "multiple"),
    *("success_hooks", "error_hooks"),
)


def read_version(body: str) -> Version:
    """The version that :func:`to_json` wrote."""
    values = json.loads(body)
    if values["schedule"]:
        values["schedule"] = build(Schedule, values["schedule"])
    if values["trigger"]:
        needed = tuple(build(NeededEvent, event) for event in values["trigger"]["needed"])
        values["trigger"] = build(Trigger, {**values["trigger"], "needed": needed})
    values["policies"] = build(Policies, values["policies"])
    for name in TUPLES:
        values[name] = tuple(values.get(name, ()))
    return build(Version, values)


def read_attempt(body: str) -> RunAttempt:
    """The attempt that :func:`to_json` wrote."""
    return build(RunAttempt, json.loads(body))


def read_event(body: str) -> Event:
    """The event that :func:`to_json` wrote."""
    return build(Event, json.loads(body))


def read_events(body: str) -> tuple[Event, ...]:
    """The events that :func:`to_json` wrote."""
    return tuple(build(Event, load) for load in json.loads(body))


def read_alert(row: Sequence[Any]) -> Alert:
    """The alert that a row of ``ALERT_COLUMNS`` is."""
    number, deployment, key, kind, body, at, tries = row
    return Alert(number, deployment, key, kind, json.loads(body), at, tries)


def build(cls: type[T], values: Mapping[str, Any]) -> T:
    """``cls`` with ``values``, of which it knows not all if a later dlpipe wrote them."""
    known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    return cls(**{name: value for name, value in values.items() if name in known})
