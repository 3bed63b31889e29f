"""The logged model of a registration: files in MLflow, complete and ready."""

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


def logged_model(
    client: MlflowClient,
    run: Run,
    model: Loggable,
    *,
    example: Sequence[Row],
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    packaging: Packaging,
) -> LoggedModel:
    """Return the logged model under the key of ``tags`` in the run's experiment, complete and ready."""
    found = client.search_logged_models([run.info.experiment_id], f"tags.`{KEY}` = '{tags[KEY]}'")
    logged = next((one for one in found if one.status != "FAILED"), None)
    if logged is None:
        logged = client.create_logged_model(
            run.info.experiment_id,
            name="model",
            source_run_id=run.info.run_id,
            tags=dict(tags),
            params={name: str(value) for name, value in params.items()},
        )
    if logged.status != "READY":
        with tempfile.TemporaryDirectory() as scratch:
            write_pyfunc(model, Path(scratch) / "model", example=example, logged=logged, packaging=packaging)
            client.log_model_artifacts(logged.model_id, str(Path(scratch) / "model"))
        logged = client.finalize_logged_model(logged.model_id, "READY")
    return logged
