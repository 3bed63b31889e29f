"""A store that is there and answers."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dlpipe.errors import TrackingUnavailable
from dlpipe.redaction import has_open_signs, show_address
from dlpipe.tracking._databases import ARTIFACTS, artifact_root, check_folder, sqlite_path, touch_database
from dlpipe.tracking._locks import LOCK_SECONDS, held, lock_file
from dlpipe.tracking._servers import ANSWER_SECONDS, check_answers, check_connects

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""So that MLflow's pages open on training runs and not on language-model applications."""

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


@dataclass(frozen=True)
class TrackingStore:
    """An MLflow store that is there and answers.

    Attributes
    ----------
    uri : str
        Tracking URI; a SQLite one is absolute, so that it holds in another working directory.
    artifact_location : str or None
        The folder or ``s3://`` address that experiments made here get; ``None`` leaves it to the server.
    registry_uri : str
        Where models are registered; the same as ``uri`` unless ``MLFLOW_REGISTRY_URI`` is set.
    """

    uri: str
    artifact_location: str | None
    registry_uri: str

    @property
    def is_server(self) -> bool:
        """Whether an MLflow server stands between us and the database."""
        return urlsplit(self.uri).scheme in ("http", "https")

    def client(self) -> MlflowClient:
        """Return a client of this store; MLflow's global tracking URI is neither used nor changed."""
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri, registry_uri=self.registry_uri)

    def experiment(self, name: str) -> str:
        """Return the id of the experiment ``name``, made when missing."""
        from mlflow.exceptions import MlflowException

        client = self.client()
        if (found := client.get_experiment_by_name(name)) is None:
            try:
                made = client.create_experiment(
                    name, artifact_location=self.artifact_location, tags=dict(EXPERIMENT_TAGS)
                )
                return str(made)
            except MlflowException:  # another process was first
                if (found := client.get_experiment_by_name(name)) is None:
                    raise
        if found.lifecycle_stage != "active":
            command = f"mlflow experiments restore --experiment-id {found.experiment_id}"
            raise TrackingUnavailable(
                f"The experiment {name!r} is deleted. Restore it with `{command}`, or use another name."
            )
        return str(found.experiment_id)

    def check(self, experiment: str, *, model: str = "") -> None:
        """Raise ``TrackingUnavailable`` unless a run may do here what it will have to.

        Parameters
        ----------
        experiment : str
            Where its runs go; it is made when missing.
        model : str, optional
            What it registers versions of.
        """
        from dlpipe.tracking._rights import check_rights

        check_rights(self, experiment, model, EXPERIMENT_TAGS)

    @contextmanager
    def lock(self, purpose: str, name: str, *, seconds: float = LOCK_SECONDS) -> Iterator[None]:
        """Hold the lock for ``purpose`` on what has this ``name`` here: one holder at a time on this machine.

        ``seconds`` is how long another holder is waited for; -1 waits as long as it lives.
        """
        file = lock_file(f"{self.registry_uri} {name}", purpose)
        with held(file, asked=f"{name!r} in {show_address(self.registry_uri)}", seconds=seconds):
            yield

    @contextmanager
    def as_default(self) -> Iterator[None]:
        """Make this MLflow's own default store for a moment, for the calls that know no other."""
        import mlflow
        from mlflow.tracking._tracking_service import utils

        before, variable = utils._tracking_uri, os.environ.get("MLFLOW_TRACKING_URI")
        mlflow.set_tracking_uri(self.uri)
        try:
            yield
        finally:
            utils._tracking_uri = before
            _set_variable("MLFLOW_TRACKING_URI", variable)


def open_store(
    environ: Mapping[str, str] | None = None, *, answer_seconds: float = ANSWER_SECONDS
) -> TrackingStore:
    """Return the MLflow store that the environment names, seen to be there and ready.

    Parameters
    ----------
    environ : mapping, optional
        Where ``MLFLOW_TRACKING_URI``, ``MLFLOW_REGISTRY_URI`` and ``DLPIPE_ARTIFACTS`` are looked up; by default
        ``os.environ``.
    answer_seconds : float, optional
        How long a server has to answer.

    Raises
    ------
    TrackingUnavailable
        When a server does not answer within 10 seconds, a database cannot be written, or the address is
        of a kind that MLflow no longer takes (a folder).
    StorageUnavailable
        When ``DLPIPE_ARTIFACTS`` is on S3 and its bucket cannot be used.
    """
    environ = os.environ if environ is None else environ
    quieten_mlflow()
    uri = environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{check_folder(Path.cwd()) / 'mlflow.db'}"
    root = artifact_root(environ)
    uri, location = ready_uri(uri, "MLFLOW_TRACKING_URI", answer_seconds, root)
    registry_uri = uri
    if environ.get("MLFLOW_REGISTRY_URI"):
        registry_uri, _ = ready_uri(environ["MLFLOW_REGISTRY_URI"], "MLFLOW_REGISTRY_URI", answer_seconds)
    return TrackingStore(uri, location, registry_uri)


def ready_uri(
    uri: str, variable: str, answer_seconds: float = ANSWER_SECONDS, root: str | None = None
) -> tuple[str, str | None]:
    """Return ``uri`` made absolute and the artifact folder that goes with it, after seeing that it works.

    ``root`` is where artifacts go if the user said so.
    """
    try:
        kind = uri if uri in ALONE else urlsplit(uri).scheme.partition("+")[0]
        readable = not has_open_signs(uri)
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
    elif kind not in OWN_KINDS and kind not in (known := store_kinds()):
        raise TrackingUnavailable(
            f"{variable}={show_address(uri)!r} begins with {kind}:, which MLflow does not know; "
            f"it knows {', '.join(known)}."
        )
    if kind in ("postgresql", "mysql", "mssql"):
        check_connects(uri, answer_seconds, variable=variable)
    if kind != "sqlite":
        return uri, root
    database = sqlite_path(uri)
    location = root or str(database.parent / ARTIFACTS)
    touch_database(database, location)
    return f"sqlite:///{database}", location


ALONE = ("databricks", "databricks-uc")
"""Addresses of a word, whose place is in MLflow's own configuration."""
OWN_KINDS = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", *ALONE, "uc")
"""How the address of a store begins that MLflow knows without plug-ins."""


def store_kinds() -> list[str]:
    """Return how the address of an MLflow store may begin: what MLflow knows itself, and what plug-ins add."""
    return sorted({*OWN_KINDS, *(one.name for one in entry_points(group="mlflow.tracking_store"))})


def quieten_mlflow() -> None:
    """Turn off telemetry, hints, bars and chatter of MLflow, and shorten its retries, unless the user chose."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    # MLflow reads the level only when it is first imported
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(os.environ["MLFLOW_LOGGING_LEVEL"])


def _set_variable(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
