"""Walks over the graph: what a node came of, what came of it, or both."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Literal, Protocol

from dlpipe.lineage.graph import Edge, Facts, Graph
from dlpipe.lineage.nodes import Node

Direction = Literal["up", "down", "both"]


class Neighbours(Protocol):
    """Whatever knows the edges of a node, such as ``Records``."""

    def describe(self, node: Node) -> Facts:
        """Return what there is to say of a node."""

    def find_origins(self, node: Node) -> Iterator[Edge]:
        """Yield the edges to what a node came of."""

    def find_results(self, node: Node) -> Iterator[Edge]:
        """Yield the edges to what came of a node."""

    def find_unknown(self, node: Node) -> tuple[str, ...]:
        """Return what is not known of a node's origins."""

    def list_problems(self) -> tuple[str, ...]:
        """Return why some records could not be read."""


def walk(
    records: Neighbours,
    roots: Sequence[Node],
    *,
    direction: Direction = "both",
    depth: int | None = None,
    kinds: Collection[str] = (),
    on_step: Callable[[str], None] = lambda name: None,
) -> Graph:
    """Return what can be reached from ``roots``, each node and edge once; only what is reached is looked up.

    Up and down are walked apart: what came of an origin of a root is none of its lineage.

    Parameters
    ----------
    records : Neighbours
    roots : sequence of Node
    direction : 'up', 'down' or 'both'
        ``up`` to what they came of, ``down`` to what came of them.
    depth : int, optional
        How many edges away a node may be; by default any number.
    kinds : collection of str, optional
        Kinds that are wanted: what leads to none of them is left out. By default all.
    on_step : callable, optional
        Gets what is looked at next, for progress.
    """
    up: list[Edge] = []
    down: list[Edge] = []
    cut: set[Node] = set()
    unknown: dict[Node, tuple[str, ...]] = {}
    if direction in ("up", "both"):
        on_step("what it came of")
        found, at_end = _walk_one_way(records.find_origins, lambda edge: edge.origin, roots, depth)
        up = _keep_leading(found, lambda edge: (edge.result, edge.origin), kinds)
        cut |= at_end
        nodes = {*roots, *(edge.origin for edge in up)} - at_end
        unknown = {node: problems for node in sorted(nodes, key=str) if (problems := records.find_unknown(node))}
    if direction in ("down", "both"):
        on_step("what came of it")
        found, at_end = _walk_one_way(records.find_results, lambda edge: edge.result, roots, depth)
        down = _keep_leading(found, lambda edge: (edge.origin, edge.result), kinds)
        cut |= at_end
    # an edge by which a root leads up does not lead down from it, though it may lead back to it
    graph = Graph(
        tuple(roots),
        tuple(dict.fromkeys([*up, *down])),
        unknown=unknown,
        cut=frozenset(cut),
        up=tuple(up),
        down=tuple(down),
    )
    on_step("what is known of each")
    facts = {node: records.describe(node) for node in graph.nodes}
    return replace(graph, facts=facts, problems=records.list_problems())


def _walk_one_way(
    find: Callable[[Node], Iterator[Edge]],
    far_end: Callable[[Edge], Node],
    roots: Sequence[Node],
    depth: int | None,
) -> tuple[list[Edge], set[Node]]:
    """Return the edges by their distance, and the nodes at the end that were not asked for theirs."""
    seen, edges, layer, distance = set(roots), dict[Edge, None](), list(roots), 0
    while layer and (depth is None or distance < depth):
        distance += 1
        reached = []
        for node in layer:
            for edge in find(node):
                edges[edge] = None
                # a node is asked once, so that drift that leads back to a training ends
                if far_end(edge) not in seen:
                    seen.add(far_end(edge))
                    reached.append(far_end(edge))
        layer = reached
    return list(edges), set(layer)


def _keep_leading(
    edges: Sequence[Edge], ends: Callable[[Edge], tuple[Node, Node]], kinds: Collection[str]
) -> list[Edge]:
    """Return the edges that lead to a node of these kinds, which may be further on."""
    if not kinds:
        return list(edges)
    before: dict[Node, list[Node]] = {}
    for edge in edges:
        near, far = ends(edge)
        before.setdefault(far, []).append(near)
    leading = {far for far in before if far.kind in kinds}
    waiting = list(leading)
    while waiting:
        for near in before.get(waiting.pop(), ()):
            if near not in leading:
                leading.add(near)
                waiting.append(near)
    return [edge for edge in edges if ends(edge)[1] in leading]
