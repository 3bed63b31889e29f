"""A graph as one page that needs nothing else: its script is in it, and nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from pathlib import Path
from typing import Any

from dlpipe.lineage.formats import to_plain_node
from dlpipe.lineage.graph import Graph
from dlpipe.lineage.layers import find_groups, find_layers
from dlpipe.lineage.summary import summarize
from dlpipe.lineage.tree import TITLES, list_branches
from dlpipe.terminal import make_visible

FOLDER = Path(__file__).parent
HINT = "Origins are on the left. Click a box to see what it came of and what came of it."


def make_page(graph: Graph) -> str:
    """Return a graph as HTML: boxes from origins on the left to results on the right, and what is known of each.

    A click on a box shows what it came of and what came of it; many alike are one box, which a click opens.
    """
    script, style = ((FOLDER / f"page.{ending}").read_text(encoding="utf-8") for ending in ("js", "css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    title = escape(make_visible(f"Lineage of {', '.join(map(str, graph.roots[:3]))}"))
    # in a script element, only this sign could end it
    data = json.dumps(lay_out(graph)).replace("<", "\\u003c")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{style}</style></head>\n<body>\n"
        f"<header><h1>{title}</h1>{_tell_ends(graph)}<p class='faint'>{HINT}</p></header>\n"
        '<div id="page"><div id="drawing"><svg></svg></div><aside id="details" aria-live="polite"></aside></div>\n'
        f'<script id="graph" type="application/json">{data}</script>\n<script>{script}</script>\n</body></html>\n'
    )


def _tell_ends(graph: Graph) -> str:
    """Return what the first root came of, and what came of it, in a line each."""
    told = {
        TITLES[direction]: summarize(
            (node for node in list_branches(graph, root, direction) if node != root), graph
        )
        for root in graph.roots[:1]
        for direction in TITLES
    }
    lines = [
        f"<p><span>{escape(title)}</span> {escape(make_visible(text))}</p>" for title, text in told.items() if text
    ]
    return "".join(lines) or "<p>Nothing else is known that it came of or that came of it.</p>"


def lay_out(graph: Graph) -> dict[str, Any]:
    """Return what the script draws: nodes with their columns and groups, and edges by the numbers of nodes."""
    layers, groups = find_layers(graph), find_groups(graph)
    numbers = {node: number for number, node in enumerate(graph.nodes)}
    nodes = [
        {
            **{name: make_visible(value) if isinstance(value, str) else value for name, value in plain.items()},
            "layer": layers[node],
            "group": groups.get(node),
            "root": node in graph.roots,
        }
        for node in graph.nodes
        for plain in (to_plain_node(node, graph),)
    ]
    edges = [
        {
            "from": numbers[edge.origin],
            "to": numbers[edge.result],
            "how": edge.how,
            "note": make_visible(edge.note),
        }
        for edge in graph.edges
    ]
    return {"nodes": nodes, "edges": edges}
