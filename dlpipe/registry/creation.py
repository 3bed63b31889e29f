"""Creating the model version of a registration, then its links and its alias."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dlpipe.registry.names import ABOUT, CHALLENGER, KEY, MODEL_ID
from dlpipe.registry.versions import ModelVersion, find_version, read_version
from dlpipe.tracking import TrackingStore

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run


def ensure_version(
    store: TrackingStore,
    name: str,
    run: Run | None,
    logged: LoggedModel,
    tags: Mapping[str, str],
    *,
    description: str,
    about: str,
) -> ModelVersion:
    """Return the version of ``name`` with the key of ``tags``, created if none has it.

    Two machines that create the same version at once both return the lower one, and the higher is deleted.

    Parameters
    ----------
    store : TrackingStore
    name : str
        The registered model, created if need be.
    run : Run or None
        The run that the version came from.
    logged : LoggedModel
        Its files, complete.
    tags : mapping of str to str
        With ``dlpipe.key`` among them. They are written with the version in one transaction: no kill leaves a
        version of ours that nobody can find by its key.
    description : str
        Written with them.
    about : str
        The description of the registered model itself; what people wrote there stays.
    """
    client = store.client()
    if (found := find_version(client, name, tags[KEY])) is not None:
        return found
    ensure_registered_model(client, name, about)
    with store.as_default():  # the database store looks the source up in MLflow's default store
        made = client.create_model_version(
            name,
            f"models:/{logged.model_id}",
            run_id=run.info.run_id if run else None,
            tags={**tags, MODEL_ID: logged.model_id},
            description=description,
            model_id=logged.model_id,
            await_creation_for=0,
        )
    # MLflow has no "create unless it exists", so look again. A kill before the deletion leaves two versions with
    # the key: `find_version` takes the lower one for ever, and the other has no alias.
    lowest = find_version(client, name, tags[KEY])
    if lowest is not None and lowest.version != int(made.version):
        client.delete_model_version(name, made.version)
        return lowest
    return read_version(client, name, int(made.version))


def ensure_registered_model(client: MlflowClient, name: str, about: str) -> None:
    """Create the registered model ``name`` unless it exists, and have it say what it is unless somebody has.

    Parameters
    ----------
    client : MlflowClient
    name : str
    about : str
        Its description: a hidden tag has the digest by which an earlier one of ours is known.
    """
    from mlflow.exceptions import MlflowException

    mark = {ABOUT: make_mark(about)}
    try:
        client.create_registered_model(name, tags=mark, description=about)
        return
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    there = client.get_registered_model(name)
    before = there.description or ""
    if before == about or (before and there.tags.get(ABOUT) != make_mark(before)):
        return
    client.update_registered_model(name, about)
    client.set_registered_model_tag(name, ABOUT, mark[ABOUT])


def make_mark(text: str) -> str:
    """Return the digest by which a description is known as one of ours."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def complete_version(client: MlflowClient, version: ModelVersion, *, challenger: bool) -> None:
    """Link the version from its logged model, point ``challenger`` at it, and end its own run.

    Each step can be repeated. They are the last ones, and in this order: the alias never names a version that
    lacks something, and a run of our own that is still RUNNING marks a registration that was killed.

    Parameters
    ----------
    client : MlflowClient
    version : ModelVersion
        With its files and tags.
    challenger : bool
        ``False`` moves no alias.
    """
    # as register_model does, so that the logged model's page shows its version
    shown = json.dumps([{"name": version.name, "version": str(version.version)}])
    client.set_logged_model_tags(version.model_id, {"mlflow.modelVersions": shown})
    if challenger and CHALLENGER not in version.aliases:
        client.set_registered_model_alias(version.name, CHALLENGER, str(version.version))
    if version.run_id:
        run = client.get_run(version.run_id)
        if run.data.tags.get(KEY) == version.tags[KEY] and run.info.status != "FINISHED":
            client.set_terminated(run.info.run_id, "FINISHED")
