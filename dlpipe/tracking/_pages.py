"""Where MLflow's pages open: on the runs of a flow, with the columns in view by which runs are compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlpipe.errors import TrackingUnavailable

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

VIEW = "dlpipe"
"""Key of the view among those that MLflow's button "Share" keeps as tags of an experiment."""
FLOW = "mlflow.dlpipe.flow"
"""Tag of the run of a flow, which those of its tasks have not; MLflow's page does not show it."""
TRAINING = "workflowType=machine_learning"
"""MLflow's view for model training; without it a new browser opens that for language-model applications."""
RECENT = 20
MOST_SCORES, MOST_PARAMS = 5, 5
FIRST_SCORES = 2
"""So many scores stand before data sets and models, which a small window still has room for."""
SCORES = ("accuracy", "f1", "auc", "precision", "recall", "spearman", "r2", "mae", "rmse", "mse", "loss")
"""What the last word of a metric is for it to be a score, by which comes first."""
SETTINGS = ("learning_rate", "lr", "epochs", "batch_size")
"""The last part of a parameter that is shown also where all runs have the same: the next run may have another."""
RUN_COLUMNS = {"attributes.`Run Name`": 250, "runDateAndNestInfo": 130}
"""Name and time, which always are in view, with their widths in pixels."""
THINGS = {"attributes.`Dataset`": 130, "attributes.`Models`": 130}
"""Data sets and models."""
OTHERS = 100


def find_page(client: MlflowClient, name: str | None = None) -> str:
    """Return where MLflow's pages open, from the ``#`` on: the runs of ``name``, or of the flow that ran last.

    Parameters
    ----------
    client : MlflowClient
        The columns in view are kept as a tag of the experiment; where that is refused, MLflow's own are in view.
    name : str, optional
        An experiment, which has its flow's name; ``TrackingUnavailable`` where there is none.

    Returns
    -------
    str
        The list of experiments where no flow has run yet.
    """
    experiments = [found for found in client.search_experiments() if name in (None, found.name)]
    if name is not None and not experiments:
        names = ", ".join(sorted(found.name for found in client.search_experiments()))
        raise TrackingUnavailable(f"There is no experiment {name!r}. There are: {names}.")
    runs = {found.experiment_id: _find_runs(client, found) for found in experiments}
    ran = [found for found in experiments if runs[found.experiment_id]]
    if not ran:
        return (
            f"#/experiments/{experiments[0].experiment_id}/runs?{TRAINING}"
            if name
            else f"#/experiments?{TRAINING}"
        )
    last = max(ran, key=lambda found: max(run.info.start_time for run in runs[found.experiment_id]))
    page = f"#/experiments/{last.experiment_id}/runs?{TRAINING}"
    return f"{page}&viewStateShareKey={VIEW}" if _keep_view(client, last, runs[last.experiment_id]) else page


def choose_columns(runs: Sequence[Run]) -> list[str]:
    """Return the columns by which runs are compared, as MLflow's page names them.

    Parameters
    ----------
    runs : sequence of Run
        The latest first. Of their metrics, scores are shown, those of a model before those of a baseline, short
        names before long ones, and then as they stand in the runs, which have their last scores first; of their
        parameters, those in which they differ, and the usual ``SETTINGS`` in any case.
    """
    metrics = dict.fromkeys(name for run in runs for name in run.data.metrics)
    # of many tasks, the latest value says nothing
    several = {name for name in metrics if f"{name}/mean" in metrics}
    ranked = sorted(
        (rank, at, name)
        for at, name in enumerate(metrics)
        if name not in several and (rank := _rank(name)) is not None
    )
    scores = [name for *_, name in ranked][:MOST_SCORES]
    return [
        *(f"metrics.`{name}`" for name in scores[:FIRST_SCORES]),
        *_find_things(runs),
        *(f"params.`{name}`" for name in _choose_params(runs)),
        *(f"metrics.`{name}`" for name in scores[FIRST_SCORES:]),
    ]


def _choose_params(runs: Sequence[Run]) -> list[str]:
    """Return the parameters in which runs differ, those that most runs have first, and the usual settings."""
    names = dict.fromkeys(name for run in runs for name in run.data.params)
    differ = [name for name in names if len({run.data.params.get(name) for run in runs}) > 1]
    differ.sort(key=lambda name: (-sum(name in run.data.params for run in runs), name.count("/")))
    found = {word: [name for name in names if name.rpartition("/")[2] == word] for word in SETTINGS}
    usual = [min(same, key=lambda name: (name.count("/"), name)) for same in found.values() if same]
    return list(dict.fromkeys([*differ[:MOST_PARAMS], *usual]))


def _find_things(runs: Sequence[Run]) -> list[str]:
    """Return the columns of data sets and models that are not empty."""
    filled = (
        any(run.inputs and run.inputs.dataset_inputs for run in runs),
        any(run.outputs and run.outputs.model_outputs for run in runs),
    )
    return [column for column, is_filled in zip(THINGS, filled, strict=True) if is_filled]


def _rank(name: str) -> tuple[bool, int, int, int] | None:
    *places, last = name.split("/")
    words = last.lower().split("_")
    if words[-1] not in SCORES:
        return None
    return "baseline" in name.lower(), len(places), SCORES.index(words[-1]), len(words)


def _find_runs(client: MlflowClient, experiment: Experiment) -> list[Run]:
    """Return the latest runs of flows, without those of their tasks."""
    found = client.search_runs(
        [experiment.experiment_id],
        f"tags.`{FLOW}` LIKE '%'",
        max_results=RECENT,
        order_by=["attributes.start_time DESC"],
    )
    return list(found)


def _keep_view(client: MlflowClient, experiment: Experiment, runs: Sequence[Run]) -> bool:
    from mlflow.exceptions import MlflowException

    chosen = choose_columns(runs)
    order = [*RUN_COLUMNS, *chosen]
    widths = {name: {**RUN_COLUMNS, **THINGS}.get(name, OTHERS) for name in order}
    # without the order, MLflow shows data sets first, and the scores out of sight
    view = json.dumps({"selectedColumns": chosen, "columnOrder": order, "columnWidths": widths})
    tag = f"mlflow.sharedViewState.{VIEW}"
    if experiment.tags.get(tag) == view:
        return True
    try:
        client.set_experiment_tag(experiment.experiment_id, tag, view)
    except MlflowException:  # someone who may only read
        return False
    return True
