"""Drift and quality of what a server was asked and answered, from its log."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from serving_kills import make_entry

from dlpipe.errors import TableNotFound
from dlpipe.monitoring import DriftReport, DriftSettings, monitor
from dlpipe.monitoring.samples import to_predictions
from dlpipe.registry import ModelVersion
from dlpipe.serving.entries import make_request_id
from dlpipe.serving.feedback import Given, write_feedback
from dlpipe.serving.incoming import find_served, read_served
from dlpipe.serving.log_rows import dump
from dlpipe.serving.request_log import RequestLog
from dlpipe.serving.settings import LogSettings
from dlpipe.tables import (
    Column,
    FormSettings,
    Label,
    RowForm,
    Sources,
    TableVersion,
    ingest,
    read_table,
    table_at,
)
from dlpipe.task import find_task, open_predictor

TASK = find_task("text-classification")
DAY = 86400.0
OTHER = {"positive": "negative", "negative": "positive"}


@pytest.fixture(scope="module")
def predictor(tiny_model):
    return open_predictor(tiny_model, threads=1)


@pytest.fixture
def server(tiny_table, predictor, tmp_path, monkeypatch):
    monkeypatch.setenv("DLPIPE_TABLES", str(tmp_path / "tables"))
    made = FakeServer(tiny_table, predictor)
    yield made
    made.log.close()


Learnt = Callable[..., ModelVersion]


@pytest.fixture
def learnt(tmp_path: Path) -> Learnt:
    """Make a version of the model ``rows`` that was trained on a table of these columns."""

    def make(task: str, columns: dict[str, str], label: str = "class") -> ModelVersion:
        optional = task.startswith("tabular")
        inputs = tuple(Column(name, name, kind, optional=optional) for name, kind in columns.items())
        values = {"text": "a text {}", "category": "town {}", "number": "{}"}
        lines = [
            {name: values[kind].format(number) for name, kind in columns.items()}
            | {"label": "yn"[number % 2] if label == "class" else number % 5}
            for number in range(60)
        ]
        source = tmp_path / "learnt.jsonl"
        source.write_text("\n".join(map(json.dumps, lines)))
        form = RowForm(inputs, Label(("label",), label), repeats=optional)
        table = ingest(Sources(data=str(source)), tmp_path / "learnt", settings=FormSettings(rows=form)).table
        tags = {"delta.table": table.path, "delta.version": "0", "dlpipe.task": task}
        return ModelVersion("rows", 1, "models:/rows/1", "d1", "", "", tags=tags)

    return make


class FakeServer:
    """Answers, and keeps them in a log, without HTTP."""

    def __init__(self, trained_on: TableVersion, predictor) -> None:
        self.trained_on, self.predictor = trained_on, predictor
        tags = {"delta.table": trained_on.path, "delta.version": str(trained_on.version)}
        self.champion = ModelVersion("reviews", 1, "models:/reviews/1", predictor.digest, "", "", tags=tags)
        self.log = self.start()

    def start(self, *, texts: bool = True) -> RequestLog:
        log = RequestLog(LogSettings(texts=texts, flush_seconds=3600), say=lambda line: None)
        log.start()
        return log

    def ask(self, texts: list[str], *, version: int = 1, days_ago: int = 0, kind: str = "predict") -> str:
        """Answer texts and return the id of the request."""
        records = TASK.target.make_records(self.predictor.predict_batch(texts), self.predictor.card)
        now = time.time() - days_ago * DAY
        entry = dataclasses.replace(
            make_entry("reviews", len(texts), version=version),
            texts=texts,
            records=records,
            arrived=now,
            kind=kind,
            request_id=make_request_id(now),
        )
        self.log.write([entry])
        self.log.flush()
        return entry.request_id

    def label(self, request_id: str, labels: list[str]) -> None:
        given = [Given(request_id, label, row) for row, label in enumerate(labels)]
        write_feedback(self.log, "reviews", given)
        self.log.flush()

    def decide(self, texts: list[str]) -> list[str]:
        return list(TASK.target.decide(self.predictor.predict_batch(texts), self.predictor.card))

    def predict(self, texts: list[str]) -> pa.Table:
        return to_predictions(TASK.target, self.predictor.predict_outputs(texts), self.predictor.card)

    def look(self, *, now: float = 0.0, **settings) -> DriftReport:
        subject = find_served(self.champion)
        return monitor(
            subject, predict=self.predict, settings=DriftSettings(**settings), now=now, read=read_served
        )


def new_texts(count: int, words: str = "cable") -> list[str]:
    return [f"the {words} number {number} broke on day {number}" for number in range(count)]


def test_rows_that_were_asked_are_compared_and_those_that_were_learnt_are_not(server: FakeServer) -> None:
    learnt = read_table(server.trained_on, columns=["text"])["text"].to_pylist()
    server.ask(new_texts(60))
    server.ask(learnt[:50])
    server.ask(new_texts(10, "phone"), version=2)
    server.ask(new_texts(10, "word"), kind="explain")
    found = server.look()
    assert sorted(found.current.rows) == sorted([*new_texts(60), *new_texts(10, "phone")])
    assert found.current.predictions == 60  # of the champion
    assert "domain" in {signal.name for signal in found.drift.raised}
    assert found.publish
    payload = found.payload()
    assert (payload["model"], payload["table"]) == ("reviews", server.trained_on.path)
    assert Path(payload["scored_table"]).name == "reviews_requests"
    assert found.table.name == "reviews_requests_drift"
    assert "labels of new rows of 50 needed" in found.drift.missing[-1]


def test_quality_is_that_of_what_was_answered_to_rows_with_a_label(server: FakeServer) -> None:
    texts = new_texts(80)
    request_id = server.ask(texts)
    assert server.look().quality.rows == 0
    decided = server.decide(texts)
    labels = [own if number % 4 == 0 else OTHER[own] for number, own in enumerate(decided)]
    server.label(request_id, labels)
    server.label(server.ask(new_texts(20, "phone"), version=2), ["positive"] * 20)  # another model answered
    found = server.look()
    assert (found.quality.value, found.quality.rows) == (0.25, 80)
    low, high = found.quality.interval
    assert 0 < low < 0.25 < high < found.quality.test_value
    assert "quality" in {signal.name for signal in found.drift.raised}
    (row,) = read_table(found.table).to_pylist()[-1:]
    assert (row["labelled_rows"], row["judged_rows"]) == (100, 80)
    server.label(request_id, decided)  # the last label that came counts
    assert server.look().quality.value == 1.0


def test_without_texts_answers_are_compared_and_it_is_said_that_rows_are_not(server: FakeServer) -> None:
    server.log.close()
    server.log = server.start(texts=False)
    texts = new_texts(80)
    server.label(server.ask(texts), server.decide(texts))
    found = server.look(min_rows=20)
    assert (len(found.current.rows), found.current.predictions, found.current.count) == (0, 80, 80)
    assert {signal.name for signal in found.drift.signals} == {"p_positive", "predicted", "quality"}
    assert found.quality.value == 1.0
    assert [reason for reason in found.drift.missing if "texts = true" in reason]
    assert not [reason for reason in found.drift.missing if reason.startswith("0 texts")]


def test_the_same_look_again_is_one_row_and_new_labels_make_another(server: FakeServer) -> None:
    texts = new_texts(60)
    request_id = server.ask(texts)
    first, again = server.look(now=10.0), server.look(now=500.0)
    assert (again.table, again.event_id, again.new) == (first.table, first.event_id, False)
    server.label(request_id, server.decide(texts))
    third = server.look(now=900.0)
    assert (third.table.version, third.publish) == (
        first.table.version + 1,
        True,
    )  # there is something to learn from


def test_the_window_holds_what_was_asked_last_and_a_label_of_long_ago_counts(server: FakeServer) -> None:
    old = server.ask(new_texts(60), days_ago=40)
    server.ask(new_texts(60, "phone"), days_ago=1)
    server.ask(new_texts(30, "plug"))
    last = sorted([*new_texts(60, "phone")[-20:], *new_texts(30, "plug")])
    assert sorted(server.look(window=50).current.rows) == last
    server.label(old, ["positive"] * 60)
    found = server.look(window=50)
    assert (sorted(found.current.rows), found.quality.rows) == (last, 50)


def test_labels_of_another_kind_are_passed_over(server: FakeServer, learnt: Learnt) -> None:
    model = learnt("text-regression", {"text": "text"}, "number")
    entry = dataclasses.replace(
        make_entry("rows", 3),
        texts=["one", "two", "three"],
        records=[{"predicted": 2.0, "low": 1.0, "high": 3.0}] * 3,
    )
    server.log.write([entry])
    given = [Given(entry.request_id, label, row) for row, label in enumerate(["4", "good", "2.5"])]
    nameless = Given(entry.request_id, "9", names_row=False)  # of one of three rows: nobody knows which
    write_feedback(server.log, "rows", [*given, nameless])
    server.log.flush()
    came = read_served(find_served(model), window=50)
    assert (came.scores, came.labelled) == ([2.0, 0.5], 2)


@pytest.mark.parametrize(
    ("task", "columns", "row"),
    [
        ("text-pair-classification", {"text": "text", "text_pair": "text"}, {"text": "a | b", "text_pair": "c"}),
        ("tabular-classification", {"age": "number", "town": "category"}, {"age": 31.0, "town": None}),
    ],
)
def test_rows_of_several_values_are_read_from_the_log(
    task: str, columns: dict[str, str], row: dict, server: FakeServer, learnt: Learnt
) -> None:
    model = learnt(task, columns)
    answer = {"predicted": "y", "probability": 0.75, "p_n": 0.25, "p_y": 0.75}
    entry = dataclasses.replace(make_entry("rows", 1), texts=[dump(row).decode()], records=[answer])
    before = dataclasses.replace(make_entry("rows", 1), texts=['{"width": 3}'], records=[answer])
    server.log.write([before, entry])  # the first was asked of a version that read other columns
    write_feedback(server.log, "rows", [Given(entry.request_id, "y")])
    server.log.flush()
    came = read_served(find_served(model), window=50)
    (read,) = came.sample.rows
    assert json.loads(dump(find_task(task).inputs.name_values(read))) == row
    assert (came.scores, came.sample.predictions) == ([1.0], 1)


def test_a_model_that_nobody_has_asked_is_said(server: FakeServer) -> None:
    with pytest.raises(TableNotFound, match="Nobody has asked a server for reviews yet"):
        find_served(server.champion)
    assert table_at(server.trained_on.path).version == 0
