"""Whether the graph from MLflow alone is the graph from Metaflow and Delta alone, wherever both can know.

Each side is read by itself. Of an edge a side either says it, or could say it and does not, or cannot know: only
the second one, against the first one of the other side, is a difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from dlpipe.bridge.held_runs import HeldRun, read_held_runs
from dlpipe.bridge.outcomes import RunOutcome
from dlpipe.bridge.reading import RunReading
from dlpipe.lineage.catalog import Catalog
from dlpipe.lineage.graph import Edge
from dlpipe.lineage.indexed_tables import TableIndex
from dlpipe.lineage.models import parse_model_node
from dlpipe.lineage.nodes import Node
from dlpipe.lineage.tasks import find_registration, find_training, make_run_node, make_task_node
from dlpipe.registry import MADE_FROM, ModelVersion, classifier_name
from dlpipe.tracking import open_store

MLFLOW, METAFLOW = "MLflow", "Metaflow and Delta"


@dataclass
class Side:
    """What one side says.

    Attributes
    ----------
    name : str
        For people.
    says : set of Edge
    allows : set of Edge
        Edges that it does not say, and of which it cannot say that they are wrong either.
    """

    name: str
    says: set[Edge] = field(default_factory=set)
    allows: set[Edge] = field(default_factory=set)


def find_disagreements(first: Side, second: Side) -> Iterator[tuple[Node, str]]:
    """Yield what one side says and the other one, which should know, does not: the node, and a sentence.

    Examples
    --------
    >>> edge = Edge(Node("run", "TrainFlow", key="18"), "resumed from", Node("run", "TrainFlow", key="17"))
    >>> [text for _, text in find_disagreements(Side("MLflow", {edge}), Side("Metaflow and Delta"))]
    ['MLflow says that it was resumed from TrainFlow/17, and Metaflow and Delta do not']
    """
    for side, other in ((first, second), (second, first)):
        for edge in sorted(
            side.says - other.says - other.allows, key=lambda edge: (edge.result.id, str(edge.origin))
        ):
            says, does = ("say", "does") if side.name == METAFLOW else ("says", "do")
            yield edge.result, f"{side.name} {says} that it {write(edge)}, and {other.name} {does} not"


def write(edge: Edge) -> str:
    """Return how a node came of another, as the end of a sentence."""
    verbs = {"used": "used", "scored with": "scored or explained with", "part of": "is part of"}
    note = f" ({edge.note})" if edge.note else ""
    return f"{verbs.get(edge.how, f'was {edge.how}')} {edge.origin}{note}"


def compare_graphs(
    outcomes: Mapping[str, RunOutcome],
    versions: Mapping[Node, ModelVersion],
    catalog: Catalog,
    index: TableIndex,
) -> Iterator[tuple[Node, str]]:
    """Yield in what MLflow alone and Metaflow and Delta alone differ over runs and what these made.

    Parameters
    ----------
    outcomes : mapping of str to RunOutcome
        Of the runs that MLflow is to have and that have ended.
    versions : mapping of Node to ModelVersion
        All that are registered.
    catalog : Catalog
    index : TableIndex

    Raises
    ------
    TrackingUnavailable
        When MLflow does not answer.
    """
    held = read_held_runs(open_store()) if outcomes else {}
    both = {run: outcome for run, outcome in outcomes.items() if run in held and not held[run].is_deleted}
    for run in outcomes.keys() - held.keys():
        yield make_run_node(run), f"{METAFLOW} know it, and {MLFLOW} does not"
    mlflow, metaflow = Side(MLFLOW), Side(METAFLOW)
    for run in both:
        _add_held(mlflow, held[run], versions)
        _add_outcome(metaflow, both[run], versions, catalog)
        _add_commits(metaflow, run, catalog, index)
    _add_versions(mlflow, metaflow, both, versions)
    yield from find_disagreements(mlflow, metaflow)


def _add_held(side: Side, held: HeldRun, versions: Mapping[Node, ModelVersion]) -> None:
    """Add what MLflow's runs say."""
    run = make_run_node(held.run)
    by_id: dict[str, list[Node]] = {}
    for node, version in versions.items():
        by_id.setdefault(version.model_id, []).append(node)
    if held.origin:
        side.says.add(Edge(run, "resumed from", make_run_node(held.origin)))
    for key, parent in held.parents.items():
        if key.count("/") == 4 and parent:
            side.says.add(Edge(make_task_node(key)[0], "part of", make_run_node(parent)))
    gone = (make_task_node(key)[0] for key in held.deleted if key.count("/") == 4)
    side.allows |= {Edge(task, "part of", run) for task in gone}
    for dataset in held.datasets:
        table = Node("table", dataset.path.rstrip("/"), dataset.version)
        side.says.add(Edge(run, "used", table, f"digest {dataset.digest[:12]}"))
    for model_id in held.made:
        side.says |= {Edge(node, "made by", run) for node in by_id.get(model_id, ())}
    for model_id in held.used:
        side.says |= {Edge(run, "used", node) for node in by_id.get(model_id, ())}
    for model_id in held.made | held.used:
        side.allows |= {Edge(run, "scored with", node) for node in by_id.get(model_id, ())}


