"""Events of what no task of a flow did: commits and registrations by hand, moves, deletions, and serving."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from openlineage.client.event_v2 import DatasetEvent, JobEvent
from openlineage.client.facet_v2 import DatasetFacet, RunFacet, lifecycle_state_change_dataset, tags_dataset

from dlpipe.lineage import Node, Records
from dlpipe.lineage.moves import read_time
from dlpipe.lineage.requests import to_milliseconds
from dlpipe.openlineage.datasets import get_name
from dlpipe.openlineage.events import Body, Event, EventType, Group, make_event
from dlpipe.openlineage.job_facets import DELTA, DLPIPE, make_plain_job
from dlpipe.openlineage.naming import Name, format_time, make_run_id, name_job
from dlpipe.openlineage.outputs import Outputs
from dlpipe.openlineage.run_events import PATHSPEC, Runs, make_run_event, make_tags
from dlpipe.registry import CHAMPION, ModelRecord


def list_commits(outputs: Outputs, runs: Runs, known: frozenset[str]) -> Iterator[Group]:
    """Yield the versions of tables and models that no attempt made which Metaflow has.

    Parameters
    ----------
    outputs : Outputs
    runs : Runs
    known : frozenset of str
        Pathspecs of runs that need not be looked at: whatever they made was told with them.
    """
    for maker, nodes in outputs.by_attempt.items():
        run = "/".join(maker.split("/")[:2])
        if maker and (run in known or runs.find_attempt(maker)):
            continue
        for node in nodes:
            at = find_time(outputs.records, node)
            yield Group(f"{at} {node.id}", at, partial(list_commit_events, outputs, runs, node, maker))


def find_time(records: Records, node: Node) -> int:
    """Return when a version was committed or registered, in milliseconds since 1970."""
    return records.describe(node).at or 0


def list_commit_events(outputs: Outputs, runs: Runs, node: Node, maker: str) -> list[Event]:
    """Return that a version was being made, and that it is there: both at the time of its commit."""
    at = find_time(outputs.records, node)
    run_id, make = make_run_id(at, node.id), partial(_make_commit_event, outputs, runs, node, maker)
    kinds: tuple[EventType, ...] = ("START", "COMPLETE")
    return [Event(f"{run_id} {kind}", at, partial(make, run_id, kind, at)) for kind in kinds]


def _make_commit_event(
    outputs: Outputs, runs: Runs, node: Node, maker: str, run_id: str, kind: EventType, at: int
) -> Body:
    name, (integration, what) = get_name(node).name.rpartition("/")[2], describe_commit(outputs.records, node)
    made = [node] if kind == "COMPLETE" else []
    job = make_plain_job(
        name_job(name, what), integration, "COMMIT", outputs.make_lineage(made, maker, runs.find_job)
    )
    facets: dict[str, RunFacet] = {}
    if maker:  # of a run that is gone, or of another machine
        task, _, number = maker.rpartition("/")
        facets["tags"] = make_tags({PATHSPEC: task, "metaflow.attempt": number})
    return make_run_event(run_id, kind, at, job, facets, outputs=outputs, made=made)


def describe_commit(records: Records, node: Node) -> tuple[str, str]:
    """Return who made a version, and by doing what."""
    if node.kind == "model":
        return DLPIPE, "register"
    record = records.catalog.find(node.name)
    commit: Mapping[str, Any] = record.commits.get(node.number or 0, {}) if record else {}
    if "rows" not in commit:
        return DELTA, str(commit.get("operation") or "commit").lower().replace(" ", "-")
    kinds = {"look": "monitor", "predictions": "predict", "explanations": "explain"}
    if node.kind in kinds:
        return DLPIPE, kinds[node.kind]
    if "appended" in commit:
        return DLPIPE, "append"
    return DLPIPE, "ingest" if commit.get("sources") else "write"


def list_changes_of_models(outputs: Outputs) -> Iterator[Group]:
    """Yield the moves of champions, and the versions that were deleted."""
    for name, record in outputs.records.models.records.items():
        for event in (*list_moves(outputs, name, record), *list_deletions(outputs, name, record)):
            yield Group(event.key, event.at, partial(_list_one, event))


def _list_one(event: Event) -> list[Event]:
    return [event]


def list_moves(outputs: Outputs, name: str, record: ModelRecord) -> Iterator[Event]:
    """Yield which version became champion of a model, move after move."""
    for move in record.moves:
        value = "none" if move.after is None else str(move.after)
        tag = tags_dataset.TagsDatasetFacetFields(key=CHAMPION, value=value, source="MLFLOW")
        facets: dict[str, DatasetFacet] = {"tags": tags_dataset.TagsDatasetFacet(tags=[tag])}
        yield _make_dataset_event(outputs, Node("model", name, move.after), facets, read_time(move.at))


def list_deletions(outputs: Outputs, name: str, record: ModelRecord) -> Iterator[Event]:
    """Yield which versions of a model dlpipe has deleted."""
    kind = lifecycle_state_change_dataset.LifecycleStateChange.DROP
    for number, note in record.deletions.items():
        dropped = lifecycle_state_change_dataset.LifecycleStateChangeDatasetFacet(lifecycleStateChange=kind)
        facets: dict[str, DatasetFacet] = {"lifecycleStateChange": dropped}
        yield _make_dataset_event(outputs, Node("model", name, number), facets, read_time(note["at"]))


def _make_dataset_event(outputs: Outputs, node: Node, facets: Mapping[str, DatasetFacet], at: int) -> Event:
    event = DatasetEvent(eventTime=format_time(at), dataset=outputs.datasets.make_static(node, facets))
    return make_event(event, at)


def list_served(outputs: Outputs) -> Iterator[Group]:
    """Yield which versions have answered requests: a server is a job that comes to no end."""
    for model, _ in outputs.records.models.list_versions():
        for edge in outputs.records.requests.find_results(model):
            if edge.result.kind == "requests":
                event = make_served_event(outputs, edge.result, model)
                yield Group(event.key, event.at, partial(_list_one, event))


def make_served_event(outputs: Outputs, requests: Node, model: Node) -> Event:
    """Return that a version has answered requests, from the first one on."""
    at = find_first_request(outputs.records, requests, model)
    job = make_plain_job(
        Name(name_job("").namespace, f"{model.name}.serve"),
        DLPIPE,
        "SERVER",
        outputs.make_lineage([requests], "", lambda key: ("", "", None)),
        endless=True,
    )
    event = JobEvent(
        eventTime=format_time(at),
        job=job,
        inputs=[outputs.datasets.make_input(model)],
        outputs=[outputs.datasets.make_output(requests)],
    )
    return make_event(event, at)


def find_first_request(records: Records, requests: Node, model: Node) -> int:
    """Return when the first request of a log came that a version answered, in milliseconds since 1970."""
    from dlpipe.tables import stream_table

    record = records.catalog.find(requests.name)
    if record is None:
        return 0
    where = "version = {} and model = '{}'".format(model.number, model.name.replace("'", "''"))
    batches = stream_table(record.latest, columns=["arrived"], where=where)
    arrived: list[datetime] = [at for batch in batches for at in batch["arrived"].to_pylist()]
    return min(map(to_milliseconds, arrived), default=0)
