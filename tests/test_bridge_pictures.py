"""Pictures on the page of a card, as files."""

from __future__ import annotations

import base64
import json
from typing import Any
from xml.etree import ElementTree

import pytest

from dlpipe.bridge.charts import draw_chart
from dlpipe.bridge.pictures import find_pictures

PNG = b"\x89PNG of some kind"
ROWS = [{"epoch": at, "name": name, "value": at / 10} for at in (1, 2, 3) for name in ("loss", "f1")]
ENCODING = {
    "x": {"field": "epoch", "type": "ordinal"},
    "y": {"field": "value", "type": "quantitative", "title": None},
    "color": {"field": "name", "type": "nominal"},
}
CHART = {
    "mark": {"type": "line", "point": True},
    "data": {"values": ROWS},
    "encoding": ENCODING,
    "title": "Curves",
}


def in_address(content: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64, {base64.b64encode(content).decode()}"  # with the blank, as Metaflow has it


def make_card(*parts: dict[str, Any]) -> str:
    data = {"components": [{"type": "page", "contents": [{"type": "section", "contents": [*parts]}]}]}
    return f'<script>window.__MF_DATA__["x"] = "{base64.b64encode(json.dumps(data).encode()).decode()}";</script>'


def image(label: str | None, src: str) -> dict[str, Any]:
    return {"type": "image", "src": src, "label": label}


def test_each_picture_of_a_card_is_a_file_named_by_its_place_and_label() -> None:
    card = make_card(
        image("Which labels: true / predicted?", in_address(PNG)),
        {"type": "table", "data": [[image(None, in_address(b"GIF8", "gif"))]]},
        {"type": "vegaChart", "spec": CHART},
        image("no data", "https://example.com/a.png"),
        image("broken", "data:image/png;base64,%%%"),
        image("drawn", in_address(b"<svg><text>token=sk-0123456789</text></svg>", "svg+xml")),
    )
    found, note = find_pictures(card, "pictures/0-blank")
    assert [document.path for document in found] == [
        "pictures/0-blank/01-Which_labels_true_predicted.png",
        "pictures/0-blank/02.gif",
        "pictures/0-blank/03-Curves.svg",
        "pictures/0-blank/04-drawn.svg",
    ]
    assert found[0].content == PNG
    assert b"sk-0123456789" not in found[3].content
    assert note == ""


def test_pictures_of_a_page_of_another_kind_are_found_and_a_chart_that_is_not_drawn_is_told() -> None:
    page = f'<html><img class="a" src="{in_address(PNG)}" alt="The curve"><img src="there.png"></html>'
    assert [document.path for document in find_pictures(page, "p")[0]] == ["p/01-The_curve.png"]
    found, note = find_pictures(make_card({"type": "vegaChart", "spec": {"mark": "geoshape"}}), "p")
    assert (found, note) == ([], "1 of its charts cannot be drawn here: on the page alone")
    assert find_pictures('window.__MF_DATA__["x"] = "AAAA"', "p") == ([], "")
    many, note = find_pictures(make_card(*[image("a", in_address(PNG))] * 101), "p")
    assert len(many) == 100
    assert note.startswith("more than 100 pictures")


def test_a_line_chart_has_a_line_a_name_and_every_point_of_each_series() -> None:
    drawn = ElementTree.fromstring(draw_chart(CHART))
    assert len([part for part in drawn.iter() if part.tag.endswith("circle")]) == len(ROWS)
    lines = [part for part in drawn.iter() if part.tag.endswith("path") and part.get("stroke-width") == "2"]
    assert len(lines) == 2
    assert {"loss", "f1", "Curves", "epoch"} <= {part.text for part in drawn.iter()}


def test_panels_layers_bars_and_rules_are_drawn() -> None:
    bars = {"mark": "bar", "encoding": {"y": {"field": "name", "type": "nominal"}, "x": {"field": "value"}}}
    limits = {"layer": [bars, {"mark": "rule", "encoding": {"x": {"datum": 0.15}}}], "title": {"text": "a < b"}}
    spec = {"data": {"name": "d"}, "datasets": {"d": ROWS[:2]}, "vconcat": [limits, {**bars, "mark": "point"}]}
    drawn = draw_chart(spec)
    assert drawn.count("<g ") == 2
    assert drawn.count('fill="#4c78a8"/>') == 4  # two bars, two points
    assert "a &lt; b" in drawn
    ElementTree.fromstring(drawn)


@pytest.mark.parametrize(
    "change",
    [
        {"mark": "geoshape"},
        {"transform": [{"filter": "datum.value > 1"}]},
        {"data": {"url": "rows.csv"}},
        {"data": {"values": []}},
        {"encoding": {**ENCODING, "y": {"aggregate": "mean", "field": "value"}}},
        {"encoding": {**ENCODING, "row": {"field": "name"}}},
        {"encoding": 3},
    ],
)
def test_a_chart_that_takes_more_than_its_rows_is_not_drawn(change: dict[str, Any]) -> None:
    assert draw_chart({**CHART, **change}) == ""


def test_lines_have_the_colours_of_their_chart_and_lines_of_one_colour_stay_apart() -> None:
    colour = {"field": "name", "scale": {"domain": ["f1", "loss"], "range": ["#111111", "url(evil)"]}}
    drawn = draw_chart({**CHART, "encoding": {**ENCODING, "color": colour}})
    assert '"#111111"' in drawn
    assert "evil" not in drawn
    assert drawn.index(">f1<") < drawn.index(">loss<")
    rows = [{**row, "name": "others", "trial": row["name"]} for row in ROWS]
    apart = {**ENCODING, "detail": {"field": "trial"}}
    assert draw_chart({**CHART, "data": {"values": rows}, "encoding": apart}).count('stroke-width="2"') == 2


def test_a_chart_without_a_title_is_named_by_its_description() -> None:
    side_by_side = {"hconcat": [CHART, CHART], "description": "Learning curves"}
    found, _ = find_pictures(make_card({"type": "vegaChart", "spec": side_by_side}), "pictures")
    assert [document.path for document in found] == ["pictures/01-Learning_curves.svg"]
