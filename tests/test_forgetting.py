"""Rows are forgotten everywhere, the rest stays; the search that tells is independent of what forgets."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import logging
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from buckets import BUCKET, S3Server, s3_server
from click.testing import CliRunner, Result
from deltalake import DeltaTable, write_deltalake
from forgetting_kills import forget_until, start
from made_up_lineage import REQUEST, History, find_id, list_ids
from mlflow import MlflowClient
from searching import search_files
from stores import keep_runs_in, untouched_environment
from texts import reviews

from dlpipe.bridge.marks import find_state_root
from dlpipe.cli import main
from dlpipe.forgetting.asked import find_asked
from dlpipe.forgetting.choosing import RowChooser
from dlpipe.forgetting.contents import blank_content
from dlpipe.forgetting.databases import clean_database
from dlpipe.forgetting.waiting import settle_logs
from dlpipe.forgetting.words import Needles
from dlpipe.lineage import Node, Records, check_records
from dlpipe.orchestrator.logfile import logging_to
from dlpipe.orchestrator.state import state_folder
from dlpipe.registry import resolve
from dlpipe.scratch import open_scratch
from dlpipe.serving.journal import Writer, find_journals, make_line
from dlpipe.serving.log_commits import adopt_journals, commit_files
from dlpipe.serving.log_rows import dump, make_request_rows
from dlpipe.tables import (
    FORGOTTEN,
    Sources,
    append_by_day,
    find_rows,
    ingest,
    read_forgotten,
    read_mark,
    read_table,
    table_at,
    tables_root,
    write_table,
)
from dlpipe.task.tabular_classification import TabularData
from dlpipe.task.text_classification import TextClassData

RARE = [
    "Wilhelmina Throckmorton wept at the zither.",
    "Bartholomew's krumhorn was out of tune",
    "Ümläut & quozzle",
]
PIECES = ["throckmorton", "zither", "krumhorn", "quozzle", "ümläut"]


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[History]:
    monkeypatch.chdir(tmp_path)
    keep_runs_in(tmp_path, monkeypatch)
    monkeypatch.setenv("METAFLOW_USER", "ana")
    with untouched_environment():
        yield History(tmp_path)


def forget(*words: str, code: int = 0) -> Result:
    done = CliRunner().invoke(main, ["forget", *words])
    assert done.exit_code == code, (done.output, done.exception)
    return done


def make_history(history: History) -> list[str]:
    """A training with all that it leaves; returns the ids of the three rows in it that are rare."""
    plain = reviews()[:60] + reviews()[-60:]
    rare = list(zip(RARE, ("positive", "negative", "positive"), strict=True))
    rows = history.ingest("TrainFlow/17", rows=[*plain[:50], *rare, *plain[50:], ("krumhorn without label", "")])
    model = history.register("TrainFlow/17", rows)
    history.predict("TrainFlow/17", model, rows, list_ids(rows))
    ids = [find_id(rows, text) for text in RARE]
    history.explain("TrainFlow/17", model, rows, [ids[0], *list_ids(rows, "test")[:2]])
    history.append("new.csv", 'review,sentiment\n"a fine film",\n"cold soup","negative"\n')
    history.answer(model, text=RARE[0])
    history.answer(model, request=REQUEST.replace("a", "b"), text="a fine film")
    history.label(model, "negative")
    history.label(model, "positive", request=REQUEST.replace("a", "b"))
    return ids


def find_left(folder: Path) -> dict[str, set[str]]:
    """Return the files that have a piece of the texts, but for the user's own."""
    return search_files(folder, PIECES, skip=["films.csv", "new.csv"])


def read_all(name: str, *, without: tuple[str, ...] = ()) -> list[dict[str, object]]:
    """Return the rows of a table in their order, without those of some ids."""
    return [row for row in read_table(table_at(name)).to_pylist() if row.get("row_id") not in without]


def read_files(folder: Path) -> dict[Path, bytes]:
    """Return the files of a folder, without MLflow's database and lineage's cache."""
    files = (path for path in folder.rglob("*") if path.is_file() and "_lineage" not in path.parts)
    return {path: path.read_bytes() for path in files if not path.name.startswith("mlflow.db")}


def check() -> set[str]:
    """Return in what records do not agree: of a history that is made up, its runs are not there."""
    return {str(finding) for finding in check_records(Records())}


def ask(request: str, text: str, *, texts: bool = True) -> bytes:
    """Return a line of a server's journal."""
    head = [
        texts,
        REQUEST.replace("a", request),
        "predict",
        "reviews",
        1,
        "",
        "torch",
        "",
        "",
        200,
        "",
        1.8e9,
        3.0,
    ]
    return dump([*head, [4], [text], [{"predicted": "positive"}]])


def list_train() -> list[tuple[int | None, object]]:
    """Return the rows of the train split in their order, each with the version that brought it."""
    found = find_rows(table_at("reviews"), "split", "train", columns=["row_id"])
    return [(row.version, row.values["row_id"]) for row in found]


# -- what is reached, and what is left ----------------------------------------------------------------------------


def test_without_apply_it_lists_what_rows_have_reached_and_changes_nothing(history):
    ids = make_history(history)
    before = read_files(history.folder)
    said = json.loads(forget(f"reviews#{ids[0]}", "--json").stdout)
    tables = {table["name"]: table["rows"] for table in said["tables"]}
    assert tables == {
        "reviews": 1,
        "reviews_predictions": 1,
        "reviews_explanations": 2,
        "reviews_requests": 1,
        "reviews_feedback": 1,
    }
    answered = {table["name"]: table["models"] for table in said["tables"] if table["models"]}
    names = ("reviews_predictions", "reviews_explanations", "reviews_requests")
    assert answered == {name: ["models:/reviews/1"] for name in names}
    assert "1 row, of reviews/1" in forget(f"reviews#{ids[0]}").output
    assert [model["uri"] for model in said["models"]] == ["models:/reviews/1", "models:/reviews-pipeline/1"]
    assert [model["lost_by_purge"] for model in said["models"]] == [True, False]
    assert said["your_files"] == [{"path": "films.csv", "lines": [52]}]
    assert read_files(history.folder) == before


def test_a_label_that_names_no_row_goes_with_its_request(history):
    ids = make_history(history)
    history.label(history.register("TrainFlow/17", table_at("reviews")), "negative", row=None)
    tables = json.loads(forget(f"reviews#{ids[0]}", "--json").stdout)["tables"]
    assert {table["name"]: table["rows"] for table in tables}["reviews_feedback"] == 2


