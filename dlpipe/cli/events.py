"""`dlpipe events` and `event`: what came, what each event started, and telling deployments of another one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from dlpipe.cli.printing import OneLineErrors, as_json, say, say_rows
from dlpipe.cli.scheduler_state import open_state, warn_without_scheduler
from dlpipe.errors import EventRefused
from dlpipe.terminal import format_table

if TYPE_CHECKING:
    from dlpipe.orchestrator.events import PublishedEvent
    from dlpipe.orchestrator.inbox import EventView

LIMIT = 20
EXAMPLE = """Pass one such as '{"rows": 10}'."""


# -- what came ---------------------------------------------------------------------------------------------------


@click.command()
@click.option("--name", help="Only events of this name.")
@click.option(
    "--limit", type=click.IntRange(1, 1_000_000), default=LIMIT, show_default=True, help="How many are listed."
)
@as_json
def events(name: str | None, limit: int, json_: bool) -> None:
    """List events, the newest first.

    Each has what it started, and where it waits for other events that a trigger needs.

    \b
    Examples:
      dlpipe events
      dlpipe events --name model-drifted --json
    """
    from dlpipe.orchestrator.inbox import view_events

    with open_state() as state:
        shown = view_events(state, time.time(), limit=limit, name=name)
    if json_ or not shown:
        nothing = f"No event {name!r} has come." if name else "No event has come yet."
        say_rows([describe_event(view) for view in shown], json_=json_, nothing=nothing)
    else:
        say("\n".join(format_events(shown)))


def format_events(shown: Sequence[EventView]) -> Iterator[str]:
    """Yield a table of events; below each a line for whatever it came to."""
    from dlpipe.time_formats import format_time

    head, *lines = format_table(
        [{"event": view.event.name, "came": format_time(view.event.at // 1)} for view in shown]
    )
    yield head
    for line, view in zip(lines, shown, strict=True):
        yield line
        yield from (f"    {outcome}" for outcome in format_outcomes(view))


def format_outcomes(view: EventView) -> list[str]:
    """What an event came to, in words."""
    if not view.dealt:
        return ["no scheduler has looked at it yet"]
    runs = [
        f"run {run.number} of {run.deployment} {run.status}{f': {run.reason}' if run.status == 'skipped' else ''}"
        for run in view.runs
    ]
    waits = [f"{deployment} waits for {', '.join(names)}" for deployment, names in view.waits.items()]
    return [*runs, *waits] or ["nothing"]


def describe_event(view: EventView) -> dict[str, Any]:
    """An event for a program."""
    from dlpipe.redaction import redact_json
    from dlpipe.time_formats import format_iso

    return {
        "event": view.event.id,
        "name": view.event.name,
        "at": format_iso(view.event.at),
        "payload": redact_json(dict(view.event.payload)),
        "dealt": view.dealt,
        "runs": [
            {"run": run.number, "deployment": run.deployment, "status": run.status, "reason": run.reason}
            for run in view.runs
        ],
        "waits": {deployment: list(names) for deployment, names in view.waits.items()},
    }


# -- another one -------------------------------------------------------------------------------------------------


@click.group(cls=OneLineErrors)
def event() -> None:
    """Tell deployments that something happened.

    \b
    Example:
      dlpipe event publish model-drifted --payload '{"accuracy": 0.71}'
    """


@event.command()
@click.argument("name")
@click.option(
    "--payload", default="{}", metavar="JSON", help="What the event tells, as a JSON object of values by field."
)
@as_json
def publish(name: str, payload: str, json_: bool) -> None:
    """Publish the event NAME: deployments with @trigger(event=NAME) run.

    \b
    Example:
      dlpipe event publish model-drifted --payload '{"accuracy": 0.71}'
    """
    from dlpipe.orchestrator.events import publish_event

    with open_state() as state:
        done = publish_event(state, name, read_payload(payload), now=time.time())
    for line in done.warnings:
        say(line, err=True)
    if json_:
        waits = {deployment: list(names) for deployment, names in done.waiting.items()}
        say(json.dumps({"event": done.event.id, "name": name, "starts": list(done.listeners), "waits": waits}))
    else:
        say(format_published(done))
    warn_without_scheduler()


def format_published(done: PublishedEvent) -> str:
    """What a person is told of an event that was published."""
    reached = [f"it reaches {', '.join(done.listeners)}"] if done.listeners else []
    reached += [f"{deployment} waits for {', '.join(names)} as well" for deployment, names in done.waiting.items()]
    return "; ".join([f"{done.event.name} is published", *reached]) + "."


def read_payload(text: str) -> dict[str, Any]:
    """The payload as a mapping; ``EventRefused`` when it is none."""
    try:
        payload = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EventRefused(
            f"The payload is not JSON: {error}. Pass an object such as '{{\"rows\": 10}}'."
        ) from None
    if not isinstance(payload, dict):
        kind = type(payload).__name__
        raise EventRefused(f"The payload is a {kind}, not an object. {EXAMPLE}")
    return payload
