"""Where the nodes of a graph stand on a page: origins left of what came of them, and many alike as one group."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Hashable, Mapping

from dlpipe.lineage.graph import Graph
from dlpipe.lineage.nodes import Node

ALIKE = 4
"""So many nodes of one kind with the same neighbours are a group."""
MOST_BOXES = 60
"""More than so many at once are hard to read."""


def find_layers(graph: Graph) -> Mapping[Node, int]:
    """Return the column of each node, from 0: one more than that of the furthest of its origins.

    In a circle, such as one of drift and training, the node that was found first comes first.

    Examples
    --------
    >>> from dlpipe.lineage.graph import Edge
    >>> a, b, c = (Node("table", "/t", number) for number in range(3))
    >>> graph = Graph((c,), (Edge(c, "appended to", b), Edge(b, "appended to", a)))
    >>> [find_layers(graph)[node] for node in (a, b, c)]
    [0, 1, 2]
    """
    pairs = {(edge.origin, edge.result) for edge in graph.edges if edge.origin != edge.result}
    waiting_for, results = Counter(result for _, result in pairs), defaultdict[Node, list[Node]](list)
    for origin, result in pairs:
        results[origin].append(result)
    layers = dict.fromkeys(graph.nodes, 0)
    left = dict.fromkeys(graph.nodes)
    ready = deque(node for node in left if not waiting_for[node])
    while left:
        node = ready.popleft() if ready else next(iter(left))
        if node not in left:
            continue
        del left[node]
        for result in results[node]:
            waiting_for[result] -= 1
            if result in left:
                layers[result] = max(layers[result], layers[node] + 1)
                if waiting_for[result] <= 0:
                    ready.append(result)
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
