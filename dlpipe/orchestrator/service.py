"""The systemd unit that keeps the scheduler going."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from dlpipe import systemd
from dlpipe.orchestrator.state import find_project, find_state_folder

NAME = "dlpipe-scheduler"
VARIABLES = "scheduler.env"


def make_unit(
    *,
    system: bool,
    max_runs: int,
    port: int,
    keep_days: int,
    no_token: bool = False,
    environ: Mapping[str, str] = os.environ,
    python: str = sys.executable,
) -> systemd.SystemdUnit:
    """The unit of a scheduler that runs as this user: one of the user's own, or one of the system's.

    Parameters
    ----------
    system : bool
        Whether it is the system's: it starts with the machine, and its file needs root's rights. Under ``sudo`` it
        works as the user who called it.
    max_runs, port, keep_days, no_token : int, bool
        Options of ``dlpipe scheduler``.
    environ : mapping
        Where ``PATH`` and the folder of the state are from.
    python : str
        The interpreter that has dlpipe.
    """
    user = environ.get("SUDO_USER") if system else None
    folder = find_state_folder(user, environ)
    options = {"--max-runs": max_runs, "--port": port, "--keep-days": keep_days}
    given = [word for name, value in options.items() for word in (name, str(value))]
    return systemd.make_unit(
        systemd.name_unit(NAME, find_project(folder)),
        description="dlpipe scheduler: runs deployed Metaflow flows when they are due",
        words=["scheduler", *given, *(["--no-token"] if no_token else [])],
        folder=folder,
        variables={"DLPIPE_STATE": str(folder)},
        variables_file=folder / VARIABLES,
        about_file=" for runs, such as MLFLOW_TRACKING_URI=...",
        service=[
            "# runs go on when the scheduler is stopped or started again, and when one takes too much memory",
            "KillMode=process",
            "OOMPolicy=continue",
        ],
        system=system,
        user=user,
        environ=environ,
        python=python,
    )