def _add_outcome(side: Side, outcome: RunOutcome, versions: Mapping[Node, ModelVersion], catalog: Catalog) -> None:
    """Add what Metaflow's records of a run say."""
    run = make_run_node(outcome.pathspec)
    if outcome.origin:
        side.says.add(Edge(run, "resumed from", make_run_node(outcome.origin)))
    reading = RunReading(outcome.pathspec)
    for key in reading.list_keys(reading.read_snapshot()):
        if key.count("/") == 4:
            side.says.add(Edge(make_task_node(key)[0], "part of", run))
    tables = [Node("table", dataset.path.rstrip("/"), dataset.version) for dataset in outcome.datasets]
    for table, dataset in zip(tables, outcome.datasets, strict=True):
        side.says.add(Edge(run, "used", table, f"digest {dataset.digest[:12]}"))
    made = {Node("model", model.name, model.version) for model in outcome.models if model.role == "made"}
    known = {Node("model", model.name, model.version) for model in outcome.models} & versions.keys()
    for model in outcome.models:
        node = Node("model", model.name, model.version)
        if node not in versions:  # gone, which is said as such
            continue
        # MLflow's runs name logged models: of a version that is none, only the tags of the version tell
        edge = Edge(node, "made by", run) if model.role == "made" else Edge(run, "used", node)
        (side.says if model.model_id or model.role == "made" else side.allows).add(edge)
    for node in made & versions.keys():
        base = classifier_name(node.name)
        of = [other for other in known if other.name == base]
        if len(of) == 1:
            side.says.add(Edge(node, "made from", of[0]))
        elif base is None or not of:
            there = [(table, catalog.find(table.name)) for table in tables]
            data = {Edge(node, "trained on", table) for table, found in there if found and found.kind == "data"}
            (side.says if len(data) == 1 else side.allows).update(data)
        side.allows |= {Edge(node, "made from", other) for other in known}


def _add_commits(side: Side, run: str, catalog: Catalog, index: TableIndex) -> None:
    """Add what Delta's commits say of a run: with which models its tasks scored and explained."""
    node = make_run_node(run)
    for location, number in index.find_commits(f"run {run}"):
        record = catalog.find(location)
        made_by = str(record.commits.get(number, {}).get("made_by", "")) if record else ""
        if record is None or not made_by.startswith(f"{run}/"):
            continue
        if model := parse_model_node(record.read_key(number).get("model", "")):
            side.says.add(Edge(node, "scored with", model))


def _add_versions(
    mlflow: Side, metaflow: Side, runs: Mapping[str, RunOutcome], versions: Mapping[Node, ModelVersion]
) -> None:
    """Add what the tags of versions say, as far as their runs are known to both."""
    for node, version in versions.items():
        keys = filter(None, (find_training(version.tags), find_registration(version.tags)))
        named = [str(make_run_node(key)) for key in keys]
        edges = {Edge(node, "made by", make_run_node(run)) for run in named if run in runs}
        # of a training and a registration in different runs, each side names in its way which one made it
        (mlflow.says if len(edges) == 1 else mlflow.allows).update(edges)
        if not named:  # which is said as such
            mlflow.allows |= {edge for edge in metaflow.says if edge.how == "made by" and edge.result == node}
        told = {str(model) for run in named if run in runs for model in runs[run].models}
        bases = {
            Edge(node, "made from", base) for base in (parse_model_node(version.tags.get(MADE_FROM, "")),) if base
        }
        if edges:
            mlflow.says |= bases
        if str(node) not in told:  # a run need not name the companions of what it made
            metaflow.allows |= edges | bases
        if not bases and named and (table := read_table_node(version)):
            # of a training whose run one side does not have, the other one need not know
            (mlflow.says if named[0] in runs else mlflow.allows).add(Edge(node, "trained on", table))


def read_table_node(version: ModelVersion) -> Node | None:
    """Return the version of a table that the tags of a version of a model name; ``None`` for none."""
    tags = version.tags
    if "delta.table" not in tags or not tags.get("delta.version", "").isdecimal():
        return None
    return Node("table", tags["delta.table"].rstrip("/"), int(tags["delta.version"]))
