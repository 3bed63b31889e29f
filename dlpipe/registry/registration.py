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
from collections.abc import Mapping, Sequence
from typing import Any

import dlpipe
from dlpipe.registry.creation import complete_version, registered_version
from dlpipe.registry.families import check_name_free
from dlpipe.registry.logged_models import logged_model
from dlpipe.registry.names import KEY, KIND, KINDS, MADE_FROM, TASK, WEIGHTS, check_model_name
from dlpipe.registry.packaging import Loggable, Packaging
from dlpipe.registry.runs import context_tags, record, registration_run
from dlpipe.registry.versions import ModelVersion, read_version, version_with_key
from dlpipe.task import Row
from dlpipe.tracking import open_store, tracking_errors


def log_and_register(
    model: Loggable,
    *,
    name: str,
    example: Sequence[Row],
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
    model : Loggable
        A ``Model``, or anything with its ``card``, ``digest`` and ``save(folder)``.
    packaging : Packaging, optional
        How MLflow opens it; by default as the model of a task.
    name : str
        The registered model.
    experiment, run_name : str, optional
        For a run of its own; by default the experiment has the model's name.
    example : sequence of rows
        As the inputs of the task read them; kept as the model's input example.
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
    made = {KEY: key, WEIGHTS: model.digest, TASK: model.card["task"], "dlpipe.version": dlpipe.__version__}
    tags = {**tags, **context_tags(), **made}
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
        complete_version(client, version, challenger=challenger)
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
    if classifier := tags.get(MADE_FROM):
        made_from.append(classifier)
    return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:32]
