"""The card of a scoring: how many rows, how surely, and whether predictions are as they were before."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import TYPE_CHECKING, Any

from metaflow.cards import Markdown

from dlpipe.flows.cards.parts import Box, format_share, make_boxes, make_note, make_table, show
from dlpipe.flows.cards.shares import make_histogram, make_shares
from dlpipe.inference.scored import ScoredRows, read_scored
from dlpipe.task import DriftSeries, find_task
from dlpipe.task.evaluation import cut_text

if TYPE_CHECKING:
    from dlpipe.inference import ScoringResult
    from dlpipe.registry import ModelVersion
    from dlpipe.tables import TableVersion


def show_predictions(done: ScoringResult, *, rows: TableVersion, model: ModelVersion) -> None:
    """Show how many rows were scored by which model, how surely, and what is predicted beside before.

    Parameters
    ----------
    done : ScoringResult
    rows : TableVersion
        Whose rows were scored.
    model : ModelVersion
        A classifier or a pipeline.
    """
    show(make_prediction_parts(done, rows=rows, model=model))


def make_prediction_parts(done: ScoringResult, *, rows: TableVersion, model: ModelVersion) -> Iterator[Any]:
    """Yield what the card of a scoring shows; ``show_predictions`` has the parameters."""
    from dlpipe.flows.pinning import read_card_if_needed

    if not done.new_rows:
        yield Markdown(f"# Nothing new to score in {rows}")
        why = f"All {done.rows:,} rows" if done.rows else "It has no rows; those"
        yield Markdown(f"{why} that were asked for are in **{done.table}** already, scored by `{model.uri}`.")
        return
    yield Markdown(f"# {done.new_rows:,} rows scored by {model}")
    if done.doubt:
        yield make_boxes(Box("look at this first", "doubtful", done.doubt, is_good=False))
    task = find_task(model.task)
    columns = task.inputs.find_columns(rows, read_card_if_needed(model))
    scored = read_scored(done, rows, task=task, columns=columns)
    yield make_boxes(
        Box("new predictions", f"{scored.rows:,}", f"of {done.rows:,} rows of {rows}, in {done.table}"),
        Box("model", str(model), f"{', '.join(model.aliases) or 'no alias'}; {model.uri}"),
        *make_sureness_boxes(scored),
    )
    if scored.unanswered:
        yield Markdown(f"{scored.unanswered:,} of these rows could not be read and have no prediction.")
    against = (
        f"beside the {scored.before:,} predictions of rows of this table that "
        f"{'this model' if scored.before_is_own else 'other models'} made before"
        if scored.before
        else "there are no earlier predictions of this table to compare with"
    )
    if scored.sureness:
        yield Markdown("## How sure")
        yield make_note(f"How many rows by how probable the prediction is: {against}.")
        yield make_histogram(scored.sureness, scored.before_sureness, name="sureness", within=(0.0, 1.0))
        yield Markdown("## The least sure")
        lines = ([cut_text(row.text), row.predicted, f"{row.sureness:.3f}", row.row_id] for row in scored.least)
        yield make_table(["row", "predicted", "sureness", "row id"], lines)
    for at, series in enumerate(scored.series):
        if series.values and not (scored.sureness and is_sureness(series)):
            yield Markdown(f"## {series.words[0].upper()}{series.words[1:]}")
            if not (at or scored.sureness):
                yield make_note(f"{against[0].upper()}{against[1:]}.")
            yield make_shares(series, scored.before_series[at])


def make_sureness_boxes(scored: ScoredRows) -> Iterator[Box]:
    """Yield how sure the model is of most rows, and of how many it is not."""
    if scored.sureness:
        before = f"; before {median(scored.before_sureness):.3f}" if scored.before_sureness else ""
        unsure = sum(value < 0.6 for value in scored.sureness)
        share, plural = format_share(unsure / len(scored.sureness)), "" if unsure == 1 else "s"
        note = f"{unsure:,} row{plural} ({share}) below 0.6{before}"
        yield Box("median sureness", f"{median(scored.sureness):.3f}", note)


def is_sureness(series: DriftSeries) -> bool:
    """Return whether a series is a probability, which is drawn as sureness."""
    return series.name.startswith("p_") or series.name == "probability"
