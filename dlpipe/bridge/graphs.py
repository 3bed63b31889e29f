"""The graph of a flow as Metaflow keeps it with each run; what is not of its kind is left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def read_graph(value: Any) -> dict[str, Any]:
    """Return the graph in Metaflow's ``_graph_info``: ``doc``, ``steps`` in order, and ``parameters``.

    Examples
    --------
    >>> read_graph({"doc": "Add.", "steps": {"start": {"type": "linear", "next": ["end"]}, "end": 3}})["steps"]
    {'start': {'type': 'linear', 'doc': '', 'next': ['end'], 'decorators': []}}
    >>> read_graph("damaged")
    {}
    """
    if not isinstance(value, Mapping):
        return {}
    steps = value.get("steps")
    pairs = steps.items() if isinstance(steps, Mapping) else ()
    return {
        "doc": str(value.get("doc") or ""),
        "steps": {str(name): _read_step(pair) for name, pair in pairs if isinstance(pair, Mapping)},
        "parameters": [
            {"name": str(mapping.get("name")), "type": str(mapping.get("type"))}
            for mapping in _find_mappings(value.get("parameters"))
        ],
    }


def _read_step(step: Mapping[str, Any]) -> dict[str, Any]:
    after = step.get("next")
    decorators = [
        {"name": str(mapping.get("name")), "attributes": mapping.get("attributes") or {}}
        for mapping in _find_mappings(step.get("decorators"))
    ]
    return {
        "type": str(step.get("type")),
        "doc": str(step.get("doc") or ""),
        "next": [str(name) for name in after] if isinstance(after, list | tuple) else [],
        "decorators": decorators,
    }


def _find_mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    yield from (item for item in (value if isinstance(value, list | tuple) else ()) if isinstance(item, Mapping))


def find_decorators(graph: Mapping[str, Any], step: str, name: str) -> list[Mapping[str, Any]]:
    """Return the attributes of each decorator ``name`` of a step.

    Parameters
    ----------
    graph : mapping
        As ``read_graph`` returns it.
    step : str
        Name of the step.
    name : str
        Of the decorator, such as ``retry``.

    Examples
    --------
    >>> retry = {"name": "retry", "attributes": {"times": 2}}
    >>> find_decorators({"steps": {"train": {"decorators": [retry]}}}, "train", "retry")
    [{'times': 2}]
    """
    found = graph.get("steps", {}).get(step, {}).get("decorators", [])
    return [
        decorator["attributes"]
        for decorator in found
        if decorator["name"] == name and isinstance(decorator["attributes"], Mapping)
    ]


def count_retries(graph: Mapping[str, Any], step: str) -> int:
    """Return how often a step is tried again."""
    times = [str(decorator.get("times", 0)) for decorator in find_decorators(graph, step, "retry")]
    return max((int(text) for text in times if text.isdigit()), default=0)
