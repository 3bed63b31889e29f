"""What there is instead of a node that does not exist, where a part of its name means something."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Protocol

from dlpipe.errors import ModelNotFound, RunNotFound
from dlpipe.lineage.checkpoints import CheckpointReader
from dlpipe.lineage.models import ModelReader
from dlpipe.lineage.requests import REQUEST_ROW, RequestReader
from dlpipe.lineage.runs import RunReader
from dlpipe.lineage.schedules import ScheduleReader
from dlpipe.lineage.tables import VERSION, TableReader

PATHSPEC = re.compile(r"[A-Za-z_]\w*(/\w[\w.-]*){0,4}")
CHECKPOINT = re.compile(r"(?P<task>[A-Za-z_]\w*/\w[\w.-]*/\w+/\w+)/\d+ checkpoint \d+")
MOST = 5


class Readers(Protocol):
    """Who knows what there is, such as ``Records``."""

    tables: TableReader
    models: ModelReader
    runs: RunReader
    checkpoints: CheckpointReader
    schedules: ScheduleReader
    requests: RequestReader


def explain_near_miss(records: Readers, text: str) -> str:
    """Return what there is of the table, the model, the run or the deployment that a name has; empty for none.

    Parameters
    ----------
    records : Readers
    text : str
        That means no node.
    """
    for explain in (
        _explain_request,
        _explain_checkpoint,
        _explain_run,
        _explain_deployment,
        _explain_table,
        _explain_model,
    ):
        if found := next(explain(records, text), ""):
            return found
    return ""


def _explain_request(records: Readers, text: str) -> Iterator[str]:
    if found := REQUEST_ROW.fullmatch(text):
        for log in records.requests.list_logs("requests"):
            if numbers := records.requests.list_row_numbers(log.location, found["request"]):
                rows = "one row, 0" if len(numbers) == 1 else f"{len(numbers):,} rows, 0 to {max(numbers):,}"
                yield f"The request {found['request']} had {rows}."


def _explain_checkpoint(records: Readers, text: str) -> Iterator[str]:
    if found := CHECKPOINT.fullmatch(text):
        tasks = [node for nodes in records.runs.find(found["task"]) for node in nodes]
        names = [str(edge.result) for task in tasks for edge in records.checkpoints.find_results(task)]
        if tasks:
            yield f"{found['task']} has {_list(names, 'no checkpoint', 'the checkpoints ')}."


def _explain_run(records: Readers, text: str) -> Iterator[str]:
    from dlpipe.bridge.metadata import find_runs

    if not PATHSPEC.fullmatch(text):
        return
    flow, *rest = text.split("/")
    try:
        runs = find_runs(flow)
    except RunNotFound:
        return
    run = f"{flow}/{rest[0]}" if rest else ""
    if run not in runs:
        yield f"{flow} is a flow with {_list(runs[::-1], 'no run', 'the runs ')}."
        return
    nodes = [node for nodes in records.runs.find(run) for node in nodes]
    tasks = [str(edge.result) for node in nodes for edge in records.runs.find_results(node)]
    below = [task for task in dict.fromkeys(tasks) if task.startswith(f"{run}/")]
    if nodes:
        yield f"{run} has {_list(below, 'no task', 'the tasks ', most=2 * MOST)}."


def _explain_deployment(records: Readers, text: str) -> Iterator[str]:
    if text.startswith("deployment:"):
        found = records.schedules.list_deployments()
        yield f"Runs were started by {_list(found, 'no deployment', 'the deployments ')}."


def _explain_table(records: Readers, text: str) -> Iterator[str]:
    name, hash_, row = text.partition("#")
    found = VERSION.fullmatch(name)
    if not found or (record := records.tables.find_record(found["table"])) is None:
        return
    if found["version"] is not None and not record.has_version(int(found["version"])):
        ends = [f"v{number}" for number in (0, record.latest.version) if record.has_version(number)]
        there = _list(list(dict.fromkeys(ends)), "no version", "the versions ", between=" to ")
        yield f"The table {record.name} has {there}."
    elif hash_:
        what = f"{name} has no row {row!r}" if row else f"Behind # the id of a row of {name} is missing"
        yield f"{what}. `dlpipe tables show {record.name}` prints ids."


def _explain_model(records: Readers, text: str) -> Iterator[str]:
    from dlpipe.registry.versions import parse_uri

    try:
        name, _, alias = parse_uri(text.partition("#")[0])
    except ModelNotFound:
        return
    if (model := records.models.find_model(name)) is None:
        return
    if alias and "@" in text:
        aliases = [f"{name}@{there}" for there in model.aliases]
        yield f"The model {name} has {_list(aliases, 'no alias', 'the aliases ')}."
        return
    versions = [str(node) for node, version in records.models.list_versions() if version.name == name]
    yield f"The model {name} has {_list(versions[::-1], 'no version', 'the versions ')}."


def _list(names: Sequence[str], none: str, some: str, *, most: int = MOST, between: str = ", ") -> str:
    """Return what there is, in words.

    Examples
    --------
    >>> _list([], "no run", "the runs "), _list(["F/2"], "no run", "the runs ")
    ('no run', 'F/2')
    >>> _list(["F/3", "F/2", "F/1"], "no run", "the runs ", most=2)
    'the runs F/3, F/2 and 1 more'
    """
    if len(names) < 2:
        return names[0] if names else none
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return f"{some}{between.join(names[:most])}{more}"
