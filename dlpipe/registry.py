"""Model versions in the MLflow registry: log and register, look up, promote.

Registering is safe to repeat: a version carries a key made from its name, its weights and the table version it
was made from, and what stands under that key already is found again instead of made twice. MLflow's own calls
(``log_model``, ``register_model``) make something new each time, so their parts are called one by one here, each
step first looking at whether it has been done. A process killed between any two of them leaves a registration
that the next try completes.

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
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dlpipe
from dlpipe.errors import ModelNotFound, SettingError
from dlpipe.tracking import TrackingStore, open_store, tracking_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run
    from mlflow.models import ModelSignature

    from dlpipe.task import TextModel

CHALLENGER, CHAMPION = "challenger", "champion"
KEY, WEIGHTS, MODEL_ID = "dlpipe.key", "dlpipe.weights", "dlpipe.model_id"

PARAMS_A_BATCH = 100  # MLflow's limit

# what loading and predicting needs, pinned in the model's requirements
INFERENCE_PACKAGES = ("mlflow", "numpy", "pandas", "safetensors", "tokenizers", "torch", "transformers")


@dataclass(frozen=True)
class ModelVersion:
    """A registered version of a model.

    Attributes
    ----------
    name, version : str and int
        As in the registry.
    uri : str
        ``models:/name/3``, which always means this version.
    digest : str
        SHA-256 of the weights; empty for a version that dlpipe did not register.
    run_id, model_id : str
        The MLflow run and the logged model that it came from.
    aliases : tuple of str
        The aliases that pointed here when this was read.
    tags : mapping of str to str
        Lineage, such as ``metaflow.pathspec``, ``delta.table`` and ``delta.version``.
    """

    name: str
    version: int
    uri: str
    digest: str
    run_id: str
    model_id: str
    aliases: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"


@dataclass(frozen=True)
class Promotion:
    """What ``promote`` did.

    Attributes
    ----------
    version : ModelVersion
        The candidate, with the aliases it has now.
    moved : bool
        Whether the alias ``champion`` moved.
    previous : int or None
        The version that was champion before.
    """

    version: ModelVersion
    moved: bool
    previous: int | None

    def __str__(self) -> str:
        if self.moved:
            return (
                f"champion of {self.version.name} moves from {_version(self.previous)} to v{self.version.version}"
            )
        if self.previous == self.version.version:
            return f"champion of {self.version.name} is v{self.previous} already"
        return f"champion of {self.version.name} stays {_version(self.previous)}"


# -- registering -----------------------------------------------------------------------------------------------


def log_and_register(
    model: TextModel,
    *,
    name: str,
    experiment: str,
    run_name: str,
    example: Sequence[str],
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
) -> ModelVersion:
    """Return the registered version of ``model``, made if it is not there yet, with the alias ``challenger``.

    The same weights on the same table version under the same name are the same version, however often this is
    called and wherever an earlier call was killed. Where ``MLFLOW_RUN_ID`` is set, the model is logged into
    that run, which stays open; otherwise into a run of its own, which ends.

    Parameters
    ----------
    model : TextModel
        Anything with ``labels``, ``digest`` and ``save(folder)``.
    name, experiment, run_name : str
        The registered model, and the experiment and name of its run.
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
    tags = {**tags, KEY: key, WEIGHTS: model.digest, "dlpipe.version": dlpipe.__version__}
    with tracking_errors(store), store.lock(f"register {name}"):
        client = store.client()
        version = version_with_key(client, name, key)
        if version is None or os.environ.get("MLFLOW_RUN_ID"):
            with registration_run(store, experiment, run_name, tags) as run:
                logged = (
                    client.get_logged_model(version.model_id)
                    if version
                    else logged_model(client, run, model, example=example, params=params, tags=tags)
                )
                record(client, run, logged, params=params, metrics=metrics)
                version = version or registered_version(store, name, run, logged, tags)
        settle(client, version)
        return read_version(client, name, version.version)


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
    store: TrackingStore, experiment: str, run_name: str, tags: Mapping[str, str]
) -> Iterator[Run]:
    """Yield the run to log into: the caller's (``MLFLOW_RUN_ID``), an earlier try's, or a new one.

    A run of our own carries the key; it ends as failed when something is raised, and ``settle`` finishes it.
    """
    client = store.client()
    if given := os.environ.get("MLFLOW_RUN_ID"):
        for name, value in tags.items():
            if name != KEY:
                client.set_tag(given, name, value)
        yield client.get_run(given)
        return
    experiment_id = store.experiment(experiment)
    earlier = client.search_runs([experiment_id], f"tags.`{KEY}` = '{tags[KEY]}'", max_results=1)
    run = earlier[0] if earlier else client.create_run(experiment_id, tags=dict(tags), run_name=run_name)
    try:
        yield run
    except BaseException:
        client.set_terminated(run.info.run_id, "FAILED")
        raise