def test_nothing_of_three_rows_is_left_after_a_purge_and_the_rest_is_unchanged(history):
    ids = make_history(history)
    names = ("reviews", "reviews_predictions", "reviews_explanations", "reviews_requests", "reviews_feedback")
    gone = tuple(ids)
    before, found = {name: read_all(name, without=gone) for name in names}, check()
    assert {name.split("/")[1] for name in find_left(history.folder)} == {
        "reviews",
        "reviews_requests",
        "reviews_quarantine",
    }
    forget(*(f"reviews#{row}" for row in ids), "films.csv:125", "--apply", "--purge", "--yes")
    assert find_left(history.folder) == {}
    assert search_files(history.folder, ids) == {}  # nor do the ids tell
    after = {name: read_all(name) for name in names}
    assert after["reviews_requests"] == before["reviews_requests"][1:]
    assert after["reviews_feedback"] == before["reviews_feedback"][1:]
    for name in names[:3]:
        assert after[name] == before[name]
    assert check() == found
    record = read_forgotten().records[0]
    assert record.who == "ana"
    assert record.done["tables"]["reviews"] == 3


def test_without_a_purge_old_versions_still_have_the_rows(history):
    ids = make_history(history)
    found = check()
    forget(f"reviews#{ids[0]}", "--apply", "--yes")
    assert not any(row["row_id"] == ids[0] for row in read_all("reviews"))
    old = table_at("reviews", version=0)
    assert next(find_rows(old, "row_id", ids[0], columns=["text"])).values["text"] == RARE[0]
    assert check() == found
    forget(f"reviews#{ids[0]}", "--apply", "--purge", "--yes")
    assert search_files(history.folder, ["throckmorton"], skip=["films.csv"]) == {}


def test_rows_keep_their_order_and_the_commit_that_brought_them(history):
    ids = make_history(history)
    before = list_train()
    forget(f"reviews#{ids[1]}", "--apply", "--purge", "--yes")
    assert list_train() == [row for row in before if row[1] != ids[1]]
    assert {version for version, _ in list_train()} == {0, 1}


# -- models, lineage ----------------------------------------------------------------------------------------------


def test_models_say_on_how_many_rows_forgotten_since_they_were_trained(history):
    ids = make_history(history)
    forget(*(f"reviews#{row}" for row in ids), "--apply", "--yes")
    (record,) = read_forgotten().records
    told = json.loads(resolve("models:/reviews/1").tags[f"dlpipe.forgotten.{record.record}"])
    assert sum(told["rows"].values()) == 3
    client = history.client
    assert f"(record {record.record}" in client.get_model_version("reviews", "1").description
    assert f"(record {record.record}" in client.get_model_version("reviews-pipeline", "1").description
    shown = CliRunner().invoke(main, ["models", "show", "reviews/1"]).output
    assert "forgotten since" in shown


def test_lineage_says_when_a_row_was_forgotten_and_which_models_had_it(history):
    ids = make_history(history)
    forget(f"reviews#{ids[0]}", "--apply", "--purge", "--yes")
    said = CliRunner().invoke(main, ["lineage", f"reviews#{ids[0]}"]).output
    (record,) = read_forgotten().records
    assert f"on request, by record {record.record}" in said
    assert "models:/reviews/1" in said
    assert "films.csv:52" in said  # which nobody but the user can change
    assert "Throckmorton" not in said
    other = list_ids(table_at("reviews"))[0]
    said = CliRunner().invoke(main, ["lineage", f"reviews_predictions#{other}"]).output
    (line,) = [line for line in said.splitlines() if f"scored reviews@v0#{other}" in line]
    assert "gone" not in line
    assert "positive: " in line


def list_taught(name: str) -> dict[str, str]:
    """Return the models that lineage says had a row, with its words."""
    records = Records()
    edges = [edge for row in records.find(name) for edge in records.find_results(row)]
    return {str(edge.result): edge.note for edge in edges if edge.result.kind == "model"}


def test_after_a_record_was_lifted_models_are_those_that_had_the_row(history):
    rows = history.ingest("TrainFlow/17", rows=[*reviews()[:60], (RARE[0], "positive"), *reviews()[-60:]])
    history.register("TrainFlow/17", rows)
    row_id = find_id(rows, RARE[0])
    forget(f"reviews#{row_id}", "--apply", "--purge", "--yes")
    assert list_taught(f"reviews#{row_id}") == {"models:/reviews/1": "train split of v0, forgotten since"}
    (record,) = read_forgotten().records
    forget("--lift", record.record)
    again = ingest(Sources(data="films.csv"), "reviews", settings=TextClassData()).table
    history.register("TrainFlow/19", again)
    assert list_taught(f"{again}#{row_id}") == {"models:/reviews/2": f"train split of v{again.version}"}
    (old,) = Records().find(f"reviews@v0#{row_id}")
    assert [str(edge.result) for edge in Records().find_results(old)] == ["models:/reviews/1"]


def test_between_a_forgetting_and_its_lift_lineage_says_that_the_row_is_forgotten(history):
    rows = history.ingest("TrainFlow/17", rows=[*reviews()[:60], (RARE[0], "positive"), *reviews()[-60:]])
    row_id = find_id(rows, RARE[0])
    forget(f"reviews#{row_id}", "--apply", "--purge", "--yes")
    between = int(time.time() * 1000) + 1
    time.sleep(0.01)
    forget("--lift", read_forgotten().records[0].record)
    row = Node("row", rows.path, 0, row_id)
    for until, said in ((between, True), (None, False)):
        assert ("on request, by record" in Records(until).describe(row).gone) == said, until


def test_a_forgotten_row_taught_no_model_of_another_table_that_had_it(history):
    rows = history.ingest("TrainFlow/17", rows=[*reviews()[:60], (RARE[0], "positive"), *reviews()[-60:]])
    history.register("TrainFlow/17", rows)
    ingest(Sources(data="films.csv"), "other", settings=TextClassData())
    write_table("third", pa.table({"row_id": ["1"], "text": ["soup"]}))
    row_id = find_id(rows, RARE[0])
    forget(f"reviews#{row_id}", "--apply", "--purge", "--yes")
    assert list_taught(f"other#{row_id}") == {}
    assert list_taught(f"reviews#{row_id}") == {"models:/reviews/1": "train split of v0, forgotten since"}
    assert CliRunner().invoke(main, ["lineage", f"third#{row_id}"]).exit_code == 1


def test_a_purged_version_says_that_rows_of_it_were_forgotten(history):
    ids = make_history(history)
    forget(f"reviews#{ids[0]}", "--apply", "--purge", "--yes")
    shown = CliRunner().invoke(main, ["tables", "show", "reviews", "--version", "0"])
    assert shown.exit_code == 1
    assert "were forgotten on request (record" in shown.stderr


# -- coming back --------------------------------------------------------------------------------------------------


