"""A run in Markdown, and its graph as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlpipe.bridge.drawing import drawn

MOST_CAUGHT = 5


@dataclass(frozen=True)
class Attempted:
    """What the page says of an attempt; times in milliseconds since 1970.

    ``caught`` is the exception that ``@catch`` took.
    """

    step: str
    task: str
    number: int
    status: str
    start: int
    end: int | None
    origin: str | None
    caught: str = ""


def described(graph: Mapping[str, Any], attempts: Sequence[Attempted], *, head: str = "") -> str:
    """Return the description of a run; ``head`` is a line above its graph.

    MLflow's page shows neither Mermaid nor pictures in a description, so the graph is in words here.

    Examples
    --------
    >>> graph = {"doc": "Add.", "steps": {"start": {"next": ["end"]}, "end": {"next": []}}}
    >>> print(described(graph, [Attempted("start", "1", 0, "FINISHED", 0, 1500, None)]))
    Add.
    <BLANKLINE>
    ```
    start -> end
    ```
    <BLANKLINE>
    | step | tasks | attempts | status | seconds |
    |---|---|---|---|---|
    | start | 1 | 1 | finished | 1.5 |
    """
    parts = [
        str(graph.get("doc") or "").strip(),
        head,
        _caught(attempts),
        _in_words(graph),
        _table(graph, attempts),
    ]
    return "\n\n".join(part for part in parts if part)


def picture(graph: Mapping[str, Any], attempts: Sequence[Attempted]) -> str:
    """Return the graph as SVG, each step with the number of its tasks, its seconds and how it ended."""
    said, status = {}, {}
    for step in dict.fromkeys(one.step for one in attempts):
        its = [one for one in attempts if one.step == step]
        counts, seconds = _counts(its), _seconds(its)
        tasks = sum(counts.values())
        said[step] = f"{f'{tasks} tasks, ' if tasks > 1 else ''}{f'{seconds} s' if seconds else ''}"
        order = ("running", "failed", "killed", "caught", "finished", "reused")
        status[step] = next(word for word in order if word in counts)
    return drawn({name: step.get("next", []) for name, step in graph.get("steps", {}).items()}, said, status)


def _caught(attempts: Sequence[Attempted]) -> str:
    """Return a line for each exception that ``@catch`` took; of many, the first ones."""
    found = [f"{one.step}/{one.task}: `{one.caught.replace('`', '')}`" for one in attempts if one.caught]
    more = f" and {len(found) - MOST_CAUGHT} more" if len(found) > MOST_CAUGHT else ""
    return f"**Caught by `@catch`:** {'; '.join(found[:MOST_CAUGHT])}{more}" if found else ""


def _in_words(graph: Mapping[str, Any]) -> str:
    steps = graph.get("steps", {})
    signs = {"split-foreach": "each ->", "split-parallel": "each ->", "split-switch": "one of ->"}
    arrows = [
        f"{name} {signs.get(step.get('type'), '->')} {', '.join(step['next'])}"
        for name, step in steps.items()
        if step.get("next")
    ]
    return "\n".join(["```", *arrows, "```"]) if arrows else ""


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
    counts = _counts(attempts)
    tasks = sum(counts.values())
    status = ", ".join(word if tasks == 1 else f"{count} {word}" for word, count in sorted(counts.items()))
    return f"| {step} | {tasks} | {len(attempts)} | {status} | {_seconds(attempts)} |"


def _counts(attempts: Sequence[Attempted]) -> dict[str, int]:
    """Return how many tasks ended how, by their last attempts."""
    counts: dict[str, int] = {}
    for one in {one.task: one for one in attempts}.values():
        word = "reused" if one.origin else "caught" if one.caught else one.status.lower()
        counts[word] = counts.get(word, 0) + 1
    return counts


def _seconds(attempts: Sequence[Attempted]) -> str:
    ends = [one.end for one in attempts if one.end is not None]
    return f"{(max(ends) - min(one.start for one in attempts)) / 1000:.1f}" if ends else ""