def logged_model(
    client: MlflowClient,
    run: Run,
    model: TextModel,
    *,
    example: Sequence[str],
    params: Mapping[str, Any],
    tags: Mapping[str, str],
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
            write_pyfunc(model, Path(scratch) / "model", example=example, logged=logged)
            client.log_model_artifacts(logged.model_id, str(Path(scratch) / "model"))
        logged = client.finalize_logged_model(logged.model_id, "READY")
    return logged


def write_pyfunc(model: TextModel, folder: Path, *, example: Sequence[str], logged: LoggedModel) -> None:
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
            loader_module="dlpipe.inference",
            data_path=model.save(Path(scratch) / "text_model"),
            mlflow_model=card,
            signature=signature(model.labels),
            input_example=pd.DataFrame({"text": list(example)}),
            pip_requirements=requirements(),
        )


def signature(labels: Sequence[str]) -> ModelSignature:
    """Return the signature of a classifier: texts in; label and probabilities out.

    The input column has no name, so that a list of texts and a Series pass as well as a DataFrame.
    """
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, Schema

    shares = [ColSpec("float", column) for column in ("probability", *(f"p_{label}" for label in labels))]
    return ModelSignature(Schema([ColSpec("string")]), Schema([ColSpec("string", "label"), *shares]))


def requirements(packages: Sequence[str] = INFERENCE_PACKAGES) -> list[str]:
    """Return the installed versions of ``packages`` as exact pins, without local suffixes such as ``+cpu``.

    Examples
    --------
    >>> [line.partition("==")[0] for line in requirements(["numpy"])]
    ['numpy']
    """
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


def version_with_key(client: MlflowClient, name: str, key: str) -> ModelVersion | None:
    """Return the lowest version of ``name`` that carries ``key``, or ``None``."""
    found = client.search_model_versions(f"name = '{name}' and tags.`{KEY}` = '{key}'")
    numbers = [int(one.version) for one in found]
    return read_version(client, name, min(numbers)) if numbers else None


def read_version(client: MlflowClient, name: str, version: int) -> ModelVersion:
    """Return version ``version`` of ``name`` as the registry has it now."""
    return as_version(client.get_model_version(name, str(version)))


def as_version(found: Any) -> ModelVersion:
    """Return MLflow's entity ``found`` as a ``ModelVersion``."""
    return ModelVersion(
        name=found.name,
        version=int(found.version),
        uri=f"models:/{found.name}/{found.version}",
        digest=found.tags.get(WEIGHTS, ""),
        run_id=found.run_id or "",
        model_id=found.tags.get(MODEL_ID, ""),
        aliases=tuple(sorted(found.aliases)),
        tags=dict(found.tags),
    )


# -- looking up ------------------------------------------------------------------------------------------------


def resolve(uri: str) -> ModelVersion:
    """Return the version that ``uri`` names.

    Parameters
    ----------
    uri : str
        ``models:/name@champion``, ``models:/name/3``, both also without ``models:/``, or a bare name, which
        means its champion.

    Raises
    ------
    ModelNotFound
        When there is no such model, version or alias; the message says which there are.
    """
    name, version, alias = parse_uri(uri)
    store = open_store()
    with tracking_errors(store):
        client = store.client()
        aliases = model_aliases(client, name)
        if alias is not None:
            if alias not in aliases:
                raise ModelNotFound(f"{name!r} has no alias {alias!r}; {said_aliases(name, aliases)}")
            version = aliases[alias]
        numbers = version_numbers(client, name)
        if version not in numbers:
            there = f"it has {', '.join(map(str, numbers))}" if numbers else "it has none"
            raise ModelNotFound(f"{name!r} has no version {version}; {there}. `dlpipe models` lists them.")
        return read_version(client, name, int(version))