def test_no_ingest_and_no_append_brings_a_row_back_until_the_record_is_lifted(history):
    ids = make_history(history)
    forget(f"reviews#{ids[0]}", "films.csv:125", "--apply", "--purge", "--yes")
    done = ingest(Sources(data="films.csv"), "reviews", settings=TextClassData())
    assert not done.new_version
    assert "2 rows of the sources were forgotten on request" in " ".join(done.notes)
    added = history.append("again.csv", f'review,sentiment\n"{RARE[0].upper()}",positive\n')
    assert (added.new_rows, added.new_version) == (0, False)
    assert "1 row of the sources was forgotten on request" in " ".join(added.notes)
    (record,) = read_forgotten().records
    assert set(search_files(history.folder, ["throckmorton"], skip=["films.csv"])) == {"again.csv"}
    refused = CliRunner().invoke(main, ["tables", "delete", "_forgotten", "--yes"])
    assert (refused.exit_code, "forget --lift RECORD" in refused.output) == (1, True)
    forget("--lift", record.record)
    assert history.append("again.csv", f'review,sentiment\n"{RARE[0]}",positive\n').new_rows == 1


def test_the_record_has_neither_texts_nor_ids(history):
    ids = make_history(history)
    forget(f"reviews#{ids[0]}", "--apply", "--yes")
    assert search_files(Path("tables", FORGOTTEN), [*PIECES, *ids]) == {}
    listed = json.loads(forget("--records", "--json").stdout)
    assert [(row["rows"], row["state"], row["who"]) for row in listed] == [(1, "done", "ana")]


def test_forgetting_again_finds_nothing_left_and_says_so(history):
    ids = make_history(history)
    forget(f"reviews#{ids[0]}", "--apply", "--purge", "--yes")
    version = table_at("reviews").version
    assert "Forgotten before, by record" in forget(f"reviews#{ids[0]}", "--apply", "--purge", "--yes").stderr
    assert (table_at("reviews").version, len(read_forgotten().records)) == (version, 1)


# -- tables of all kinds ------------------------------------------------------------------------------------------


def test_a_text_is_taken_out_of_ten_tables_at_once(history):
    for number in range(10):
        Path(f"{number}.csv").write_text("".join(f'"{text}","{label}"\n' for text, label in [
            ("review", "sentiment"), *reviews()[:40], *reviews()[-40:], (RARE[0], "positive")
        ]))  # fmt: skip
        ingest(Sources(data=f"{number}.csv"), f"films{number}", settings=TextClassData())
    said = forget("--text", RARE[0], "--apply", "--purge", "--yes").output
    assert all(f"films{number}@v1: 1 row taken out" in said for number in range(10))
    assert set(search_files(history.folder, PIECES)) == {f"{number}.csv" for number in range(10)}


def test_a_text_that_is_a_label_elsewhere_takes_no_labels_with_it(history):
    rows = history.ingest("TrainFlow/17", rows=[*reviews()[:40], *reviews()[-40:], ("Positive!", "negative")])
    write_deltalake("tables/theirs", pa.table({"sentiment": ["positive!", "bad"], "text": ["soup", "POSITIVE! "]}))
    said = json.loads(forget("--text", "positive!", "--json").stdout)
    assert {table["name"]: table["rows"] for table in said["tables"]} == {"reviews": 1, "theirs": 1}
    forget("--text", "positive!", "--apply", "--yes")
    assert table_at("reviews").rows == rows.rows - 1
    assert read_all("theirs") == [{"sentiment": "positive!", "text": "soup"}]


def test_a_table_of_another_program_with_its_statistics_and_checkpoint(history):
    rows = pa.table({"id": ["a'1", "b", "c"], "note": [RARE[0], "soup", "zebra"], "row_id": ["7", "8", "9"]})
    write_deltalake("tables/theirs", rows)
    DeltaTable("tables/theirs").create_checkpoint()
    write_deltalake("tables/theirs", rows.slice(1), mode="append")
    assert search_files(Path("tables/theirs/_delta_log"), ["throckmorton"])  # the greatest value of the column
    forget("theirs#7", "--apply", "--purge", "--yes")
    assert search_files(Path("tables/theirs"), ["throckmorton", "a'1"]) == {}
    assert sorted(row["note"] for row in read_all("theirs")) == ["soup", "soup", "zebra", "zebra"]


def test_rows_are_found_and_taken_out_where_another_program_has_written_them_anew(history):
    rows = pa.table({"row_id": list("789"), "note": [RARE[0], "soup", "zebra"], "tags": [["a"], ["b"], ["c"]]})
    write_deltalake("tables/theirs", rows)
    DeltaTable("tables/theirs").update(updates={"row_id": "'10'"}, predicate="row_id = '9'")
    data = history.ingest("TrainFlow/17", rows=[*reviews()[:40], *reviews()[-40:], (RARE[1], "negative")])
    other = list_ids(data)[0]
    DeltaTable("tables/reviews").delete(f"row_id = '{other}'")
    forget("--text", RARE[0], f"reviews#{find_id(data, RARE[1])}", "--apply", "--purge", "--yes")
    assert find_left(history.folder) == {}
    assert sorted(row["note"] for row in read_all("theirs")) == ["soup", "zebra"]
    assert table_at("reviews").rows == data.rows - 2


def test_after_a_purge_the_other_rows_of_a_table_of_another_program_are_still_found(history):
    write_deltalake("tables/theirs", pa.table({"row_id": list("789"), "note": [RARE[0], "soup", "zebra"]}))
    forget("theirs#7", "--apply", "--purge", "--yes")
    (row,) = Records().find("theirs#8")
    assert (row.number, Records().describe(row).about) == (0, "soup")
    forget("theirs#8", "--apply", "--purge", "--yes")
    assert [row["note"] for row in read_all("theirs")] == ["zebra"]


def test_requests_without_texts_are_found_by_what_their_text_hashes_to(history):
    make_history(history)
    digest = hashlib.sha256(RARE[1].encode()).hexdigest()
    append_by_day("reviews_requests", make_request_rows([ask("c", digest, texts=False)]))
    said = json.loads(forget("--text", RARE[1], "--json").stdout)
    assert {table["name"]: table["rows"] for table in said["tables"]}["reviews_requests"] == 1
    forget("--text", RARE[1], "--apply", "--purge", "--yes")
    assert search_files(history.folder, [digest]) == {}


def test_what_a_dead_server_left_in_its_journal_is_brought_to_its_table_and_taken_out(history):
    make_history(history)
    writer = Writer(find_journals())
    written = writer.begin("reviews_requests")
    written.append(make_line(ask("d", RARE[2])))
    written.close()
    os.close(writer._lock)  # as a kill does
    forget("--text", RARE[2], "--apply", "--purge", "--yes")
    assert search_files(history.folder, ["quozzle"], skip=["films.csv"]) == {}
    assert read_mark("reviews_requests", written.file.mark) == 0


def test_a_server_that_lives_is_waited_for(history, monkeypatch):
    make_history(history)
    monkeypatch.setattr("dlpipe.forgetting.waiting.WAIT_SECONDS", 0.5)
    writer = Writer(find_journals())
    written = writer.begin("reviews_requests")
    written.append(make_line(ask("d", RARE[2])))
    said = forget("--text", RARE[2], "--apply", "--yes", code=1)
    assert "did not bring them into its table within a minute" in said.stderr
    writer.close()
    forget("--text", RARE[2], "--apply", "--yes")
    assert not any(row["text"] == RARE[2] for row in read_all("reviews_requests"))


