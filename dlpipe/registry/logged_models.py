"""The logged model of a registration: MLflow's entity for a model's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dlpipe.registry.names import KEY
from dlpipe.registry.packaging import Loggable, Packaging, write_pyfunc
from dlpipe.registry.runs import read_source_tags
from dlpipe.scratch import open_scratch
from dlpipe.task import Row

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run


def ensure_logged_model(
    client: MlflowClient,
    experiment_id: str,
    run: Run | None,
    files: Loggable,
    *,
    name: str,
    example: Sequence[Row],
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    description: str,
    packaging: Packaging,
) -> LoggedModel:
    """Return the logged model with the key of ``tags`` in an experiment, written if need be.

    Killed on the way, it stays PENDING, and the next call writes all of its files again.

    Parameters
    ----------
    client : MlflowClient
    experiment_id : str
    run : Run or None
        Its source, in the same experiment.
    files : Loggable
    name : str
        Of the registered model: MLflow lists the models of an experiment by theirs.
    example : sequence of rows
        Stored as the input example.
    params, tags : mapping
        Of the logged model; ``dlpipe.key`` is one of the tags.
    description : str
        In Markdown.
    packaging : Packaging
        How MLflow opens the files.
    """
    found = client.search_logged_models([experiment_id], f"tags.`{KEY}` = '{tags[KEY]}'")
    logged = next((model for model in found if model.status != "FAILED"), None)
    if logged is None:
        logged = client.create_logged_model(
            experiment_id,
            name=name.replace(".", "_"),  # MLflow takes no dot here
            source_run_id=run.info.run_id if run else None,
            tags={**read_source_tags(), **tags, "mlflow.note.content": description},
            params={name: str(value) for name, value in params.items()},
        )
    if logged.status != "READY":  # READY comes after the last file, so a READY one is whole
        with open_scratch() as scratch:
            write_pyfunc(files, scratch / "model", example=example, logged=logged, packaging=packaging)
            client.log_model_artifacts(logged.model_id, str(scratch / "model"))
        logged = client.finalize_logged_model(logged.model_id, "READY")
    return logged
