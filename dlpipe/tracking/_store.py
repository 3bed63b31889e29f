"""An MLflow store, seen to answer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dlpipe.errors import TrackingUnavailable
from dlpipe.redaction import show_address
from dlpipe.tracking._locks import LOCK_SECONDS, find_lock_file, hold_lock

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""So that MLflow's pages open on training runs and not on language-model applications."""


@dataclass(frozen=True)
class TrackingStore:
    """An MLflow store, seen to answer.

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

        What is written to see that is taken away again; the experiment stays, which the run needs.

        Parameters
        ----------
        experiment : str
            Where its runs go; it is made when missing.
        model : str, optional
            What it registers versions of.
        """
        from dlpipe.tracking._rights import check_files, check_registry, explain_refusal

        client = self.client()
        with explain_refusal(self.uri, f"write into the experiment {experiment!r}"):
            number = self.experiment(experiment)
            for name, value in EXPERIMENT_TAGS.items():
                client.set_experiment_tag(number, name, value)
        location = client.get_experiment(number).artifact_location
        with explain_refusal(self.uri, f"put files into {show_address(location)}"):
            check_files(location, self.uri)
        if model:
            with explain_refusal(self.registry_uri, f"register versions of {model!r}"):
                check_registry(client, model)

    @contextmanager
    def lock(self, purpose: str, name: str, *, seconds: float = LOCK_SECONDS) -> Iterator[None]:
        """Hold the lock for ``purpose`` on what has this ``name`` here: one holder at a time on this machine.

        Parameters
        ----------
        purpose : str
            What is done under it; holders of other purposes do not wait.
        name : str
            A model, an experiment: what it is done to.
        seconds : float, optional
            How long another holder is waited for; -1 waits as long as it lives.
        """
        file = find_lock_file(f"{self.registry_uri} {name}", purpose)
        with hold_lock(file, asked=f"{name!r} in {show_address(self.registry_uri)}", seconds=seconds):
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


def _set_variable(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