def leave(table: str, *lines: bytes, torn: bytes = b"") -> None:
    """Leave the journal of a server that was killed."""
    writer = Writer(find_journals())
    written = writer.begin(table)
    written.append(b"".join([*map(make_line, lines), torn]))
    written.close()
    os.close(writer._lock)


def test_a_short_text_in_a_dead_servers_journal_goes_with_its_label_and_does_not_come_back(history):
    make_history(history)
    history.append("short.csv", 'review,sentiment\n"Bad film","negative"\n')
    leave("reviews_requests", ask("d", "bad  film"), ask("f", "a bad film"), torn=b"12345678 [true")
    labels = [[REQUEST.replace("a", letter), 0, "negative", "", "", 1.8e9, 1] for letter in "df"]
    leave("reviews_feedback", *map(dump, labels))
    forget("--text", "Bad film", "--apply", "--purge", "--yes")
    adopt_journals(find_journals())  # as the next server does
    for name in ("reviews_requests", "reviews_feedback"):
        there = {row["request_id"] for row in read_all(name)}
        assert [label[0] in there for label in labels] == [False, True]


@pytest.mark.parametrize("text", ["Bad film", RARE[0]])
def test_in_a_dead_servers_journal_is_a_label_for_what_stands_in_a_table(history, text):
    make_history(history)
    history.append("short.csv", 'review,sentiment\n"Bad film","negative"\n')
    model = history.register("TrainFlow/17", table_at("reviews"))
    history.answer(model, request=REQUEST.replace("a", "d"), text=text)
    leave("reviews_feedback", dump([REQUEST.replace("a", "d"), 0, "negative", "", "", 1.8e9, 1]))
    forget("--text", text, "--apply", "--yes")
    adopt_journals(find_journals())
    assert REQUEST.replace("a", "d") not in {row["request_id"] for row in read_all("reviews_feedback")}


def test_a_request_without_its_text_in_a_dead_servers_journal_goes(history):
    make_history(history)
    leave("reviews_requests", ask("d", hashlib.sha256(b"Bad film").hexdigest(), texts=False))
    forget("--text", "Bad film", "--apply", "--yes")
    adopt_journals(find_journals())
    assert REQUEST.replace("a", "d") not in {row["request_id"] for row in read_all("reviews_requests")}


def test_a_server_that_was_asked_something_else_in_the_same_words_is_not_waited_for(history):
    make_history(history)
    writer = Writer(find_journals())
    written = writer.begin("reviews_requests")
    for letter, part in (("d", "Wilhelmina Throckmorton wept at"), ("e", "the zither wept at Wilhelmina")):
        written.append(make_line(ask(letter, part)))
    assert json.loads(forget("--text", RARE[0], "--json").stdout)["journals"] == 0
    assert "waiting" not in forget("--text", RARE[0], "--apply", "--yes").output
    writer.close()


def test_a_server_that_is_asked_the_same_again_and_again_is_not_waited_for_without_end(history, monkeypatch):
    make_history(history)
    monkeypatch.setattr("dlpipe.forgetting.waiting.WAIT_SECONDS", 20.0)
    writer, numbers = Writer(find_journals()), iter(range(10_000))
    first = writer.begin("reviews_requests")
    first.append(make_line(ask("d", RARE[2])))
    ends = threading.Event()

    def go_on() -> None:
        there = first
        while not ends.wait(0.05):
            following = writer.begin("reviews_requests")
            following.append(make_line(ask(f"d{next(numbers)}", RARE[2])))
            there.close()
            commit_files([there.file])
            there = following

    server = threading.Thread(target=go_on)
    server.start()
    try:
        settle_logs(RowChooser(find_asked(Records(), [], [RARE[2]], read_forgotten())), say=print)
    finally:
        ends.set()
        server.join()
    assert not first.file.path.exists()


def test_rows_that_others_append_meanwhile_stay(history):
    ids = make_history(history)
    failed = []

    def append() -> None:
        try:
            for number in range(6):
                write_table("reviews_predictions", read_table(table_at("reviews_predictions")).slice(number, 1))
        except Exception as error:
            failed.append(error)

    before = table_at("reviews_predictions").rows
    thread = threading.Thread(target=append)
    thread.start()
    forget(f"reviews#{ids[0]}", "--apply", "--yes")
    thread.join()
    assert not failed
    assert table_at("reviews_predictions").rows == len(read_all("reviews_predictions")) == before + 6 - 1


def test_a_bad_row_does_not_come_back_whose_columns_are_called_as_those_of_the_quarantine(history):
    lines = [
        "Source,line,paid",
        *(f"{'Bern' if n % 3 else 'Basel'},{n},{'yes' if n % 2 else 'no'}" for n in range(60)),
    ]
    settings = TabularData(number_columns=["line"], category_columns=["Source"], label_column="paid")
    Path("wines.csv").write_text("\n".join([*lines, "Bern,70.5,"]) + "\n")
    ingest(Sources(data="wines.csv"), "wines", settings=settings)
    forget("wines_quarantine#wines.csv:62", "--apply", "--purge", "--yes")
    assert read_all("wines_quarantine") == []
    Path("wines.csv").write_text("\n".join([*lines, "Bern,70.5,yes"]) + "\n")
    assert ingest(Sources(data="wines.csv"), "wines", settings=settings).table.rows == 60


def test_a_row_of_columns_is_found_by_all_of_its_values(history):
    lines = ["alcohol,hue,town,paid"]
    lines += [
        f"{10 + n / 10},{n / 50},{'Bern' if n % 3 else 'Basel'},{'yes' if n % 2 else 'no'}" for n in range(60)
    ]
    Path("wines.csv").write_text("\n".join([*lines, "10.7,0.99,Bern,"]) + "\n")
    settings = TabularData(number_columns=["alcohol", "hue"], category_columns=["town"], label_column="paid")
    rows = ingest(Sources(data="wines.csv"), "wines", settings=settings).table
    (row,) = [row for row in read_table(rows).to_pylist() if row["alcohol"] == 10.7]
    asked = dump({"alcohol": 10.7, "hue": row["hue"], "town": "Bern"}).decode()
    other = dump({"alcohol": 10.7, "hue": 0.5, "town": "Bern"}).decode()
    append_by_day("wines_requests", make_request_rows([ask("c", asked), ask("d", other)]))
    forget(f"wines#{row['row_id']}", "wines_quarantine#wines.csv:62", "--apply", "--purge", "--yes")
    assert table_at("wines").rows == 59
    assert [row["text"] for row in read_all("wines_requests")] == [other]
    assert read_all("wines_quarantine") == []
    Path("wines.csv").write_text("\n".join([*lines, "10.7,0.99,Bern,yes"]) + "\n")
    done = ingest(Sources(data="wines.csv"), "wines", settings=settings)
    assert (done.table.rows, done.new_version) == (59, False)


