"""The card of explanations: what parts do in general, then each row with its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from metaflow.cards import Markdown

from dlpipe.evaluation import Mistake
from dlpipe.explain import Explanation, Explanations, Overview, PartEffect, read_overview
from dlpipe.explain.figures import AGAINST, FOR, SHOWN, is_number, list_notes, write_output
from dlpipe.flows.cards.parts import escape, make_note, make_table, show
from dlpipe.pictures import FAINT, GRID, INK
from dlpipe.task.evaluation import cut_text

if TYPE_CHECKING:
    from dlpipe.tables import TableVersion

ROWS = 40
"""So many rows are drawn; all of them are in the table."""
STRONGEST, NAMED = 8, 6
NOTICED = 0.1
"""Parts of less than this share of the largest total are not named in the overview."""
FAINTEST = 0.03
"""Words of less than this share of the strongest one's effect have no colour."""


def show_nothing(title: str, why: str) -> None:
    """Show why there is nothing to show."""
    show([Markdown(f"# {title}"), Markdown(why)])


def show_explanations(
    explanations: Explanations,
    mistakes: Sequence[Mistake] = (),
    *,
    title: str = "Explanations",
    drawn: str = "drawn from the test split",
    table: TableVersion | None = None,
    model: str = "",
) -> None:
    """Show what parts do in general, then each row with its own.

    Parameters
    ----------
    explanations : Explanations
    mistakes : sequence of Mistake, optional
        Rows among them that the model got wrong: the label stands beside what was predicted.
    title : str, optional
    drawn : str, optional
        Where the rows are from, beside each that is no mistake.
    table : TableVersion, optional
        Of explanations: what parts do in general is read from it. Without it, nothing is said of that.
    model : str, optional
        The URI of the version that has explained them.
    """
    show(make_explanation_parts(explanations, mistakes, title=title, drawn=drawn, table=table, model=model))


def make_explanation_parts(
    explanations: Explanations,
    mistakes: Sequence[Mistake] = (),
    *,
    title: str = "Explanations",
    drawn: str = "drawn from the test split",
    table: TableVersion | None = None,
    model: str = "",
) -> Iterator[Any]:
    """Yield what the card of explanations shows; ``show_explanations`` has the parameters."""
    noun = explanations.noun
    if not any(row.parts for row in explanations.rows):
        yield Markdown(f"# Nothing to explain: {title}")
        yield Markdown(f"None of these rows has a {noun}." if explanations.rows else "No row was asked for.")
        return
    truth = {mistake.row_id: str(mistake.label) for mistake in mistakes}
    yield Markdown(f"# {title}")
    if model:
        yield Markdown(f"Model: `{model}`.")
    if table is not None:
        overview = read_overview(table, model=model, texts=explanations.rows[0].texts)
        yield from make_overview_parts(overview, explanations)
    if explanations.agreement is not None:
        yield make_note(explanations.agreement.line())
    yield Markdown("## Row by row")
    number = is_number(explanations.rows[0])
    yield make_note(
        f"Red {noun}s {'raise what is predicted' if number else 'speak for what is predicted'}, blue ones "
        f"{'lower it' if number else 'against it'}; the strongest {noun} of a row has the full colour."
    )
    for row in explanations.rows[:ROWS]:
        yield make_row(row, truth, drawn)
    if len(explanations.rows) > ROWS:
        yield make_note(f"Drawn are {ROWS} of {len(explanations.rows):,} rows; the table has all of them.")


def make_overview_parts(overview: Overview, explanations: Explanations) -> Iterator[Any]:
    """Yield the parts with the largest effect on each output, or why there are none."""
    noun = explanations.noun
    yield Markdown("## In general")
    if not overview.effects:
        yield make_note(overview.describe_lack(noun))
        return
    number = is_number(explanations.rows[0])
    yield make_note(
        f"The mean effect of a {noun} on {'what is predicted' if number else 'the probability of the label'}, and "
        f"in how many of the {overview.rows:,} rows that this version has explained it stands."
    )
    several, lines = len(explanations.rows[0].texts) > 1, []
    for output, effects in overview.effects.items():
        least = NOTICED * abs(effects[0].total)
        raising, lowering = (
            [effect for effect in effects if sign * effect.total >= least and effect.total] for sign in (1, -1)
        )
        name = "predicted" if number else output
        lines.append([name, *(list_effects(each, several=several, number=number) for each in (raising, lowering))])
    yield make_table(["output", f"{noun}s that raise it", f"{noun}s that lower it"], lines)


