"""What cards are made of: boxes, tables and pictures, and what fills the card of a step."""

from __future__ import annotations

import html
import re
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metaflow import current
from metaflow.cards import Image, Markdown

from dlpipe.pictures import FAINT, GRID, INK, MODEL, to_png
from dlpipe.task.evaluation import cut_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlpipe.task import ScoreTable

GOOD, BAD, OPEN = "#15803d", "#b91c1c", "#9ca3af"
NUMBER = re.compile(r"[-+]?[\d.,]+(e-\d+)?%?( \(.*\))?|–")
SHORT = 24  # characters of a cell that stays on one line
ROOM = 90  # characters of the names of a matrix's columns beyond which they stand upright
TALLEST = 32  # characters of a name that stands upright: it stands whole at the head of its line
UPRIGHT = 8  # columns of a matrix beyond which their names stand upright
TIGHT = "<style>.sectionItems{grid-gap:0.4rem !important}</style>"
"""Metaflow leaves so much room between two paragraphs that a card of tables falls apart."""
STYLE = f"font-size:13px;color:{INK};border-collapse:collapse"


def show(parts: Iterable[Any], *, card: str | None = None) -> None:
    """Append parts to the card of the current step; where one cannot be made, the card says so.

    A card is for people to look at: it never fails a run.

    Parameters
    ----------
    parts : iterable of card components
        Mostly a generator: what it yields before it fails is shown.
    card : str, optional
        The id of the card, where the step's card has one.
    """
    shown, texts = current.card[card] if card else current.card, [TIGHT]
    try:
        for part in parts:
            if isinstance(part, Markdown):
                texts.append(part.render()["source"].strip())
                continue
            _append(shown, texts)
            shown.append(part)
    except Exception as error:
        traceback.print_exc()
        why = escape(f"{type(error).__name__}: {error}")
        texts.append(f"**The rest of this card could not be drawn** ({why}). The run is not affected.")
    _append(shown, texts)


def _append(shown: Any, texts: list[str]) -> None:
    """Append what was written since the last picture as one part."""
    if texts:
        shown.append(Markdown("\n\n".join(texts)))
        texts.clear()


@dataclass(frozen=True)
class Box:
    """A number or a word that is to be seen first.

    Attributes
    ----------
    title, value, note : str
        What it is, the number, and what to know of it.
    is_good : bool, optional
        Green or red; grey where that is open.
    """

    title: str
    value: str
    note: str
    is_good: bool | None = None


def make_boxes(*boxes: Box) -> Markdown:
    """Return boxes side by side, as many as there is room for."""
    made = "".join(map(_write_box, boxes))
    return Markdown(f'<div style="display:flex;flex-wrap:wrap;gap:12px;margin:8px 0 16px">{made}</div>')


def _write_box(box: Box) -> str:
    colour = OPEN if box.is_good is None else GOOD if box.is_good else BAD
    title, value, note = (escape(text) for text in (box.title, box.value, box.note))
    return (
        f'<div style="flex:1 1 175px;box-sizing:border-box;border:1px solid {GRID};'
        f"border-left:5px solid {colour};border-radius:4px;padding:10px 14px;color:{INK};text-align:start;"
        'overflow-wrap:anywhere">'
        f'<div style="font-size:12px;color:{FAINT}">{title}</div>'
        f'<div style="font-size:24px;font-weight:600;line-height:1.3" dir="auto">{value}</div>'
        f'<div style="font-size:12px;color:{FAINT}">{note}</div></div>'
    )


def make_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Markdown:
    """Return a table with its texts at the left, or at the right where they are written from there.

    Metaflow's own table centres all cells, which makes long texts hard to read.
    """
    texts = [[str(cell) for cell in row] for row in rows]
    right = [all(NUMBER.fullmatch(line[at]) for line in texts) for at in range(len(columns))]
    lines = [[_write_cell(text, right=right[at]) for at, text in enumerate(line)] for line in texts]
    return Markdown(_write_table(columns, lines, right))


def make_score_table(table: ScoreTable) -> list[Markdown]:
    """Return a table of an evaluation with its caption, shaded where it is a picture."""
    parts = [Markdown(f"## {table.caption}"), *([make_note(table.note)] if table.note else [])]
    return [*parts, make_matrix(table) if table.shades else make_table(table.columns, table.rows)]


