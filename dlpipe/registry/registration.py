"""Log and register a model, safely repeatable.

A version carries a key made from its name, its weights and the table version it was made from, and what stands
under that key already is found again instead of made twice. MLflow's own calls (``log_model``,
``register_model``) make something new each time, so their parts are called one by one here, each step first
looking at whether it has been done. A process killed between any two of them leaves a registration that the next
try completes.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dlpipe
from dlpipe.registry.families import check_name_free
from dlpipe.registry.names import CHALLENGER, KEY, KIND, KINDS, MADE_FROM, MODEL_ID, WEIGHTS, check_model_name
from dlpipe.registry.packaging import Loggable, Packaging, write_pyfunc
from dlpipe.registry.versions import ModelVersion, read_version, version_with_key
from dlpipe.tracking import TrackingStore, open_store, tracking_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

PARAMS_A_BATCH = 100  # MLflow's limit


def log_and_register(
    model: Loggable,
    *,
    name: str,
    example: Sequence[str],
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
    packaging: Packaging | None = None,
    experiment: str = "",
    run_name: str | None = None,
    challenger: bool = True,
) -> ModelVersion:
    """Return the registered version of ``model``, made if it is not there yet, with the alias ``challenger``.

    The same weights on the same table version under the same name are the same version, however often this is
    called and wherever an earlier call was killed. The model is logged into the run that ``MLFLOW_RUN_ID`` names,
    which stays open; in a task with the bridge, into that task's run; otherwise into a run of its own, which ends.

    Parameters
    ----------
    model : TextModel
        Anything with ``labels``, ``digest`` and ``save(folder)``.
    packaging : Packaging, optional
        How MLflow opens it; by default as a classifier.
    name : str
        The registered model.
    experiment, run_name : str, optional
        For a run of its own; by default the experiment has the model's name.
    example : sequence of str
        A few texts, kept as the model's input example.
    params, metrics : mapping
        Settings and scores of the model.
    tags : mapping of str to str
        Lineage. ``delta.table`` and ``delta.version`` say what the model was made from.
    challenger : bool, optional
        ``False`` moves no alias.

    Raises
    ------
    SettingError
        When ``name`` cannot be the name of a model, or its versions are of another kind.
    TrackingUnavailable, StorageFull
        When MLflow does not answer or cannot write; calling again goes on from there.
    """
    check_model_name(name)
    check_name_free(name, next((kind for kind in KINDS if kind == tags.get(KIND)), None))
    store = open_store()
    key = registration_key(name, model.digest, tags)
    tags = {**tags, **context_tags(), KEY: key, WEIGHTS: model.digest, "dlpipe.version": dlpipe.__version__}
    # files are written meanwhile, so that nobody waits but who registers the very same thing
    with tracking_errors(store), store.lock("register", key, seconds=-1):
        client = store.client()
        version = version_with_key(client, name, key)
        if version is None or os.environ.get("MLFLOW_RUN_ID"):
            with registration_run(store, experiment or name, run_name, tags) as run:
                logged = (
                    client.get_logged_model(version.model_id)
                    if version
                    else logged_model(
                        client,
                        run,
                        model,
                        example=example,
                        params=params,
                        tags=tags,
                        packaging=packaging or Packaging(),
                    )
                )
                record(client, run, logged, params=params, metrics=metrics)
                version = version or registered_version(store, name, run, logged, tags)
        settle(client, version, challenger=challenger)
        return read_version(client, name, version.version)


def context_tags() -> dict[str, str]:
    """Return what MLflow's run context says of the task that this process works on, if any."""
    from mlflow.tracking.context.registry import resolve_tags

    return {name: value for name, value in resolve_tags().items() if name == "metaflow.task"}


