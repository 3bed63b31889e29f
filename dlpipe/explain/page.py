"""Explanations as one page of HTML that needs nothing else: words coloured, and every part with its number."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

from dlpipe.explain.explanations import Explanation
from dlpipe.explain.wording import describe_effect, describe_prediction, format_effect
from dlpipe.terminal import make_visible

STYLE = """
:root { color-scheme: light dark; --for: 178, 24, 43; --against: 33, 102, 172 }
@media (prefers-color-scheme: dark) { :root { --for: 255, 110, 110; --against: 110, 170, 255 } }
body { font: 16px/1.6 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.1rem; font-weight: 600 } h2 { font-size: 1.4rem; margin: 2.5rem 0 0 }
p.note, td.number { color: color-mix(in srgb, currentColor 70%, transparent) } p.note { margin: 0 0 1rem }
p.text { font-size: 1.15rem; overflow-wrap: anywhere } span.part { border-radius: .2em; padding: .1em 0 }
table { border-collapse: collapse; margin-top: 1rem; width: 100% } td { padding: .1rem .6rem .1rem 0 }
td.number { text-align: right; font-variant-numeric: tabular-nums; width: 6rem }
td.name { overflow-wrap: anywhere }
td.bar { width: 45% } td.bar div { height: .8rem; border-radius: .2rem }
"""


def make_page(rows: Sequence[Explanation], *, title: str) -> str:
    """Return the page.

    Parameters
    ----------
    rows : sequence of Explanation
    title : str
        Such as the model whose predictions are explained.
    """
    body = "".join(part for row in rows for part in make_section(row))
    heading = escape(title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{heading}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body><h1>{heading}</h1>{body}</body></html>\n"
    )


def make_section(row: Explanation) -> Iterator[str]:
    """Yield the HTML of one row: what was predicted, its texts, and its parts, the strongest first."""
    values = row.attributions[:, row.highest].tolist()
    largest = max(map(abs, values), default=0.0) or 1.0
    headline, base = describe_prediction(row)
    yield f'<h2>{escape(headline)}</h2><p class="note">{escape(base)} &middot; {escape(describe_effect(row))}</p>'
    for column in row.texts:
        places = [place for place, of_part in enumerate(row.columns) if of_part == column]
        name = f"<b>{escape(column)}</b> " if len(row.texts) > 1 else ""
        # a text of another direction keeps its own
        words = "".join(colour_part(row.parts[place], values[place], largest, row) for place in places)
        yield f'<p class="text" dir="auto">{name}{words}</p>'
    if not row.whole:
        yield f'<p class="note">The model reads these {row.noun}s and no more.</p>'
    yield "<table>"
    for place in sorted(range(len(values)), key=lambda at: -abs(values[at])):
        value = values[place]
        bar = f"width: {100 * abs(value) / largest:.1f}%; background: rgb(var({choose_colour(value)}))"
        yield (
            f'<tr><td class="name" dir="auto">{escape(row.title(place))}</td>'
            f'<td class="number">{format_effect(value, row)}</td>'
            f'<td class="bar"><div style="{bar}"></div></td></tr>'
        )
    yield "</table>"


def colour_part(part: str, value: float, largest: float, row: Explanation) -> str:
    """Return a part of a text with a background that says how much it adds.

    Parameters
    ----------
    part : str
        With the white space after it, which gets no colour.
    value, largest : float
        What it adds, and the most that a part of the row adds or takes away.
    row : Explanation
    """
    word = part.rstrip()
    colour = f"background: rgba(var({choose_colour(value)}), {0.75 * abs(value) / largest:.2f})"
    shown = f'<span class="part" style="{colour}" title="{format_effect(value, row)}">{escape(word)}</span>'
    return f"{shown}{escape(part[len(word) :])}"


def choose_colour(value: float) -> str:
    """Return the name of the colour of what speaks for the prediction, or against it."""
    return "--for" if value >= 0 else "--against"


def escape(text: str) -> str:
    """Return ``text`` for a page: no marks of it are HTML's, and none turns the order of words around."""
    return html.escape(make_visible(text))
