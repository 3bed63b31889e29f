"""Edges between nodes, and the graph that they make."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from dlpipe.lineage.nodes import Node

How = Literal[
    "ingested from",
    "labelled by",
    "appended to",
    "part of",
    "set aside from",
    "trained on",
    "evaluated on",
    "made by",
    "made from",
    "points to",
    "moved by",
    "scored",
    "scored with",
    "explained",
    "explained with",
    "compared",
    "answered with",
    "started by",
    "resumed from",
    "published by",
    "ran",
    "used",
    "tuned by",
]


@dataclass(frozen=True, order=True)
class Edge:
    """How one node came of another: ``result`` was ``how`` ``origin``, as in *reviews@v0 ingested from films.csv*.

    Attributes
    ----------
    result, origin : Node
    how : str
    note : str
        What is to be known beside it, such as the split.
    """

    result: Node
    how: How
    origin: Node
    note: str = ""


def group_by_origin(edges: Iterable[Edge]) -> Mapping[Node, Sequence[Edge]]:
    """Return the edges by their origin."""
    found: dict[Node, list[Edge]] = defaultdict(list)
    for edge in edges:
        found[edge.origin].append(edge)
    return dict(found)


@dataclass(frozen=True)
class Facts:
    """What there is to say of a node.

    Attributes
    ----------
    at : int or None
        When it came to be, in milliseconds since 1970; ``None`` where nobody says.
    about : str
        A few words for people.
    gone : str
        Why it cannot be looked at any more; empty where it can.
    """

    at: int | None = None
    about: str = ""
    gone: str = ""


@dataclass(frozen=True)
class Graph:
    """What a walk has found.

    Attributes
    ----------
    roots : tuple of Node
        Where it began.
    edges : tuple of Edge
        In the order in which they were found, each once.
    facts : mapping of Node to Facts
        Of every node.
    unknown : mapping of Node to tuple of str
        What records do not say of a node, a sentence each.
    cut : frozenset of Node
        Those whose own neighbours were not asked for, since they are as far away as was wanted.
    problems : tuple of str
        Why some records could not be read, of which the graph so may lack something.
    up, down : tuple of Edge, optional
        The edges that lead from the roots to what they came of, and to what came of them; ``None`` for all.
    """

    roots: tuple[Node, ...]
    edges: tuple[Edge, ...]
    facts: Mapping[Node, Facts] = field(default_factory=dict)
    unknown: Mapping[Node, tuple[str, ...]] = field(default_factory=dict)
    cut: frozenset[Node] = frozenset()
    problems: tuple[str, ...] = ()
    up: tuple[Edge, ...] | None = None
    down: tuple[Edge, ...] | None = None

    def list_edges(self, direction: Literal["up", "down"]) -> tuple[Edge, ...]:
        """Return the edges by which a root leads to what it came of, or to what came of it."""
        half = self.up if direction == "up" else self.down
        return self.edges if half is None else half

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Every node, the roots first, then as they were found."""
        found = [*self.roots, *(node for edge in self.edges for node in (edge.result, edge.origin))]
        return tuple(dict.fromkeys(found))