def registration_key(name: str, digest: str, tags: Mapping[str, str]) -> str:
    """Return what makes a registration the same as an earlier one, as 32 hexadecimal digits.

    Examples
    --------
    >>> registration_key("reviews", "abc", {"delta.version": "0", "git.commit": "1"}) == registration_key(
    ...     "reviews", "abc", {"delta.version": "0", "git.commit": "2"})
    True
    """
    made_from = [name, digest, tags.get("delta.table", ""), str(tags.get("delta.version", ""))]
    if classifier := tags.get(MADE_FROM):
        made_from.append(classifier)
    return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:32]


@contextmanager
def registration_run(
    store: TrackingStore, experiment: str, run_name: str | None, tags: Mapping[str, str]
) -> Iterator[Run]:
    """Yield the run to log into: the caller's (``MLFLOW_RUN_ID``), an earlier try's, or a new one.

    A run of our own carries the key; it ends as failed when something is raised, and ``settle`` finishes it.
    """
    from mlflow.tracking.context.registry import resolve_tags

    client = store.client()
    if given := os.environ.get("MLFLOW_RUN_ID"):
        for name, value in tags.items():
            if name != KEY:
                client.set_tag(given, name, value)
        yield client.get_run(given)
        return
    experiment_id = store.experiment(experiment)
    context = resolve_tags(dict(tags))
    # in a context that has a run for the whole task, MLflow gives that one
    inside = context.get("mlflow.parentRunId")
    earlier = [] if inside else client.search_runs([experiment_id], f"tags.`{KEY}` = '{tags[KEY]}'", max_results=1)
    run = earlier[0] if earlier else client.create_run(experiment_id, tags=context, run_name=run_name)
    try:
        yield run
    except BaseException:
        client.set_terminated(run.info.run_id, "FAILED")
        raise


def logged_model(
    client: MlflowClient,
    run: Run,
    model: Loggable,
    *,
    example: Sequence[str],
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


def record(
    client: MlflowClient, run: Run, logged: LoggedModel, *, params: Mapping[str, Any], metrics: Mapping[str, float]
) -> None:
    """Write params and metrics that ``run`` does not hold yet, and that it gave ``logged``.

    A param that the run has with another value is left alone: MLflow would refuse the whole batch.
    """
    from mlflow.entities import LoggedModelOutput, Metric, Param

    # the run's own start makes the points of a second try the same points
    when = run.info.start_time
    points = [
        Metric(name, float(value), when, 0, model_id=logged.model_id)
        for name, value in metrics.items()
        if run.data.metrics.get(name) != float(value)
    ]
    settings = [Param(name, str(value)) for name, value in params.items() if name not in run.data.params]
    client.log_batch(run.info.run_id, metrics=points, params=settings[:PARAMS_A_BATCH])
    for start in range(PARAMS_A_BATCH, len(settings), PARAMS_A_BATCH):
        client.log_batch(run.info.run_id, params=settings[start : start + PARAMS_A_BATCH])
    outputs = run.outputs.model_outputs if run.outputs else []
    if logged.model_id not in [output.model_id for output in outputs]:
        client.log_outputs(run.info.run_id, [LoggedModelOutput(logged.model_id, step=0)])


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


def settle(client: MlflowClient, version: ModelVersion, *, challenger: bool) -> None:
    """Do what comes after a version is created, as often as needed: links, alias, end of its own run."""
    # as register_model does, so that the logged model's page shows its version
    shown = json.dumps([{"name": version.name, "version": str(version.version)}])
    client.set_logged_model_tags(version.model_id, {"mlflow.modelVersions": shown})
    if challenger and CHALLENGER not in version.aliases:
        client.set_registered_model_alias(version.name, CHALLENGER, str(version.version))
    run = client.get_run(version.run_id)
    if run.data.tags.get(KEY) == version.tags[KEY] and run.info.status != "FINISHED":
        client.set_terminated(run.info.run_id, "FINISHED")


def ensure_registered_model(client: MlflowClient, name: str) -> None:
    """Make the registered model ``name`` unless it is there."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
