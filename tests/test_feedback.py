"""Labels for what was asked: late, twice, contradictory, unknown, before the request is in the table."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner
from serving_kills import make_entry
from stores import new_store, untouched_environment
from texts import reviews, write_csv

from dlpipe.cli import main
from dlpipe.errors import BadSource, SchemaMismatch, SettingError, SourceNotFound, TrackingUnavailable
from dlpipe.serving.application import Application
from dlpipe.serving.entries import Entry, make_request_id
from dlpipe.serving.feedback import (
    Given,
    add_feedback,
    append_labelled,
    describe_feedback,
    join_feedback,
    read_given,
    read_labels,
    write_feedback,
)
from dlpipe.serving.guards import Open
from dlpipe.serving.log_rows import dump, make_request_rows
from dlpipe.serving.logged import list_tables, read_logged
from dlpipe.serving.lookup import Lookup
from dlpipe.serving.request_log import RequestLog
from dlpipe.serving.server import ServeSettings, close_application, make_application
from dlpipe.serving.settings import LogSettings
from dlpipe.tables import (
    Column,
    FormSettings,
    Label,
    RowForm,
    Sources,
    append,
    ingest,
    parse_label,
    read_table,
    table_at,
    tidy_days,
    write_table,
)
from dlpipe.task.text_classification import TextClassData


@pytest.fixture(autouse=True)
def tables(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DLPIPE_TABLES", str(tmp_path / "tables"))
    return tmp_path / "tables"


@pytest.fixture
def log() -> RequestLog:
    made = RequestLog(LogSettings(texts=True, flush_seconds=3600), say=lambda line: None)
    made.start()
    yield made
    made.close()


def ask(log: RequestLog, *texts: str, model: str = "reviews") -> Entry:
    entry = make_entry(model, len(texts))
    object.__setattr__(entry, "texts", list(texts))
    log.write([entry])
    return entry


def labels_of(model: str = "reviews") -> dict[tuple[str, int], str | None]:
    joined = join_feedback(model)
    places = zip(joined["request_id"].to_pylist(), joined["row"].to_pylist(), strict=True)
    return dict(zip(places, joined["label"].to_pylist(), strict=True))


def test_a_label_finds_its_row_also_before_either_is_in_a_table(log):
    entry = ask(log, "a fine film", "dull")
    write_feedback(log, "reviews", [Given(entry.request_id, "negative", 1)], key="k1")
    expected = {(entry.request_id, 0): None, (entry.request_id, 1): "negative"}
    assert labels_of() == expected
    log.flush()
    assert labels_of() == expected
    (row,) = read_logged("reviews_feedback").to_pylist()
    assert (row["source"], row["key"], row["row"]) == ("http", "k1", 1)
    assert table_at("reviews_feedback").rows == 1


def test_a_label_before_its_request_is_kept_and_joined_later(log):
    entry = make_entry("reviews", 1)
    done = add_feedback("reviews", [Given(entry.request_id, "positive")], source="labels.csv")
    assert (done.added, done.unknown) == (1, 1)
    assert describe_feedback("reviews").unknown == 1
    log.write([entry])
    log.flush()
    assert labels_of() == {(entry.request_id, 0): "positive"}
    assert describe_feedback("reviews").unknown == 0


def test_a_label_of_a_request_that_the_log_has_forgotten_is_unknown(log):
    entry = make_entry("reviews", 1)
    object.__setattr__(entry, "arrived", arrived := time.time() - 10 * 86400)
    object.__setattr__(entry, "request_id", make_request_id(arrived))
    log.write([entry])
    log.flush()
    given = Given(entry.request_id, "positive")
    assert add_feedback("reviews", [given], source="x").unknown == 0
    assert tidy_days("reviews_requests", keep_days=2) is not None
    assert describe_feedback("reviews").unknown == 1
    assert add_feedback("reviews", [given], source="x").unknown == 1
    assert labels_of() == {}


def test_the_same_labels_twice_add_nothing_and_the_last_of_contradictory_ones_counts(log):
    entry = ask(log, "a fine film")
    first, second = Given(entry.request_id, "positive"), Given(entry.request_id, "negative")
    assert add_feedback("reviews", [first], source="a").added == 1
    assert add_feedback("reviews", [first], source="b").known == 1
    done = add_feedback("reviews", [second], source="b")
    assert (done.added, done.changed) == (1, 1)
    write_feedback(log, "reviews", [first])  # by HTTP it counts before it is committed
    assert labels_of() == {(entry.request_id, 0): "positive"}
    assert add_feedback("reviews", [second, first, second], source="c").added == 3
    assert labels_of() == {(entry.request_id, 0): "negative"}
    log.flush()
    assert read_logged("reviews_feedback").num_rows == 6  # all stay
    state = describe_feedback("reviews")
    assert (state.labelled, state.contradictory) == (1, 1)


@pytest.mark.slow
def test_labels_by_http_are_there_once_after_a_kill(tmp_path):
    program = (
        "import sys\nfrom dlpipe.serving.feedback import *\nfrom dlpipe.serving.request_log import RequestLog\n"
        "from dlpipe.serving.settings import LogSettings\nlog = RequestLog(LogSettings(flush_seconds=0.01))\n"
        "log.start()\nwrite_feedback(log, 'reviews', [Given(sys.argv[1], 'positive', row) for row in range(50)])\n"
        "print('written', flush=True)\nsys.stdin.read()\n"
    )
    request = make_request_id(time.time())
    process = subprocess.Popen(
        [sys.executable, "-c", program, request], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"written\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert read_logged("reviews_feedback").num_rows == 50
    after = RequestLog(LogSettings())
    after.start()
    after.close()
    assert sorted(read_table(table_at("reviews_feedback"))["row"].to_pylist()) == list(range(50))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"label": "x"}, "lacks 'request_id'"),
        ({"request_id": make_request_id(1.0)}, "lacks 'label'"),
        ({"request_id": "7", "label": "x"}, "no request id"),
        ({"request_id": make_request_id(1.0), "label": " "}, "no label"),
        ({"request_id": make_request_id(1.0), "label": None}, "no label"),
        ({"request_id": make_request_id(1.0), "label": True}, "no label"),
        ({"request_id": make_request_id(1.0), "label": "x", "row": -1}, "the row '-1'"),
        ({"request_id": make_request_id(1.0), "label": "x", "row": "one"}, "the row 'one'"),
    ],
)
def test_a_label_that_is_none_is_refused(record, message):
    with pytest.raises(SettingError, match=message):
        read_given(record, where="the body")


def test_several_labels_and_numbers_are_labels():
    request = make_request_id(1.0)
    assert (
        read_given({"request_id": request, "label": ["war", "drama", "war"]}, where="").label == '["drama", "war"]'
    )
    assert read_given({"request_id": request, "label": 4.5, "row": "2"}, where="") == Given(request, "4.5", 2)


def test_the_command_takes_files_and_tables_and_says_what_came_of_them(log, tmp_path):
    entry = ask(log, "a fine film", "dull")
    csv = tmp_path / "labels.csv"
    csv.write_text(f"id,row,label\n{entry.request_id},0,positive\n{make_request_id(1.0)},0,negative\n")
    run = CliRunner().invoke(main, ["feedback", "reviews", str(csv), "--id-column", "id", "--json"])
    told = json.loads(run.output)
    assert (told["table"], told["added"], told["unknown"]) == ("reviews_feedback@v0", 2, 1)
    write_table(
        "labels", pa.table({"request_id": [entry.request_id] * 2, "row": [0, 1], "stars": ["negative", None]})
    )
    run = CliRunner().invoke(main, ["feedback", "reviews", "--table", "labels", "--label-column", "stars"])
    assert run.output.startswith("reviews_feedback@v1: 1 labels added, 1 of them instead of another; 0 known")
    assert labels_of()[entry.request_id, 0] == "negative"
    run = CliRunner().invoke(main, ["feedback", "reviews"])
    assert run.output.startswith("reviews: 1 of 2 answered rows have a label; 1 have had different ones; 1 labels")


def test_a_label_that_names_no_row_is_refused_where_the_log_knows_several(log, tmp_path):
    several, one = ask(log, "a fine film", "dull"), ask(log, "so so")
    path = tmp_path / "labels.csv"
    path.write_text(f"request_id,label\n{one.request_id},negative\n{several.request_id},negative\n")
    for flushed in (False, True):
        if flushed:
            log.flush()
        with pytest.raises(SettingError, match=rf"Label 2, for {several.request_id}: .* 2 rows: .* from 0 to 1"):
            add_feedback("reviews", read_labels(path), source="labels.csv")
        assert read_logged("reviews_feedback").num_rows == 0
    path.write_text(
        f"request_id,row,label\n{one.request_id},,negative\n{several.request_id},0,positive\n"
        f"{make_request_id(1.0)},,negative\n"
    )
    assert add_feedback("reviews", read_labels(path), source="labels.csv").added == 3
    assert labels_of()[several.request_id, 0] == "positive"


def test_a_label_that_names_no_row_counts_only_where_its_request_had_one(log):
    several, one, later = ask(log, "a fine film", "dull"), ask(log, "so so"), make_entry("reviews", 1)
    nameless = [Given(entry.request_id, "negative", names_row=False) for entry in (several, one, later)]
    write_feedback(log, "reviews", nameless)  # a server that was restarted does not know how many rows there were
    expected = {(several.request_id, 0): None, (several.request_id, 1): None, (one.request_id, 0): "negative"}
    for flushed in (False, True):
        if flushed:
            log.flush()
        assert labels_of() == expected
        state = describe_feedback("reviews")
        assert (state.labelled, state.unknown) == (1, 2)
    assert sorted(read_logged("reviews_feedback")["row"].to_pylist(), key=str) == [None] * 3
    run = CliRunner().invoke(main, ["feedback", "reviews"])
    assert run.output.endswith("2 labels are for rows not in the log, or do not name theirs\n")
    # the only row is the same whether a label names it or not
    assert add_feedback("reviews", [Given(one.request_id, "negative"), nameless[2]], source="a").known == 2
    assert add_feedback("reviews", [Given(one.request_id, "positive")], source="b").changed == 1
    log.write([later])
    assert labels_of() == {**expected, (one.request_id, 0): "positive", (later.request_id, 0): "negative"}


def test_a_label_that_names_no_row_is_learnt_from_only_where_its_request_had_one(log, tmp_path):
    source = write_csv(tmp_path / "reviews.csv", reviews())
    ingest(Sources(data=str(source)), "reviews", settings=TextClassData())
    asked = ask(log, "an awful superb film indeed", "the lovely soup indeed"), ask(log, "a dull quozzle indeed")
    write_feedback(log, "reviews", [Given(entry.request_id, "negative", names_row=False) for entry in asked])
    added = append_labelled("reviews", "reviews")
    assert added is not None
    assert added.new_rows == 1
    assert read_table(added.table, columns=["text"])["text"].to_pylist()[-1] == "a dull quozzle indeed"


def test_a_label_is_taken_while_the_registry_is_away_where_the_log_knows_the_model(log):
    def is_away(*_) -> None:
        raise TrackingUnavailable("The database is away.")

    async def post(app: Application, model: str, label: dict) -> int:
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": dump(label), "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": f"/models/{model}/feedback", "headers": []}
        await app(scope, receive, send)
        return sent[0]["status"]

    async def main() -> list[int]:
        app = make_application(ServeSettings(), log, Open(), say=lambda line: None)
        app.models.lookup = Lookup(
            find_version=is_away, read_aliases=is_away, list_all=is_away, say=lambda line: None
        )
        try:
            label = {"request_id": entry.request_id, "row": 0, "label": "positive"}
            return [await post(app, model, label) for model in ("reviews", "nothing")]
        finally:
            await close_application(app)

    entry = ask(log, "a fine film")
    for flushed in (False, True):
        if flushed:
            log.flush()
        assert asyncio.run(main()) == [200, 503]
    assert labels_of() == {(entry.request_id, 0): "positive"}


@pytest.fixture
def store(tmp_path):
    with untouched_environment():
        yield new_store(tmp_path)


def test_a_model_that_nobody_knows_is_refused_with_those_that_there_are(log, store, tmp_path):
    entry = ask(log, "a fine film")
    csv = tmp_path / "labels.csv"
    csv.write_text(f"request_id,label\n{entry.request_id},positive\n")
    for words in (["revews"], ["revews", str(csv)], ["revews", "--append", "reviews"]):
        run = CliRunner().invoke(main, ["feedback", *words])
        assert (run.exit_code, run.stdout) == (1, "")
        assert "Nothing was asked of a model 'revews'" in run.stderr
        assert "there are: reviews." in run.stderr
    assert list_tables("_feedback") == []
    assert CliRunner().invoke(main, ["feedback", "reviews", str(csv)]).exit_code == 0


def test_a_file_with_a_bad_line_adds_nothing_and_names_the_line(tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text(
        json.dumps({"request_id": make_request_id(1.0), "label": "x"}) + '\n{"request_id": "7", "label": 1}\n'
    )
    with pytest.raises(SettingError, match="Line 2 of"):
        add_feedback("reviews", read_labels(path), source="x")
    assert read_logged("reviews_feedback").num_rows == 0
    with pytest.raises(SourceNotFound):
        list(read_labels(tmp_path / "none.csv"))
    with pytest.raises(BadSource, match="no column 'id'"):
        list(read_labels(path, {"request_id": "id"}))


def test_labelled_texts_reach_the_training_table_once(log, tmp_path):
    source = write_csv(tmp_path / "reviews.csv", reviews())
    before = ingest(Sources(data=str(source)), "reviews", settings=TextClassData()).table
    entry = ask(log, "an awful superb film indeed", "nobody has a label for this", "the lovely soup indeed")
    assert append_labelled("reviews", "reviews") is None
    given = [Given(entry.request_id, "positive"), Given(entry.request_id, "negative", 2)]
    add_feedback("reviews", given, source="x")
    added = append_labelled("reviews", "reviews")
    assert added is not None
    assert (added.new_rows, added.table.rows) == (2, before.rows + 2)
    again = append_labelled("reviews", "reviews")
    assert again is not None
    assert (again.new_rows, again.new_version, again.known_rows) == (0, False, 2)
    # a correction after it was learnt contradicts the table: it is set aside and said, nothing is overwritten
    add_feedback("reviews", [Given(entry.request_id, "negative")], source="y")
    third = append_labelled("reviews", "reviews")
    assert third is not None
    assert (sum(third.bad_rows.values()), third.table.rows) == (1, before.rows + 2)


KINDS = {
    "multilabel": (
        RowForm((Column("text", "plot", "text"),), Label(("genres",), "labels")),
        [({"text": f"plot {n}"}, ["war", "drama"][: 1 + n % 2]) for n in range(40)],
        [({"text": "a new plot"}, ["war", "drama"]), ({"text": "another one"}, "war|drama")],
    ),
    "multilabel in flags": (
        RowForm((Column("text", "plot", "text"),), Label(("drama", "war"), "labels")),
        [({"text": f"plot {n}"}, ["war", "drama"][: 1 + n % 2]) for n in range(40)],
        [({"text": "a new plot"}, ["war", "drama"]), ({"text": "another one"}, ["war"])],
    ),
    "regression": (
        RowForm((Column("text", "review", "text"),), Label(("stars",), "number")),
        [({"text": f"review {n}"}, float(n % 5)) for n in range(40)],
        [({"text": "a new one"}, 4.5), ({"text": "another one"}, "3")],
    ),
    "pairs": (
        RowForm((Column("text", "left", "text"), Column("text_pair", "right", "text")), Label(("same",), "class")),
        [({"text": f"left {n}", "text_pair": "right"}, "yn"[n % 2]) for n in range(40)],
        [({"text": "left", "text_pair": "a | b"}, "y"), ({"text": "new", "text_pair": "other"}, "n")],
    ),
    "columns": (
        RowForm(
            (Column("age", "Age", "number", optional=True), Column("town", "Town", "category", optional=True)),
            Label(("paid",), "class"),
            repeats=True,
        ),
        [({"age": float(n), "town": "Bern"}, "yn"[n % 2]) for n in range(40)],
        [({"age": 31, "town": None}, "y"), ({"age": None, "town": "Bonn"}, "n")],
    ),
}


def write_kind(path: Path, form: RowForm, rows: list[tuple[dict, object]]) -> Path:
    """Write rows under the names that files have for the columns of the form."""
    lines = []
    for values, label in rows:
        line = {column.source: values[column.name] for column in form.inputs}
        several = len(form.label.sources) > 1
        labels = (
            {name: int(name in label) for name in form.label.sources}
            if several
            else {form.label.sources[0]: label}
        )
        lines.append(json.dumps({**line, **labels}))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_every_kind_reach_the_training_table_once(kind, log, tmp_path):
    form, known, asked = KINDS[kind]
    source = write_kind(tmp_path / "known.jsonl", form, known)
    ingest(Sources(data=str(source)), "rows", settings=FormSettings(rows=form))
    texts = [values["text"] if form.is_text else dump(values).decode() for values, _ in asked]
    entry = ask(log, *texts, model="rows")
    given = [
        read_given({"request_id": entry.request_id, "row": row, "label": label}, where="")
        for row, (_, label) in enumerate(asked)
    ]
    add_feedback("rows", given, source="x")
    added = append_labelled("rows", "rows")
    assert added is not None
    assert (added.new_rows, added.labelled_rows, dict(added.bad_rows)) == (2, 2, {})
    again = append_labelled("rows", "rows")
    assert again is not None
    assert (again.new_rows, again.known_rows) == (0, 2)
    names = [column.name for column in form.inputs]
    new = read_table(added.table, columns=[*names, "label"]).to_pylist()[-2:]
    assert [{name: row[name] for name in names} for row in new] == [values for values, _ in asked]
    assert [row["label"] for row in new] == [parse_label(one.label, form.label) for one in given]
    # the same rows in a file of the form are known: what was asked is read as files are
    assert append(str(write_kind(tmp_path / "again.jsonl", form, asked)), "rows").known_rows == 2


def test_a_label_of_another_kind_is_set_aside_with_its_reason(log, tmp_path):
    form, known, _ = KINDS["regression"]
    ingest(
        Sources(data=str(write_kind(tmp_path / "k.jsonl", form, known))), "rows", settings=FormSettings(rows=form)
    )
    entry = ask(log, "a new one", "another one", model="rows")
    add_feedback("rows", [Given(entry.request_id, "good"), Given(entry.request_id, "2", 1)], source="x")
    added = append_labelled("rows", "rows")
    assert added is not None
    assert (added.new_rows, sum(added.bad_rows.values())) == (1, 1)
    assert "number" in next(iter(added.bad_rows))


def test_rows_of_another_model_are_refused_and_nothing_is_added(log, tmp_path):
    form, known, _ = KINDS["pairs"]
    ingest(
        Sources(data=str(write_kind(tmp_path / "k.jsonl", form, known))), "rows", settings=FormSettings(rows=form)
    )
    for text, words in (("a fine film", "have no columns"), ('{"age": 3}', "have the columns age")):
        entry = ask(log, text, model=f"other{len(text)}")
        add_feedback(f"other{len(text)}", [Given(entry.request_id, "y")], source="x")
        with pytest.raises(SchemaMismatch, match=words):
            append_labelled(f"other{len(text)}", "rows")
    assert table_at("rows").version == 0


@pytest.mark.slow
def test_a_killed_append_of_labels_is_run_again_and_each_row_is_there_once(log, tmp_path):
    source = write_csv(tmp_path / "reviews.csv", reviews())
    before = ingest(Sources(data=str(source)), "reviews", settings=TextClassData()).table
    entry = ask(log, *(f"the superb film number {n} indeed" for n in range(200)))
    add_feedback("reviews", [Given(entry.request_id, "positive", row) for row in range(200)], source="x")
    log.flush()
    program = (
        "from dlpipe.serving.feedback import append_labelled\nprint('begins', flush=True)\n"
        "print(append_labelled('reviews', 'reviews').new_rows)\n"
    )
    for wait in (0.0, 0.05, 0.1, 0.2, 0.4, 0.8):
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=os.environ)
        assert process.stdout is not None
        assert process.stdout.readline() == b"begins\n"
        time.sleep(wait)
        process.kill()
        process.communicate()
    assert append_labelled("reviews", "reviews") is not None
    ids = read_table(table_at("reviews"), columns=["row_id"])["row_id"].to_pylist()
    assert len(ids) == len(set(ids)) == before.rows + 200


def test_texts_that_are_not_kept_cannot_be_learnt_from(tmp_path):
    source = write_csv(tmp_path / "reviews.csv", reviews())
    ingest(Sources(data=str(source)), "reviews", settings=TextClassData())
    silent = RequestLog(LogSettings(flush_seconds=3600))
    silent.start()
    entry = ask(silent, "a fine film")
    write_feedback(silent, "reviews", [Given(entry.request_id, "positive")])
    run = CliRunner().invoke(main, ["feedback", "reviews", "--append", "reviews"])
    assert "texts = true" in run.output
    silent.close()


def test_another_table_in_the_place_of_the_log_is_said():
    write_table("reviews_feedback", pa.table({"text": ["mine"]}))
    with pytest.raises(SchemaMismatch):
        add_feedback("reviews", [Given(make_request_id(1.0), "x")], source="x")
    assert make_request_rows([]).num_rows == 0
