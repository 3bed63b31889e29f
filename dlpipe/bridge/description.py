"""A run in Markdown, and its graph as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlpipe.bridge.drawing import draw_graph
from dlpipe.bridge.names import format_score
from dlpipe.bridge.totals import RunTotals, TaskTotals

MOST_CAUGHT, MOST_SCORES, MOST_THINGS = 5, 8, 6


@dataclass(frozen=True)
class AttemptSummary:
    """What the page shows of an attempt; times in milliseconds since 1970.

    ``caught`` is the exception that ``@catch`` took, ``error`` the one that failed it.
    """

    step: str
    task: str
    number: int
    status: str
    start: int
    end: int | None
    origin: str | None
    caught: str = ""
    error: str = ""


def describe_run(
    graph: Mapping[str, Any],
    attempts: Sequence[AttemptSummary],
    *,
    reached: Sequence[str] = (),
    head: str = "",
    resume: str = "",
) -> str:
    """Return the description of a run: what went wrong, what it reached, what it is.

    MLflow shows the first lines of it, and the rest after a click. Its page shows neither Mermaid nor pictures in
    a description, so the graph is in words here.

    Parameters
    ----------
    graph : mapping
        As ``read_graph`` returns it.
    attempts : sequence of AttemptSummary
        Of all tasks, in the order of the run's snapshot.
    reached : sequence of str, optional
        Lines of ``describe_results``.
    head : str, optional
        A line above the graph.
    resume : str, optional
        The command that takes up a run that has stopped before its end.

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
        _describe_stop(attempts, resume),
        _describe_retries(attempts),
        _describe_caught(attempts),
        *reached,
        str(graph.get("doc") or "").strip().partition("\n\n")[0],
        head,
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


def describe_results(totals: RunTotals | TaskTotals) -> list[str]:
    """Return what was reached in lines: scores beside those of a baseline, verdicts, data and models.

    Examples
    --------
    >>> from dlpipe.bridge.totals import RunTotals
    >>> totals = RunTotals(scores={"accuracy": 0.875}, baseline={"accuracy": 0.5}, verdicts=("passed: good",))
    >>> describe_results(totals)
    ['accuracy **0.875** (baseline 0.500)', 'Verdict: passed: good']
    """
    scores = [
        f"{name} **{format_score(value)}**"
        + (f" (baseline {format_score(totals.baseline[name])})" if name in totals.baseline else "")
        for name, value in list(totals.scores.items())[:MOST_SCORES]
    ]
    verdicts = totals.verdicts if isinstance(totals.verdicts, tuple) else totals.verdicts.values()
    tables = list(dict.fromkeys(f"{data.table} v{data.version} ({data.rows:,} rows)" for data in totals.datasets))
    made = [f"{model.name} v{model.version}" for model in totals.models if model.role == "made"]
    used = [f"{model.name} v{model.version}" for model in totals.models if model.role == "used"]
    things = [
        f"{word}: {', '.join(_take_first(names, MOST_THINGS))}"
        for word, names in (("Data", tables), ("Models made", made), ("Models used", used))
        if names
    ]
    return [
        part for part in (", ".join(scores), *(f"Verdict: {text}" for text in verdicts), ". ".join(things)) if part
    ]


def _take_first(names: Sequence[str], most: int) -> list[str]:
    return [*names[:most], *([f"{len(names) - most} more"] if len(names) > most else [])]


def describe_task(graph: Mapping[str, Any], attempts: Sequence[AttemptSummary], totals: TaskTotals) -> str:
    """Return the description of an attempt: why it failed or was tried again, what it reached, what it does.

    Parameters
    ----------
    graph : mapping
        As ``read_graph`` returns it.
    attempts : sequence of AttemptSummary
        Those of the task up to this one, which is the last.
    totals : TaskTotals
        What it left.

    Examples
    --------
    >>> from dlpipe.bridge.totals import TaskTotals
    >>> failed = AttemptSummary("train", "2", 0, "FAILED", 0, 9, None, error="ValueError: no")
    >>> graph = {"steps": {"train": {"doc": "Train."}}}
    >>> print(describe_task(graph, [failed], TaskTotals()))
    **Failed:** `ValueError: no`
    <BLANKLINE>
    Train.
    """
    *before, this = attempts
    failed = f"**Failed:** {_quote(this.error)}" if this.error else ""
    again = f"Tried again after {_quote(before[-1].error) or before[-1].status.lower()}." if before else ""
    doc = str(graph.get("steps", {}).get(this.step, {}).get("doc") or "").strip().partition("\n\n")[0]
    return "\n\n".join(part for part in (failed, again, *describe_results(totals), doc) if part)


def _quote(text: str) -> str:
    return f"`{text.replace('`', '')}`" if text else ""


def _describe_stop(attempts: Sequence[AttemptSummary], resume: str) -> str:
    """Return why a run stopped before its end, in a line, and what to do; nothing of one that has not stopped."""
    if not resume:
        return ""
    last = {attempt.task: attempt for attempt in attempts}.values()
    stopped = [attempt for attempt in last if attempt.status in ("FAILED", "KILLED")]
    stopped.sort(key=lambda attempt: attempt.status != "FAILED")
    again = f"After a repair, `{resume}` goes on from there."
    if not stopped:
        return f"**Killed** between two steps. {again}"
    first = stopped[0]
    why = f": {_quote(first.error)}" if first.error else ", its log says why" if first.status == "FAILED" else ""
    others = len(stopped) - 1
    more = f" ({others} other task{'s' * (others > 1)} did not end well)" if others else ""
    return f"**{first.status.capitalize()} in `{first.step}`** (task {first.task}){why}{more}. {again}"


def _describe_retries(attempts: Sequence[AttemptSummary]) -> str:
    """Return the tasks that were tried again, each with why, in a line; of many, the first ones."""
    by_task: dict[str, list[AttemptSummary]] = {}
    for attempt in attempts:
        by_task.setdefault(attempt.task, []).append(attempt)
    found = [
        f"`{its[0].step}` (task {task}) {len(its) - 1} time{'s' * (len(its) > 2)}"
        f", after {_quote(its[-2].error) or its[-2].status.lower()}"
        for task, its in by_task.items()
        if len(its) > 1
    ]
    more = f" and {len(found) - MOST_CAUGHT} more" if len(found) > MOST_CAUGHT else ""
    return f"**Tried again:** {'; '.join(found[:MOST_CAUGHT])}{more}" if found else ""


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
    steps = dict.fromkeys([*graph.get("steps", {}), *(attempt.step for attempt in attempts)])
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
