"""A graph for programs: as JSON, for Graphviz (DOT), and for network tools (GraphML)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from dlpipe.lineage.graph import Facts, Graph
from dlpipe.lineage.nodes import Node
from dlpipe.terminal import make_visible
from dlpipe.time_formats import format_iso

NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
NODE_KEYS, EDGE_KEYS = ("label", "kind", "at", "about", "gone"), ("how", "note")


def to_plain(graph: Graph) -> dict[str, Any]:
    """Return a graph as JSON has it: roots and nodes by their ids, edges from ``result`` to ``origin``."""
    return {
        "roots": [node.id for node in graph.roots],
        "nodes": [to_plain_node(node, graph) for node in graph.nodes],
        "edges": [
            {"result": edge.result.id, "how": edge.how, "origin": edge.origin.id, "note": edge.note}
            for edge in graph.edges
        ],
        "problems": list(graph.problems),
    }


def to_plain_node(node: Node, graph: Graph) -> dict[str, Any]:
    """Return a node as JSON has it, with what there is to say of it."""
    facts = graph.facts.get(node, Facts())
    return {
        "id": node.id,
        "kind": node.kind,
        "label": str(node),
        "name": node.name,
        "number": node.number,
        "key": node.key,
        "at": None if facts.at is None else format_iso(facts.at / 1000),
        "about": facts.about,
        "gone": facts.gone,
        "unknown": list(graph.unknown.get(node, ())),
        "cut": node in graph.cut,
    }


def to_dot(graph: Graph) -> str:
    """Return a graph in the language of Graphviz, origins on the left."""
    return "\n".join(["digraph lineage {", "  rankdir=LR;", "  node [shape=box];", *_list_dot(graph), "}"])


def _list_dot(graph: Graph) -> Iterator[str]:
    for node in graph.nodes:
        bold = ", style=bold" if node in graph.roots else ""
        label = _quote(f"{node.kind}\n{node}")
        yield f"  {_quote(node.id)} [label={label}{bold}];"
    for edge in graph.edges:
        yield f"  {_quote(edge.origin.id)} -> {_quote(edge.result.id)} [label={_quote(edge.how)}];"


def _quote(text: str) -> str:
    """Return a text between quotes, as DOT has it; what JSON escapes is escaped there in the same way."""
    return json.dumps(text, ensure_ascii=False)


def to_graphml(graph: Graph) -> str:
    """Return a graph as GraphML, edges from origin to result."""
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<graphml xmlns="http://graphml.graphdrawing.org/xmlns">'
    keys = [
        f'  <key id="{of}-{name}" for="{of}" attr.name="{name}" attr.type="string"/>'
        for of, names in (("node", NODE_KEYS), ("edge", EDGE_KEYS))
        for name in names
    ]
    return "\n".join(
        [head, *keys, '  <graph edgedefault="directed">', *_list_graphml(graph), "  </graph>", "</graphml>"]
    )


def _list_graphml(graph: Graph) -> Iterator[str]:
    for node in graph.nodes:
        plain = to_plain_node(node, graph)
        yield f"    <node id={_to_attribute(node.id)}>"
        yield from _list_data("node", {name: plain[name] for name in NODE_KEYS})
        yield "    </node>"
    for edge in graph.edges:
        yield f"    <edge source={_to_attribute(edge.origin.id)} target={_to_attribute(edge.result.id)}>"
        yield from _list_data("edge", {"how": edge.how, "note": edge.note})
        yield "    </edge>"


def _list_data(of: str, values: dict[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if value:
            yield f'      <data key="{of}-{name}">{escape(_to_xml(str(value)))}</data>'


def _to_attribute(text: str) -> str:
    return quoteattr(_to_xml(text))


def _to_xml(text: str) -> str:
    return NOT_IN_XML.sub("", make_visible(text))
