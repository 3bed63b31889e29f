"""A run in Markdown: its graph, and a row for each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Attempted:
    """What the page says of an attempt; times in milliseconds since 1970."""

    step: str
    task: str
    number: int
    status: str
    start: int
    end: int | None
    origin: str | None


def described(graph: Mapping[str, Any], attempts: Sequence[Attempted], *, head: str = "") -> str:
    """Return the description of a run; ``head`` is a line above its graph.

    Examples
    --------
    >>> graph = {"doc": "Add.", "steps": {"start": {"next": ["end"]}, "end": {"next": []}}}
    >>> print(described(graph, [Attempted("start", "1", 0, "FINISHED", 0, 1500, None)]))
    Add.
    <BLANKLINE>
    ```mermaid
    graph LR
      start --> end_
    ```
    <BLANKLINE>
    | step | tasks | attempts | status | seconds |
    |---|---|---|---|---|
    | start | 1 | 1 | finished | 1.5 |
    """
    parts = [str(graph.get("doc") or "").strip(), head, _mermaid(graph), _table(graph, attempts)]
    return "\n\n".join(part for part in parts if part)


def _mermaid(graph: Mapping[str, Any]) -> str:
    steps = graph.get("steps", {})
    arrows = [
        f"  {_node(name)} --> {_node(after)}" for name, step in steps.items() for after in step.get("next", [])
    ]
    return "\n".join(["```mermaid", "graph LR", *arrows, "```"]) if arrows else ""


def _node(step: str) -> str:
    return "end_" if step == "end" else step  # "end" is a word of Mermaid


def _table(graph: Mapping[str, Any], attempts: Sequence[Attempted]) -> str:
    order = graph.get("graph_structure") or []
    steps = list(
        dict.fromkeys([*(name for name in order if isinstance(name, str)), *(one.step for one in attempts)])
    )
    rows = [_row(step, [one for one in attempts if one.step == step]) for step in steps]
    head = ["| step | tasks | attempts | status | seconds |", "|---|---|---|---|---|"]
    return "\n".join([*head, *(row for row in rows if row)])


def _row(step: str, attempts: Sequence[Attempted]) -> str:
    if not attempts:
        return ""
    last = {one.task: one for one in attempts}
    counts: dict[str, int] = {}
    for one in last.values():
        word = "reused" if one.origin else one.status.lower()
        counts[word] = counts.get(word, 0) + 1
    status = ", ".join(word if len(last) == 1 else f"{count} {word}" for word, count in sorted(counts.items()))
    ends = [one.end for one in attempts if one.end is not None]
    seconds = f"{(max(ends) - min(one.start for one in attempts)) / 1000:.1f}" if ends else ""
    return f"| {step} | {len(last)} | {len(attempts)} | {status} | {seconds} |"
