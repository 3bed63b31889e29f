"""The graph of a run as a picture: steps from left to right, coloured by how they ended."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, ACROSS, DOWN, EDGE = 150, 44, 60, 22, 16
COLOURS = {
    "finished": ("#e6f4ea", "#2e7d32"),
    "reused": ("#e8eefc", "#3f61b5"),
    "failed": ("#fdecea", "#c62828"),
    "caught": ("#fff1e0", "#c77700"),
    "killed": ("#fdecea", "#c62828"),
    "running": ("#fff8e1", "#b7791f"),
    "": ("#f5f5f5", "#9e9e9e"),
}


def draw_graph(arrows: Mapping[str, Sequence[str]], labels: Mapping[str, str], status: Mapping[str, str]) -> str:
    """Return the graph as SVG.

    Parameters
    ----------
    arrows : mapping of str to sequence of str
        Each step, the first one first, with the steps that follow it.
    labels, status : mapping of str to str
        A few words below a step's name, and how it ended; a step that did not run is in neither.

    Examples
    --------
    >>> draw_graph({"start": ["end"], "end": []}, {}, {}).startswith("<svg ")
    True
    """
    places = _place_steps(arrows)
    width = max((x for x, _ in places.values()), default=0) + WIDTH + EDGE
    height = max((y for _, y in places.values()), default=0) + HEIGHT + EDGE
    ends = [(step, after) for step, nexts in arrows.items() for after in nexts if after in places]
    lines = [_draw_arrow(places[step], places[after]) for step, after in ends]
    boxes = [_draw_box(step, place, labels.get(step, ""), status.get(step, "")) for step, place in places.items()]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            'font-family="sans-serif" font-size="13">',
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
            'orient="auto"><path d="M0 0L8 4L0 8z" fill="#777"/></marker></defs>',
            *lines,
            *boxes,
            "</svg>",
        ]
    )


def _place_steps(arrows: Mapping[str, Sequence[str]]) -> dict[str, tuple[int, int]]:
    """Return where each step stands: as far to the right as its longest way from the start; loops lead back."""
    order = {step: at for at, step in enumerate(arrows)}
    column = dict.fromkeys(arrows, 0)
    for step, nexts in arrows.items():
        for after in nexts:
            if order.get(after, -1) > order[step]:
                column[after] = max(column[after], column[step] + 1)
    rows: dict[int, int] = defaultdict(int)
    places = {}
    for step, at in column.items():
        places[step] = (EDGE + at * (WIDTH + ACROSS), EDGE + rows[at] * (HEIGHT + DOWN))
        rows[at] += 1
    return places


def _draw_arrow(start: tuple[int, int], end: tuple[int, int]) -> str:
    (x, y), (to_x, to_y) = (start[0] + WIDTH, start[1] + HEIGHT // 2), (end[0], end[1] + HEIGHT // 2)
    path = f"M{x} {y}C{x + ACROSS // 2} {y} {to_x - ACROSS // 2} {to_y} {to_x} {to_y}"
    return f'<path d="{path}" fill="none" stroke="#777" marker-end="url(#tip)"/>'


def _draw_box(step: str, place: tuple[int, int], label: str, status: str) -> str:
    x, y = place
    fill, stroke = COLOURS[status]
    middle = x + WIDTH // 2
    return (
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="{fill}" stroke="{stroke}"/>'
        f'<text x="{middle}" y="{y + 18}" text-anchor="middle" font-weight="bold">{escape(step[:20])}</text>'
        f'<text x="{middle}" y="{y + 35}" text-anchor="middle" fill="#555">{escape(label[:24])}</text>'
    )
