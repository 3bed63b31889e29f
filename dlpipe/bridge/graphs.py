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


def find_steps_before(graph: Mapping[str, Any], step: str) -> list[str]:
    """Return the steps that lead to ``step``."""
    return [name for name, described in graph.get("steps", {}).items() if step in described.get("next", [])]


def find_steps_above(graph: Mapping[str, Any], step: str) -> set[str]:
    """Return the steps that lead to ``step``, and those that lead to them, and so on, without itself."""
    above: set[str] = set()
    waiting = [step]
    while waiting:
        new = set(find_steps_before(graph, waiting.pop())) - above - {step}
        above |= new
        waiting += sorted(new)
    return above


def order_steps(graph: Mapping[str, Any], began: Mapping[str, int]) -> list[str]:
    """Return steps as they began, none before those that lead to it.

    A run that was resumed takes over the tasks of another at once, in any order.

    Parameters
    ----------
    graph : mapping
        As ``read_graph`` returns it.
    began : mapping of str to int
        When each step began.

    Examples
    --------
    >>> steps = {"start": {"next": ["train"]}, "train": {"next": ["end"]}, "end": {"next": []}}
    >>> order_steps({"steps": steps}, {"train": 1, "start": 2, "end": 3})
    ['start', 'train', 'end']
    """
    above = {step: find_steps_above(graph, step) for step in began}
    earliest = {step: max([at, *(began.get(name, at) for name in above[step])]) for step, at in began.items()}
    return sorted(began, key=lambda step: (earliest[step], len(above[step]), step))


def count_retries(graph: Mapping[str, Any], step: str) -> int:
    """Return how often a step is tried again."""
    times = [str(decorator.get("times", 0)) for decorator in find_decorators(graph, step, "retry")]
    return max((int(text) for text in times if text.isdigit()), default=0)
