"""Whether a run may do in MLflow what it will have to do: write, register, and put files away."""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dlpipe.buckets import explain_s3_error
from dlpipe.errors import DlpipeError, TrackingUnavailable
from dlpipe.redaction import redact, show_address
from dlpipe.tracking._artifacts import check_reachable
from dlpipe.tracking._credentials import suggest_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient

PROBE = "dlpipe-check"
"""Of the folder of files and the tag that are written to see whether that is allowed, and are taken away again."""


def check_files(location: str, tracking_uri: str) -> None:
    """Raise an exception unless a file can be put into the folder of artifacts at ``location``."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    check_reachable(location, os.environ, what="MLflow's artifacts")
    repository = get_artifact_repository(location, tracking_uri=tracking_uri)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, uuid.uuid4().hex)
        file.write_text("Written to see whether that is allowed.\n")
        repository.log_artifact(str(file), PROBE)
    with contextlib.suppress(Exception):  # who may write need not be allowed to delete
        repository.delete_artifacts(PROBE)


def check_registry(client: MlflowClient, model: str) -> None:
    """Raise an exception unless the registry takes a version of ``model``, or a new model where there is none."""
    if _has_model(client, model):
        client.set_registered_model_tag(model, PROBE, "")
        with contextlib.suppress(Exception):
            client.delete_registered_model_tag(model, PROBE)
        return
    other = f"{PROBE}-{uuid.uuid4().hex}"  # not by its own name: another run may make it meanwhile
    client.create_registered_model(other)
    with contextlib.suppress(Exception):
        client.delete_registered_model(other)


def _has_model(client: MlflowClient, model: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(model)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    return True


@contextlib.contextmanager
def explain_refusal(uri: str, task: str) -> Iterator[None]:
    """Turn what a store refuses into one line that says what a run has to be allowed."""
    try:
        yield
    except DlpipeError:
        raise
    except Exception as error:  # of MLflow, of its database, of S3, of the file system
        text = redact(" ".join(str(error).split()))
        words = explain_s3_error(text) or text[:300].rstrip(".")
        refused = any(sign in text for sign in ("PERMISSION_DENIED", "401", "403", "Permission denied"))
        hint = (
            suggest_credentials() if refused and urlsplit(uri).scheme in ("http", "https") else "Have it changed."
        )
        raise TrackingUnavailable(
            f"MLflow at {show_address(uri)} does not let a run {task}: {words}. {hint}"
        ) from None
