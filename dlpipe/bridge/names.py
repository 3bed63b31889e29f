"""What runs are called in MLflow: by what tells one from the next."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

from dlpipe.bridge.attempts import TaskAttempt
from dlpipe.bridge.totals import RunTotals
from dlpipe.redaction import HIDDEN

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")  # in any locale
BETWEEN = " · "
LONGEST = 40
"""Characters of a data set, a model or the parameters in a name."""
LONGEST_NAME = 150
"""Characters of a name without its time; no store takes more than 250."""
DECIDING = "metric"
"""Last part of the name of a parameter that says which score decides, such as ``gate/metric``."""


def name_run(flow: str, created: int, totals: RunTotals, params: Mapping[str, str], *, stopped: str = "") -> str:
    """Return what a run is called: its data, the score that decides, and when it began.

    Without data, the flow stands there; without scores, the model that was used or the parameters.

    Parameters
    ----------
    flow : str
    created : int
        When it began, in milliseconds since 1970.
    totals : RunTotals
        What it has reached so far.
    params : mapping of str to str
        The run's own parameters.
    stopped : str, optional
        How and where it stopped before its end, such as ``failed in train``.

    Examples
    --------
    >>> name_run("QuickFlow", 0, RunTotals(scores={"accuracy": 0.9641}), {})
    'QuickFlow · 0.964 · 1 Jan 00:00'
    >>> name_run("QuickFlow", 0, RunTotals(), {"size": "2", "rate": "0.1"}, stopped="failed in train")
    'QuickFlow · size=2, rate=0.1 · failed in train · 1 Jan 00:00'
    """
    data = totals.datasets[0] if totals.datasets else None
    first = f"{data.table[:LONGEST]} v{data.version}" if data else flow
    used = next((model for model in totals.models if model.role == "used"), None)
    if (score := find_score(totals, params)) is not None:
        second = format_score(score)
    elif used is not None:
        second = f"by {used.name[:LONGEST]} v{used.version}"
    else:
        second = "" if data else _join_params(params)
    parts = [part for part in (first, second, stopped) if part]
    return f"{BETWEEN.join(parts)[:LONGEST_NAME]}{BETWEEN}{format_time(created)}"


def name_attempt(attempt: TaskAttempt, steps: Mapping[str, object], *, digits: int = 2) -> str:
    """Return what an attempt is called: the number of its step, the step, its place in a foreach.

    MLflow sorts names as texts, so that numbers are as long as the longest.

    Parameters
    ----------
    attempt : TaskAttempt
    steps : mapping
        The steps of the graph, by name.
    digits : int, optional
        Of a place in a foreach.

    Examples
    --------
    >>> attempt = TaskAttempt("Flow/1/fold/3", 1, 0, 9, "FINISHED", place="[7]")
    >>> name_attempt(attempt, {"start": {}, "fold": {}})
    '2 fold[07] (attempt 2)'
    """
    places = [part.zfill(digits) for part in attempt.place.strip("[]").split("][") if part]
    place = "".join(f"[{part}]" for part in places)
    return f"{number_step(attempt.step, steps)}{attempt.step[:LONGEST_NAME]}{place}{_add_words(attempt)}"


def find_former_name(attempt: TaskAttempt) -> str:
    """Return what an attempt was called before steps were numbered."""
    return f"{attempt.step}{attempt.place}{_add_words(attempt)}"


def _add_words(attempt: TaskAttempt) -> str:
    again = f" (attempt {attempt.number + 1})" if attempt.number else ""
    return f"{again}{' (exception caught)' if attempt.caught else ''}"


def number_step(step: str, steps: Mapping[str, object]) -> str:
    """Return the number of a step in its graph with a space behind it; nothing for a step that is not in it.

    Examples
    --------
    >>> number_step("train", {"start": {}, "train": {}, "end": {}})
    '2 '
    """
    order = list(steps)
    return f"{str(order.index(step) + 1).zfill(len(str(len(order))))} " if step in order else ""


def find_score(totals: RunTotals, params: Mapping[str, str]) -> float | None:
    """Return the score that decides, as a parameter such as ``gate/metric`` names it; else the first."""
    named = {**params, **totals.settings}
    deciding = sorted(
        (name for name, value in named.items() if name.rpartition("/")[2] == DECIDING and value in totals.scores),
        key=lambda name: "gate" not in name.split("/"),
    )
    if deciding:
        return totals.scores[named[deciding[0]]]
    return next(iter(totals.scores.values()), None)


def format_score(value: float) -> str:
    """Return a score as a person reads it.

    Examples
    --------
    >>> [format_score(value) for value in (0.96411, 12.345, 1234.5, 0.00001, 0)]
    ['0.964', '12.3', '1,234', '1e-05', '0.000']
    """
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}" if size < 1e9 else f"{value:.3g}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.3f}" if size >= 0.001 or not value else f"{value:.2g}"


def format_time(at: int) -> str:
    """Return a time as ``28 Nov 00:03``, the same on every machine: it is UTC."""
    when = datetime.datetime.fromtimestamp(at / 1000, datetime.UTC)
    return f"{when.day} {MONTHS[when.month - 1]} {when:%H:%M}"


def _join_params(params: Mapping[str, str]) -> str:
    """Return the first short parameters with their values."""
    told = ""
    for name, value in params.items():
        part = f"{name}={value}"
        if "/" in name or value in ("", HIDDEN) or value.startswith("<") or "\n" in value:
            continue
        if len(told) + len(part) > LONGEST:
            continue
        told += f"{', ' if told else ''}{part}"
    return told
