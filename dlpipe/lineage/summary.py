"""What a graph holds, in one line: how many things of which kind, the ones that people ask for first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from dlpipe.lineage.graph import Graph
from dlpipe.lineage.nodes import Node
from dlpipe.registry import CHAMPION

NAMES: Mapping[str, tuple[str, str]] = {
    "model": ("model", "models"),
    "file": ("file", "files"),
    "line": ("line", "lines"),
    "row": ("row", "rows"),
    "quarantined": ("quarantined row", "quarantined rows"),
    "table": ("version of a table", "versions of tables"),
    "prediction": ("prediction", "predictions"),
    "explanation": ("explanation", "explanations"),
    "request": ("request", "requests"),
    "feedback": ("label sent back", "labels sent back"),
    "predictions": ("batch of predictions", "batches of predictions"),
    "explanations": ("batch of explanations", "batches of explanations"),
    "requests": ("log of requests", "logs of requests"),
    "look": ("look at drift", "looks at drift"),
    "event": ("event", "events"),
    "move": ("move of an alias", "moves of aliases"),
    "run": ("run", "runs"),
    "task": ("task", "tasks"),
    "code": ("code package", "code packages"),
}
"""Kind -> what one and what many are called, in the order in which they are told; other kinds come after them."""


def summarize(nodes: Iterable[Node], graph: Graph) -> str:
    """Return how many of each kind there are; of models, which one is champion.

    Examples
    --------
    >>> nodes = [Node("run", "TrainFlow", key="17"), Node("model", "reviews", 1), Node("model", "reviews", 2)]
    >>> summarize(nodes, Graph((nodes[0],), ()))
    '2 models, 1 run'
    """
    found = list(dict.fromkeys(nodes))
    counts = Counter(node.kind for node in found)
    order = {kind: place for place, kind in enumerate(NAMES)}
    return ", ".join(
        format_count(kind, counts[kind]) + (name_champions(found, graph) if kind == "model" else "")
        for kind in sorted(counts, key=lambda kind: order.get(kind, len(order)))
    )


def format_count(kind: str, count: int) -> str:
    """Return a number of things of a kind in words.

    Examples
    --------
    >>> format_count("row", 2000), format_count("deployment", 2)
    ('2,000 rows', '2 deployments')
    """
    one, many = NAMES.get(kind, (kind, f"{kind}s"))
    return f"{count:,} {one if count == 1 else many}"


def name_champions(nodes: Iterable[Node], graph: Graph) -> str:
    """Return which of the nodes are champions now, in brackets; nothing if none is."""
    champions = [
        str(node)
        for node in nodes
        if node.kind == "model" and node in graph.facts and CHAMPION in graph.facts[node].about.split(", ")
    ]
    return f" (champion: {', '.join(champions)})" if champions else ""
