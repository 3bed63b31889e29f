"""What MLflow alone says of the runs of Metaflow that it holds: nothing of Metaflow is read for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dlpipe.bridge.apply import PARENT, REMOVED, RUN, read_datasets
from dlpipe.bridge.records import KEY, Dataset

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from dlpipe.tracking import TrackingStore

PAGE = 1000


@dataclass
class HeldRun:
    """A run of Metaflow as MLflow holds it.

    Attributes
    ----------
    run : str
        ``Flow/run``.
    is_deleted : bool
        Whether somebody has deleted it in MLflow.
    origin : str
        The run that it resumed; empty for none.
    parents : dict of str to str
        The record under which that of each attempt stands, both by key; a parent that is not there is empty.
    deleted : set of str
        Keys of the records of attempts that somebody has deleted.
    datasets : set of Dataset
    made, used : set of str
        Ids of logged models. Of all three those of the run itself: tasks may have logged others themselves.
    """

    run: str
    is_deleted: bool = False
    origin: str = ""
    parents: dict[str, str] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    datasets: set[Dataset] = field(default_factory=set)
    made: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)


def read_held_runs(store: TrackingStore) -> dict[str, HeldRun]:
    """Return the runs of Metaflow that a store has, of all experiments.

    Raises
    ------
    TrackingUnavailable
        When it does not answer.
    """
    from dlpipe.tracking import tracking_errors

    with tracking_errors(store):
        client = store.client()
        entries = [run for run in _search_runs(client) if RUN in run.data.tags and REMOVED not in run.data.tags]
        keys = {entry.info.run_id: entry.data.tags.get(KEY, "") for entry in entries if _is_active(entry)}
        found: dict[str, HeldRun] = {}
        for entry in entries:
            run = found.setdefault(entry.data.tags[RUN], HeldRun(entry.data.tags[RUN], is_deleted=True))
            if _is_active(entry):
                _add_entry(run, entry, keys, client)
            else:
                run.deleted.add(entry.data.tags.get(KEY, ""))
        return found


def _add_entry(run: HeldRun, entry: Run, keys: dict[str, str], client: MlflowClient) -> None:
    tags = entry.data.tags
    key = tags.get(KEY, "")
    if key != run.run:
        run.parents[key] = keys.get(tags.get(PARENT, ""), "")
        return
    run.is_deleted, run.origin = False, tags.get("metaflow.origin", "")
    run.datasets = set(read_datasets(entry))
    run.made = {output.model_id for output in entry.outputs.model_outputs} if entry.outputs else set()
    # MLflow's search does not tell which models a run has read
    inputs = client.get_run(entry.info.run_id).inputs
    run.used = {model.model_id for model in inputs.model_inputs} if inputs else set()


def _is_active(entry: Run) -> bool:
    return bool(entry.info.lifecycle_stage == "active")


def _search_runs(client: MlflowClient) -> list[Any]:
    experiments: list[str] = []
    token: str | None = None
    while True:
        page = client.search_experiments(max_results=PAGE, page_token=token)
        experiments += [experiment.experiment_id for experiment in page]
        if not (token := page.token):
            break
    found: list[Any] = []
    while experiments:
        some = client.search_runs(
            experiments, f"tags.`{RUN}` LIKE '%'", run_view_type=_find_all(), max_results=PAGE, page_token=token
        )
        found += some
        if not (token := some.token):
            break
    return found


def _find_all() -> int:
    from mlflow.entities import ViewType

    return int(ViewType.ALL)
