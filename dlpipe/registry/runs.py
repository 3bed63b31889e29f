"""The MLflow run that a registration logs into."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dlpipe.registry.names import KEY, KIND, MADE_FROM
from dlpipe.registry.versions import parse_uri, read_version
from dlpipe.tracking import TrackingStore

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

HISTORY = "mlflow.log-model.history"
PARAMS_A_BATCH = 100  # MLflow's limit
SOURCE = frozenset({"mlflow.user", "mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit"})
STAMP = "metaflow.task"
"""The tag that MLflow's run context gives in a task that the bridge follows."""


@contextmanager
def open_run(
    store: TrackingStore, experiment: str, run_name: str | None, tags: Mapping[str, str]
) -> Iterator[Run | None]:
    """Yield the run to log into: the caller's (``MLFLOW_RUN_ID``), the task's, an earlier try's, or a new one.

    A companion that is registered outside of a task belongs to no run: it has no scores, which alone need one,
    and a run would say nothing that its files do not.

    A run of our own carries the key. It ends as FAILED when something is raised, and as FINISHED in
    ``complete_version``, after the version exists.

    Parameters
    ----------
    store : TrackingStore
    experiment : str
        Of a new run; created if need be.
    run_name : str or None
        Of a new run; by default it says what is registered.
    tags : mapping of str to str
        With ``dlpipe.key`` among them. A run of the caller's gets all others: the key would make it ours to end.
        That of a task gets none, since it says itself what it worked on.
    """
    from mlflow.tracking.context.registry import resolve_tags

    client = store.client()
    if given := os.environ.get("MLFLOW_RUN_ID"):
        # a companion's say what the companion is, and the run may be its classifier's, too
        for name, value in ({} if KIND in tags else tags).items():
            if name != KEY:
                client.set_tag(given, name, value)
        yield client.get_run(given)
        return
    context = resolve_tags(dict(tags))
    if is_of_task(context) and (of_task := context.get("mlflow.parentRunId")):
        yield client.get_run(of_task)
        return
    if KIND in tags:
        yield None
        return
    experiment_id = store.experiment(experiment)
    earlier = client.search_runs([experiment_id], f"tags.`{KEY}` = '{tags[KEY]}'", max_results=1)
    name = run_name or f"register {experiment}"
    run = earlier[0] if earlier else client.create_run(experiment_id, tags=context, run_name=name)
    try:
        yield run
    except BaseException:
        client.set_terminated(run.info.run_id, "FAILED")
        raise


def is_of_task(tags: Mapping[str, str]) -> bool:
    """Return whether what is logged with these tags goes into the run of the task that this process runs."""
    return STAMP in tags and not os.environ.get("MLFLOW_RUN_ID")


def open_flow_run(client: MlflowClient, run: Run) -> Run:
    """Return the run of the flow, which that of a task stands under, ready to have versions.

    MLflow's table of runs asks for the versions of those runs alone that have its tag with logged models.
    """
    while above := run.data.tags.get("mlflow.parentRunId"):
        run = client.get_run(above)
    if HISTORY not in run.data.tags:
        client.set_tag(run.info.run_id, HISTORY, "[]")
    return run


def find_experiment(store: TrackingStore, experiment: str, tags: Mapping[str, str]) -> str:
    """Return the id of the experiment for files that belong to no run: that of their classifier's files.

    Parameters
    ----------
    store : TrackingStore
    experiment : str
        Where the classifier has none, or it was deleted; created if need be.
    tags : mapping of str to str
        Of the companion; they name the classifier.
    """
    from mlflow.exceptions import MlflowException

    client = store.client()
    name, version, _ = parse_uri(tags[MADE_FROM])
    try:
        classifier = read_version(client, name, version or 0)
        found = client.get_experiment(client.get_logged_model(classifier.model_id).experiment_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return store.experiment(experiment)
    return str(found.experiment_id) if found.lifecycle_stage == "active" else store.experiment(experiment)


def log_to_run(
    client: MlflowClient,
    run: Run,
    logged: LoggedModel,
    *,
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
    dataset: tuple[str, str] | None,
) -> None:
    """Log the params and metrics that ``run`` or ``logged`` lacks, and ``logged`` as the output of ``run``.

    A param that the run has with another value is left alone: MLflow would refuse the whole batch.

    Parameters
    ----------
    client : MlflowClient
    run : Run
        As it was before the call.
    logged : LoggedModel
        The metrics are linked to it, but for those that are no finite numbers: MLflow would make 0 of them there.
    params, metrics : mapping
    dataset : (str, str) or None
        Name and digest of the rows on which the metrics were measured.
    """
    from mlflow.entities import LoggedModelOutput, Metric, Param

    # the run's own start makes the points of a second try the same points
    when = run.info.start_time
    name, digest = dataset or (None, None)
    known = {(point.key, point.value) for point in logged.metrics or []}
    points = []
    for metric, value in metrics.items():
        if math.isfinite(value) and (metric, value) not in known:
            points.append(Metric(metric, value, when, 0, logged.model_id, name, digest, run.info.run_id))
        elif run.data.metrics.get(metric) != value:
            points.append(Metric(metric, value, when, 0))
    settings = [Param(name, str(value)) for name, value in params.items() if name not in run.data.params]
    client.log_batch(run.info.run_id, metrics=points, params=settings[:PARAMS_A_BATCH])
    for start in range(PARAMS_A_BATCH, len(settings), PARAMS_A_BATCH):
        client.log_batch(run.info.run_id, params=settings[start : start + PARAMS_A_BATCH])
    # MLflow fails on an output that is logged twice
    outputs = run.outputs.model_outputs if run.outputs else []
    if logged.model_id not in [output.model_id for output in outputs]:
        client.log_outputs(run.info.run_id, [LoggedModelOutput(logged.model_id, step=0)])


def read_source_tags() -> dict[str, str]:
    """Return who runs this process and which script, as MLflow's pages show it, from its run context."""
    from mlflow.tracking.context.registry import resolve_tags

    return {name: value for name, value in resolve_tags().items() if name in SOURCE}


def read_context_tags() -> dict[str, str]:
    """Return the tag with the Metaflow task that this process runs, from MLflow's run context; empty outside."""
    from mlflow.tracking.context.registry import resolve_tags

    return {name: value for name, value in resolve_tags().items() if name == STAMP}