def test_tables_in_a_bucket(history):
    with s3_server() as server:
        os.environ.update(server.variables(DLPIPE_TABLES=f"s3://{BUCKET}/tables"))  # the history takes it back
        ids = make_history(history)
        forget(*(f"reviews#{row}" for row in ids), "films.csv:125", "--apply", "--purge", "--yes")
        client = boto3.client("s3", endpoint_url=server.address)
        for entry in client.list_objects_v2(Bucket=BUCKET)["Contents"]:
            path = history.folder / "copy" / entry["Key"]
            path.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(BUCKET, entry["Key"], str(path))
        assert search_files(history.folder / "copy", PIECES) == {}
        assert len(read_all("reviews")) == 122


# -- files beside tables ------------------------------------------------------------------------------------------


def test_artifacts_pages_and_databases_lose_the_text_and_nothing_else(history):
    ids = make_history(history)
    blobs = history.folder / ".metaflow/TrainFlow/data/ab"
    blobs.mkdir(parents=True)
    shown = {"worst": [{"row_id": ids[0], "text": RARE[0], "parts": RARE[0].split()}, {"text": "a film wept"}]}
    kept = np.array([ids[0], ids[1]])
    (blobs / "abcd").write_bytes(gzip.compress(pickle.dumps({"shown": shown, "ids": kept})))
    history.client.set_experiment_tag("0", "note", f"they wrote {RARE[0]} again")
    forget(f"reviews#{ids[0]}", "--apply", "--purge", "--yes")
    assert search_files(history.folder, ["throckmorton", ids[0]], skip=["films.csv"]) == {}
    read = pickle.loads(gzip.decompress((blobs / "abcd").read_bytes()))
    assert read["shown"]["worst"][1] == {"text": "a film wept"}
    assert read["shown"]["worst"][0]["text"] == "_ _ _ _ _ _."
    assert read["ids"].tolist() == ["_", ids[1]]
    assert history.client.get_experiment("0").tags["note"] == "they wrote _ _ _ _ _ _. again"