def champion(name: str) -> ModelVersion | None:
    """Return the champion of the model ``name``; ``None`` when there is no such model or it has no champion."""
    store = open_store()
    with tracking_errors(store):
        client = store.client()
        if name not in model_names(client) or CHAMPION not in (aliases := model_aliases(client, name)):
            return None
        return read_version(client, name, aliases[CHAMPION])


def list_models() -> list[tuple[ModelVersion, dict[str, float]]]:
    """Return every version of every registered model with its metrics, newest first within a model."""
    store = open_store()
    with tracking_errors(store):
        client = store.client()
        versions = [
            read_version(client, name, number)
            for name in model_names(client)
            for number in reversed(version_numbers(client, name))
        ]
        return [(version, model_metrics(client, version)) for version in versions]


def model_metrics(client: MlflowClient, version: ModelVersion) -> dict[str, float]:
    """Return the metrics that ``version`` was logged with."""
    if not version.model_id:
        return {}
    points = client.get_logged_model(version.model_id).metrics or []
    return {point.key: point.value for point in sorted(points, key=lambda point: point.timestamp)}


def parse_uri(uri: str) -> tuple[str, int | None, str | None]:
    """Return the name, the version and the alias (one of the two) that ``uri`` names.

    Examples
    --------
    >>> parse_uri("models:/reviews@challenger"), parse_uri("reviews/3"), parse_uri("reviews")
    (('reviews', None, 'challenger'), ('reviews', 3, None), ('reviews', None, 'champion'))
    """
    match = re.fullmatch(r"(?:models:/+)?([^/@:]+)(?:/(\d+)|@([^/@:]+))?", uri.strip())
    if match is None:
        raise ModelNotFound(f"{uri!r} names no model. Write models:/NAME@champion or models:/NAME/3.")
    name, version, alias = match.groups()
    return name, int(version) if version else None, alias or (None if version else CHAMPION)


def model_names(client: MlflowClient) -> list[str]:
    """Return the names of all registered models, sorted."""
    names, page = [], None
    while True:
        found = client.search_registered_models(max_results=1000, page_token=page)
        names += [one.name for one in found]
        page = found.token
        if not page:
            return sorted(names)


def model_aliases(client: MlflowClient, name: str) -> dict[str, int]:
    """Return the aliases of the model ``name`` and the versions that they point to."""
    names = model_names(client)
    if name not in names:
        there = f"there are {', '.join(names)}" if names else "there is none yet"
        raise ModelNotFound(f"No model {name!r} is registered; {there}. Register one with flows/train_flow.py.")
    aliases = client.get_registered_model(name).aliases
    return {alias: int(version) for alias, version in sorted(aliases.items())}


def version_numbers(client: MlflowClient, name: str) -> list[int]:
    """Return the versions of the model ``name``, ascending."""
    return sorted(int(one.version) for one in client.search_model_versions(f"name = '{name}'"))


def said_aliases(name: str, aliases: Mapping[str, int]) -> str:
    """Return the end of a message about an alias that is not there.

    Examples
    --------
    >>> said_aliases("reviews", {"challenger": 2})
    'it has challenger (v2). Use one of them, or a version such as models:/reviews/2.'
    """
    if not aliases:
        return f"it has none. Use a version, such as models:/{name}/1."
    there = ", ".join(f"{alias} (v{version})" for alias, version in aliases.items())
    return f"it has {there}. Use one of them, or a version such as models:/{name}/{max(aliases.values())}."


# -- promoting -------------------------------------------------------------------------------------------------


def promote(version: ModelVersion, *, verdict_passed: bool) -> Promotion:
    """Point the alias ``champion`` at ``version`` if the verdict allows it, and return what happened.

    Nothing moves when the verdict says no or ``version`` is the champion already.
    """
    store = open_store()
    with tracking_errors(store):
        client = store.client()
        previous = model_aliases(client, version.name).get(CHAMPION)
        moved = verdict_passed and previous != version.version
        if moved:
            client.set_registered_model_alias(version.name, CHAMPION, str(version.version))
        return Promotion(read_version(client, version.name, version.version), moved, previous)


def _version(number: int | None) -> str:
    return "none" if number is None else f"v{number}"
