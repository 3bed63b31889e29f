"""Deployments and events that started runs, by the orchestrator's state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from dlpipe.lineage.catalog import Catalog, TableRecord
from dlpipe.lineage.graph import Edge, Facts, group_by_origin
from dlpipe.lineage.nodes import Node
from dlpipe.lineage.reader import Reader
from dlpipe.lineage.tables import make_table_node
from dlpipe.orchestrator.deployments import Version
from dlpipe.orchestrator.runs import Event, Run
from dlpipe.orchestrator.state import State, has_state

LOOK_FIELDS = {"champion": "model_version", "scored_table": "source", "scored_version": "source_version"}
"""What an event that a look at drift published tells, and the column of the look that has it."""


class ScheduleReader(Reader):
    """Reads the state of this user's scheduler, or of the project's.

    Parameters
    ----------
    catalog : Catalog
    until : int, optional
        In milliseconds since 1970: events that came later are passed over.
    """

    def __init__(self, catalog: Catalog, until: int | None = None) -> None:
        self.catalog, self.until = catalog, until

    def find(self, text: str) -> Iterator[tuple[Node, ...]]:
        """Yield the event with this id, or the deployment that ``deployment:NAME`` means."""
        event_id = text.removeprefix("event:")
        if event_id in self._events:
            yield (make_event_node(self._events[event_id]),)
        if text.startswith("code:"):
            codes = {make_frozen_node(version) for version in self._versions.values()}
            yield from ((code,) for code in sorted(codes) if text in (code.id, f"code:{code.name}@{code.key}"))
        if text.startswith("deployment:"):
            name, _, number = text.removeprefix("deployment:").partition("@")
            found = sorted({node for node in map(make_deployment_node, self._runs) if node.name == name})
            wanted = [node for node in found if not number or str(node.number) == number]
            yield from ((node,) for node in wanted[-1:])

    def list_deployments(self) -> list[str]:
        """Return the deployments that have started runs, as they are written."""
        return sorted({str(make_deployment_node(run)) for run in self._runs})

    def describe(self, node: Node) -> Facts | None:
        """Return when an event was published."""
        if node.kind == "event":
            event = self._events.get(node.key)
            return (
                Facts(int(event.at * 1000), event.name) if event else Facts(gone="the scheduler has forgotten it")
            )
        if node.kind == "code":
            version = next(
                (version for version in self._versions.values() if make_frozen_node(version) == node), None
            )
            if version is None:
                return None
            lost = not Path(version.code).is_dir()
            return Facts(int(version.created * 1000), "frozen code", "its folder was removed" if lost else "")
        if node.kind == "deployment":
            flow = next((run.deployment for run in self._runs if make_deployment_node(run) == node), None)
            return Facts() if flow else Facts(gone="the scheduler has forgotten its runs")
        return None

    def find_origins(self, node: Node) -> Iterator[Edge]:
        """Yield the deployment and the events that started a run, and the look that published an event."""
        if node.kind == "run":
            for run in self._runs_of.get(node.key, ()):
                yield Edge(node, "started by", make_deployment_node(run), run.cause)
                for event in run.events:
                    yield Edge(node, "started by", make_event_node(event))
        elif node.kind == "event" and node.key in self._events:
            yield from self._find_looks(node, self._events[node.key])
        elif node.kind == "deployment" and (version := self._versions.get((node.name, node.number or 0))):
            yield Edge(node, "ran", make_frozen_node(version))

    def find_results(self, node: Node) -> Iterator[Edge]:
        """Yield the runs that a deployment or an event started, and the event that a look published."""
        if node.kind in ("event", "deployment"):
            yield from self._by_origin.get(node, ())
        elif node.kind == "code":
            deployments = [Node("deployment", *place) for place in sorted(self._versions)]
            yield from (edge for made in deployments for edge in self.find_origins(made) if edge.origin == node)
        elif node.kind == "look":
            for event in self._events.values():
                found = self._find_looks(make_event_node(event), event)
                yield from (edge for edge in found if edge.origin == node)

    @cached_property
    def _by_origin(self) -> Mapping[Node, Sequence[Edge]]:
        pairs = [(run, attempt.metaflow_run) for run in self._runs for attempt in run.attempts]
        nodes = [
            Node("run", self._versions[run.deployment, run.version].flow, key=name) for run, name in pairs if name
        ]
        return group_by_origin(edge for node in dict.fromkeys(nodes) for edge in self.find_origins(node))

    def _find_looks(self, node: Node, event: Event) -> Iterator[Edge]:
        told = {column: event.payload.get(name) for name, column in LOOK_FIELDS.items()}
        table = f"{told['source']}_drift"
        record = self.catalog.find(table) if told["source"] else None
        if record is None or record.kind != "looks":
            return
        told["reason"] = event.payload.get("reason")
        for number in record.commits:
            if record.read_key(number) and _has_look(record, number, told):
                yield Edge(node, "published by", make_table_node(record, number))

    @cached_property
    def _state(self) -> tuple[list[Run], list[Event], Mapping[tuple[str, int], Version]]:
        if not has_state():
            return [], [], {}
        with closing(State.open()) as state:
            runs = state.list_runs()
            events = [event for _, event in state.list_events_after(0)]
            places = {(run.deployment, run.version) for run in runs}
            versions = {place: state.get_version(*place) for place in places}
        until = float("inf") if self.until is None else self.until / 1000
        return (
            [_cut_attempts(run, until) for run in runs if run.due <= until],
            [event for event in events if event.at <= until],
            versions,
        )

    @property
    def _runs(self) -> list[Run]:
        return self._state[0]

    @property
    def _versions(self) -> Mapping[tuple[str, int], Version]:
        return self._state[2]

    @cached_property
    def _events(self) -> Mapping[str, Event]:
        """Those that are noted, and those that runs name, which stay longer."""
        of_runs = [event for run in self._runs for event in run.events]
        return {event.id: event for event in [*self._state[1], *of_runs]}

    @cached_property
    def _runs_of(self) -> Mapping[str, Sequence[Run]]:
        found: dict[str, list[Run]] = {}
        for run in self._runs:
            for attempt in run.attempts:
                found.setdefault(attempt.metaflow_run, []).append(run)
        return found


def _cut_attempts(run: Run, until: float) -> Run:
    """Return a run with the attempts that had started by a time."""
    return replace(run, attempts=tuple(attempt for attempt in run.attempts if attempt.started <= until))


def _has_look(record: TableRecord, number: int, told: Mapping[str, object]) -> bool:
    from dlpipe.tables import read_added, table_at

    added = read_added(table_at(record.location, version=number), columns=[*told, "published"])
    return any(row.pop("published") and row == told for row in added.to_pylist())


def make_event_node(event: Event) -> Node:
    """Return the node of an event."""
    return Node("event", event.name, key=event.id)


def make_frozen_node(version: Version) -> Node:
    """Return the node of the frozen code of a version of a deployment."""
    return Node("code", version.deployment, key=version.digest)


def make_deployment_node(run: Run) -> Node:
    """Return the node of the version of a deployment that a run is of."""
    return Node("deployment", run.deployment, run.version)
