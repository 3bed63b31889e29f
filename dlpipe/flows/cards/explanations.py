"""The card of explanations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from metaflow.cards import Markdown

from dlpipe.evaluation import Mistake
from dlpipe.explain import Explanations, make_effects_figure, make_row_figure
from dlpipe.flows.cards.parts import make_image, show


def show_nothing(title: str, why: str) -> None:
    """Show why there is nothing to show."""
    show([Markdown(f"# {title}"), Markdown(why)])


def show_explanations(
    explanations: Explanations,
    mistakes: Sequence[Mistake],
    *,
    title: str = "Explanations",
    drawn: str = "drawn from the test split",
) -> None:
    """Show the parts that matter most, then each row with its own.

    Parameters
    ----------
    explanations : Explanations
    mistakes : sequence of Mistake
        Rows among them that the model got wrong: the label stands beside what was predicted.
    title : str, optional
    drawn : str, optional
        Where the rows are from, below the picture of each that is no mistake.
    """
    show(make_explanation_parts(explanations, mistakes, title=title, drawn=drawn))


def make_explanation_parts(
    explanations: Explanations, mistakes: Sequence[Mistake], *, title: str, drawn: str
) -> Iterator[Any]:
    """Yield what the card of explanations shows; ``show_explanations`` has the parameters."""
    if not any(row.parts for row in explanations.rows):
        why = f"None of these rows has a {explanations.noun}." if explanations.rows else "No row was asked for."
        yield Markdown(f"# Nothing to explain: {title}")
        yield Markdown(why)
        return
    truth = {mistake.row_id: mistake.label for mistake in mistakes}
    yield Markdown(f"# {title}")
    yield make_image(make_effects_figure(explanations), f"{explanations.noun.capitalize()}s that matter most")
    if explanations.agreement is not None:
        yield Markdown(explanations.agreement.line())
    for row in explanations.rows:
        caption = f"a mistake: the label is {truth[row.row_id]}" if row.row_id in truth else drawn
        yield make_image(make_row_figure(row), caption)