def test_what_is_logged_while_and_after_a_text_is_taken_out_stays_in_the_log(history):
    history.ingest("TrainFlow/17")
    state = state_folder()
    state.mkdir(exist_ok=True)
    with logging_to(state):
        runs = [state / "attempts/7/log", find_state_root() / "TrainFlow/17/_bridge/points/train%2F1"]
        for run in runs:
            run.parent.mkdir(parents=True)
        held = [os.open(run, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for run in runs]
        log = logging.getLogger("dlpipe.orchestrator")
        log.warning("run 7 failed: bad row %s", RARE[1])
        for descriptor in held:
            os.write(descriptor, b"\xff of \xc3\x9c: " + RARE[1].encode() + b"\n")
        sizes = [run.stat().st_size for run in runs]
        forget("--text", RARE[1], "--apply", "--purge", "--yes")
        log.warning("run 8 failed: the disk is full")
        for descriptor in held:
            os.write(descriptor, b"epoch 2\n")
            os.close(descriptor)
    assert [line.partition("failed: ")[2] for line in (state / "scheduler.log").read_text().splitlines()] == [
        "bad row ___________'_ ________ ___ ___ __ ____",
        "the disk is full",
    ]
    for run, size in zip(runs, sizes, strict=True):
        assert run.read_bytes() == b"\xff of \xc3\x9c: ___________'_ ________ ___ ___ __ ____\nepoch 2\n"
        assert run.stat().st_size == size + len("epoch 2\n")


def test_parquet_files_of_the_user_are_listed_and_those_of_mlflow_cleaned(history):
    ids = make_history(history)
    assert CliRunner().invoke(main, ["tables", "export", "reviews", "copy.parquet"]).exit_code == 0
    folder = Path("mlartifacts/run/artifacts")
    folder.mkdir(parents=True)
    rows = read_table(table_at("reviews"))
    pq.write_table(rows, folder / "rows.parquet")
    history.client.create_experiment("films", artifact_location=str(Path("mlartifacts").absolute()))
    copy = Path("copy.parquet").read_bytes()
    said = json.loads(forget(f"reviews#{ids[0]}", "--json").stdout)
    assert {"path": "copy.parquet", "lines": []} in said["your_files"]
    forget(f"reviews#{ids[0]}", "--apply", "--purge", "--yes")
    left = pq.read_table(folder / "rows.parquet")
    assert left.schema == rows.schema
    (at,) = [at for at, (old, new) in enumerate(zip(rows["text"], left["text"], strict=True)) if old != new]
    assert (rows["text"][at].as_py(), left["text"][at].as_py()) == (RARE[0], "_ _ _ _ _ _.")
    assert (left["row_id"][at].as_py(), left.num_rows) == ("_", rows.num_rows)
    assert Path("copy.parquet").read_bytes() == copy


def test_what_is_called_as_a_word_of_the_text_keeps_its_name(history):
    text = "Our weekend at the gasthof of Quirinius was spoiled by the kapellmeister"
    rows = history.ingest("TrainFlow/17", rows=[*reviews()[:60], (text, "negative"), *reviews()[-60:]])
    history.register("TrainFlow/17", rows, name="gasthof")
    history.client.create_experiment("quirinius")
    history.client.set_experiment_tag("0", "guest", "kapellmeister")
    blob = history.folder / ".metaflow/TrainFlow/data/ab/abcd"
    blob.parent.mkdir(parents=True)
    blob.write_text(json.dumps(["gasthof", "quirinius", "kapellmeister"]))
    forget(f"reviews#{find_id(rows, text)}", "--apply", "--purge", "--yes")
    models = {model.name for model in history.client.search_registered_models()}
    assert models == {"gasthof", "gasthof-pipeline"}
    assert {experiment.name for experiment in history.client.search_experiments()} == {"Default", "quirinius"}
    assert history.client.get_experiment("0").tags["guest"] == "kapellmeister"
    assert json.loads(blob.read_text()) == ["gasthof", "quirinius", "_"]


def test_two_names_that_are_both_the_text_stay_two(tmp_path):
    with sqlite3.connect(tmp_path / "some.db") as connection:
        connection.execute("CREATE TABLE notes (name TEXT UNIQUE)")
        connection.executemany("INSERT INTO notes VALUES (?)", [(RARE[0],), (RARE[0].upper(),), ("soup",)])
    assert clean_database(tmp_path / "some.db", Needles.from_texts([RARE[0]])) == 2
    with sqlite3.connect(tmp_path / "some.db") as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM notes ORDER BY rowid")]
    assert names == ["_ _ _ _ _ _.", "_ _ _ _ _ _. 2", "soup"]


def test_files_of_metaflow_and_mlflow_in_a_bucket_lose_the_text_and_keep_what_is_noted_beside_them(
    history, monkeypatch
):
    ids = make_history(history)
    with s3_server() as server:
        for name, value in server.variables().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("metaflow.metaflow_config.DEFAULT_DATASTORE", "s3")
        monkeypatch.setattr("metaflow.metaflow_config.DATASTORE_SYSROOT_S3", f"s3://{BUCKET}/metaflow")
        for name in ("far", "far/inside"):
            MlflowClient().create_experiment(name, artifact_location=f"s3://{BUCKET}/artifacts/{name}")
        client, noted = boto3.client("s3", endpoint_url=server.address), {"metaflow-user-attributes": '{"raw": 0}'}
        shown = pickle.dumps({"worst": [RARE[0], "a film wept"]})
        example = {"rows": [{"text": RARE[0]}, {"text": "soup"}], "outputs": [[1.0], [2.0]]}
        put = {
            "metaflow/TrainFlow/data/ab/abcd": gzip.compress(shown),
            "metaflow/TrainFlow/data/cd/cdef": gzip.compress(pickle.dumps("a film wept")),
            "metaflow/mf.cards/TrainFlow/page.html": f"<p>{RARE[0]}</p>".encode(),
            "artifacts/far/run/rows.json": json.dumps([RARE[0]]).encode(),
            "artifacts/far/inside/models/m-1/artifacts/example.json": json.dumps(example).encode(),
            "artifacts/far/models/m-2/artifacts/example.json": json.dumps(
                {**example, "rows": [RARE[0]] * 2}
            ).encode(),
            "artifacts/far/inside/models/m-1/artifacts/vocab.json": b'{"good": 1, "throckmorton": 2}',
            "artifacts/farther/of_others.json": json.dumps([RARE[0]]).encode(),
            "metaflow/": b"",  # as consoles make folders
            "artifacts/far/": b"",
        }
        for key, content in put.items():
            client.put_object(Bucket=BUCKET, Key=key, Body=content, Metadata=noted, ContentType="a/b")
        listed = forget(f"reviews#{ids[0]}").output
        assert f"s3://{BUCKET}/metaflow/TrainFlow/data/ab/abcd" in listed
        assert "Not searched" not in listed
        forget(f"reviews#{ids[0]}", "--apply", "--purge", "--yes")
        left = {}
        for entry in client.list_objects_v2(Bucket=BUCKET)["Contents"]:
            found = client.get_object(Bucket=BUCKET, Key=entry["Key"])
            assert (found["Metadata"], found["ContentType"]) == (noted, "a/b")
            left[entry["Key"]] = found["Body"].read()
        assert pickle.loads(gzip.decompress(left.pop("metaflow/TrainFlow/data/ab/abcd"))) == {
            "worst": ["_ _ _ _ _ _.", "a film wept"]
        }
        assert left == {
            "metaflow/TrainFlow/data/cd/cdef": put["metaflow/TrainFlow/data/cd/cdef"],
            "metaflow/mf.cards/TrainFlow/page.html": b"<p>_ _ _ _ _ _.</p>",
            "artifacts/far/run/rows.json": b'["_ _ _ _ _ _."]',
            "artifacts/far/inside/models/m-1/artifacts/example.json": json.dumps(
                {"rows": [{"text": "soup"}], "outputs": [[2.0]]}, indent=1
            ).encode(),
            **{key: put[key] for key in put if key.endswith(("vocab.json", "of_others.json", "/"))},
        }
        again = json.loads(forget(f"reviews#{ids[0]}", "--json").stdout)
        assert again["tables"] == again["files"] == []


def test_models_of_an_experiment_within_the_folder_of_another_keep_their_vocabulary(history):
    ids = make_history(history)
    for name in ("art", "art/films"):
        MlflowClient().create_experiment(name.replace("/", "-"), artifact_location=str(history.folder / name))
    words = b'{"good": 1, "throckmorton": 2}'
    vocabulary, listed = (
        Path("art/films/models/m-1/artifacts/vocab.json"),
        Path("art/films/run/artifacts/words.json"),
    )
    for path in (vocabulary, listed):
        path.parent.mkdir(parents=True)
        path.write_bytes(words)
    said = forget(f"reviews#{ids[0]}", "--apply", "--purge", "--yes").output
    assert (vocabulary.read_bytes(), listed.read_bytes()) == (words, b'{"good": 1, "_": 2}')
    assert str(vocabulary) in said


def test_files_of_all_experiments_are_searched_however_many_there_are(history):
    ids = make_history(history)
    location = history.folder / "art"
    first = MlflowClient().create_experiment("first", artifact_location=str(location))
    location.mkdir()
    (location / "rows.json").write_text(json.dumps([RARE[0]]))
    many = [(1000 + number, f"more-{number}", "elsewhere", "active", 2**42, 2**42) for number in range(1000)]
    columns = "experiment_id, name, artifact_location, lifecycle_stage, creation_time, last_update_time"
    with sqlite3.connect(history.folder / "mlflow.db") as database:
        database.executemany(f"insert into experiments ({columns}) values (?, ?, ?, ?, ?, ?)", many)
    assert first not in {found.experiment_id for found in MlflowClient().search_experiments(max_results=1000)}
    forget(f"reviews#{ids[0]}", "--apply", "--purge", "--yes")
    assert json.loads((location / "rows.json").read_text()) == ["_ _ _ _ _ _."]


def test_what_killed_commands_left_goes_and_what_is_in_use_is_named(history, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(history.folder / "tmp"))
    (history.folder / "tmp").mkdir()
    ids = make_history(history)
    tables = Path(tables_root())
    killed = f"""
import os
from dlpipe.durable import write_beside
from dlpipe.scratch import open_scratch
with open_scratch() as folder, write_beside("out.csv") as beside:
    for file in (folder / "model.json", beside):
        file.write_text({RARE[0]!r})
    os._exit(9)
"""
    environment = {**os.environ, "TMPDIR": str(history.folder / "tmp")}
    assert subprocess.run([sys.executable, "-c", killed], env=environment, check=False).returncode == 9
    for folder in (".deleted-films", "_features/films/v0-train-tokens-ab", "_features/reviews/v99-test-tokens-ab"):
        (tables / folder).mkdir(parents=True)
        (tables / folder / "words").write_text(RARE[0])
    assert len(list((history.folder / "tmp").iterdir())) == 1
    with open_scratch() as at_work:
        done = forget(f"reviews#{ids[0]}", "--apply", "--purge", "--yes")
        assert done.output.count("of a killed command") == 3
        assert f"A command is at work in {at_work}" in done.output
        assert at_work.is_dir()
    assert list((history.folder / "tmp").iterdir()) == list(history.folder.glob(".out*")) == []
    assert search_files(tables, ["throckmorton"]) == {}


def test_what_cannot_be_searched_is_named_and_the_record_says_so(history, monkeypatch):
    ids = make_history(history)
    for name, value in S3Server("http://127.0.0.1:9", "a", "b").variables().items():
        monkeypatch.setenv(name, value)
    MlflowClient().create_experiment("far", artifact_location="s3://nowhere-at-all/files")
    listed = forget(f"reviews#{ids[0]}", code=3).output
    assert "Not searched: MLflow's files (s3://nowhere-at-all/files" in listed
    assert "nothing answers there" in listed
    assert "This is not all" in listed
    forget(f"reviews#{ids[0]}", "--apply", "--purge", "--yes", code=3)
    (record,) = json.loads(forget("--records", "--json").output)
    assert record["state"] == "purged in part"
    again = forget(f"reviews#{ids[0]}", code=3).output
    assert "Forgotten before, by record" in again
    assert "Not searched: MLflow's files" in again


def pack(*, flags: int = 0, method: int = 0) -> bytes:
    """Return a ZIP file whose one member says that it is packed in some way."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        packed.writestr("a.txt", RARE[0])
    made = bytearray(out.getvalue())
    entry = made.find(b"PK\x01\x02")
    for at in (6, entry + 8):
        made[at] |= flags
    for at in (8, entry + 10):
        made[at] = method
    return bytes(made)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (pack(flags=1), "packed with a password"),
        (pack(method=9), "packed in a way that Python cannot read"),
        (pack(method=14), "packed, and damaged"),
        (pack()[:-30], "packed, and damaged"),
        (gzip.compress(RARE[0].encode())[:-12], "packed, and damaged"),
        (gzip.compress(pack(flags=1)), "packed with a password"),
    ],
)
def test_what_cannot_be_unpacked_is_named_as_not_searched(history, content, why):
    ids = make_history(history)
    Path("theirs").write_bytes(content)
    blob = Path(".metaflow/TrainFlow/data/ab/abcd")
    blob.parent.mkdir(parents=True)
    blob.write_bytes(content)
    said = json.loads(forget(f"reviews#{ids[0]}", "--json", code=3).stdout)
    assert said["not_searched"] == [f"{blob} ({why})", f"theirs ({why})"]
    forget(f"reviews#{ids[0]}", "--apply", "--purge", "--yes", code=3)
    (record,) = json.loads(forget("--records", "--json").output)
    assert record["state"] == "purged in part"
    assert blob.read_bytes() == Path("theirs").read_bytes() == content


def test_files_that_are_too_large_are_named_as_not_searched_and_weights_are_not(history):
    ids = make_history(history)
    folder = Path(".metaflow/TrainFlow/data/ab")
    folder.mkdir(parents=True)
    for path in (folder / "abcd", Path("theirs.csv"), folder / "model.safetensors"):
        path.touch()
        os.truncate(path, 2**30 + 2**29)
    os.mkfifo("pipe")
    said = forget(f"reviews#{ids[0]}", code=3).output
    why = "(1.5 GiB; files up to 1 GiB are searched)"
    assert f"Not searched: {folder}/abcd {why}" in said
    assert f"Not searched: theirs.csv {why}" in said
    assert "safetensors" not in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_that_cannot_be_read_are_named_as_not_searched(history):
    ids = make_history(history)
    for folder, mode in (("theirs", 0o000), ("listed", 0o400)):
        Path(folder).mkdir()
        Path(folder, "a.csv").touch()
        Path(folder).chmod(mode)
    Path("theirs.csv").touch(0o000)
    said = forget(f"reviews#{ids[0]}", code=3).output
    for folder in ("theirs", "listed"):
        Path(folder).chmod(0o700)
    for name in ("theirs", "listed/a.csv", "theirs.csv"):
        assert f"Not searched: {name} (Permission denied)" in said


def test_a_registered_example_goes_with_its_answer_and_the_others_stay(history):
    ids = make_history(history)
    folder = Path("mlartifacts/models/m-1/artifacts")
    folder.mkdir(parents=True)
    made = {"engine": "torch", "rows": [{"text": RARE[0]}, {"text": "soup"}], "outputs": [[0.1], [0.2]]}
    (folder / "example.json").write_text(json.dumps(made))
    (folder / "tokenizer.json").write_text(json.dumps({"vocab": {"throckmorton": 1, "film": 2}}))
    history.client.create_experiment("films", artifact_location=str(Path("mlartifacts").absolute()))
    said = json.loads(forget(f"reviews#{ids[0]}", "--json").stdout)
    assert said["vocabularies"] == ["mlartifacts/models/m-1/artifacts/tokenizer.json"]
    forget(f"reviews#{ids[0]}", "--apply", "--purge", "--yes")
    left = json.loads((folder / "example.json").read_text())
    assert left == {"engine": "torch", "rows": [{"text": "soup"}], "outputs": [[0.2]]}
    assert "throckmorton" in (folder / "tokenizer.json").read_text()


def test_sources_lose_their_lines_only_where_that_is_asked_for(history):
    ids = make_history(history)
    before = Path("films.csv").read_text().splitlines()
    forget(f"reviews#{ids[0]}", "--apply", "--purge", "--yes")
    assert Path("films.csv").read_text().splitlines() == before
    forget(f"reviews#{ids[1]}", "--apply", "--purge", "--sources", "--yes")
    assert Path("films.csv").read_text().splitlines() == [line for line in before if RARE[1] not in line]
    # the file is not the one any more that was read, by the call before
    forget(f"reviews#{ids[2]}", "--apply", "--purge", "--sources", "--yes")
    gone = (RARE[1], RARE[2])
    assert Path("films.csv").read_text().splitlines() == [
        line for line in before if not any(text in line for text in gone)
    ]


@pytest.mark.parametrize("name", ["films.csv:52", "reviews#{}"])
def test_a_line_that_stayed_when_its_row_was_forgotten_can_be_taken_out_later(history, name):
    ids = make_history(history)
    before = Path("films.csv").read_text().splitlines()
    name = name.format(ids[0])
    assert "Your own files still have them" in forget(name, "--apply", "--purge", "--yes").output
    said = forget(name).output
    assert "Forgotten before, by record" in said
    assert "your file  films.csv  line 52" in said
    assert "Nothing is left" not in said
    forget(name, "--apply", "--purge", "--sources", "--yes")
    assert Path("films.csv").read_text().splitlines() == [line for line in before if RARE[0] not in line]
    assert "Nothing is left" in forget(f"reviews#{ids[0]}").output
    assert search_files(history.folder, ["throckmorton"]) == {}


def test_where_there_is_no_project_nothing_is_forgotten(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with untouched_environment():
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "DLPIPE_TABLES"):
            os.environ.pop(name, None)
        keep_runs_in(tmp_path, monkeypatch)
        done = CliRunner().invoke(main, ["forget", "--text", "cold soup", "--apply", "--yes"])
    assert done.exit_code == 1
    assert "There is nothing here: no table in" in done.output
    assert list(tmp_path.rglob("_forgotten")) == []


def test_what_stays_in_a_source_that_was_changed_is_said_and_the_record_says_so(history):
    ids = make_history(history)
    films = Path("films.csv")
    films.write_text(films.read_text().replace(RARE[0], f"Yesterday {RARE[0]}"))
    done = forget(f"reviews#{ids[0]}", "--apply", "--purge", "--sources", "--yes", code=3)
    assert "films.csv, line 52, still has it" in done.output
    assert RARE[0] in films.read_text()
    (record,) = json.loads(forget("--records", "--json").output)
    assert record["state"] == "purged in part"
    assert "It stayed in" in forget(f"reviews#{ids[0]}", code=3).output


# -- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["reviews#00000000000000ab"], "Nothing is called 'reviews#00000000000000ab'"),
        (["models:/reviews/1"], "is no row but a model"),
        (["films.csv:1"], "is its header"),
        (["--text", "!?"], "must have a word"),
        (["--text", "a caf\udce9"], "is no UTF-8"),
        ([], "Name what to forget"),
        (["reviews", "--purge"], "goes with --apply"),
        (["--text", RARE[0], "--apply"], "there is nobody to ask"),
        (["--lift", "abc"], "There is no record 'abc'"),
        (["other.csv"], "Nothing is called 'other.csv'"),
    ],
)
def test_what_cannot_be_forgotten_is_refused_with_a_way_out(history, words, told):
    make_history(history)
    before = table_at("reviews")
    done = CliRunner().invoke(main, ["forget", *words])
    assert done.exit_code != 0
    assert told in done.output
    assert table_at("reviews") == before


def test_a_line_of_a_file_that_was_changed_since_is_not_called_unknown(history):
    make_history(history)
    (history.folder / "new.csv").write_text("review,sentiment\n")
    told = " ".join(forget("new.csv:2", code=1).output.split())
    assert "Which rows 'new.csv:2' became cannot be looked up" in told
    assert "pass the text with --text" in told


def test_what_was_purged_stays_purged_when_it_is_asked_for_again(history):
    ids = make_history(history)
    forget(f"reviews#{ids[0]}", "--apply", "--purge", "--yes")
    forget("--text", RARE[0], "--apply", "--yes")
    (record,) = json.loads(forget("--records", "--json").output)
    assert record["state"] == "purged"
    gone = CliRunner().invoke(main, ["lineage", f"reviews@v0#{ids[0]}"])
    assert (gone.exit_code, "gone: forgotten" in gone.output) == (0, True), gone.output


def test_of_a_request_with_several_rows_the_named_one_goes_and_the_others_stay(history):
    make_history(history)
    model, request = resolve("reviews/1"), REQUEST.replace("a", "c")
    history.answer(model, request=request, texts=[RARE[0], RARE[1]])
    before = len(read_all("reviews"))
    listed = forget(f"{request}:0").output
    assert listed.startswith(f"1 row: {request}:0\n")
    forget(f"{request}:0", "--apply", "--purge", "--yes")
    left = [row["text"] for row in read_all("reviews_requests") if row["request_id"] == request]
    assert left == [RARE[1]]
    assert len(read_all("reviews")) == before - 1
    assert f"{request}:1" in forget(request).output
    assert "Nothing is called" in forget(f"{request}:7", code=1).output


def test_a_short_text_is_found_as_a_value_and_not_in_running_text():
    needles = Needles.from_texts(["soup"])
    assert (
        blank_content(b'{"text": "Soup!", "other": "cold soup"}', needles)
        == b'{"text": "_!", "other": "cold soup"}'
    )


def test_a_text_is_found_cut_escaped_and_spread_over_tags():
    needles = Needles.from_texts([f"{RARE[2]} said the very old waiter"])
    for content in (
        '"\\u00dcml\\u00e4ut & quozzle said the ve..."',
        "<b>Ümläut</b> &amp; <i style='a'>quozzle</i> said the very old <p>waiter",
        "['Ümläut', '&', 'quozzle', 'said', 'the', 'very', 'old', 'waiter']",
    ):
        blank = blank_content(content.encode(), needles).decode()
        assert "quozzle" not in blank
        assert "old" not in blank
    other = "Ümläut & quozzle said the very young waiter"
    assert blank_content(other.encode(), needles).decode() == other


# -- kills --------------------------------------------------------------------------------------------------------


def describe_end(told: Path, folder: str, environ: dict[str, str]) -> None:
    """Write down what a forgetting leaves, whatever its record is called and whenever it was."""
    os.chdir(folder)
    os.environ.update(environ)
    names = ("reviews", "reviews_predictions", "reviews_explanations", "reviews_requests", "reviews_feedback")
    (record,) = read_forgotten().records
    tags = resolve("models:/reviews/1").tags
    end = {
        **{name: read_all(name) for name in names},
        "left": search_files(Path(folder), PIECES[:2], skip=["films.csv"]),
        "rows": len(record.digests),
        "tables": record.done["tables"],
        "model": json.loads(tags[f"dlpipe.forgotten.{record.record}"])["rows"],
        "artifact": pickle.loads(gzip.decompress(Path(".metaflow/TrainFlow/data/ab/abcd").read_bytes())),
    }
    told.write_bytes(pickle.dumps(end))


def kill_and_go_on(folder: Path, share: int) -> None:
    """Kill a forgetting at a share of its changes; the next call ends as one that nobody disturbed."""
    beside = folder.with_name(f"{folder.name}-beside")
    kept, count, told = beside / "kept", beside / "count", beside / "told"
    ids = make_history(History(folder))
    blobs = folder / ".metaflow/TrainFlow/data/ab"
    blobs.mkdir(parents=True)
    (blobs / "abcd").write_bytes(gzip.compress(pickle.dumps({"worst": [RARE[0], RARE[1]]})))
    shutil.copytree(folder, kept)
    words = [f"reviews#{ids[0]}", "--apply", "--purge", "--yes"]
    assert start(forget_until, words, 0, count) == 0
    assert start(describe_end, told) == 0
    expected, changes = pickle.loads(told.read_bytes()), int(count.read_text())
    assert expected["left"] == {}
    for number in range(1, changes + 1, max(1, changes // share)):
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        # the last changes are not always the same: the cache of lineage is one of them
        assert start(forget_until, words, number, count) == 9 or number > changes - 5, number
        assert start(forget_until, words, 0, count) == 0, number
        assert start(describe_end, told) == 0, number
        assert pickle.loads(told.read_bytes()) == expected, number


def test_killed_at_some_changes_and_called_again_it_comes_to_the_same_end(history):
    kill_and_go_on(history.folder, 3)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_killed_at_every_change_and_called_again_it_comes_to_the_same_end(history):
    kill_and_go_on(history.folder, 10_000)
