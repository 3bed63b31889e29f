"""The rows that the explain flow is asked for, explained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlpipe.errors import SettingError
from dlpipe.flows.pinning import table_named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlpipe.explain import ExplainSettings, Explanations
    from dlpipe.registry import ModelVersion
    from dlpipe.tables import TableVersion
    from dlpipe.task import Predictor


@dataclass(frozen=True)
class ExplainedRows:
    """Explanations for a card, the table that holds all of them, how many there are and of which rows."""

    explanations: Explanations
    table: TableVersion
    count: str
    drawn: str


def check_asked(explanation: ExplainSettings, split: str | None) -> None:
    """Raise ``SettingError`` where no row is asked for: the explain flow would explain nothing."""
    if not explanation.rows and split is None:
        raise SettingError(
            "[explanation] and --rows: rows = 0 explains nothing. Pass 1 or more, or --split for all rows of one."
        )


def why_not(model: ModelVersion) -> str:
    """Return why rows of the task of ``model`` are not explained, in one line; empty where they are."""
    from dlpipe.task import find_task

    return find_task(model.task).inputs.not_explained


def explain_asked(
    model: ModelVersion,
    rows: TableVersion,
    *,
    split: str | None,
    among: Sequence[str] | None,
    target: str | None,
    settings: ExplainSettings,
    ray_address: str | None,
) -> ExplainedRows:
    """Explain every row of a split, or some rows; append the numbers to a table in one commit.

    Parameters
    ----------
    split : str, optional
        ``all`` for every split; without it, rows are drawn.
    among : sequence of str, optional
        The ids of the rows to draw from; by default those of the test split.
    target : str, optional
        The table of the explanations; by default the one that belongs to the rows.
    ray_address : str, optional
        The cluster that a split is explained on.
    """
    from dlpipe.inference import load_predictor

    predictor = load_predictor(model.uri, engine="exact")
    target = table_named(target, rows, "explanations")
    if split:
        found = _explain_split(predictor, rows, split, model.uri, target, settings, ray_address)
    else:
        found = _explain_sample(predictor, rows, among, model.uri, target, settings)
    if any(row.parts for row in found.explanations.rows):
        return found
    none = f"{found.count}, of which none has a {found.explanations.noun}"
    return ExplainedRows(found.explanations, found.table, none, found.drawn)


def _explain_sample(
    predictor: Predictor,
    rows: TableVersion,
    among: Sequence[str] | None,
    model: str,
    target: str,
    settings: ExplainSettings,
) -> ExplainedRows:
    from dlpipe.explain import explain_table

    made, table = explain_table(predictor, rows, among=among, model=model, target=target, settings=settings)
    drawn = "drawn from the test split" if among is None else "drawn from the rows that were just scored"
    return ExplainedRows(made, table, f"{made.noun}s of {len(made.rows)} rows", drawn)


def _explain_split(
    predictor: Predictor,
    rows: TableVersion,
    split: str,
    model: str,
    target: str,
    settings: ExplainSettings,
    ray_address: str | None,
) -> ExplainedRows:
    from dlpipe.cluster import join
    from dlpipe.explain import explain_all
    from dlpipe.flows.pinning import split_named

    only = None if split == "all" else split
    with join(ray_address) as cluster:
        each = cluster.each if cluster else map
        done = explain_all(predictor, rows, split=only, model=model, target=target, settings=settings, each=each)
    count = f"{done.sample.noun}s of {done.rows:,} rows, {done.new_rows:,} new"
    return ExplainedRows(done.sample, done.table, count, f"from {split_named(split)}")
