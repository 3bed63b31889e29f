"""A run in Markdown, and its graph as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlpipe.bridge.drawing import draw_graph

MOST_CAUGHT = 5


@dataclass(frozen=True)
class AttemptSummary:
    """What the page shows of an attempt; times in milliseconds since 1970.

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


def describe_run(graph: Mapping[str, Any], attempts: Sequence[AttemptSummary], *, head: str = "") -> str:
    """Return the description of a run.

    MLflow's page shows neither Mermaid nor pictures in a description, so the graph is in words here.

    Parameters
    ----------
    graph : mapping
        As ``read_graph`` returns it.
    attempts : sequence of AttemptSummary
        Of all tasks, in the order of the run's snapshot.
    head : str, optional
        A line above the graph.

    Examples
    --------
    >>> graph = {"doc": "Add.", "steps": {"start": {"next": ["end"]}, "end": {"next": []}}}
    >>> print(describe_run(graph, [AttemptSummary("start", "1", 0, "FINISHED", 0, 1500, None)]))
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
        _describe_caught(attempts),
        _describe_graph(graph),
        _make_table(graph, attempts),
    ]
    return "\n\n".join(part for part in parts if part)


def draw_run(graph: Mapping[str, Any], attempts: Sequence[AttemptSummary]) -> str:
    """Return the graph as SVG, each step with the number of its tasks, its seconds and how it ended."""
    labels, status = {}, {}
    for step in dict.fromkeys(attempt.step for attempt in attempts):
        its = [attempt for attempt in attempts if attempt.step == step]
        counts, seconds = _count_statuses(its), _format_seconds(its)
        tasks = sum(counts.values())
        labels[step] = f"{f'{tasks} tasks, ' if tasks > 1 else ''}{f'{seconds} s' if seconds else ''}"
        order = ("running", "failed", "killed", "caught", "finished", "reused")
        status[step] = next(word for word in order if word in counts)
    return draw_graph(
        {name: step.get("next", []) for name, step in graph.get("steps", {}).items()}, labels, status
    )


def _describe_caught(attempts: Sequence[AttemptSummary]) -> str:
    """Return a line for each exception that ``@catch`` took; of many, the first ones."""
    found = [
        f"{attempt.step}/{attempt.task}: `{attempt.caught.replace('`', '')}`"
        for attempt in attempts
        if attempt.caught
    ]
    more = f" and {len(found) - MOST_CAUGHT} more" if len(found) > MOST_CAUGHT else ""
    return f"**Caught by `@catch`:** {'; '.join(found[:MOST_CAUGHT])}{more}" if found else ""


def _describe_graph(graph: Mapping[str, Any]) -> str:
    steps = graph.get("steps", {})
    signs = {"split-foreach": "each ->", "split-parallel": "each ->", "split-switch": "one of ->"}
    arrows = [
        f"{name} {signs.get(step.get('type'), '->')} {', '.join(step['next'])}"
        for name, step in steps.items()
        if step.get("next")
    ]
    return "\n".join(["```", *arrows, "```"]) if arrows else ""


def _make_table(graph: Mapping[str, Any], attempts: Sequence[AttemptSummary]) -> str:
    order = graph.get("graph_structure") or []
    steps = list(
        dict.fromkeys(
            [*(name for name in order if isinstance(name, str)), *(attempt.step for attempt in attempts)]
        )
    )
    rows = [_make_row(step, [attempt for attempt in attempts if attempt.step == step]) for step in steps]
    head = ["| step | tasks | attempts | status | seconds |", "|---|---|---|---|---|"]
    return "\n".join([*head, *(row for row in rows if row)])


def _make_row(step: str, attempts: Sequence[AttemptSummary]) -> str:
    if not attempts:
        return ""
    counts = _count_statuses(attempts)
    tasks = sum(counts.values())
    status = ", ".join(word if tasks == 1 else f"{count} {word}" for word, count in sorted(counts.items()))
    return f"| {step} | {tasks} | {len(attempts)} | {status} | {_format_seconds(attempts)} |"


def _count_statuses(attempts: Sequence[AttemptSummary]) -> dict[str, int]:
    """Return how many tasks ended how, by their last attempts."""
    counts: dict[str, int] = {}
    for last in {attempt.task: attempt for attempt in attempts}.values():
        word = "reused" if last.origin else "caught" if last.caught else last.status.lower()
        counts[word] = counts.get(word, 0) + 1
    return counts


def _format_seconds(attempts: Sequence[AttemptSummary]) -> str:
    ends = [attempt.end for attempt in attempts if attempt.end is not None]
    return f"{(max(ends) - min(attempt.start for attempt in attempts)) / 1000:.1f}" if ends else ""
