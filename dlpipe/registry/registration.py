"""Logging and registering a model, safely repeatable.

A registration has a key, made from the model's name, its weights and the table version. Run, logged model and
model version carry it as a tag, and each step first looks for what has the key. MLflow's own calls (``log_model``,
``register_model``) make something new each time, so their parts are called one by one here, in this order:

1. the run, with the key in its tags from the start;
2. the logged model, PENDING until its last file is written;
3. params, metrics and the link from the run to the logged model;
4. the registered model, and the version with all of its tags in one transaction;
5. the link back, the alias ``challenger``, and the end of the run.

A process killed between any two calls leaves things that nobody is pointed to: the alias is still where it was,
and the next call with the same key completes them. Without such a call they stay; nothing else cleans them up.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import dlpipe
from dlpipe.registry.creation import complete_version, ensure_version
from dlpipe.registry.descriptions import describe_model, describe_origin, describe_version
from dlpipe.registry.families import check_name_free
from dlpipe.registry.logged_models import ensure_logged_model
from dlpipe.registry.names import DIGEST, KEY, KIND, KINDS, MADE_FROM, TASK, check_model_name
from dlpipe.registry.packaging import Loggable, Packaging
from dlpipe.registry.runs import (
    find_experiment,
    is_of_task,
    log_to_run,
    open_flow_run,
    open_run,
    read_context_tags,
)
from dlpipe.registry.scores import find_dataset, format_source, make_scores_tag, name_metrics
from dlpipe.registry.versions import ModelVersion, find_version, read_version
from dlpipe.task import Evaluation, Row
from dlpipe.tracking import open_store, tracking_errors


def log_and_register(
    files: Loggable,
    *,
    name: str,
    example: Sequence[Row],
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    scores: Mapping[str, Evaluation] = MappingProxyType({}),
    packaging: Packaging | None = None,
    experiment: str = "",
    run_name: str | None = None,
    description: str = "",
    challenger: bool = True,
) -> ModelVersion:
    """Return the version of ``name`` with these files, registered if need be, with the alias ``challenger``.

    The same weights on the same table version under the same name are the same version, however often this is
    called and wherever an earlier call was killed. The model is logged into the run that ``MLFLOW_RUN_ID`` names,
    which stays open; in a task with the bridge, into that task's run; otherwise into a run of its own, which ends.
    A companion belongs to no run then. The version belongs to the same run, and in a task to the run of the flow:
    in its row, MLflow's table of runs shows it. That of a companion stays with the task.

    Parameters
    ----------
    files : Loggable
        A ``dlpipe.task.Model``, or anything with its ``card``, ``digest`` and ``save(folder)``.
    name : str
        The registered model.
    example : sequence of rows
        As the inputs of the task read them; stored as the model's input example.
    params : mapping
        Settings of the model. Those that are ``None`` are left out.
    tags : mapping of str to str
        Lineage. ``delta.table`` and ``delta.version`` say which rows the model was trained and measured on.
    scores : mapping of str to Evaluation, optional
        Of the model as ``test``, of the plain model on the same rows as ``baseline``. Their metrics are those of
        the model in MLflow (``test_accuracy``); a tag keeps them with their intervals.
    packaging : Packaging, optional
        How MLflow opens the files; by default as the model of a task.
    experiment, run_name : str, optional
        For a run of its own; by default the experiment has the model's name, and the run says what it registers.
    description : str, optional
        Of the version, in Markdown; by default what its tags say: see ``describe_version``.
    challenger : bool, optional
        ``False`` moves no alias.

    Raises
    ------
    SettingError
        When ``name`` cannot be the name of a model, or its versions are of another kind.
    TrackingUnavailable, StorageFull
        When MLflow does not answer or cannot write; another call completes what was begun.
    """
    check_model_name(name)
    check_name_free(name, next((kind for kind in KINDS if kind == tags.get(KIND)), None))
    store = open_store(create=True)
    key = make_registration_key(name, files.digest, tags)
    own_tags = {KEY: key, DIGEST: files.digest, TASK: files.card["task"], "dlpipe.version": dlpipe.__version__}
    tags = {**tags, **read_context_tags(), **own_tags}
    params = {name: value for name, value in params.items() if value is not None}
    # a lock of this key alone, without a time limit: it is held while files are written, and only who registers
    # the very same files waits
    with tracking_errors(store), store.lock("register", key, seconds=-1):
        client = store.client()
        version = find_version(client, name, key)
        # a run that was given gets its params, metrics and link also when the version is an older one
        if version is None or os.environ.get("MLFLOW_RUN_ID"):
            with open_run(store, experiment or name, run_name, tags) as run:
                if version:
                    logged = client.get_logged_model(version.model_id)
                else:
                    experiment_id = (
                        run.info.experiment_id if run else find_experiment(store, experiment or name, tags)
                    )
                    logged = ensure_logged_model(
                        client,
                        experiment_id,
                        run,
                        files,
                        name=name,
                        example=example,
                        params={**params, **name_origin(tags)},
                        tags=tags,
                        description=description or f"Trained{describe_origin(tags)}.",
                        packaging=packaging or Packaging(),
                    )
                if run:
                    # those of a companion stand on its files: the run has its classifier's. That of a task has
                    # what the task was set to
                    shown = {} if KIND in tags or is_of_task(tags) else params
                    metrics, dataset = name_metrics(scores), find_dataset(tags)
                    log_to_run(client, run, logged, params=shown, metrics=metrics, dataset=dataset)
                if not version:
                    version_tags = {**tags, **make_scores_tag(scores)}
                    text = description or describe_version(version_tags)
                    source = run
                    if run and is_of_task(tags) and KIND not in tags:
                        source = open_flow_run(client, run)
                    about = describe_model(name, files.card, version_tags, example)
                    version = ensure_version(
                        store, name, source, logged, version_tags, description=text, about=about
                    )
        complete_version(client, version, challenger=challenger)
        return read_version(client, name, version.version)


def name_origin(tags: Mapping[str, str]) -> dict[str, str]:
    """Return what tells models apart beside their settings: the table, and of a companion its classifier.

    Examples
    --------
    >>> name_origin({"delta.table": "data/tables/reviews", "delta.version": "2"})
    {'table': 'reviews@v2'}
    """
    origin = {"table": format_source(tags), "classifier": tags.get(MADE_FROM, "")}
    return {name: value for name, value in origin.items() if value}


def make_registration_key(name: str, digest: str, tags: Mapping[str, str]) -> str:
    """Return the key of a registration, 32 hexadecimal digits: two with the same key are the same version.

    Parameters
    ----------
    name : str
        The registered model.
    digest : str
        Of the files.
    tags : mapping of str to str
        Of these the table, its version and, for a companion, the classifier count; the commit and the run do not.

    Examples
    --------
    >>> tags = {"delta.version": "0", "git.commit": "1"}
    >>> key = make_registration_key("reviews", "abc", tags)
    >>> key == make_registration_key("reviews", "abc", {**tags, "git.commit": "2"})
    True
    """
    made_from = [name, digest, tags.get("delta.table", ""), str(tags.get("delta.version", ""))]
    if classifier := tags.get(MADE_FROM):
        made_from.append(classifier)
    return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:32]
