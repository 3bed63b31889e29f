"""A graph as a tree of lines, for people: up to what a node came of, down to what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from dlpipe.lineage.graph import Edge, Facts, Graph
from dlpipe.lineage.nodes import Node
from dlpipe.lineage.summary import summarize
from dlpipe.terminal import cut_to_width
from dlpipe.time_formats import format_moment, to_moment

WIDEST = 100
"""Columns of a terminal for what there is to say of a node."""
Branches = Mapping[Node, Mapping[Node, str]]
"""The neighbours of each node, and how each is one."""
TITLES: Mapping[Literal["up", "down"], str] = {"up": "what it came of", "down": "what came of it"}


def format_tree(graph: Graph) -> Iterator[str]:
    """Yield the lines of a graph: each root with what it came of, and then what came of it.

    A node that stands further up is not spread out again.
    """
    for number, root in enumerate(graph.roots):
        if number:
            yield ""
        yield format_node(root, graph.facts.get(root, Facts()))
        for direction, title in TITLES.items():
            half = _Half(graph, root, direction)
            if lines := list(half.format_below(root)):
                told = summarize((node for node in half.branches if node != root), graph)
                yield f"{title}: {told}" if told else title
                yield from lines


def format_node(node: Node, facts: Facts, how: str = "{}") -> str:
    """Return a node with what there is to say of it, on one line.

    Parameters
    ----------
    node : Node
    facts : Facts
    how : str, optional
        What is said around its name, such as ``{} trained on it``.

    Examples
    --------
    >>> format_node(Node("model", "reviews", 3), Facts(0, "champion"))
    'models:/reviews/3  champion, 1970-01-01 00:00 UTC'
    >>> format_node(Node("file", "a/films.csv", key="ab" * 32), Facts(gone="it was changed"), "ingested from {}")
    'ingested from films.csv  gone: it was changed'
    """
    moment = "" if facts.at is None else format_moment(to_moment(facts.at))
    about = ", ".join(
        filter(None, (cut_to_width(facts.about, WIDEST), moment, facts.gone and f"gone: {facts.gone}"))
    )
    name = how.replace("{}", str(node))
    return f"{name}  {about}" if about else name


def list_branches(graph: Graph, root: Node, direction: Literal["up", "down"]) -> Branches:
    """Return the neighbours of each node that a root leads to; two edges between the same nodes are one."""
    beside: dict[Node, list[Edge]] = {}
    for edge in graph.list_edges(direction):
        beside.setdefault(edge.result if direction == "up" else edge.origin, []).append(edge)
    branches: dict[Node, Mapping[Node, str]] = {}
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node in branches:
            continue
        words: dict[Node, list[str]] = {}
        for edge in beside.get(node, ()):
            far = edge.origin if direction == "up" else edge.result
            words.setdefault(far, []).append(format_how(edge, direction))
        branches[node] = {far: join_hows(hows) for far, hows in words.items()}
        waiting += words
    return branches


def format_how(edge: Edge, direction: Literal["up", "down"]) -> str:
    """Return how one end of an edge is a neighbour of the other, with a place for its name.

    Examples
    --------
    >>> edge = Edge(Node("model", "a", 1), "trained on", Node("row", "/t", 0, "x"), "train split")
    >>> format_how(edge, "up"), format_how(edge, "down")
    ('trained on {} (train split)', '{} trained on it (train split)')
    """
    words = f"{edge.how} {{}}" if direction == "up" else f"{{}} {edge.how} it"
    return f"{words} ({edge.note})" if edge.note else words


def join_hows(hows: Sequence[str]) -> str:
    """Return several ways of being a neighbour as one.

    Examples
    --------
    >>> join_hows(["trained on {}", "evaluated on {}"]), join_hows(["{} trained on it", "{} evaluated on it"])
    ('trained on, evaluated on {}', '{} trained on, evaluated on it')
    """
    words = list(dict.fromkeys(hows))
    if len(words) == 1:
        return words[0]
    place, rest = ("{}", " it") if words[0].startswith("{}") else ("", " {}")
    bare = [how.removeprefix("{} ").replace(rest, "", 1) for how in words]
    return " ".join(filter(None, (place, ", ".join(bare)))) + rest


class _Half:
    """One direction of a graph from one root."""

    def __init__(self, graph: Graph, root: Node, direction: Literal["up", "down"]) -> None:
        self.graph, self.branches = graph, list_branches(graph, root, direction)
        self.unknown = graph.unknown if direction == "up" else {}
        self.shown: set[Node] = set()

    def format_below(self, node: Node, indent: str = "") -> Iterator[str]:
        """Yield the lines below that of a node."""
        self.shown.add(node)
        problems, neighbours = self.unknown.get(node, ()), self.branches.get(node, {})
        left = len(problems) + len(neighbours)
        for problem in problems:
            left -= 1
            yield f"{indent}{'├─' if left else '└─'} unknown: {problem}"
        for far, how in neighbours.items():
            left -= 1
            again = far in self.shown and bool(self.branches.get(far))
            more = "  (see above)" if again else "  (more with a larger --depth)" if far in self.graph.cut else ""
            line = format_node(far, self.graph.facts.get(far, Facts()), how)
            yield f"{indent}{'├─' if left else '└─'} {line}{more}"
            if far not in self.shown:
                yield from self.format_below(far, f"{indent}{'│  ' if left else '   '}")
