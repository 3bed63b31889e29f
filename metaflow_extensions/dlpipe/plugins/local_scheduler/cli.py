"""The commands ``python FLOW.py local-scheduler ...``."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaflow._vendor import click

from .errors import end_in_one_line
from .launch_commands import launch, loads_command, relaunch
from .options import LIMITS, WithParameters, add_limit_options, add_policy_options, take_policies

if TYPE_CHECKING:
    from dlpipe.orchestrator.runs import Status
    from dlpipe.orchestrator.state import State

STATUSES = ["queued", "running", "waiting", "succeeded", "failed", "terminated", "skipped"]

attribute_file = click.option(
    "--deployer-attribute-file", default=None, type=str, hidden=True, help="For Metaflow's Deployer."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")


def add_authorize(to: str) -> Any:
    """Return the option with which somebody else than its author changes a deployment."""
    return click.option("--authorize", default=None, type=str, help=f"Production token, needed to {to}.")


@click.group()
def cli() -> None:
    """Hold the one group that Metaflow takes from here."""


@cli.group("local-scheduler", help="Commands related to dlpipe's scheduler for one machine.")
@click.option(
    "--name", default=None, type=str, help="Name of the deployment; that of the flow if it is not given."
)
@click.pass_obj
@end_in_one_line()
def local_scheduler(obj: Any, name: str | None = None) -> None:
    """Find out which deployment is meant."""
    from .authority import find_name

    obj.deployment = find_name(name)


@local_scheduler.command(cls=WithParameters, help="Deploy the flow: freeze its code and run it by its schedule.")
@click.option(
    "--authorize",
    default=None,
    type=str,
    help="Authorize using this production token. You need this when you re-deploy somebody else's flow for the "
    "first time; it is kept in METAFLOW_HOME.",
)
@click.option(
    "--generate-new-token",
    is_flag=True,
    help="Generate a new production token. This moves the deployment to a new namespace.",
)
@click.option(
    "--new-token",
    "given_token",
    default=None,
    type=str,
    help="Use the given production token. This moves the deployment to the given namespace.",
)
@click.option("--tag", "tags", multiple=True, default=None, help="Tag every run; may be given several times.")
@click.option(
    "--namespace",
    "user_namespace",
    default=None,
    type=str,
    help="Change what runs see from the production namespace to the given one.",
)
@click.option(
    "--with",
    "decospecs",
    multiple=True,
    default=None,
    help="Add a decorator to all steps; may be given several times.",
)
@add_limit_options
@add_policy_options
@attribute_file
@click.pass_obj
@end_in_one_line()
def create(
    obj: Any,
    tags: tuple[str, ...] = (),
    user_namespace: str | None = None,
    authorize: str | None = None,
    generate_new_token: bool = False,
    given_token: str | None = None,
    decospecs: tuple[str, ...] = (),
    deployer_attribute_file: str | None = None,
    **given: Any,
) -> None:
    """Deploy the flow."""
    from ..launch_check import check_options
    from .checking import list_hidden_parameters
    from .creating import Asked
    from .creating import create as deploy
    from .reading import read_given_values
    from .telling import format_created

    obj.check(obj.graph, obj.flow, obj.environment, pylint=obj.pylint)
    policies = take_policies(given)
    limits = {name: given.pop(name, None) for name in LIMITS}
    check_options(obj.flow, given)
    asked = Asked(
        name=obj.deployment,
        policies=policies,
        parameters=read_given_values(obj, given),
        tags=tuple(tags or ()),
        decorators=tuple(decospecs or ()),
        limits={name: value for name, value in limits.items() if value is not None},
        namespace=user_namespace,
        authorize=authorize,
        given_token=given_token,
        generate_new_token=generate_new_token,
    )
    with open_state() as state:
        done = deploy(obj, asked, state)
        tell(
            obj,
            [
                *format_created(done, state.folder),
                *list_hidden_parameters(obj, local_scheduler.commands["create"]),
            ],
        )
    names = {"name": obj.deployment.text, "flow_name": obj.flow.name}
    write_attributes(deployer_attribute_file, {**names, "metadata": obj.metadata.metadata_str()})


@local_scheduler.command(cls=WithParameters, help="Run the newest version once, with these parameters.")
@click.option("--run-id-file", default=None, type=str, help="Write the run's id to this file.")
@attribute_file
@click.pass_obj
@end_in_one_line()
def trigger(
    obj: Any, run_id_file: str | None = None, deployer_attribute_file: str | None = None, **given: Any
) -> None:
    """Note a run to be started by the scheduler."""
    from dlpipe.orchestrator.interventions import trigger_run

    from .reading import read_given_values
    from .telling import format_scheduler

    with open_state() as state:
        version = state.get_deployment(obj.deployment.text).version
        values = read_given_values(obj, given)
        run = trigger_run(state, version, values)
        run_id = f"ls-{run.number}"
        tell(
            obj,
            [
                f"Run {run.number} of {version.deployment} version {version.number} is queued (run-id {run_id}).",
                format_scheduler(state.folder),
            ],
        )
    if run_id_file:
        Path(run_id_file).write_text(run_id)
    names = {"name": run_id, "pathspec": f"{obj.flow.name}/{run_id}"}
    write_attributes(deployer_attribute_file, {**names, "metadata": obj.metadata.metadata_str()})


@local_scheduler.command("list-runs", help="List the runs of the deployment, newest first.")
@click.option(
    "--status",
    "statuses",
    multiple=True,
    default=None,
    type=click.Choice(STATUSES, case_sensitive=False),
    help="Only those in it.",
)
@click.option("--limit", default=20, type=int, show_default=True, help="At most so many; 0 for all.")
@as_json
@click.pass_obj
@end_in_one_line()
def list_runs(obj: Any, statuses: tuple[Status, ...] = (), limit: int = 20, as_json: bool = False) -> None:
    """Print the runs as a table."""
    from .telling import check_limit, describe_runs, format_table

    check_limit(limit)  # Metaflow's Deployer knows no options with ranges
    with open_state() as state:
        name = obj.deployment.text
        state.list_versions(name)
        runs = state.list_runs(deployment=name, status=tuple(statuses or ()), limit=limit or None)
        rows = describe_runs(runs)
    if as_json:
        say(json.dumps(rows, indent=2))
    elif rows:
        say(format_table(rows))
    else:
        tell(obj, [f"No runs of {name} yet."])


@local_scheduler.command(help="Show versions, next due times and what differs from the working tree, or a run.")
@click.argument("run-id", required=False, type=str)
@as_json
@click.pass_obj
@end_in_one_line()
def status(obj: Any, run_id: str | None = None, as_json: bool = False) -> None:
    """Print where the deployment, or one run of it, stands."""
    from .telling import describe_runs, describe_status, format_status, format_table

    with open_state() as state:
        if run_id:
            rows = describe_runs([find_named_run(obj, state, run_id)])
            say(json.dumps(rows[0], indent=2) if as_json else format_table(rows))
            return
        found = describe_status(obj, state)
        say(json.dumps(found, indent=2) if as_json else "\n".join(format_status(found)))


@local_scheduler.command(help="Stop a run, given by its number or run id.")
@add_authorize("terminate runs of somebody else's deployment")
@click.argument("run-id", required=True, type=str)
@click.pass_obj
@end_in_one_line()
def terminate(obj: Any, run_id: str, authorize: str | None = None) -> None:
    """Ask the scheduler to stop a run; without a scheduler, end its processes."""
    from dlpipe.orchestrator.interventions import terminate as stop

    from .telling import format_scheduler

    with open_state() as state:
        run = find_named_run(obj, state, run_id)
        check_allowed(obj, state.get_version(run.deployment, run.version), authorize, to="terminate runs of")
        stop(state, run)
        done = state.get_run(run.number).status == "terminated"
        line = f"Run {run.number} of {run.deployment} is {'terminated' if done else 'being terminated'}."
        tell(obj, [line] if done else [line, format_scheduler(state.folder)])


@local_scheduler.command(
    help="Start no runs by schedule or events until `unsuspend`; runs that go on go on. Of a run, given by its "
    "number or run id: begin no further step and no further attempt."
)
@add_authorize("suspend somebody else's deployment")
@click.argument("run-id", required=False, type=str)
@click.pass_obj
@end_in_one_line()
def suspend(obj: Any, run_id: str | None = None, authorize: str | None = None) -> None:
    """Suspend the deployment, or one run of it."""
    name = _suspend(obj, run_id, True, authorize)
    what = "it begins no further step" if run_id else "only `trigger` runs it"
    tell(obj, [f"{name} is suspended: {what}."])


@local_scheduler.command(help="Start runs again; what was due meanwhile is not made up for. Or let a run go on.")
@add_authorize("unsuspend somebody else's deployment")
@click.argument("run-id", required=False, type=str)
@click.pass_obj
@end_in_one_line()
def unsuspend(obj: Any, run_id: str | None = None, authorize: str | None = None) -> None:
    """Let the deployment go on, or one run of it."""
    name = _suspend(obj, run_id, False, authorize)
    tell(obj, [f"{name} goes on." if run_id else f"{name} runs again."])


def _suspend(obj: Any, run_id: str | None, suspended: bool, authorize: str | None) -> str:
    from dlpipe.orchestrator.interventions import suspend_run

    name = obj.deployment.text
    with open_state() as state:
        run = find_named_run(obj, state, run_id) if run_id else None
        version = state.get_version(name, run.version) if run else state.get_deployment(name).version
        check_allowed(obj, version, authorize, to="suspend or unsuspend")
        if run is None:
            state.suspend(name, suspended, now=time.time())
        else:
            suspend_run(state, run, suspended)
    return name if run is None else f"Run {run.number} of {name}"


@local_scheduler.command(help="Delete the deployment; runs that go on go on, and what has run stays to be read.")
@add_authorize("delete somebody else's deployment")
@click.pass_obj
@end_in_one_line()
def delete(obj: Any, authorize: str | None = None) -> None:
    """Delete the deployment and the code that no run needs."""
    from dlpipe.orchestrator.freezing import prune

    with open_state() as state:
        name = obj.deployment.text
        check_allowed(obj, state.get_deployment(name).version, authorize, to="delete")
        state.delete(name)
        prune(state, name)
    tell(obj, [f"{name} is deleted. Its runs stay in `dlpipe runs`; those that go on were left alone."])


for command in (launch, relaunch, loads_command):
    local_scheduler.add_command(command)


# common to several ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_state() -> Iterator[State]:
    """Open the state for a command."""
    from dlpipe.orchestrator.state import State

    state = State.open()
    try:
        yield state
    finally:
        state.close()


def check_allowed(obj: Any, version: Any, token: str | None, *, to: str) -> None:
    """Refuse those who neither made the version nor have its production token."""
    from .authority import authorize

    authorize(obj.deployment, version, token, to=to)


def find_named_run(obj: Any, state: State, text: str) -> Any:
    """Return the run of this deployment that ``text`` names: ``17``, ``ls-17`` or a Metaflow run id.

    Raises
    ------
    RunNotFound
        When there is none; the latest ones are named.
    """
    from .telling import find_run

    return find_run(state, obj.deployment.text, text)


def say(text: str) -> None:
    """Print an answer on standard output, with nothing in it that a terminal would obey."""
    from dlpipe.terminal import make_visible

    click.echo(make_visible(text))


def tell(obj: Any, lines: list[str]) -> None:
    """Print lines for a person, as Metaflow does."""
    from dlpipe.terminal import make_visible

    for line in lines:
        obj.echo(make_visible(line), no_bold=True)  # otherwise Metaflow takes stars for marks


def write_attributes(file: str | None, values: Mapping[str, Any]) -> None:
    """Tell Metaflow's Deployer; the file is a FIFO, so it is written once."""
    if file:
        with open(file, "w", encoding="utf-8") as out:
            json.dump(values, out)
