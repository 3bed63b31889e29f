"""The graph of a flow as Metaflow keeps it with each run; what is not of its kind is left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def read_graph(value: Any) -> dict[str, Any]:
    """Return the graph in Metaflow's ``_graph_info``: ``doc``, ``steps``, ``parameters`` and ``graph_structure``.

    Examples
    --------
    >>> read_graph({"doc": "Add.", "steps": {"start": {"type": "linear", "next": ["end"]}, "end": 3}})["steps"]
    {'start': {'type': 'linear', 'next': ['end'], 'decorators': []}}
    >>> read_graph("damaged")
    {}
    """
    if not isinstance(value, Mapping):
        return {}
    steps = value.get("steps")
    pairs = steps.items() if isinstance(steps, Mapping) else ()
    order = value.get("graph_structure")
    return {
        "doc": str(value.get("doc") or ""),
        "steps": {str(name): _read_step(one) for name, one in pairs if isinstance(one, Mapping)},
        "parameters": [
            {"name": str(one.get("name")), "type": str(one.get("type"))}
            for one in _find_mappings(value.get("parameters"))
        ],
        "graph_structure": [one for one in order if isinstance(one, str)] if isinstance(order, list) else [],
    }


def _read_step(said: Mapping[str, Any]) -> dict[str, Any]:
    after = said.get("next")
    decorators = [
        {"name": str(one.get("name")), "attributes": one.get("attributes") or {}}
        for one in _find_mappings(said.get("decorators"))
    ]
    return {
        "type": str(said.get("type")),
        "next": [str(one) for one in after] if isinstance(after, list | tuple) else [],
        "decorators": decorators,
    }


def _find_mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    yield from (one for one in (value if isinstance(value, list | tuple) else ()) if isinstance(one, Mapping))


def find_decorators(graph: Mapping[str, Any], step: str, name: str) -> list[Mapping[str, Any]]:
    """Return the attributes of each decorator ``name`` of a step.

    Examples
    --------
    >>> retry = {"name": "retry", "attributes": {"times": 2}}
    >>> find_decorators({"steps": {"train": {"decorators": [retry]}}}, "train", "retry")
    [{'times': 2}]
    """
    found = graph.get("steps", {}).get(step, {}).get("decorators", [])
    return [one["attributes"] for one in found if one["name"] == name and isinstance(one["attributes"], Mapping)]


def count_retries(graph: Mapping[str, Any], step: str) -> int:
    """Return how often a step is tried again."""
    said = [str(one.get("times", 0)) for one in find_decorators(graph, step, "retry")]
    return max((int(one) for one in said if one.isdigit()), default=0)
