"""The commands by which the scheduler starts runs and `create` tries what it has frozen; not for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from metaflow import parameters
from metaflow._vendor import click

run_options = [
    click.option("--run-id", required=True, type=str),
    click.option("--tag", "tags", multiple=True, default=None),
    click.option("--namespace", "user_namespace", default=None, type=str),
    click.option("--max-workers", default=16, type=int),
    click.option("--max-num-splits", default=100, type=int),
    click.option("--max-log-size", default=10, type=int),
]


def add_run_options(command: Any) -> Any:
    """Add the options of Metaflow's ``run``, and the run's id."""
    for option in reversed(run_options):
        command = option(command)
    return command


@parameters.add_custom_parameters(deploy_mode=True)
@click.command(hidden=True)
@add_run_options
@click.pass_obj
def launch(
    obj: Any,
    run_id: str,
    tags: tuple[str, ...],
    user_namespace: str | None,
    max_workers: int,
    max_num_splits: int,
    max_log_size: int,
    **given: Any,
) -> None:
    """Run the flow under a run id that is given."""
    from .launching import run_flow

    limits: Any = {"max_workers": max_workers, "max_num_splits": max_num_splits, "max_log_size": max_log_size}
    run_flow(obj, run_id, tags=tags, parameters=given, user_namespace=user_namespace, **limits)


@click.command(hidden=True)
@click.option("--origin-run-id", required=True, type=str)
@add_run_options
@click.pass_obj
def relaunch(
    obj: Any,
    origin_run_id: str,
    run_id: str,
    tags: tuple[str, ...],
    user_namespace: str | None,
    max_workers: int,
    max_num_splits: int,
    max_log_size: int,
) -> None:
    """Go on with a run under a run id that is given."""
    from .launching import run_flow

    limits: Any = {"max_workers": max_workers, "max_num_splits": max_num_splits, "max_log_size": max_log_size}
    run_flow(obj, run_id, tags=tags, origin=origin_run_id, user_namespace=user_namespace, **limits)


@click.command("loads", hidden=True)
@click.pass_obj
def loads_command(obj: Any) -> None:
    """Print what the flow imports; that it comes here says that it can be imported."""
    import sys

    from .loads import list_loads

    click.echo(json.dumps(list_loads(Path(sys.argv[0]))))