def make_matrix(table: ScoreTable) -> Markdown:
    """Return a table whose cells but the first of each line are shaded."""
    upright = len(table.columns) > UPRIGHT + 1 or sum(map(len, table.columns)) > ROOM
    lines = [
        [_write_cell(row[0], right=False), *map(_write_shaded, row[1:], shades)]
        for row, shades in zip(table.rows, table.shades, strict=True)
    ]
    return Markdown(_write_table(table.columns, lines, [False] * len(table.columns), upright=upright))


def make_bars(
    name: str, names: Sequence[str], counts: Sequence[int], others: Sequence[int], *, first: str, second: str
) -> Markdown:
    """Return counts as bars, as long as their share of the total, beside others.

    Parameters
    ----------
    name : str
        The title of ``names``.
    names : sequence of str
    counts, others : sequence of int
        One each a name; ``others`` without any count have no column.
    first, second : str
        What the counts and the others are called.
    """
    columns, bars = [name, first], [(counts, MODEL)]
    if sum(others):
        columns, bars = [*columns, second], [*bars, (others, OPEN)]
    longest = max((count / (sum(values) or 1) for values, _ in bars for count in values), default=0) or 1
    lines = [
        [
            _write_cell(each, right=False),
            *(
                _write_bar(values[at], sum(values) or 1, longest, colour, 84 // len(bars))
                for values, colour in bars
            ),
        ]
        for at, each in enumerate(names)
    ]
    return Markdown(_write_table(columns, lines, [False] * len(columns), width="100%"))


def _write_bar(count: int, total: int, longest: float, colour: str, width: int) -> str:
    share = count / total
    return (
        f'<td style="padding:2px 8px;width:{width}%;background:none;text-align:start;white-space:nowrap">'
        f'<span style="display:inline-block;vertical-align:middle;height:12px;background:{colour};'
        f'width:{70 * share / longest:.1f}%"></span> {count:,} ({format_share(share)})</td>'
    )


def format_share(share: float) -> str:
    """Return a share in per cent; what is there is never 0 %.

    Examples
    --------
    >>> format_share(0.0), format_share(0.004), format_share(0.25)
    ('0%', 'under 1%', '25%')
    """
    return "under 1%" if 0 < share < 0.005 else f"{share:.0%}"


def make_note(text: str) -> Markdown:
    """Return a line in small grey letters."""
    return Markdown(f'<div style="font-size:12px;color:{FAINT};margin:0 0 6px" dir="auto">{escape(text)}</div>')


def make_image(figure: Figure, caption: str) -> Image:
    """Return a figure of matplotlib with its caption."""
    return Image(to_png(figure), caption)


def escape(text: str) -> str:
    """Return text of anyone, such as of a row, as it stands in HTML: on one line, and no tag in it.

    Examples
    --------
    >>> escape("<b>so\\n good</b> & more")
    '&lt;b&gt;so good&lt;/b&gt; &amp; more'
    """
    return html.escape(" ".join(text.split()))


def _write_table(
    columns: Sequence[str],
    lines: Sequence[Sequence[str]],
    right: Sequence[bool],
    *,
    upright: bool = False,
    width: str = "auto",
) -> str:
    vertical = "writing-mode:vertical-rl;transform:rotate(180deg);white-space:nowrap" if upright else ""
    room = "4px 1px" if upright else "4px 8px"
    names = [cut_text(name, limit=TALLEST) for name in columns] if upright else columns
    heads = "".join(
        f'<th style="text-align:{"right" if right[at] else "start"};color:{FAINT};font-weight:500;'
        f'padding:{room};background:none;vertical-align:bottom">'
        f'<span style="{vertical if at else ""}">{escape(name)}</span></th>'
        for at, name in enumerate(names)
    )
    body = "".join(f'<tr style="border-top:1px solid {GRID}">{"".join(line)}</tr>' for line in lines)
    return (
        f'<div style="overflow-x:auto;margin:0 0 14px"><table style="{STYLE};min-width:0;width:{width}">'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _write_cell(text: str, *, right: bool) -> str:
    align = "text-align:right" if right else "text-align:start"
    align += ";white-space:nowrap" if right or len(text) <= SHORT else ";overflow-wrap:anywhere"
    return f'<td dir="auto" style="{align};padding:4px 8px;background:none">{escape(text)}</td>'


def _write_shaded(text: str, share: float) -> str:
    red, green, blue = (int(MODEL[at : at + 2], 16) for at in (1, 3, 5))
    colour = "white" if share > 0.55 else INK
    return (
        f'<td style="text-align:center;padding:4px 1px;min-width:18px;font-size:11px;color:{colour};'
        f'background:rgba({red},{green},{blue},{share:.2f})">{escape(text)}</td>'
    )
