"""Charts of a card (Vega-Lite, as Altair makes them) as SVG: those that take no computing, in lines and bars."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 420, 240, 64, 150, 28, 44
COLOURS = (
    "#4c78a8",
    "#f58518",
    "#e45756",
    "#72b7b2",
    "#54a24b",
    "#eeca3b",
    "#b279a2",
    "#ff9da6",
    "#9d755d",
    "#bab0ac",
)
COLOUR = re.compile(r"#[0-9A-Fa-f]{3,8}|[a-z]{3,30}")
MARKS = frozenset({"line", "point", "circle", "square", "bar", "area", "rule", "trail"})
COMPUTED = frozenset({"aggregate", "bin", "timeUnit", "impute"})
MOST_ROWS, MOST_PANELS, MOST_NAMES = 20_000, 12, 30


class _Unknown(Exception):
    """The chart has something that is not drawn here."""


@dataclass
class _Layer:
    mark: str
    rows: list[Mapping[str, Any]]
    encoding: Mapping[str, Any]


@dataclass
class _Axis:
    """An axis, of numbers from ``low`` to ``high``, or of ``names``; ``start`` and ``end`` are pixels."""

    title: str
    names: list[str] = field(default_factory=list)
    low: float = math.inf
    high: float = -math.inf
    is_named: bool = False
    start: float = 0
    end: float = 0

    def place(self, value: Any) -> float | None:
        """Return the pixel of a value; ``None`` of one that has no place."""
        if self.is_named:
            step = (self.end - self.start) / max(1, len(self.names))
            return self.start + (self.names.index(str(value)) + 0.5) * step if str(value) in self.names else None
        if not _is_number(value):
            return None
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.start + share * (self.end - self.start)

    def list_ticks(self) -> list[tuple[float, str]]:
        """Return pixels and labels."""
        if self.is_named:
            every = math.ceil(len(self.names) / 15)
            return [(self.place(name) or 0, name[:14]) for name in self.names[::every]]
        span = (self.high - self.low) or 1.0
        size = 10 ** math.floor(math.log10(span / 4))
        size *= next(times for times in (1, 2, 5, 10) if span / (size * times) <= 6)
        first = math.ceil(self.low / size - 1e-9)
        values = [(first + at) * size for at in range(8) if (first + at) * size <= self.high + size * 1e-6]
        return [(self.place(value) or 0, f"{value:.6g}") for value in values]


def draw_chart(spec: Mapping[str, Any]) -> str:
    """Return the chart as SVG; empty where it takes more than lines, points, areas and bars of rows that it holds.

    Examples
    --------
    >>> rows = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}]
    >>> encoding = {"x": {"field": "epoch", "type": "ordinal"}, "y": {"field": "loss", "type": "quantitative"}}
    >>> draw_chart({"mark": "line", "data": {"values": rows}, "encoding": encoding})[:4]
    '<svg'
    >>> draw_chart({"mark": "geoshape"})
    ''
    """
    try:
        panels = list(_list_panels(spec, {}, spec.get("datasets") or {}))
        if not 0 < len(panels) <= MOST_PANELS:
            return ""
        drawn = [_draw_panel(title, layers) for title, layers in panels]
    except (_Unknown, AttributeError, TypeError, ValueError, LookupError, OverflowError, RecursionError):
        return ""
    width, height = LEFT + WIDTH + RIGHT, TOP + HEIGHT + BOTTOM
    moved = [f'<g transform="translate(0 {at * height})">{panel}</g>' for at, panel in enumerate(drawn)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height * len(drawn)}" '
        'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>'
        f"{''.join(moved)}</svg>\n"
    )


def _list_panels(
    spec: Mapping[str, Any], outer: Mapping[str, Any], datasets: Mapping[str, Any]
) -> Iterator[tuple[str, list[_Layer]]]:
    """Yield title and layers of each panel; what stands outside of it holds inside."""
    for key in ("hconcat", "vconcat", "concat"):
        if key in spec:
            for inner in spec[key]:
                yield from _list_panels(inner, {**outer, **_find_common(spec)}, datasets)
            return
    title = spec.get("title") or ""
    layers = spec.get("layer") or [spec]
    yield (
        str(title.get("text", "") if isinstance(title, Mapping) else title),
        [
            made
            for layer in layers
            if (made := _read_layer({**outer, **_find_common(spec), **layer}, spec, datasets)) is not None
        ],
    )


def _find_common(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {key: spec[key] for key in ("data", "transform") if key in spec}


def _read_layer(layer: Mapping[str, Any], spec: Mapping[str, Any], datasets: Mapping[str, Any]) -> _Layer | None:
    mark = layer.get("mark")
    mark = mark.get("type") if isinstance(mark, Mapping) else mark
    encoding = {**(spec.get("encoding") or {}), **(layer.get("encoding") or {})}
    if mark in ("text", "errorband"):  # beside what is drawn
        return None
    channels = [channel for channel in encoding.values() if isinstance(channel, Mapping)]
    if mark not in MARKS or layer.get("transform") or any(COMPUTED & set(channel) for channel in channels):
        raise _Unknown
    if {"facet", "row", "column"} & set(encoding):
        raise _Unknown
    data = layer.get("data") or {}
    rows = data.get("values") or datasets.get(str(data.get("name")), [])
    if not isinstance(rows, list) or len(rows) > MOST_ROWS:
        raise _Unknown
    return _Layer(str(mark), [row for row in rows if isinstance(row, Mapping)], encoding)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _read(channel: Any, row: Mapping[str, Any]) -> Any:
    """Return what a row has in a channel."""
    if not isinstance(channel, Mapping):
        return None
    return row.get(channel["field"]) if "field" in channel else channel.get("datum")


def _list_rows(layer: _Layer) -> list[Mapping[str, Any]]:
    """Return the rows of a layer; one that only has constants has one."""
    return layer.rows or [{}]


def _make_axis(layers: Sequence[_Layer], name: str) -> _Axis:
    channels = [layer.encoding[name] for layer in layers if isinstance(layer.encoding.get(name), Mapping)]
    first: Mapping[str, Any] = next((channel for channel in channels if "field" in channel), {})
    title = first.get("title", (first.get("axis") or {}).get("title", first.get("field")))
    axis = _Axis(str(title or ""), is_named=first.get("type", "quantitative") != "quantitative")
    values = [
        value
        for layer in layers
        for row in _list_rows(layer)
        for key in (name, f"{name}2")
        if (value := _read(layer.encoding.get(key), row)) is not None
    ]
    axis.names = list(dict.fromkeys(map(str, values)))
    numbers = [value for value in values if _is_number(value)]
    if any(layer.mark in ("bar", "area") for layer in layers) and not axis.is_named:
        numbers.append(0)
    if not axis.is_named and numbers:
        room = (max(numbers) - min(numbers)) * 0.05 or abs(numbers[0]) * 0.1 or 1.0
        axis.low, axis.high = min(numbers) - room * (min(numbers) != 0), max(numbers) + room * (max(numbers) != 0)
    if not axis.names or (not axis.is_named and not numbers):
        raise _Unknown
    return axis


def _draw_panel(title: str, layers: Sequence[_Layer]) -> str:
    x, y = _make_axis(layers, "x"), _make_axis(layers, "y")
    x.start, x.end, y.start, y.end = LEFT, LEFT + WIDTH, TOP + HEIGHT, TOP
    if y.is_named:
        y.start, y.end = TOP, TOP + HEIGHT
    names = list(
        dict.fromkeys(
            str(value)
            for layer in layers
            for row in layer.rows
            if (value := _read(layer.encoding.get("color"), row)) is not None
        )
    )
    given = _find_colours(layers)
    names.sort(key=lambda name: list(given).index(name) if name in given else len(given))
    colours = {name: given.get(name, COLOURS[at % len(COLOURS)]) for at, name in enumerate(names[:MOST_NAMES])}
    parts = [
        f'<text x="{LEFT}" y="16" font-size="13" font-weight="bold">{escape(title)}</text>',
        *_draw_axes(x, y),
    ]
    for layer in layers:
        parts += _draw_layer(layer, x, y, colours)
    for at, (name, colour) in enumerate(colours.items()):
        top = TOP + 6 + at * 15
        parts.append(f'<rect x="{LEFT + WIDTH + 14}" y="{top - 8}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{LEFT + WIDTH + 29}" y="{top + 1}">{escape(name[:20])}</text>')
    return "".join(parts)


def _find_colours(layers: Sequence[_Layer]) -> dict[str, str]:
    """Return the colours that a scale gives to names, in its order."""
    found: dict[str, str] = {}
    for layer in layers:
        channel = layer.encoding.get("color")
        scale = (channel.get("scale") if isinstance(channel, Mapping) else None) or {}
        if isinstance(scale.get("domain"), list) and isinstance(scale.get("range"), list):
            pairs = zip(scale["domain"], scale["range"], strict=False)
            found |= {str(name): colour for name, colour in pairs if COLOUR.fullmatch(str(colour))}
    return found


def _draw_axes(x: _Axis, y: _Axis) -> Iterator[str]:
    for at, label in x.list_ticks():
        yield f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{TOP + HEIGHT}" stroke="#eee"/>'
        yield f'<text x="{at:.1f}" y="{TOP + HEIGHT + 15}" text-anchor="middle">{escape(label)}</text>'
    for at, label in y.list_ticks():
        yield f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{at:.1f}" y2="{at:.1f}" stroke="#eee"/>'
        yield f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{escape(label)}</text>'
    yield f'<path d="M{LEFT} {TOP}V{TOP + HEIGHT}H{LEFT + WIDTH}" fill="none" stroke="#888"/>'
    middle = LEFT + WIDTH / 2
    yield f'<text x="{middle}" y="{TOP + HEIGHT + 34}" text-anchor="middle" fill="#555">{escape(x.title)}</text>'
    yield (
        f'<text transform="translate(12 {TOP + HEIGHT / 2}) rotate(-90)" text-anchor="middle" fill="#555">'
        f"{escape(y.title)}</text>"
    )


def _draw_layer(layer: _Layer, x: _Axis, y: _Axis, colours: Mapping[str, str]) -> Iterator[str]:
    groups: dict[tuple[str, str], list[tuple[float | None, float | None]]] = {}
    for row in _list_rows(layer):
        key = str(_read(layer.encoding.get("color"), row)), str(_read(layer.encoding.get("detail"), row))
        point = x.place(_read(layer.encoding.get("x"), row)), y.place(_read(layer.encoding.get("y"), row))
        groups.setdefault(key, []).append(point)
    for at, ((name, _), points) in enumerate(groups.items()):
        colour = colours.get(name, "#888" if layer.mark == "rule" else COLOURS[0])
        whole = [(left, top) for left, top in points if left is not None and top is not None]
        if layer.mark == "rule":
            yield from (_draw_rule(left, top, colour) for left, top in points)
        elif layer.mark == "bar":
            yield from (_draw_bar(point, x, y, colour, at, len(groups)) for point in whole)
        else:
            yield from _draw_points(layer.mark, whole, y, colour)


def _draw_points(mark: str, points: list[tuple[float, float]], y: _Axis, colour: str) -> Iterator[str]:
    path = "L".join(f"{left:.1f} {top:.1f}" for left, top in points)
    if mark == "area" and points:
        ground = y.place(0) or y.start
        closed = f"M{points[0][0]:.1f} {ground:.1f}L{path}L{points[-1][0]:.1f} {ground:.1f}z"
        yield f'<path d="{closed}" fill="{colour}" fill-opacity="0.5"/>'
    elif mark in ("line", "trail") and points:
        yield f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    if mark not in ("area", "trail") and (mark != "line" or len(points) <= 50):
        yield from (f'<circle cx="{left:.1f}" cy="{top:.1f}" r="3" fill="{colour}"/>' for left, top in points)


def _draw_rule(left: float | None, top: float | None, colour: str) -> str:
    """Return a line across the panel."""
    if left is None and top is None:
        return ""
    if left is None:
        return f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{top:.1f}" y2="{top:.1f}" stroke="{colour}"/>'
    return f'<line x1="{left:.1f}" x2="{left:.1f}" y1="{TOP}" y2="{TOP + HEIGHT}" stroke="{colour}"/>'


def _draw_bar(point: tuple[float, float], x: _Axis, y: _Axis, colour: str, at: int, count: int) -> str:
    """Return a bar from zero; bars of several colours stand beside each other."""
    named, across = (y, point[1]) if y.is_named and not x.is_named else (x, point[0])
    room = WIDTH if named is x else HEIGHT
    wide = room / max(1, len(named.names)) * 0.8 / count
    begin = across - wide * count / 2 + at * wide
    if named is x:
        ground = y.place(0) or y.start
        top, size = min(point[1], ground), abs(point[1] - ground)
        return f'<rect x="{begin:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{size:.1f}" fill="{colour}"/>'
    ground = x.place(0) or x.start
    left, size = min(point[0], ground), abs(point[0] - ground)
    return f'<rect x="{left:.1f}" y="{begin:.1f}" width="{size:.1f}" height="{wide:.1f}" fill="{colour}"/>'
