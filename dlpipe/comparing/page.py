"""A comparison as one page that needs nothing else: no script, no network, no other file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from dlpipe.comparing.comparison import Comparison
from dlpipe.comparing.curves import Panel, color, draw_interval, draw_panel, make_panels
from dlpipe.comparing.sections import Section, make_pair_sections, make_row_sections, make_side_sections, summarize
from dlpipe.evaluation import MetricDifference
from dlpipe.terminal import make_visible

ROWS = 20
SHORT = 20
"""A text of so many characters, such as a label, stays on one line."""
NUMBER = re.compile(r"[+-]?[\d.,]+")
STYLE = """
:root { --ground: #fff; --raised: #f6f7f9; --text: #1c2128; --faint: #5c6670; --line: #dfe3e8;
  --good: #17703a; --bad: #b3261e; --still: #5c6670; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171b; --raised: #1c2026; --text: #e3e7ec;
  --faint: #98a2ad; --line: #2e343c; --good: #7fd59b; --bad: #ff9d94; --still: #a4adb7; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text); font: 15px/1.45 system-ui, sans-serif; }
main { max-width: 1280px; margin: 0 auto; padding: 8px 24px 40px; }
h1 { font-size: 21px; margin: 20px 0 6px; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 28px 0 8px; overflow-wrap: anywhere; }
.said { font-size: 16px; margin: 4px 0 12px; max-width: 90ch; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; width: fit-content; max-width: 100%; }
table { border-collapse: collapse; }
th { text-align: left; font-weight: 600; font-size: 13px; color: var(--faint); background: var(--raised); }
th, td { padding: 6px 14px; vertical-align: top; }
th, td.number, td.name, td.verdict { white-space: nowrap; }
td.text { overflow-wrap: anywhere; min-width: 9ch; } td.short { white-space: nowrap; }
tbody tr { border-top: 1px solid var(--line); }
td.number { font-variant-numeric: tabular-nums; }
td.name { color: var(--faint); }
.note { color: var(--faint); margin: 6px 0; font-size: 14px; max-width: 110ch; }
.better { color: var(--good); } .worse { color: var(--bad); } .unclear, .same { color: var(--still); }
.bar .zero { stroke: var(--faint); stroke-dasharray: 2 2; } .bar .range { stroke: currentColor; stroke-width: 3; }
.bar .value { fill: currentColor; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(360px, 100%), 1fr)); gap: 8px 24px; }
.panels h3 { font-size: 14px; margin: 8px 0 0; font-weight: 600; }
.panels svg { width: 100%; max-width: 520px; font-size: 11px; }
.hollow { fill: var(--ground); stroke-width: 1.5; }
.panels text { fill: var(--faint); } .panels .grid { stroke: var(--line); }
.legend span { margin-right: 18px; white-space: nowrap; }
.legend i { display: inline-block; width: 14px; height: 4px; margin-right: 6px; vertical-align: middle; }
@media (max-width: 900px) { main { padding: 4px 12px 32px; } th, td { padding: 5px 8px; } }
"""


def make_page(comparison: Comparison) -> str:
    """Return a comparison as HTML: who is better, learning curves, what differs, and rows won and lost."""
    first, *others = (side.name for side in comparison.sides)
    title = f"{' and '.join(others)} against {first}"
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    body = [
        f"<h1>{show(title)}</h1>",
        *(f'<p class="said">{show(line)}.</p>' for line in summarize(comparison)),
        *draw_sections(section for pair in comparison.pairs for section in make_pair_sections(pair)),
        *draw_curves(comparison),
        *draw_sections(make_side_sections(comparison)),
        *draw_sections(make_row_sections(comparison, ROWS)),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{show(title)}</title><style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )


def show(text: object) -> str:
    """Return a text from anywhere as it may stand in a page."""
    return escape(make_visible(str(text)))


def draw_curves(comparison: Comparison) -> Iterator[str]:
    """Yield the learning curves, with the colours of the sides."""
    panels: list[Panel] = make_panels(comparison.sides)
    if not panels:
        return
    drawn = {curve.side for panel in panels for curve in panel.curves}
    names = [
        f'<span><i style="background:{color(at)}"></i>{show(side.name)}</span>'
        for at, side in enumerate(comparison.sides)
        if at in drawn
    ]
    dashed = any(curve.dashed for panel in panels for curve in panel.curves)
    words = "<span>solid: valid split, dashed: train split</span>" if dashed else ""
    yield f'<h2>Learning curves</h2><p class="legend">{"".join(names)}{words}</p>'
    figures = [f"<div><h3>{show(panel.title)}</h3>{draw_panel(panel)}</div>" for panel in panels]
    yield f'<div class="panels">{"".join(figures)}</div>'


def draw_sections(sections: Iterable[Section]) -> Iterator[str]:
    """Yield sections: a heading, a table with the intervals drawn, and lines of each."""
    for section in sections:
        yield f"<h2>{show(section.title)}</h2>"
        if section.rows:
            yield draw_table(section.rows, section.drawn)
        for note in section.notes:
            yield f'<p class="note">{show(note)}</p>'


def draw_table(rows: Sequence[Mapping[str, Any]], drawn: Sequence[MetricDifference]) -> str:
    """Return rows as a table.

    Parameters
    ----------
    rows : sequence of mapping
        Cells by the names of their columns.
    drawn : sequence of MetricDifference
        One for each row whose interval is drawn beside it; else none.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    heads = [f"<th>{show(name)}</th>" for name in names] + (["<th>0 in the middle</th>"] if drawn else [])
    lines = []
    for at, row in enumerate(rows):
        cells = [draw_cell(name, str(row.get(name, ""))) for name in names]
        if drawn:
            cells.append(f"<td>{draw_interval(drawn[at])}</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    head, body = f"<thead><tr>{''.join(heads)}</tr></thead>", f"<tbody>{''.join(lines)}</tbody>"
    return f'<div class="wide"><table>{head}{body}</table></div>'


def draw_cell(name: str, text: str) -> str:
    """Return a cell: names faint, numbers on one line, texts in their own direction."""
    if not name:
        return f'<td class="name">{show(text.strip())}</td>'
    if name == "that is":
        return f'<td class="verdict {show(text)}">{show(text)}</td>'
    words = "text short" if len(text) <= SHORT else "text"
    kind = ' class="number"' if NUMBER.match(text) else f' class="{words}" dir="auto"'
    return f"<td{kind}>{show(text)}</td>"
