"""Deployments of this state folder whose runs work with a model or a table, by the parameters they run with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dlpipe.errors import DlpipeError

if TYPE_CHECKING:
    from dlpipe.orchestrator.deployments import Version

MODEL = "model"
SQLITE = "sqlite:///"


class DeployedUse(NamedTuple):
    """A parameter of a deployment that names something.

    Attributes
    ----------
    deployment, flow : str
    parameter, value : str
    given : bool
        Whether ``create`` was given the value; else it is the flow's own default.
    suspended : bool
        Whether the deployment starts nothing by itself.
    uses : str
        The version of a model that the value means now, such as ``models:/reviews/3``; empty for a table.
    """

    deployment: str
    flow: str
    parameter: str
    value: str
    given: bool
    suspended: bool
    uses: str = ""

    def line(self) -> str:
        """Return how the deployment uses it: ``runs with --model reviews, the flow's default``."""
        default = "" if self.given else ", the flow's default"
        return f"runs with --{self.parameter} {self.value}{default}{'; suspended' if self.suspended else ''}"


def find_uses_of_models(uris: set[str]) -> list[DeployedUse]:
    """Return the deployments whose runs work with one of these versions of models, as aliases stand now.

    Parameters
    ----------
    uris : set of str
        Such as ``models:/reviews/3``.
    """
    from dlpipe.registry import resolve

    found, known = [], dict[str, str]()
    for use, version in _list_values():
        if not names_model(use.parameter, use.value) or not _has_this_registry(version):
            continue
        if use.value not in known:
            known[use.value] = ""
            with suppress(DlpipeError):  # a model that is gone is used by nobody
                known[use.value] = resolve(use.value).uri
        if known[use.value] in uris:
            found.append(use._replace(uses=known[use.value]))
    return found


def find_uses_of_table(location: str) -> list[DeployedUse]:
    """Return the deployments whose runs are given the table at ``location``, or have it as a default."""
    return [
        use
        for use, version in _list_values()
        if is_same_table(use.value, location, folder=version.folder, root=version.variables.get("DLPIPE_TABLES"))
    ]


def names_model(parameter: str, value: str) -> bool:
    """Return whether a parameter's value names a model: it is called so, or its value can be nothing else.

    Examples
    --------
    >>> names_model("model", "reviews"), names_model("rival", "models:/a/1"), names_model("table", "reviews")
    (True, True, False)
    """
    return value.startswith("models:/") or parameter.replace("_", "-").rpartition("-")[2] == MODEL


def is_same_table(value: str, location: str, *, folder: str, root: str | None = None) -> bool:
    """Return whether a parameter's value names the table at ``location``.

    Parameters
    ----------
    value : str
    location : str
        A path, or an address of an object store.
    folder : str
        In which the runs work.
    root : str, optional
        Their tables root; by default ``data/tables`` in the folder.

    Examples
    --------
    >>> is_same_table("reviews", "/p/data/tables/reviews", folder="/p")
    True
    >>> is_same_table("reviews", "s3://shop/tables/reviews", folder="/p", root="s3://shop/tables/")
    True
    """
    root = root or "data/tables"
    if "://" in location:
        return location in (value.rstrip("/"), f"{root.rstrip('/')}/{value}")
    places = (Path(folder, value), Path(folder, root, value))
    return any(os.path.normpath(place) == location for place in places)


def _list_values() -> Iterator[tuple[DeployedUse, Version]]:
    """Yield the parameters that each deployment runs with, where they are one text."""
    from dlpipe.cli.scheduler_state import open_state
    from dlpipe.orchestrator.state import has_state

    if not has_state():
        return
    with open_state() as state:
        deployments = state.list_deployments()
    for deployment in deployments:
        version = deployment.version
        for name, value in {**version.defaults, **version.parameters}.items():
            if isinstance(value, str):
                given = name in version.parameters
                use = DeployedUse(deployment.name, version.flow, name, value, given, deployment.suspended)
                yield use, version


def _has_this_registry(version: Version) -> bool:
    """Return whether a deployment's runs find models where this command does: names are the same everywhere."""
    return find_registry(version.variables, version.folder) == find_registry(os.environ, os.getcwd())


def find_registry(variables: Mapping[str, str], folder: str) -> str:
    """Return where models are registered for who has these environment variables and works in ``folder``.

    Examples
    --------
    >>> find_registry({}, "/p"), find_registry({"MLFLOW_TRACKING_URI": "http://host/"}, "/p")
    ('/p/mlflow.db', 'http://host')
    """
    uri = variables.get("MLFLOW_REGISTRY_URI") or variables.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db"
    if uri.startswith(SQLITE):
        return os.path.realpath(Path(folder, uri.removeprefix(SQLITE)))
    return uri.rstrip("/")
