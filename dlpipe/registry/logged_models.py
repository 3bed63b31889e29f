"""The logged model of a registration: MLflow's entity for a model's files."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlpipe.registry.names import KEY
from dlpipe.registry.packaging import Loggable, Packaging, write_pyfunc
from dlpipe.task import Row

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run


def ensure_logged_model(
    client: MlflowClient,
    run: Run,
    files: Loggable,
    *,
    example: Sequence[Row],
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    packaging: Packaging,
) -> LoggedModel:
    """Return the logged model with the key of ``tags`` in the run's experiment, written if need be.

    Killed on the way, it stays PENDING, and the next call writes all of its files again.

    Parameters
    ----------
    client : MlflowClient
    run : Run
        Its source, and whose experiment it is in.
    files : Loggable
    example : sequence of rows
        Stored as the input example.
    params, tags : mapping
        Of the logged model; ``dlpipe.key`` is one of the tags.
    packaging : Packaging
        How MLflow opens the files.
    """
    found = client.search_logged_models([run.info.experiment_id], f"tags.`{KEY}` = '{tags[KEY]}'")
    logged = next((model for model in found if model.status != "FAILED"), None)
    if logged is None:
        logged = client.create_logged_model(
            run.info.experiment_id,
            name="model",
            source_run_id=run.info.run_id,
            tags=dict(tags),
            params={name: str(value) for name, value in params.items()},
        )
    if logged.status != "READY":  # READY comes after the last file, so a READY one is whole
        with tempfile.TemporaryDirectory() as scratch:
            write_pyfunc(files, Path(scratch) / "model", example=example, logged=logged, packaging=packaging)
            client.log_model_artifacts(logged.model_id, str(Path(scratch) / "model"))
        logged = client.finalize_logged_model(logged.model_id, "READY")
    return logged
