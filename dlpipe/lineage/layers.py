"""Where the nodes of a graph stand on a page: origins left of what came of them, and many alike as one group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping

from dlpipe.lineage.graph import Graph
from dlpipe.lineage.nodes import Node

ALIKE = 4
"""So many nodes of one kind with the same neighbours are a group."""
MOST_BOXES = 60
"""More than so many at once are hard to read."""


def find_layers(graph: Graph) -> Mapping[Node, int]:
    """Return the column of each node, from 0: one more than that of the furthest of its origins.

    In a circle, such as one of drift and training, or a run and the trial that tuned it, the edge that leads back
    to where it was entered is passed over; circles are entered from the roots.

    Examples
    --------
    >>> from dlpipe.lineage.graph import Edge
    >>> a, b, c = (Node("table", "/t", number) for number in range(3))
    >>> edges = (Edge(c, "appended to", b), Edge(b, "appended to", a), Edge(a, "started by", b))
    >>> [find_layers(Graph((c,), edges))[node] for node in (a, b, c)]
    [0, 1, 2]
    """
    origins: dict[Node, dict[Node, None]] = defaultdict(dict)
    for edge in graph.edges:
        origins[edge.result][edge.origin] = None
    layers: dict[Node, int] = {}
    for start in dict.fromkeys((*graph.roots, *graph.nodes)):
        if start in layers:
            continue
        path, entered = [(start, iter(origins[start]))], {start}
        while path:
            node, left = path[-1]
            following = next((origin for origin in left if origin not in layers and origin not in entered), None)
            if following is not None:
                entered.add(following)
                path.append((following, iter(origins[following])))
                continue
            path.pop()
            # of those that are not done, this one is an origin
            layers[node] = 1 + max((layers[origin] for origin in origins[node] if origin in layers), default=-1)
    return layers


def find_groups(graph: Graph) -> Mapping[Node, int]:
    """Return the number of the group of each node that is in one: of many alike, one box stands for all.

    Alike are nodes of one kind with the same neighbours; where more than ``MOST_BOXES`` would be left, all of one
    kind in one column. The roots are in none.
    """
    groups = _group(graph, {node: frozenset(found) for node, found in _list_neighbours(graph).items()})
    grouped = sum(map(len, groups))
    if len(graph.nodes) - grouped + len(groups) > MOST_BOXES:
        groups = _group(graph, find_layers(graph))
    return {node: number for number, nodes in enumerate(groups) for node in nodes}


def _group(graph: Graph, alike: Mapping[Node, Hashable]) -> list[list[Node]]:
    """Return the nodes of one kind that are alike, where they are enough."""
    found: dict[tuple[str, Hashable], list[Node]] = defaultdict(list)
    for node in graph.nodes:
        if node not in graph.roots:
            found[node.kind, alike.get(node)].append(node)
    return [nodes for nodes in found.values() if len(nodes) >= ALIKE]


def _list_neighbours(graph: Graph) -> Mapping[Node, set[tuple[str, str, Node]]]:
    beside: dict[Node, set[tuple[str, str, Node]]] = defaultdict(set)
    for edge in graph.edges:
        beside[edge.result].add(("from", edge.how, edge.origin))
        beside[edge.origin].add(("to", edge.how, edge.result))
    return beside
