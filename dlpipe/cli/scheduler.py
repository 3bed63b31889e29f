"""`dlpipe scheduler`: the process that runs what is deployed."""

from __future__ import annotations

from typing import Any

import click

from dlpipe.cli.printing import OneLineErrors, say
from dlpipe.cli.units import add_system, add_yes, install_unit
from dlpipe.errors import SchedulerRunning
from dlpipe.machine import count_allowed_cores

PORT = 8710
KEEP_DAYS = 90


def add_options(function: Any) -> Any:
    """The options of the scheduler, which its unit repeats."""
    cores = count_allowed_cores()
    runs = click.option(
        "--max-runs",
        type=click.IntRange(1, 1000),
        default=cores,
        help="Most runs at the same time.  [default: as many as there are cores]",
    )
    port = click.option(
        "--port",
        type=click.IntRange(0, 65535),
        default=PORT,
        show_default=True,
        help="Port of the status page on 127.0.0.1; 0 for no page.",
    )
    days = click.option(
        "--keep-days",
        type=click.IntRange(0, 36500),
        default=KEEP_DAYS,
        show_default=True,
        help="Days after which ended runs and their logs are deleted here; 0 for never.",
    )
    token = click.option(
        "--no-token", is_flag=True, help="Let everybody with an account on this machine read the status page."
    )
    return runs(port(days(token(function))))


@click.group(cls=OneLineErrors, invoke_without_command=True)
@add_options
@click.pass_context
def scheduler(context: click.Context, max_runs: int, port: int, keep_days: int, no_token: bool) -> None:
    """Run deployments when they are due, until Ctrl-C or SIGTERM.

    Runs that have begun continue when it ends. One scheduler works on a state folder (DLPIPE_STATE, or
    .dlpipe/state of a project); a second one names the first and ends.

    \b
    Example:
      dlpipe scheduler --port 8710
    """
    if context.invoked_subcommand is not None:
        return
    from dlpipe.orchestrator.daemon import schedule
    from dlpipe.orchestrator.state import state_folder
    from dlpipe.redaction import redact

    schedule(
        state_folder(),
        max_runs=max_runs,
        port=port,
        keep_days=keep_days,
        with_token=not no_token,
        clean=redact,
    )


@scheduler.command()
@add_system
@add_yes
@add_options
def install(system: bool, yes: bool, max_runs: int, port: int, keep_days: int, no_token: bool) -> None:
    """Install the scheduler as a systemd unit.

    The unit is shown, and written after a yes.

    \b
    Examples:
      dlpipe scheduler install
      sudo dlpipe scheduler install --system --yes
    """
    from dlpipe.orchestrator.service import make_unit

    unit = make_unit(system=system, max_runs=max_runs, port=port, keep_days=keep_days, no_token=no_token)
    install_unit(unit, system=system, yes=yes)


@scheduler.command()
def page() -> None:
    """Print the address of the status page, with its token.

    \b
    Example:
      dlpipe scheduler page
    """
    from dlpipe.orchestrator.presence import find_scheduler
    from dlpipe.orchestrator.state import state_folder

    address = (find_scheduler(state_folder()) or {}).get("page")
    if not address:
        raise SchedulerRunning(f"No scheduler with a page works on {state_folder()}.")
    say(address)


@scheduler.command()
def stop() -> None:
    """End the scheduler of this state folder; its runs continue.

    \b
    Example:
      dlpipe scheduler stop
    """
    from dlpipe.orchestrator.presence import stop_scheduler
    from dlpipe.orchestrator.state import state_folder

    pid = stop_scheduler(state_folder())
    if pid is None:
        raise SchedulerRunning(f"No scheduler works on {state_folder()}.")
    say(f"The scheduler with pid {pid} has ended.", err=True)
