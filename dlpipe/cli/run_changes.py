"""`dlpipe runs resume`, `terminate`, `suspend` and `unsuspend`: what a person does to one run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dlpipe.cli.permission import authorize, check_permission
from dlpipe.cli.printing import say
from dlpipe.cli.scheduler_state import open_state, warn_without_scheduler

if TYPE_CHECKING:
    from dlpipe.orchestrator.runs import Run


@click.command()
@click.argument("run")
@authorize
def resume(run: str, authorize: str | None) -> None:
    """Resume a RUN that failed or was terminated.

    It goes on after its last finished steps.

    \b
    Example:
      dlpipe runs resume 17
    """
    from dlpipe.orchestrator.interventions import resume_run

    with open_state() as state:
        found = state.find_run(run)
        check_permission(state, found, authorize, to="resume")
        resume_run(state, found)
    say(f"Run {found.number} of {found.deployment} goes on as soon as there is room.", err=True)
    warn_without_scheduler()


@click.command()
@click.argument("run")
@authorize
def terminate(run: str, authorize: str | None) -> None:
    """Stop a RUN that is running or waits.

    \b
    Example:
      dlpipe runs terminate 17
    """
    from dlpipe.orchestrator.interventions import terminate as stop

    with open_state() as state:
        found = state.find_run(run)
        check_permission(state, found, authorize, to="terminate")
        stop(state, found)
        done = state.get_run(found.number).status == "terminated"
    say(f"Run {found.number} of {found.deployment} is {'terminated' if done else 'being stopped'}.", err=True)
    if not done:
        warn_without_scheduler()


@click.command()
@click.argument("run")
@authorize
def suspend(run: str, authorize: str | None) -> None:
    """Suspend a RUN.

    Steps that have begun end; further steps and attempts wait for `dlpipe runs unsuspend`.

    \b
    Example:
      dlpipe runs suspend 17
    """
    found = set_suspended(run, True, authorize)
    say(f"Run {found.number} of {found.deployment} is suspended: it begins no further step.", err=True)


@click.command()
@click.argument("run")
@authorize
def unsuspend(run: str, authorize: str | None) -> None:
    """Let a suspended RUN continue.

    \b
    Example:
      dlpipe runs unsuspend 17
    """
    found = set_suspended(run, False, authorize)
    say(f"Run {found.number} of {found.deployment} goes on.", err=True)
    warn_without_scheduler()


def set_suspended(run: str, suspended: bool, token: str | None) -> Run:
    """Suspend or unsuspend a run; return it.

    Parameters
    ----------
    run : str
        Its number, or its Metaflow run.
    suspended : bool
        Whether it is suspended; ``False`` unsuspends it.
    token : str or None
        A production token; needed for runs of somebody else's deployment.
    """
    from dlpipe.orchestrator.interventions import suspend_run

    with open_state() as state:
        found = state.find_run(run)
        check_permission(state, found, token, to="suspend" if suspended else "unsuspend")
        suspend_run(state, found, suspended)
    return found
