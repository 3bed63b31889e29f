"""From the addresses in the environment to a store that is ready."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import urlsplit

from dlpipe.errors import StoreNotFound, TrackingUnavailable
from dlpipe.redaction import has_unescaped_password, show_address
from dlpipe.tracking._artifacts import ARTIFACTS, find_artifact_root
from dlpipe.tracking._connections import check_connects
from dlpipe.tracking._databases import check_folder, find_sqlite_path, touch_database
from dlpipe.tracking._questions import ANSWER_SECONDS
from dlpipe.tracking._servers import check_answers
from dlpipe.tracking._store import TrackingStore

# what MLflow is told unless the user has said otherwise: no telemetry, no hints, no bars, and an outage that
# shows after a minute instead of MLflow's 247 seconds a call
DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def open_store(
    environ: Mapping[str, str] | None = None, *, answer_seconds: float = ANSWER_SECONDS, create: bool = False
) -> TrackingStore:
    """Return the MLflow store that the environment names, seen to be there and ready.

    Who only reads makes none: a database file in a folder that is no project would hide that it is none.

    Parameters
    ----------
    environ : mapping, optional
        Where ``MLFLOW_TRACKING_URI``, ``MLFLOW_REGISTRY_URI`` and ``DLPIPE_ARTIFACTS`` are looked up; by default
        ``os.environ``.
    answer_seconds : float, optional
        How long a server has to answer.
    create : bool, optional
        Make the database where its file does not exist.

    Raises
    ------
    StoreNotFound
        When the file of a database does not exist.
    TrackingUnavailable
        When a server does not answer within 10 seconds, a database cannot be written, or the address is
        of a kind that MLflow no longer takes (a folder).
    StorageUnavailable
        When ``DLPIPE_ARTIFACTS`` is on S3 and its bucket cannot be used.
    """
    environ = os.environ if environ is None else environ
    quieten_mlflow()
    uri = environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{check_folder(Path.cwd()) / 'mlflow.db'}"
    root = find_artifact_root(environ)
    uri, location = prepare_uri(uri, "MLFLOW_TRACKING_URI", answer_seconds, root, create=create)
    registry_uri = uri
    if environ.get("MLFLOW_REGISTRY_URI"):
        registry_uri, _ = prepare_uri(
            environ["MLFLOW_REGISTRY_URI"], "MLFLOW_REGISTRY_URI", answer_seconds, create=create
        )
    return TrackingStore(uri, location, registry_uri)


def prepare_uri(
    uri: str,
    variable: str,
    answer_seconds: float = ANSWER_SECONDS,
    root: str | None = None,
    *,
    create: bool = False,
) -> tuple[str, str | None]:
    """Return ``uri`` made absolute and the artifact folder that goes with it, after seeing that it works.

    Parameters
    ----------
    uri : str
        Of a database, a server or a plug-in's store.
    variable : str
        The environment variable that names it, for errors.
    answer_seconds : float, optional
        What a server may take for its answer.
    root : str, optional
        Where artifacts go if the user has chosen.
    create : bool, optional
        Make the database where its file does not exist; else that is ``StoreNotFound``.
    """
    try:
        kind = uri if uri in ALONE else urlsplit(uri).scheme.partition("+")[0]
        readable = not has_unescaped_password(uri)
    except ValueError:  # which says the address whole
        readable = False
    if not readable:
        raise TrackingUnavailable(
            f"{variable}={show_address(uri)!r} is no address: its host cannot be read. Signs of a password are "
            "written as %2F for a slash, %3F for ?, %23 for #, %40 for @, %5B for [. Correct it, or unset it "
            "to use sqlite:///mlflow.db."
        )
    if kind in ("", "file"):
        raise TrackingUnavailable(
            f"{variable}={show_address(uri)!r} is a folder, which MLflow no longer takes as a store. "
            "Unset it to use sqlite:///mlflow.db, or name a database or a server."
        )
    if kind in ("http", "https"):
        check_answers(uri, answer_seconds, variable=variable)
    elif kind not in OWN_KINDS and kind not in (known := list_store_kinds()):
        raise TrackingUnavailable(
            f"{variable}={show_address(uri)!r} begins with {kind}:, which MLflow does not know; "
            f"it knows {', '.join(known)}."
        )
    if kind in ("postgresql", "mysql", "mssql"):
        check_connects(uri, answer_seconds, variable=variable)
    if kind != "sqlite":
        return uri, root
    database = find_sqlite_path(uri)
    if not create and not database.exists():
        raise StoreNotFound(
            f"There is no MLflow store {show_address(str(database))!r}. Stand in the folder of the project, name "
            f"its store in {variable}, or train a model here first: python flows/train_flow.py run."
        )
    location = root or str(database.parent / ARTIFACTS)
    touch_database(database, location)
    return f"sqlite:///{database}", location


ALONE = ("databricks", "databricks-uc")
"""Addresses of a word, whose place is in MLflow's own configuration."""
OWN_KINDS = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", *ALONE, "uc")
"""How the address of a store begins that MLflow knows without plug-ins."""


def list_store_kinds() -> list[str]:
    """Return how the address of an MLflow store may begin: what MLflow knows itself, and what plug-ins add."""
    return sorted({*OWN_KINDS, *(point.name for point in entry_points(group="mlflow.tracking_store"))})


def quieten_mlflow() -> None:
    """Turn off telemetry, hints, bars and chatter of MLflow, and shorten its retries, unless the user chose."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    # MLflow reads the level only when it is first imported
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(os.environ["MLFLOW_LOGGING_LEVEL"])
