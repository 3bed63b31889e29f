"""Log and register a model, safely repeatable.

A version carries a key made from its name, its weights and the table version it was made from, and what stands
under that key already is found again instead of made twice. MLflow's own calls (``log_model``,
``register_model``) make something new each time, so their parts are called one by one here, each step first
looking at whether it has been done. A process killed between any two of them leaves a registration that the next
try completes.

The model's folder holds weights (safetensors) and JSON, no pickle and no code: ``dlpipe`` must be importable
where it is loaded. Shipping the package inside the model (``code_paths``) was left out on purpose: MLflow puts
such a copy in front of ``sys.path``, so that a process that loads a model first and imports ``dlpipe`` later would
go on with the model's old copy of every room.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import dlpipe
from dlpipe.errors import SettingError
from dlpipe.registry.versions import (
    CHALLENGER,
    KEY,
    MODEL_ID,
    WEIGHTS,
    ModelVersion,
    read_version,
    version_with_key,
)
from dlpipe.tracking import TrackingStore, open_store, tracking_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from mlflow.models import ModelSignature

PARAMS_A_BATCH = 100  # MLflow's limit
LOADER = "dlpipe.inference.pyfunc"
"""The module whose ``_load_pyfunc`` opens a classifier."""

# what loading and predicting needs, pinned in the model's requirements
INFERENCE_PACKAGES = (
    "mlflow",
    "numpy",
    "onnxruntime",
    "pandas",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
)


class Loggable(Protocol):
    """What can be registered: files with a digest, and how MLflow opens them."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that it tells apart."""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what decides its answers."""

    def save(self, folder: Path) -> Path:
        """Write the files into ``folder`` (made if needed) and return it."""


@dataclass(frozen=True)
class Packaging:
    """How MLflow opens a model's files, and what goes in and out.

    Attributes
    ----------
    loader : str
        The module whose ``_load_pyfunc(path)`` opens them.
    takes : str
        The MLflow type of what goes in; ``any`` also lets pass what is no text.
    outputs : sequence of (name, MLflow type)
        The columns that ``predict`` returns; by default those of a classifier. ``double[]`` is a list of doubles.
    params : mapping of name to default, optional
        What ``predict`` takes as ``params``.
    packages : sequence of str
        What is pinned in the model's requirements.
    """

    loader: str = LOADER
    takes: str = "string"
    outputs: Sequence[tuple[str, str]] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    packages: Sequence[str] = INFERENCE_PACKAGES


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

    Raises
    ------
    SettingError
        When ``name`` cannot be the name of a model.
    TrackingUnavailable, StorageFull
        When MLflow does not answer or cannot write; calling again goes on from there.
    """
    check_model_name(name)
    store = open_store()
    key = registration_key(name, model.digest, tags)
    tags = {**tags, **context_tags(), KEY: key, WEIGHTS: model.digest, "dlpipe.version": dlpipe.__version__}
    with tracking_errors(store), store.lock("register"):
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
        settle(client, version)
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
    return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:32]


def check_model_name(name: str) -> None:
    """Raise ``SettingError`` unless ``name`` can be a model's name in the registry and in a URI.

    Examples
    --------
    >>> check_model_name("reviews/en")
    Traceback (most recent call last):
    ...
    dlpipe.errors.SettingError: 'reviews/en' cannot name a model: use letters, digits, '-', '_', '.' or spaces.
    """
    if not re.fullmatch(r"[\w.-]+( [\w.-]+)*", name):
        raise SettingError(f"{name!r} cannot name a model: use letters, digits, '-', '_', '.' or spaces.")


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


def write_pyfunc(
    model: Loggable, folder: Path, *, example: Sequence[str], logged: LoggedModel, packaging: Packaging
) -> None:
    """Write ``model`` into ``folder`` in the form that ``mlflow.pyfunc.load_model`` reads."""
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.models import Model

    card = Model(
        artifact_path=logged.artifact_location,
        model_uuid=logged.model_id,
        model_id=logged.model_id,
        run_id=logged.source_run_id,
    )
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        mlflow.pyfunc.save_model(
            folder,
            loader_module=packaging.loader,
            data_path=model.save(Path(scratch) / "files"),
            mlflow_model=card,
            signature=signature(
                packaging.outputs or classifier_outputs(model.labels), packaging.params, takes=packaging.takes
            ),
            input_example=pd.DataFrame({"text": list(example)}),
            pip_requirements=requirements(packaging.packages),
        )


def signature(
    outputs: Sequence[tuple[str, str]], params: Mapping[str, Any] | None = None, *, takes: str = "string"
) -> ModelSignature:
    """Return the signature of a model with texts in and the columns ``outputs`` (name and MLflow type) out.

    The input column has no name, so that a list of texts and a Series pass as well as a DataFrame.
    """
    from mlflow.models import ModelSignature
    from mlflow.models.utils import _infer_param_schema
    from mlflow.types.schema import AnyType, ColSpec, Schema

    return ModelSignature(
        Schema([ColSpec(AnyType() if takes == "any" else takes)]),
        Schema([ColSpec(column_type(kind), name) for name, kind in outputs]),
        _infer_param_schema(dict(params)) if params else None,
    )


def column_type(kind: str) -> Any:
    """Return the MLflow type that ``kind`` names; ``string[]`` is a list of strings."""
    from mlflow.types.schema import Array, DataType

    inner = kind.removesuffix("[]")
    return kind if inner == kind else Array(DataType[inner])


def classifier_outputs(labels: Sequence[str]) -> list[tuple[str, str]]:
    """Return the columns that a classifier's ``predict`` returns, each with its MLflow type.

    Examples
    --------
    >>> classifier_outputs(["bad", "good"])
    [('label', 'string'), ('probability', 'float'), ('p_bad', 'float'), ('p_good', 'float')]
    """
    return [("label", "string"), *((name, "float") for name in ("probability", *(f"p_{one}" for one in labels)))]


def requirements(packages: Sequence[str] = INFERENCE_PACKAGES) -> list[str]:
    """Return the installed versions of ``packages`` as exact pins, without local suffixes such as ``+cpu``.

    Examples
    --------
    >>> [line.partition("==")[0] for line in requirements(["numpy"])]
    ['numpy']
    """
    from importlib import metadata

    return [f"{name}=={metadata.version(name).partition('+')[0]}" for name in packages]


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


def settle(client: MlflowClient, version: ModelVersion) -> None:
    """Do what comes after a version is created, as often as needed: links, alias, end of its own run."""
    # as register_model does, so that the logged model's page shows its version
    shown = json.dumps([{"name": version.name, "version": str(version.version)}])
    client.set_logged_model_tags(version.model_id, {"mlflow.modelVersions": shown})
    if CHALLENGER not in version.aliases:
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
