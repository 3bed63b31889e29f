"""Explanations of a table computed again with the registered model, and compared with those of then."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dlpipe.explain import ExplainSettings, explain_rows, read_named_rows
from dlpipe.inference import load_predictor
from dlpipe.reproducing.answered import ROUNDING, AnswersAgain, Stored
from dlpipe.tables import TableVersion, list_commits, read_commit

if TYPE_CHECKING:
    import pyarrow as pa

EXPLAINED_AGAIN = 50
"""So many rows that a model explained are explained again: each takes some hundred calls of the model."""
SETTINGS = ("max_evals", "batch_rows", "seed", "steps")
NUMBERS = ("attribution", "base_value", "output")
PLACE = ("row_id", "position", "input_column", "part", "output_name")
Place = tuple[str, int, str, str, str]


def compare_explanations(stored: Stored, uri: str, source: TableVersion, *, table: TableVersion) -> AnswersAgain:
    """Return how far explanations of then are from those that the registered model gets now.

    Where rows of one version were explained by several settings, each row is compared with those that fit best.

    Raises
    ------
    DlpipeError
        When the model's files, or those of the rows, are gone.
    """
    import pyarrow as pa

    then = pa.Table.from_batches(stored.batches)
    settings = list_settings(table, uri, source, then["method"].unique().to_pylist())
    if not settings:
        why = f"no commit of {table} says how they were computed"
        return AnswersAgain(uri, str(table), str(source), "not compared", why=why)
    predictor = load_predictor(uri, engine="exact")
    rows = read_named_rows(source, list(stored.rows), predictor)
    if not rows:
        why = f"none of its rows is in {source} any more"
        return AnswersAgain(uri, str(table), str(source), "not compared", left_out=len(stored.rows), why=why)
    now: dict[tuple[str, Place], list[Sequence[float]]] = {}
    for each in settings:
        made = explain_rows(predictor, rows, settings=each).to_table(model=uri, source=source)
        for place, numbers in list_numbers(made):
            now.setdefault((each.method, place), []).append(numbers)
    gaps = {row_id: 0.0 for row_id, _ in rows}
    for (place, before), method in zip(list_numbers(then), then["method"].to_pylist(), strict=True):
        if place[0] in gaps:
            gap = min((measure_gap(before, after) for after in now.get((method, place), ())), default=math.inf)
            gaps[place[0]] = max(gaps[place[0]], gap)
    alike = sum(gap <= ROUNDING for gap in gaps.values())
    return AnswersAgain(
        uri,
        str(table),
        str(source),
        "same" if alike == len(gaps) else "different",
        rows=len(gaps),
        left_out=len(stored.rows) - len(gaps) + stored.left_out,
        alike=alike,
        largest=max(filter(math.isfinite, gaps.values()), default=math.nan),
    )


def list_settings(
    table: TableVersion, uri: str, source: TableVersion, methods: Sequence[str]
) -> list[ExplainSettings]:
    """Return the settings by which a model explained rows of a table, by the commits of the explanations."""
    found: dict[ExplainSettings, None] = {}
    for number in list_commits(table.path):
        commit = read_commit(table.path, number) if number <= table.version else None
        key: dict[str, Any] = dict(commit.facts.get("key") or {}) if commit else {}
        origin = key.get("model"), key.get("source"), key.get("source_version")
        if origin == (uri, source.path, str(source.version)) and key.get("method") in methods:
            numbers = {
                name: int(key[name]) for name in ("max_evals", "batch_rows", "seed", "steps") if name in key
            }
            found[ExplainSettings(method=key["method"], **numbers)] = None
    return list(found)


def list_numbers(explained: pa.Table) -> Iterator[tuple[Place, Sequence[float]]]:
    """Yield the place and the numbers of each record of explanations."""
    places = (
        explained[name].to_pylist() for name in ("row_id", "position", "input_column", "part", "output_name")
    )
    numbers = (explained[name].to_pylist() for name in NUMBERS)
    return zip(zip(*places, strict=True), zip(*numbers, strict=True), strict=True)


def measure_gap(before: Sequence[float], after: Sequence[float]) -> float:
    """Return the largest difference of two numbers at one place.

    Of those that are both NaN there is none; where only one is, or one list is longer, it is infinite.

    Examples
    --------
    >>> measure_gap([0.5, math.nan], [0.25, math.nan]), measure_gap([0.5, 0.1], [0.5, math.nan])
    (0.25, inf)
    """
    if len(before) != len(after):
        return math.inf
    gaps = [_subtract(old, new) for old, new in zip(before, after, strict=True)]
    return max((math.inf if math.isnan(gap) else gap for gap in gaps), default=0.0)


def _subtract(old: float, new: float) -> float:
    is_same = old == new or (math.isnan(old) and math.isnan(new))
    return 0.0 if is_same else abs(old - new)
