"""The rows that the explain flow is asked for, explained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dlpipe.errors import SettingError
from dlpipe.flows.model_pages import renew_page
from dlpipe.flows.pinning import (
    CLASSIFIER,
    check_kind,
    check_rows,
    choose_table,
    describe_split,
    draw_scored,
    find_classifier,
    find_trigger_run,
    pin,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlpipe.evaluation import Evaluation, Mistake
    from dlpipe.explain import ExplainSettings, Explanations
    from dlpipe.registry import ModelVersion
    from dlpipe.tables import TableVersion
    from dlpipe.task import Model, Predictor


@dataclass(frozen=True)
class RowsToExplain:
    """What is to be explained with which model, both pinned.

    Attributes
    ----------
    model : ModelVersion
    rows : TableVersion
    words : str
        Which of the rows, for a summary.
    among : list of str or None
        Ids of the rows that the predict flow has just scored; ``None`` where nobody named rows but a split.
    """

    model: ModelVersion
    rows: TableVersion
    words: str
    among: list[str] | None


@dataclass(frozen=True)
class ExplainedRows:
    """Explanations of rows, or why there are none.

    Attributes
    ----------
    explanations : Explanations or None
        Those for a card.
    table : TableVersion or None
        The table that holds all of them.
    count : str
        How many there are, or why none.
    drawn : str
        Where the rows are from.
    model : str
        The URI of the version that explained them.
    """

    explanations: Explanations | None
    table: TableVersion | None
    count: str
    drawn: str = ""
    model: str = ""

    def __str__(self) -> str:
        return f"{self.table}: {self.count}" if self.table else self.count


def choose_rows(
    model: str, table: str, version: int | None, *, split: str | None, settings: ExplainSettings
) -> RowsToExplain:
    """Return the rows that the explain flow is asked for; after a run of the predict flow, those that it scored.

    Parameters
    ----------
    model, table, version
        As ``pin`` takes them; after a run of the predict flow, its model and its table are meant.
    split : str, optional
        ``all`` for every split; without it, some rows are drawn.
    settings : ExplainSettings
        How many rows are drawn, and by which seed.
    """
    before = find_trigger_run()
    if before is None:
        found, rows = pin(model, table, version)
    else:
        found, rows = find_classifier(before.data.scored_by), before.data.scored_rows
    if before and split is None:
        scored = before.data.predictions
        among = draw_scored(scored, settings.rows, seed=settings.seed)
        words = f"{len(among)} of {scored.new_rows:,} rows that {before.pathspec} scored"
        return RowsToExplain(found, rows, words, among)
    check_rows(rows, split or "test", whole="--split all")
    words = describe_split(split)
    if split is not None:  # a person who passed --rows as well may expect that only these are explained
        words = f"every row of {words}, the first {settings.rows} on the card"
    return RowsToExplain(found, rows, words, None)


def check_request(explanation: ExplainSettings, split: str | None) -> None:
    """Raise ``SettingError`` where no row is asked for: the explain flow would explain nothing."""
    if not explanation.rows and split is None:
        raise SettingError(
            "[explanation] and --rows: rows = 0 explains nothing. Pass 1 or more, or --split for all rows of one."
        )


def check_explaining(model: ModelVersion, rows: TableVersion, *, split: str | None, target: str | None) -> None:
    """See that the model is a classifier, that there are rows, and that the table takes the explanations.

    Parameters
    ----------
    split : str, optional
        ``all`` for every split; by default ``test``, from which rows are drawn.
    target : str, optional
        The table of the explanations; by default the one that belongs to the rows.
    """
    from dlpipe.explain import make_explanation_schema
    from dlpipe.tables import check_target

    check_kind(model, CLASSIFIER)
    check_rows(rows, split or "test", whole="--split all")
    check_target(choose_table(target, rows, "explanations"), make_explanation_schema())


def find_reason_not_explained(model: ModelVersion) -> str:
    """Return why rows of the task of ``model`` are not explained, in one line; empty where they are."""
    from dlpipe.task import find_task

    return find_task(model.task).inputs.not_explained


def explain_evaluated(
    model: Model,
    rows: TableVersion,
    *,
    evaluation: Evaluation,
    registered: ModelVersion,
    settings: ExplainSettings,
) -> ExplainedRows:
    """Explain a sample of the test rows and the worst mistakes of a model that was just trained.

    Parameters
    ----------
    evaluation : Evaluation
        Of the model on the test rows: it names the mistakes.
    registered : ModelVersion
        What the explanations say that they are of.
    """
    from dlpipe.explain import explain_table
    from dlpipe.task import open_predictor

    if reason := find_reason_not_explained(registered):
        return ExplainedRows(None, None, reason)
    made, table = explain_table(
        open_predictor(model),
        rows,
        mistakes=[mistake.row_id for mistake in evaluation.mistakes],
        target=f"{rows.path}_explanations",
        model=registered.uri,
        settings=settings,
    )
    renew_page(registered)
    count = f"{made.noun}s of {len(made.rows)} rows"
    return ExplainedRows(made, table, count, "drawn from the test split", registered.uri)


def show_explained(found: ExplainedRows, mistakes: Sequence[Mistake] = ()) -> None:
    """Show on the step's card what was explained, or why nothing was."""
    from dlpipe.flows.cards import show_explanations, show_nothing

    if found.explanations is None:
        show_nothing("Nothing to explain", f"{found.count[0].upper()}{found.count[1:]}")
        return
    title = f"Explanations in {found.table}: {found.count}"
    show_explanations(
        found.explanations, mistakes, title=title, drawn=found.drawn, table=found.table, model=found.model
    )


def explain_rows(
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

    if reason := "no new row was scored" if among == [] else find_reason_not_explained(model):
        return ExplainedRows(None, None, reason)
    predictor = load_predictor(model.uri, engine="exact")
    target = choose_table(target, rows, "explanations")
    if split:
        found = _explain_split(predictor, rows, split, model.uri, target, settings, ray_address)
    else:
        found = _explain_sample(predictor, rows, among, model.uri, target, settings)
    renew_page(model)
    made = found.explanations
    if made is None or any(row.parts for row in made.rows):
        return found
    return replace(found, count=f"{found.count}, of which none has a {made.noun}")


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
    return ExplainedRows(made, table, f"{made.noun}s of {len(made.rows)} rows", drawn, model)


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
    from dlpipe.tables import parse_split

    only = parse_split(split, where="The table")
    with join(ray_address) as cluster:
        each = cluster.each if cluster else map
        done = explain_all(predictor, rows, split=only, model=model, target=target, settings=settings, each=each)
    count = f"{done.sample.noun}s of {done.rows:,} rows, {done.new_rows:,} new"
    return ExplainedRows(done.sample, done.table, count, f"from {describe_split(split)}", model)
