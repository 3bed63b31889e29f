"""`dlpipe explain`: what each part of a row does to the prediction."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dlpipe.cli.pages import check_page, write_page
from dlpipe.cli.printing import as_json, say, say_in_colour
from dlpipe.cli.tables import check_not_blank, choose_texts, parse_row
from dlpipe.terminal import make_visible

if TYPE_CHECKING:
    from dlpipe.explain import Explanation
    from dlpipe.explain.pyfunc import PyfuncExplainer

BAR = 24
"""Characters of the longest bar."""
STRONG = 0.25
"""From which share of the strongest part on a word is coloured in its text."""
FOR, AGAINST = "red", "blue"


@click.command()
@click.option(
    "--model",
    "uri",
    required=True,
    metavar="URI",
    help="Model or explainer, such as models:/reviews@champion, reviews/3, or reviews for its champion.",
)
@click.option(
    "--method",
    type=click.Choice(["partition", "gradient"]),
    help="How: exact shares by leaving parts out, or quick gradients; by default as the model's explainer has it.",
)
@click.option(
    "--top",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Parts that are listed; the rest is a sum.",
)
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a page to this file instead.")
@click.option("--encoding", metavar="NAME", help="Encoding of standard input, such as cp1252; by default UTF-8.")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@as_json
def explain(
    uri: str,
    method: str | None,
    top: int,
    html: Path | None,
    encoding: str | None,
    texts: tuple[str, ...],
    json_: bool,
) -> None:
    """Explain what a registered model predicts, word by word or column by column.

    Without TEXT, each line of standard input is one. For a model whose rows are columns, each TEXT is a JSON
    object with them. A part's number is what it adds to the output: without any part the output is the base
    value, and base value and numbers add up to what is predicted.

    \b
    Examples:
      dlpipe explain --model models:/reviews@champion "I loved every minute of it."
      dlpipe explain --model reviews/1 --html explained.html "I loved it." "Dull, and far too long."
      dlpipe explain --model reviews --method gradient --json "I loved every minute of it."
    """
    from dlpipe.explain import load_explainer, make_page

    if html:
        check_page(html)
    asked = choose_texts(texts, encoding, what="explain")
    rows = explain_texts(load_explainer(uri), asked, method)
    if html:
        write_page(html, make_page(rows, title=f"{uri}: what each part adds to the prediction"))
        say(f"{len(rows):,} {'row' if len(rows) == 1 else 'rows'} explained in {html}", err=json_)
    if json_:
        from dlpipe.explain.wording import describe_row

        say(json.dumps([describe_row(row) for row in rows], indent=2, default=str))
    elif not html:
        say_in_colour("\n\n".join("\n".join(lay_out_row(row, top)) for row in rows))


def explain_texts(explainer: PyfuncExplainer, asked: list[str], method: str | None) -> list[Explanation]:
    """Return the explanation of each text, or of each row that a JSON object says."""
    from dlpipe.task import find_task

    single = find_task(explainer.predictor.card["task"]).inputs.is_single_text
    if single:
        check_not_blank(asked)
    given = asked if single else [parse_row(text) for text in asked]
    return list(explainer.explain(given, method=method).rows)


def lay_out_row(row: Explanation, top: int) -> Iterator[str]:
    """Yield the lines of one row: what is predicted, its texts with colours, and its strongest parts.

    Parameters
    ----------
    row : Explanation
    top : int
        How many parts have a line of their own.
    """
    from dlpipe.explain.wording import describe_effect, describe_prediction, format_effect

    headline, base = describe_prediction(row)
    yield f"{click.style(make_visible(headline), bold=True)}, {base}"
    values = row.attributions[:, row.highest].tolist()
    largest = max(map(abs, values), default=0.0) or 1.0
    for column in row.texts:
        places = [place for place, of_part in enumerate(row.columns) if of_part == column]
        name = f"{make_visible(column)}: " if len(row.texts) > 1 else ""
        yield name + "".join(colour_part(row.parts[place], values[place] / largest) for place in places)
    if not row.whole:
        yield f"(the model reads these {row.noun}s and no more)"
    if not values:
        yield f"(there is no {row.noun} to explain)"
        return
    yield f"({describe_effect(row)})"
    order = sorted(range(len(values)), key=lambda place: -abs(values[place]))
    top = top + 1 if len(order) == top + 1 else top  # the last one needs no more room than a sum of it
    numbers = [format_effect(values[place], row) for place in order[:top]]
    rest = order[top:]
    if rest:
        numbers.append(format_effect(sum(values[place] for place in rest), row))
    width = max(map(len, numbers))
    for place, number in zip(order[:top], numbers, strict=False):
        bar = draw_bar(values[place] / largest)
        yield f"{number:>{width}}  {bar}  {make_visible(' '.join(row.title(place).split()))}"
    if rest:
        yield f"{numbers[-1]:>{width}}  {'':<{BAR}}  the other {len(rest):,} {row.noun}s together"


def colour_part(part: str, share: float) -> str:
    """Return a part of a text, coloured where it adds or takes away much.

    Parameters
    ----------
    part : str
        With the white space after it, which gets no colour.
    share : float
        What it adds, as a share of the strongest part.
    """
    word = part.rstrip()
    after = " " if part[len(word) :] else ""
    shown = make_visible(word)
    if abs(share) < STRONG:
        return f"{shown}{after}"
    return f"{click.style(shown, fg=FOR if share > 0 else AGAINST, bold=abs(share) > 2 * STRONG)}{after}"


def draw_bar(share: float) -> str:
    """Return a bar of plus or minus signs, so that it can be read without colours.

    Examples
    --------
    >>> click.unstyle(draw_bar(0.125)), click.unstyle(draw_bar(-0.05))
    ('+++                     ', '-                       ')
    """
    signs = ("+" if share >= 0 else "-") * max(round(abs(share) * BAR), 1 if share else 0)
    return click.style(f"{signs:<{BAR}}", fg=FOR if share >= 0 else AGAINST)
