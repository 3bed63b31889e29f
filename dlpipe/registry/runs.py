"""The MLflow run that a registration logs into."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dlpipe.registry.names import KEY
from dlpipe.tracking import TrackingStore

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

PARAMS_A_BATCH = 100  # MLflow's limit


@contextmanager
def open_run(
    store: TrackingStore, experiment: str, run_name: str | None, tags: Mapping[str, str]
) -> Iterator[Run]:
    """Yield the run to log into: the caller's (``MLFLOW_RUN_ID``), an earlier try's, or a new one.

    A run of our own carries the key. It ends as FAILED when something is raised, and as FINISHED in
    ``complete_version``, after the version exists.

    Parameters
    ----------
    store : TrackingStore
    experiment : str
        Of a new run; created if need be.
    run_name : str or None
        Of a new run; MLflow makes one up for ``None``.
    tags : mapping of str to str
        With ``dlpipe.key`` among them. A run of the caller's gets all others: the key would make it ours to end.
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


def log_to_run(
    client: MlflowClient, run: Run, logged: LoggedModel, *, params: Mapping[str, Any], metrics: Mapping[str, float]
) -> None:
    """Log the params and metrics that ``run`` lacks, and ``logged`` as its output.

    A param that the run has with another value is left alone: MLflow would refuse the whole batch.

    Parameters
    ----------
    client : MlflowClient
    run : Run
        As it was before the call.
    logged : LoggedModel
        The metrics are linked to it.
    params, metrics : mapping
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
    # MLflow fails on an output that is logged twice
    outputs = run.outputs.model_outputs if run.outputs else []
    if logged.model_id not in [output.model_id for output in outputs]:
        client.log_outputs(run.info.run_id, [LoggedModelOutput(logged.model_id, step=0)])


def read_context_tags() -> dict[str, str]:
    """Return the tag with the Metaflow task that this process runs, from MLflow's run context; empty outside."""
    from mlflow.tracking.context.registry import resolve_tags

    return {name: value for name, value in resolve_tags().items() if name == "metaflow.task"}
