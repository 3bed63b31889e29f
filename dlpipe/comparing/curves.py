"""Learning curves over each other, and intervals, as pictures in SVG that a page carries inside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from dlpipe.comparing.sides import INDEX, Side
from dlpipe.task.evaluation import spell_metric
from dlpipe.terminal import make_visible

if TYPE_CHECKING:
    from dlpipe.evaluation import MetricDifference

COLORS = ("#1f6fb2", "#d97706", "#17803a", "#7c3aed", "#c2307a", "#0f8b8d")
NOT_DRAWN = ("seconds", "rows_per_second")
MOST_PANELS = 6
WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 12, 34
BAR_WIDTH, BAR_HEIGHT = 96, 18


@dataclass(frozen=True)
class Curve:
    """A series of a side; ``dashed`` for that of the train split."""

    side: int
    name: str
    points: Sequence[tuple[int, float]]
    dashed: bool


@dataclass(frozen=True)
class Panel:
    """Curves that share their axes."""

    title: str
    curves: Sequence[Curve]


def make_panels(sides: Sequence[Side]) -> list[Panel]:
    """Return panels of the series that go by epoch: losses together, every other score on axes of its own."""
    panels: dict[str, list[Curve]] = {}
    for number, side in enumerate(sides):
        for name, points in side.curves.items():
            last = name.rpartition("/")[2]
            if INDEX not in name or last in NOT_DRAWN:
                continue
            title = "loss" if last.endswith("loss") else spell_metric(last.removeprefix("val_"))
            panels.setdefault(title, []).append(Curve(number, last, points, last.startswith("train")))
    return [Panel(title, curves) for title, curves in panels.items()][:MOST_PANELS]


def color(side: int) -> str:
    """Return the colour of a side."""
    return COLORS[side % len(COLORS)]


def draw_panel(panel: Panel) -> str:
    """Return a panel as an SVG element: a line and points for each curve, over axes with their ticks."""
    points = [point for curve in panel.curves for point in curve.points if math.isfinite(point[1])]
    steps, values = [step for step, _ in points], [value for _, value in points]
    if not points:
        return ""
    low, high = min(values), max(values)
    margin = (high - low) * 0.08 or abs(high) * 0.05 or 1.0
    low, high = low - margin, high + margin
    first, last = min(steps), max(max(steps), min(steps) + 1)

    def place(step: int, value: float) -> tuple[float, float]:
        across = LEFT + (step - first) / (last - first) * (WIDTH - LEFT - RIGHT)
        return across, TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for tick in make_ticks(low, high):
        _, y = place(first, tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    for step in choose_steps(first, max(steps)):
        x, _ = place(step, low)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{step}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 3}" text-anchor="middle">epoch</text>')
    for curve in panel.curves:
        parts += draw_curve(curve, [place(*point) for point in curve.points if math.isfinite(point[1])])
    label = escape(f"{panel.title} by epoch")
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def draw_curve(curve: Curve, places: Sequence[tuple[float, float]]) -> list[str]:
    """Return a line with its points as SVG elements."""
    stroke = color(curve.side)
    dash = ' stroke-dasharray="5 4"' if curve.dashed else ""
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    title = f"<title>{escape(make_visible(curve.name))}</title>"
    # of one epoch there is no line: what is dashed is hollow then
    kind = f'class="hollow" stroke="{stroke}"' if curve.dashed else f'fill="{stroke}"'
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" {kind}/>' for x, y in places]
    return [
        f'<g>{title}<polyline points="{line}" fill="none" stroke="{stroke}" stroke-width="2"{dash}/>',
        *dots,
        "</g>",
    ]


def make_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Return about ``count`` round numbers between ``low`` and ``high``.

    Examples
    --------
    >>> make_ticks(0.13, 0.61)
    [0.2, 0.3, 0.4, 0.5, 0.6]
    """
    rough = (high - low) / count
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough * 0.75)
    first = math.ceil(low / step)
    return [round(step * number, 10) for number in range(first, math.floor(high / step) + 1)]


def choose_steps(first: int, last: int, most: int = 10) -> list[int]:
    """Return the steps that are named on the axis: all of few, else every second, third, ...

    Examples
    --------
    >>> choose_steps(1, 3), choose_steps(0, 40)
    ([1, 2, 3], [0, 5, 10, 15, 20, 25, 30, 35, 40])
    """
    return list(range(first, last + 1, 1 + (last - first) // most))


def draw_interval(found: MetricDifference) -> str:
    """Return a difference with its interval beside the line of no difference, as an SVG element."""
    low, high = found.interval
    if math.isnan(found.value) or math.isnan(low):
        return ""
    reach = max(abs(low), abs(high), abs(found.value)) or 1.0
    middle, half = BAR_WIDTH / 2, BAR_WIDTH / 2 - 6
    left, at, right = (middle + value / reach * half for value in (low, found.value, high))
    y = BAR_HEIGHT / 2
    return (
        f'<svg class="bar {found.verdict}" viewBox="0 0 {BAR_WIDTH} {BAR_HEIGHT}" width="{BAR_WIDTH}" '
        f'height="{BAR_HEIGHT}" role="img" aria-label="{low:+.3f} to {high:+.3f}">'
        f'<line class="zero" x1="{middle}" x2="{middle}" y1="0" y2="{BAR_HEIGHT}"/>'
        f'<line class="range" x1="{left:.1f}" x2="{right:.1f}" y1="{y}" y2="{y}"/>'
        f'<circle class="value" cx="{at:.1f}" cy="{y}" r="4"/></svg>'
    )