def list_effects(effects: Sequence[PartEffect], *, several: bool, number: bool) -> str:
    """Return the strongest effects in one line: ``great +0.310 (12), love +0.250 (9)``.

    Parameters
    ----------
    effects : sequence of PartEffect
        The strongest first.
    several : bool
        Whether rows have several texts, so that a word is named with its column.
    number : bool
        Whether the output is a number of any size, and no probability.
    """
    names = [
        f"{effect.column}: {effect.name}" if several and effect.name != effect.column else effect.name
        for effect in effects
    ]
    kind = "+.3g" if number else "+.3f"
    shown = zip(names[:STRONGEST], effects, strict=False)
    return ", ".join(f"{name} {effect.mean:{kind}} ({effect.count:,})" for name, effect in shown) or "none"


def make_row(row: Explanation, truth: Mapping[str, str], drawn: str) -> Markdown:
    """Return a row: what was predicted, its words coloured by what they add to that, its strongest parts.

    Parameters
    ----------
    row : Explanation
    truth : mapping of str to str
        The labels of rows that the model got wrong, by row id.
    drawn : str
        Where the row is from.
    """
    values = [float(value) for value in row.attributions[:, row.highest]]
    where = f"a mistake: the label is {truth[row.row_id]}" if row.row_id in truth else drawn
    without = "with usual values" if row.noun == "column" else f"without any {row.noun}"
    name = "predicted" if is_number(row) else row.output_name
    output, base = (write_output(each[row.highest], row) for each in (row.output, row.base))
    small = f'<span style="color:{FAINT};font-size:12px"> {{}}</span>'
    pieces = [
        f'<div><b dir="auto">{escape(name)}</b> {output}'
        f"{small.format(escape(f'{without} {base} · {where} · row {row.row_id}'))}</div>",
        *(write_text(row, column, values) for column in row.texts),
        write_strongest(row, values),
        *(f'<div style="color:{FAINT};font-size:12px"><i>{escape(note)}</i></div>' for note in list_notes(row)),
    ]
    style = f"border-top:1px solid {GRID};padding:8px 0;color:{INK};font-size:14px;overflow-wrap:anywhere"
    return Markdown(f'<div style="{style}">{"".join(pieces)}</div>')


def write_text(row: Explanation, column: str, values: Sequence[float]) -> str:
    """Return the words of a text, each on the colour of its value."""
    scale = max(map(abs, values), default=0.0) or 1.0
    places = [place for place, of_part in enumerate(row.columns) if of_part == column][:SHOWN]
    name = f'<span style="color:{FAINT};font-size:12px">{escape(column)} </span>' if len(row.texts) > 1 else ""
    words = "".join(write_word(row.parts[place], values[place] / scale) for place in places)
    return f'<div dir="auto" style="line-height:1.7;margin:2px 0;text-align:start">{name}{words}</div>'


def write_word(word: str, share: float) -> str:
    """Return a word on its colour: red for the output, blue against it."""
    space = " " if word[-1:].isspace() else ""
    if abs(share) < FAINTEST:
        return f"{escape(word)}{space}"
    red, green, blue = (int((FOR if share > 0 else AGAINST)[at : at + 2], 16) for at in (1, 3, 5))
    colour = "white" if abs(share) > 0.6 else INK
    style = (
        f"background:rgba({red},{green},{blue},{abs(share):.2f});color:{colour};border-radius:2px;padding:1px 2px"
    )
    return f'<span style="{style}">{escape(word)}</span>{space}'


def write_strongest(row: Explanation, values: Sequence[float]) -> str:
    """Return the parts with the largest effects, in a line."""
    least = FAINTEST * max(map(abs, values), default=0.0)
    there = (place for place in range(len(values)) if abs(values[place]) > least)
    order = sorted(there, key=lambda place: (-abs(values[place]), place))[:NAMED]
    written = (
        f"<bdi>{escape(cut_text(row.title(place), limit=60))}</bdi> <b>{write_effect(values[place], row)}</b>"
        for place in order
    )
    return f'<div style="font-size:13px;color:{INK}">{" · ".join(written)}</div>'


def write_effect(value: float, row: Explanation) -> str:
    """Return what a part adds, in the unit of the output."""
    return f"{value:+.4g}" if is_number(row) else f"{value:+.3f}"
