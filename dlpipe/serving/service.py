"""The systemd unit that keeps a server going."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dlpipe import systemd
from dlpipe.orchestrator.state import find_project, find_state_folder
from dlpipe.redaction import show_address

NAME = "dlpipe-serve"
VARIABLES = "serving.env"
PLACES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "DLPIPE_TABLES", "DLPIPE_ARTIFACTS")
"""Variables that say where models and tables are."""
END_SECONDS = 45
"""Beside those that requests under way have: for the log's last commit."""


def make_unit(
    words: Sequence[str],
    *,
    draining: float,
    system: bool = False,
    folder: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    python: str = sys.executable,
) -> systemd.SystemdUnit:
    """Return the unit of a server that runs as this user: one of the user's own, or one of the system's.

    Parameters
    ----------
    words : sequence of str
        Options of ``dlpipe serve``.
    draining : float
        Seconds that requests under way have when it ends.
    system : bool
        Whether it is the system's: it starts with the machine, and its file needs root's rights. Under ``sudo`` it
        works as the user who called it.
    folder : Path, optional
        In which it works, by default the working folder: without ``MLFLOW_TRACKING_URI`` the models are there.
    environ : mapping
        Where ``PATH``, the folder of the state and the places of models and tables are from. An address with a
        password is left out, for others can read a unit: see ``find_left_out``.
    python : str
        The interpreter that has dlpipe.
    """
    user = environ.get("SUDO_USER") if system else None
    state = find_state_folder(user, environ)
    places = {name: environ[name] for name in PLACES if environ.get(name)}
    told = {name: value for name, value in places.items() if name not in find_left_out(environ)}
    return systemd.make_unit(
        systemd.name_unit(NAME, find_project(state)),
        description="dlpipe serve: registered models behind an address",
        words=["serve", *words],
        folder=(folder or Path()).absolute(),
        variables={"DLPIPE_STATE": str(state), **told},
        variables_file=state / VARIABLES,
        about_file=", such as passwords of a store",
        service=[
            *(["ExecReload=kill -HUP $MAINPID"] if "--settings" in words else []),
            "# requests under way get their answers, and the log is committed",
            f"TimeoutStopSec={math.ceil(draining) + END_SECONDS}",
        ],
        after=["Wants=network-online.target", "After=network-online.target"] if system else [],
        system=system,
        user=user,
        environ=environ,
        python=python,
    )


def find_left_out(environ: Mapping[str, str]) -> list[str]:
    """Return the places whose addresses have passwords.

    Examples
    --------
    >>> find_left_out({"MLFLOW_TRACKING_URI": "https://ana:secret@mlflow.example", "DLPIPE_TABLES": "tables"})
    ['MLFLOW_TRACKING_URI']
    """
    return [name for name in PLACES if show_address(environ.get(name, "")) != environ.get(name, "")]
