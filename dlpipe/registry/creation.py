"""The version that a registration creates, and the aliases and links that come after it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dlpipe.registry.names import CHALLENGER, KEY, MODEL_ID
from dlpipe.registry.versions import ModelVersion, read_version, version_with_key
from dlpipe.tracking import TrackingStore

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run


def registered_version(
    store: TrackingStore, name: str, run: Run, logged: LoggedModel, tags: Mapping[str, str]
) -> ModelVersion:
    """Return the version of ``name`` under the key of ``tags``, created when there is none.

    A version is created with its tags in one transaction, so that one without them is not ours. Two machines
    that create the same one at once both keep the lower.
    """
    client = store.client()
    if (found := version_with_key(client, name, tags[KEY])) is not None:
        return found
    ensure_registered_model(client, name)
    with store.as_default():  # the database store looks the source up in MLflow's default store
        made = client.create_model_version(
            name,
            f"models:/{logged.model_id}",
            run_id=run.info.run_id,
            tags={**tags, MODEL_ID: logged.model_id},
            model_id=logged.model_id,
            await_creation_for=0,
        )
    kept = version_with_key(client, name, tags[KEY])
    if kept is not None and kept.version != int(made.version):
        client.delete_model_version(name, made.version)
        return kept
    return read_version(client, name, int(made.version))


def ensure_registered_model(client: MlflowClient, name: str) -> None:
    """Make the registered model ``name`` unless it is there."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def complete_version(client: MlflowClient, version: ModelVersion, *, challenger: bool) -> None:
    """Do what comes after a version is created, as often as needed: links, alias, end of its own run."""
    # as register_model does, so that the logged model's page shows its version
    shown = json.dumps([{"name": version.name, "version": str(version.version)}])
    client.set_logged_model_tags(version.model_id, {"mlflow.modelVersions": shown})
    if challenger and CHALLENGER not in version.aliases:
        client.set_registered_model_alias(version.name, CHALLENGER, str(version.version))
    run = client.get_run(version.run_id)
    if run.data.tags.get(KEY) == version.tags[KEY] and run.info.status != "FINISHED":
        client.set_terminated(run.info.run_id, "FINISHED")
