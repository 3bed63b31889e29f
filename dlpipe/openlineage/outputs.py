"""What was made, by which attempt of which task, and of what: the edges of lineage that a run has to tell."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property

from openlineage.client.event_v2 import InputDataset, OutputDataset
from openlineage.client.facet_v2 import JobFacet, lineage

from dlpipe.bridge.totals import TaskTotals
from dlpipe.errors import TrackingUnavailable
from dlpipe.lineage import Edge, Node, Records
from dlpipe.lineage.catalog import LOGS
from dlpipe.lineage.tables import make_table_node
from dlpipe.lineage.tasks import find_registration, find_training, read_attempt
from dlpipe.openlineage.datasets import Datasets, get_name
from dlpipe.openlineage.naming import name_node

ATTEMPT = re.compile(r"attempt (\d+)")

FindRun = Callable[[str], tuple[str, str, str | None]]
"""Takes the key of an attempt; returns namespace and name of its job, and the id of its run where it is known."""


class Outputs:
    """Everything that was made, by the attempt that made it.

    Parameters
    ----------
    records : Records
        Read after it was looked how runs stand: what an attempt that has ended made is then there.
    """

    def __init__(self, records: Records) -> None:
        self.records, self.datasets = records, Datasets(records)

    @cached_property
    def by_attempt(self) -> Mapping[str, Sequence[Node]]:
        """Versions of tables and of models by the key of the attempt that made them; under ``""`` all others.

        Raises
        ------
        TrackingUnavailable
            When the registry cannot be asked.
        """
        found: dict[str, list[Node]] = defaultdict(list)
        for record in self.records.catalog.list_records():
            for number, commit in record.commits.items() if record.kind not in LOGS else ():
                found[read_attempt(commit.get("made_by"))].append(make_table_node(record, number))
        for node, version in self.records.models.list_versions():
            found[find_maker(version.tags)].append(node)
        self.check_registry()
        return found

    def check_registry(self) -> None:
        """Raise ``TrackingUnavailable`` where the registry could not be asked for something that an event tells.

        An event is told once: what the registry did not say would be missing for ever.
        """
        if self.records.models.problem:
            raise TrackingUnavailable(self.records.models.problem)

    def list_used(self, totals: TaskTotals) -> list[Node]:
        """Return the versions of tables and models that an attempt had in its hands, by its own artifacts."""
        tables = [
            self.records.tables.find_node(found.path.rstrip("/"), found.version) for found in totals.datasets
        ]
        models = [Node("model", found.name, found.version) for found in totals.models if found.role == "used"]
        return [*tables, *models]

    def find_inputs(self, nodes: Iterable[Node], used: Iterable[Node] = ()) -> list[InputDataset]:
        """Return what versions were made of and what was used besides, each once, without what was made itself."""
        made = list(nodes)
        pairs = {(edge.origin, edge.result): edge for node in made for edge in self._find_edges(node)}
        first = {origin: result for origin, result in reversed(pairs) if origin not in made and name_node(origin)}
        besides = [node for node in dict.fromkeys(used) if node not in made and node not in first]
        return [
            *(self.datasets.make_input(origin, by=result) for origin, result in reversed(first.items())),
            *map(self.datasets.make_input, besides),
        ]

    def make_outputs(self, nodes: Iterable[Node]) -> list[OutputDataset]:
        """Return versions as what was made."""
        return [self.datasets.make_output(node) for node in nodes]

    def make_lineage(self, nodes: Sequence[Node], attempt: str, find_run: FindRun) -> dict[str, JobFacet]:
        """Return the facet that says what each version came of, and how; none where nothing was made.

        Parameters
        ----------
        nodes : sequence of Node
        attempt : str
            Key of the attempt that made them; empty where none did.
        find_run : callable
        """
        if not nodes:
            return {}
        entries: list[lineage.LineageEntry] = []
        for node in nodes:
            name, edges = get_name(node), self._find_edges(node)
            inputs = [*_list_datasets(edges), *_list_jobs(edges, attempt, find_run)]
            entries.append(lineage.LineageDatasetEntry(name.namespace, name.name, "DATASET", inputs=inputs))
        return {"lineage": lineage.LineageJobFacet(entries=entries)}

    def _find_edges(self, node: Node) -> list[Edge]:
        if node not in self._edges:
            self._edges[node] = list(self.records.find_origins(node))
        return self._edges[node]

    @cached_property
    def _edges(self) -> dict[Node, list[Edge]]:
        return {}


def find_maker(tags: Mapping[str, str]) -> str:
    """Return the key of the attempt that registered a version, or trained it; empty where its tags name none.

    Examples
    --------
    >>> find_maker({"metaflow.pathspec": "TrainFlow/7/train/3", "metaflow.attempt": "1"})
    'TrainFlow/7/train/3/1'
    """
    return find_registration(tags) or find_training(tags)


def find_attempt(edge: Edge) -> str:
    """Return the key of the attempt that an edge to a task means.

    Examples
    --------
    >>> task = Node("task", "TrainFlow", key="17/train/4")
    >>> find_attempt(Edge(Node("model", "reviews", 1), "made by", task, "registered, attempt 2"))
    'TrainFlow/17/train/4/2'
    """
    found = ATTEMPT.search(edge.note)
    return f"{edge.origin}/{found[1] if found else 0}"


def _list_datasets(edges: Iterable[Edge]) -> list[lineage.LineageInput]:
    """Return data sets that something came of, each once, with all that was done with it."""
    hows: dict[Node, list[str]] = defaultdict(list)
    for edge in edges:
        if name_node(edge.origin):
            hows[edge.origin].append(f"{edge.how}: {edge.note}" if edge.note else edge.how)
    return [
        lineage.LineageDatasetInput(
            get_name(origin).namespace,
            get_name(origin).name,
            "DATASET",
            transformations=[lineage.LineageTransformation(type="DIRECT", description=how) for how in told],
        )
        for origin, told in hows.items()
    ]


def _list_jobs(edges: Iterable[Edge], attempt: str, find_run: FindRun) -> list[lineage.LineageInput]:
    """Return the other attempts that had a part in it, such as the training of what was registered here."""
    others = dict.fromkeys(find_attempt(edge) for edge in edges if edge.origin.kind == "task")
    made: list[lineage.LineageInput] = []
    for key in others:
        if key != attempt:
            namespace, name, run_id = find_run(key)
            how = lineage.LineageTransformation(type="DIRECT", description=f"made by: {key}")
            made.append(lineage.LineageJobInput("JOB", namespace, name, runId=run_id, transformations=[how]))
    return made
