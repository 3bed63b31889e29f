"""Whether records agree: references lead somewhere, nothing is left out, MLflow has the graph of the others."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING, Literal

from dlpipe.bridge.marks import find_marks
from dlpipe.bridge.metadata import find_runs
from dlpipe.bridge.outcomes import RunOutcome, read_outcome
from dlpipe.errors import DlpipeError, RunNotFound, TableVersionNotFound, TrackingUnavailable
from dlpipe.lineage.agreement import compare_graphs
from dlpipe.lineage.catalog import TableRecord
from dlpipe.lineage.graph import Edge, Facts
from dlpipe.lineage.nodes import Node
from dlpipe.lineage.records import Records
from dlpipe.lineage.tables import make_table_node
from dlpipe.lineage.tasks import find_registration, find_training, make_run_node
from dlpipe.lineage.version_uses import REQUESTS, find_uses
from dlpipe.registry import CHAMPION, MADE_FROM, Use, read_uses

if TYPE_CHECKING:
    import pyarrow as pa

Problem = Literal["dangling", "missing", "differs"]
DAY = 86_400_000
OUTSIDE = ("file", "line")
"""What is nobody's to keep but the user's: that a file was changed or removed is no fault of a record."""


@dataclass(frozen=True)
class Finding:
    """Something in which records do not agree.

    Attributes
    ----------
    problem : str
        ``dangling``: a record names what is not there; ``missing``: something is there that a record should name;
        ``differs``: what MLflow alone says of runs and what they made is not what Metaflow and Delta alone say.
    what : str
        What it is about, as ``Node.id`` or a run's pathspec.
    text : str
        What is wrong, in a sentence.
    """

    problem: Problem
    what: str
    text: str

    def __str__(self) -> str:
        return f"{self.problem}: {self.what}: {self.text}"


def check_records(records: Records, *, on_step: Callable[[str], None] | None = None) -> list[Finding]:
    """Return everything in which the records do not agree.

    All rows of answers and all runs are read: that takes as long as they are many.

    Parameters
    ----------
    records : Records
        As things are now.
    on_step : callable, optional
        Gets what is looked at next, for progress.

    Raises
    ------
    TrackingUnavailable
        When the registry cannot be asked.
    """
    if records.models.problem:
        raise TrackingUnavailable(records.models.problem)
    found: list[Finding] = []
    for name, look in (
        ("references", find_dangling),
        ("rows of answers", find_stray_answers),
        ("runs", find_run_problems),
        ("pages of models", find_page_problems),
    ):
        if on_step:
            on_step(name)
        found += look(records)
    return list(dict.fromkeys(found))


def list_nodes(records: Records) -> Iterator[Node]:
    """Yield every version of a table, every version of a model, and every move of a champion."""
    for record in records.catalog.list_records():
        yield from (make_table_node(record, number) for number in record.commits)
    for name, model in records.models.records.items():
        yield from (Node("model", name, number) for number in model.versions)
        yield from (Node("move", name, number, CHAMPION) for number, _ in enumerate(model.moves, 1))


def find_dangling(records: Records) -> Iterator[Finding]:
    """Yield references to what is not there; to a version of a model that dlpipe has deleted there may be some."""
    known: dict[Node, Facts] = {}

    def describe(node: Node) -> Facts:
        if node not in known:
            known[node] = records.describe(node)
        return known[node]

    waiting, seen = list(list_nodes(records)), set[Node]()
    for location, problem in records.catalog.problems.items():
        yield Finding("dangling", location, problem)
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        for edge in records.find_origins(node):
            facts = describe(edge.origin)
            if not facts.gone:
                waiting.append(edge.origin)
            elif edge.origin.kind not in OUTSIDE and not records.models.is_deleted(edge.origin):
                yield Finding("dangling", node.id, describe_gone(edge, facts))


def describe_gone(edge: Edge, facts: Facts) -> str:
    """Return what an edge names that is not there.

    Examples
    --------
    >>> edge = Edge(Node("model", "reviews", 1), "made by", Node("task", "TrainFlow", key="17/train/3"))
    >>> describe_gone(edge, Facts(gone="Metaflow has no such run any more"))
    'made by TrainFlow/17/train/3, but Metaflow has no such run any more'
    """
    return f"{edge.how} {edge.origin}, but {facts.gone}"


def find_stray_answers(records: Records) -> Iterator[Finding]:
    """Yield answers and explanations for rows that their source does not have, and those of which no key tells."""
    for record in records.catalog.list_records("predictions", "explanations"):
        for number in record.commits:
            yield from _check_commit(records, record, number)


def _check_commit(records: Records, record: TableRecord, number: int) -> Iterator[Finding]:
    import pyarrow.compute as pc

    key, what = record.read_key(number), make_table_node(record, number).id
    commit = record.commits[number]
    if "rows" not in commit or "forgotten" in commit:  # of another program, or one that only took rows out
        return
    if "model" not in key or "source" not in key:
        yield Finding("missing", what, "no record of the model and of the rows that it answered for")
        return
    source = records.catalog.find(key["source"])
    if source is None or int(key["source_version"]) not in source.commits:
        return  # dangling, and said as such
    try:
        added = _read_ids(record.location, number, added=True)
        there = _read_ids(key["source"], int(key["source_version"]))
    except DlpipeError as error:
        yield Finding("dangling", what, str(error))
        return
    strangers = added.filter(pc.invert(pc.is_in(added, value_set=there)))
    if len(strangers):
        name = f"{source.name}@v{key['source_version']}"
        count = "1 row is" if len(strangers) == 1 else f"{len(strangers):,} rows are"
        yield Finding("dangling", what, f"{count} not in {name}, such as {strangers[0]}")


def _read_ids(location: str, version: int, *, added: bool = False) -> pa.ChunkedArray:
    """Return the ids of the rows of a version, or of those that its commit added, but for forgotten ones."""
    from dlpipe.tables import read_added, read_remaining, read_table, table_at

    there = table_at(location, version=version)
    try:
        found = (read_added if added else read_table)(there, columns=["row_id"])["row_id"]
    except TableVersionNotFound:
        left = read_remaining(there, columns=["row_id"], added=added)
        if left is None:
            raise
        return left["row_id"]
    return found


def find_run_problems(records: Records) -> Iterator[Finding]:
    """Yield what runs say otherwise than Delta and MLflow: versions that are not there, or name other runs."""
    try:
        runs = find_runs()
    except RunNotFound:
        return
    except ValueError as error:  # a file that is no JSON
        yield Finding("dangling", "Metaflow", f"its records of runs cannot be read: {error}")
        return
    mirrored: dict[str, RunOutcome] = {}
    for run in runs:
        try:
            outcome = read_outcome(run)
        except RunNotFound:  # it has only just begun, or is deleted meanwhile
            continue
        if outcome.status == "RUNNING":  # MLflow has it in a moment
            continue
        yield from _check_datasets(records, outcome)
        yield from _check_models(records, outcome)
        if is_mirrored(run):
            mirrored[run] = outcome
    yield from _find_unnamed_models(records, set(runs))
    versions = dict(records.models.list_versions())
    for node, text in compare_graphs(mirrored, versions, records.catalog, records.tables.index):
        yield Finding("differs", node.id, text)


def is_mirrored(run: str) -> bool:
    """Return whether a run is one that the bridge has in MLflow, or is to have there."""
    marks = find_marks(run)
    return bool(marks.where() or marks.behind())


def _check_datasets(records: Records, outcome: RunOutcome) -> Iterator[Finding]:
    for dataset in outcome.datasets:
        record = records.catalog.find(dataset.path)
        commit = record.commits.get(dataset.version) if record else None
        if record is None or not record.has_version(dataset.version):
            yield Finding(
                "dangling", outcome.pathspec, f"had {dataset.name} at {dataset.path}, which is not there"
            )
        elif commit and "digest" in commit and not str(commit["digest"]).startswith(dataset.digest):
            told = f"had {dataset.name} with the digest {dataset.digest[:12]}, and its commit has another one"
            yield Finding("differs", outcome.pathspec, told)


def _check_models(records: Records, outcome: RunOutcome) -> Iterator[Finding]:
    for model in outcome.models:
        node = Node("model", model.name, model.version)
        record = records.models.records.get(model.name)
        version = record.versions.get(model.version) if record else None
        if version is None:
            if not records.models.is_deleted(node):
                yield Finding(
                    "dangling", outcome.pathspec, f"{model.role} {model}, which the registry does not have"
                )
            continue
        named = find_training(version.tags) or find_registration(version.tags)
        # a run that registers what an earlier one has registered finds it, and so made it, too
        if model.role == "made" and not named:
            yield Finding("missing", node.id, f"{outcome.pathspec} made it, and its tags name no run")


def is_told(uri: str, made_from: str, told: Container[str]) -> bool:
    """Return whether a run tells of a version that it made, or of the classifier with which it made it.

    Examples
    --------
    >>> is_told("models:/films-pipeline/1", "models:/films/1", {"models:/films/1"})
    True
    >>> is_told("models:/films/2", "", {"models:/films/1"})
    False
    """
    return uri in told or made_from in told


def _find_unnamed_models(records: Records, runs: set[str]) -> Iterator[Finding]:
    """Yield versions that name a run which does not know of them."""
    made: dict[str, set[str] | None] = {}
    for node, version in records.models.list_versions():
        registered_by = find_registration(version.tags) or find_training(version.tags)
        run = str(make_run_node(registered_by)) if registered_by else ""
        if run not in runs:
            continue  # of no run, or of a deleted one, which is said as such
        if run not in made:
            outcome = read_outcome(run)
            # one that goes on keeps what it made when its step ends
            made[run] = None if outcome.status == "RUNNING" else {str(model) for model in outcome.models}
        if (known := made[run]) is not None and not is_told(str(node), version.tags.get(MADE_FROM, ""), known):
            yield Finding("missing", node.id, f"its tags name {run}, which does not say that it made it")


def find_page_problems(records: Records) -> Iterator[Finding]:
    """Yield uses that pages of versions tell of and that are not there; what one does not tell yet is no fault."""
    kept_from = _find_kept_from(records)
    for node, version in records.models.list_versions():
        told = read_uses(version.tags)
        if not told.uses:
            continue
        there = {(use.what, use.where): use for use in find_uses(records, node).uses}
        for use in told.uses:
            known = there.get((use.what, use.where), replace(use, count=0, last=0))
            if (count := known.count) < use.count and not _is_old(use, known, kept_from):
                now = f"there are {count:,}" if use.where else "it is not there"
                text = f"its page tells of {use}, and {now}: `dlpipe bridge sync` brings it up to date"
                yield Finding("differs", node.id, text)


def _is_old(use: Use, known: Use, kept_from: Mapping[str, int]) -> bool:
    """Return whether the requests that are not there any more are of days that a log keeps no more."""
    if use.what != REQUESTS or use.where not in kept_from:
        return False
    return use.last <= known.last or use.last < kept_from[use.where]  # else the newest ones are missing


def _find_kept_from(records: Records) -> dict[str, int]:
    """Return from when on logs keep requests that have lost older days, in milliseconds since 1970, by name."""
    from dlpipe.tables import find_first_kept_day

    days = {
        record.name: find_first_kept_day(record.location) for record in records.catalog.list_records("requests")
    }
    return {name: (day - date(1970, 1, 1)).days * DAY for name, day in days.items() if day}


def count_problems(found: Iterable[Finding]) -> dict[Problem, int]:
    """Return how many findings there are of each problem.

    Examples
    --------
    >>> count_problems([Finding("missing", "models:/reviews/1", "its tags name no run")])
    {'dangling': 0, 'missing': 1, 'differs': 0}
    """
    counts: dict[Problem, int] = {"dangling": 0, "missing": 0, "differs": 0}
    for finding in found:
        counts[finding.problem] += 1
    return counts
