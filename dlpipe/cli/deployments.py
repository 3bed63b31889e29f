"""`dlpipe deployments`: what is deployed on this machine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from dlpipe.cli.printing import as_json, format_iso, say_rows
from dlpipe.cli.scheduler_state import describe_state, open_state

if TYPE_CHECKING:
    from dlpipe.orchestrator.overview import DeploymentView


@click.command()
@as_json
def deployments(json_: bool) -> None:
    """List the deployments of this state folder.

    Each has its schedule, when it is due next, what triggers it, and its last run.

    \b
    Examples:
      dlpipe deployments
      dlpipe deployments --json
    """
    from dlpipe.orchestrator.overview import view_deployments

    with open_state() as state:
        shown = view_deployments(state, time.time())
    row = describe_deployment if json_ else format_deployment
    say_rows(
        [row(view) for view in shown],
        json_=json_,
        nothing=f"Nothing is deployed here {describe_state()} To deploy: `python FLOW.py local-scheduler create`.",
    )


def format_deployment(view: DeploymentView) -> dict[str, Any]:
    """A deployment for a person."""
    last = view.last_run
    return {
        "deployment": view.deployment.name,
        "version": view.deployment.version.number,
        "schedule": view.schedule,
        "next due": "suspended" if view.deployment.suspended else view.due,
        "starts after": view.triggers,
        **({"waits for": ", ".join(view.held.lacks)} if view.held else {}),
        "last run": f"{last.number} {last.status}" if last else "",
    }


def describe_deployment(view: DeploymentView) -> dict[str, Any]:
    """A deployment for a program."""
    version = view.deployment.version
    return {
        "deployment": view.deployment.name,
        "flow": version.flow,
        "version": version.number,
        "created": format_iso(version.created),
        "cron": version.schedule.cron if version.schedule else None,
        "timezone": (version.schedule.timezone or "UTC") if version.schedule else None,
        "next_due": format_iso(view.next_due) if view.next_due is not None else None,
        "events": [needed.name for needed in version.trigger.needed] if version.trigger else [],
        "held": {name: format_iso(event.at) for name, event in view.held.came.items()} if view.held else {},
        "suspended": view.deployment.suspended,
        "last_run": {"run": view.last_run.number, "status": view.last_run.status} if view.last_run else None,
        "code": version.code,
    }
