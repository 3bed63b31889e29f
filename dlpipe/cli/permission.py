"""Who may change a run: who deployed its flow, and who has the production token, as with a flow's own commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dlpipe.errors import NotPermitted

if TYPE_CHECKING:
    from dlpipe.orchestrator.runs import Run
    from dlpipe.orchestrator.state import State

authorize = click.option(
    "--authorize", metavar="TOKEN", help="Production token; needed for runs of somebody else's deployment."
)


def check_permission(state: State, run: Run, token: str | None, *, to: str) -> None:
    """Refuse those who neither deployed the flow of ``run`` nor give or have kept its production token.

    Parameters
    ----------
    state : State
        Where the version's author and token are.
    run : Run
        What somebody wants to change.
    token : str or None
        What the command line gives; a token that was kept is found without.
    to : str
        A verb, for the error.

    Raises
    ------
    NotPermitted
        To those.
    """
    from metaflow_extensions.dlpipe.plugins.local_scheduler import authority

    version = state.get_version(run.deployment, run.version)
    try:
        authority.authorize(authority.make_name(version), version, token, to=f"{to} runs of")
    except authority.IncorrectProductionToken as error:
        raise NotPermitted(error.message) from None
