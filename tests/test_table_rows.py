"""`dlpipe tables show`, `export` and `delete`: rows chosen by a condition, on a terminal and in files."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from dlpipe.cli import main
from dlpipe.errors import SettingError
from dlpipe.orchestrator.deployments import Version
from dlpipe.orchestrator.state import State
from dlpipe.tables import Column as Input
from dlpipe.tables import (
    FormSettings,
    Label,
    RowForm,
    Sources,
    append,
    ingest,
    parse_condition,
    read_form,
    read_table,
    table_at,
    write_table,
)
from dlpipe.task.text_classification import TextClassData
from dlpipe.terminal import measure_width

ROWS = pa.table(
    {
        "label": ["good", "bad", None, "it's"],
        "stars": [5, 1, 3, None],
        "seen": [True, False, None, True],
        "topics": [["a", "b"], ["ab"], None, []],
        "at": pa.array([datetime(2026, 1, day, tzinfo=UTC) for day in range(1, 5)], pa.timestamp("us", "UTC")),
        "mean radius": [0.5, 1.5, float("nan"), 4.0],
        "row": [1, 2, 3, 4],
    }
)


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("label = 'good'", [1]),
        ("label='it''s' or label like 'b%'", [2, 4]),
        ("LABEL", None),
        ("not label in ('good')", [2, 4]),  # as in SQL: a missing label is neither in nor not in
        ("label not in ('good', 'bad')", [4]),
        ("not (label = 'good' or stars < 2)", []),
        ("stars between 1 and 3 and seen is not null", [2]),
        ("stars > 1.5", [1, 3]),
        ("stars = -1 or seen = true", [1, 4]),
        ("topics has 'a'", [1]),
        ("not topics has 'a' or topics is null", [2, 3, 4]),
        ("at >= '2026-01-03'", [3, 4]),
        ('"mean radius" < 2', [1, 2]),
    ],
)
def test_a_condition_chooses_rows(condition, rows):
    if rows is None:
        with pytest.raises(SettingError, match="names a column"):
            parse_condition(condition, ROWS.schema)
    else:
        assert ROWS.filter(parse_condition(condition, ROWS.schema).expression)["row"].to_pylist() == rows


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("label = good", "character 9: 'good' stands where .* in single quotes"),
        ("label = 'good", "Close the quote"),
        ("label = 3", "such as 'positive'"),
        ("stars = '3'", "such as 3"),
        ("stars = 99999999999999999999", "holds int64"),
        ("label = null", "Write label is null"),
        ("topics = 'a'", "topics has 'VALUE'"),
        ("label = 'a' and", "the end stands where the name of a column"),
        ("label = 'a'; drop", "character 12"),
        ("__import__('os')", "names a column '__import__'"),
        ("label.__class__()", "names a column 'label.__class__'"),
        ("at = 'yesterday'", "such as '2026-01-31'"),
        ("(" * 60 + "stars = 1" + ")" * 60, "parentheses deep"),
        (" or ".join(["stars = 1"] * 800), "Write a shorter one"),
        ("", "the end stands where the name of a column"),
    ],
)
def test_what_is_no_condition_is_refused_with_the_place(condition, message):
    with pytest.raises(SettingError, match=message):
        parse_condition(condition, ROWS.schema)


def test_a_condition_of_many_comparisons_is_read():
    many = " or ".join(["stars = 1"] * 750)
    assert ROWS.filter(parse_condition(many, ROWS.schema).expression)["row"].to_pylist() == [2]


# -- the commands ------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder of its own, as the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("DLPIPE_TABLES", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DLPIPE_STATE", str(tmp_path / "state"))
    return tmp_path


def dlpipe(*words: str) -> Result:
    return CliRunner().invoke(main, ["tables", *words], env={"COLUMNS": "60"})


def said(*words: str) -> str:
    """Return what a command that fails as expected says: one line on stderr, exit code 1."""
    result = dlpipe(*words)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    return result.stderr


def make_reviews(folder: Path, count: int = 30) -> None:
    lines = (f"a film about {number},{'good' if number % 3 else 'bad'}" for number in range(count))
    (folder / "films.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    settings = TextClassData(text_column="text", label_column="label")
    ingest(Sources(data="films.csv"), "films", settings=settings)


def test_show_tells_what_a_version_is_and_what_changed(folder):
    make_reviews(folder)
    (folder / "new.jsonl").write_text(
        '{"text": "not seen yet"}\n{"text": "a film about 1", "label": "good"}\n'
        '{"text": "nice", "label": "good"}\n'
    )
    append(["new.jsonl"], "films")
    (folder / "label.csv").write_text("text,label\nnot seen yet,bad\n")
    append(["label.csv"], "films")
    first, second, third = (
        json.loads(dlpipe("show", "films", "--version", at, "--json").stdout) for at in ("0", "1", "2")
    )
    assert (first["changed"], first["sources"][0]["name"]) == (None, "films.csv")
    assert second["changed"] == {"since": 0, "added": 2, "gone": 0, "relabelled": 0, "moved": 0}
    assert [found for found in second["counts"] if not found["split"]] == [
        {"split": None, "label": None, "rows": 1}
    ]
    assert (third["changed"]["added"], third["changed"]["relabelled"]) == (0, 1)
    assert sum(found["rows"] for found in third["counts"] if found["label"] == "good") == 21
    shown = dlpipe("show", "films", "--split", "train", "--where", "label = 'bad'", "--rows", "1").stdout
    assert "since v1  1 label changed" in shown
    assert "The first row of the train split where label = 'bad':" in shown
    assert dlpipe("films").stdout.count("\n") == 4  # the versions, as before
    assert "No row where" in dlpipe("show", "films", "--where", "label = 'x'").stderr
    assert "no column 'nothing'" in said("export", "films", "x.csv", "--columns", "nothing")
    assert "has no version 9" in said("show", "films", "--version", "9")


def test_odd_values_are_readable_in_the_width_of_the_terminal(folder):
    rows = {
        "blob": pa.array([b"\x89PNG" * 20, None], pa.binary()),
        "text": ["\x1b[31mred\x1b[0m \u202ereversed " + "x" * 400, ""],
        "hebrew": ["עברית כאן", "映画が大好きです"],
        "share": pa.array([0.1, None], pa.float32()),
    }
    write_table("odd", pa.table(rows))
    lines = dlpipe("show", "odd").stdout.split("rows:\n\n")[1].splitlines()
    assert max(map(measure_width, lines)) <= 60
    assert "80 bytes: 8" in lines[1]
    assert "\\x1b[31mred" in lines[1]
    assert lines[2].split() == ["映画が大好きです", "null", "null", "''"]
    assert lines[2].index("null") + 8 == lines[0].index("share")  # eight signs, each as wide as two
    assert lines[1].index("\u200e") < lines[1].index("0.1")  # what follows Hebrew stays to the right of it
    write_table("wide", pa.table({f"column_{number}": [number] for number in range(30)}))
    assert "column_29  29" in dlpipe("show", "wide").stdout


FORMS = {
    "texts": RowForm((Input("text", "text", "text"),), Label(("label",), "class")),
    "labels": RowForm((Input("text", "text", "text"),), Label(("label",), "labels")),
    "numbers": RowForm((Input("text", "text", "text"),), Label(("label",), "number")),
    "columns": RowForm(
        (Input("age", "age", "number", optional=True), Input("town", "town", "category", optional=True)),
        Label(("label",), "class"),
    ),
}
TEXTS = ['quoted "so", and more', "two\nlines", "a;b\tc", " blanks ", "עברית", "null", "été\r\nfin", "nan"]
LABELS = {
    "class": lambda at: None if at == 3 else f"class {at % 2}",
    "labels": lambda at: None if at == 3 else ["a, b", 'c"d'][: at % 3],
    "number": lambda at: None if at == 3 else at / 7,
}


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("name", FORMS)
def test_exported_rows_come_back_equal(folder, name, ending):
    form = FORMS[name]
    rows = [
        {"text": text, "age": None if at == 2 else at / 3, "town": text, "label": LABELS[form.label.kind](at)}
        for at, text in enumerate(TEXTS)
    ]
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    made = append(["rows.jsonl"], "first", settings=FormSettings(rows=form)).table
    file = f"out.{ending}"
    assert f"{len(rows)} rows in {file}" in dlpipe("export", "first", file).stdout
    again = append([file], "second", settings=FormSettings(rows=read_form(made))).table
    assert read_table(again).to_pylist() == read_table(made).to_pylist()


def test_an_export_chooses_rows_and_columns_and_spares_a_file_that_exists(folder):
    make_reviews(folder)
    bad = dlpipe("export", "films", "bad.jsonl", "--where", "label = 'bad'", "--columns", "label,text", "--json")
    assert json.loads(bad.stdout) == {"table": "films@v0", "file": "bad.jsonl", "rows": 10}
    lines = [json.loads(line) for line in (folder / "bad.jsonl").read_text().splitlines()]
    assert {tuple(line) for line in lines} == {("label", "text")}
    assert {line["label"] for line in lines} == {"bad"}
    assert "--overwrite" in said("export", "films", "bad.jsonl")
    assert len((folder / "bad.jsonl").read_text().splitlines()) == 10
    assert dlpipe("export", "films", "bad.jsonl", "--overwrite", "--split", "test").exit_code == 0
    tested = read_table(table_at("films"), split="test").num_rows
    assert len((folder / "bad.jsonl").read_text().splitlines()) == tested
    assert "no known format" in said("export", "films", "films.xlsx")
    assert "no folder" in said("export", "films", "nowhere/films.csv")
    assert "--where cannot be read" in said("export", "films", "x.csv", "--where", "label =")
    assert sorted(path.name for path in folder.iterdir()) == ["bad.jsonl", "data", "films.csv"]


def test_columns_of_other_programs_are_written_as_they_can_be(folder):
    rows = pa.table(
        {
            "blob": pa.array([b"ab", None], pa.binary()),
            "share": pa.array([0.1, float("nan")], pa.float32()),
            "at": pa.array([datetime(2026, 1, 2, tzinfo=UTC)] * 2, pa.timestamp("us", "UTC")),
        }
    )
    write_table("odd", rows)
    for ending in ("csv", "jsonl", "parquet"):
        assert dlpipe("export", "odd", f"odd.{ending}").exit_code == 0
    with open("odd.csv", newline="") as file:
        assert list(csv.reader(file))[1:] == [
            ["YWI=", "0.1", "2026-01-02T00:00:00+00:00"],
            ["", "", "2026-01-02T00:00:00+00:00"],
        ]
    last = json.loads((folder / "odd.jsonl").read_text().splitlines()[1])
    assert last == {"blob": None, "share": None, "at": "2026-01-02T00:00:00+00:00"}
    assert pq.read_table("odd.parquet").schema.types == rows.schema.types


KILLED = """
import os, signal
from dlpipe.durable import write_beside
with write_beside("out.csv") as beside:
    beside.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_export_leaves_no_file_and_the_next_one_takes_its_place(folder):
    make_reviews(folder)
    assert subprocess.run([sys.executable, "-c", KILLED], check=False).returncode == -9
    assert not (folder / "out.csv").exists()
    assert dlpipe("export", "films", "out.csv").exit_code == 0
    assert len((folder / "out.csv").read_text().splitlines()) == 31
    assert list(folder.glob(".out*")) == []


# -- deleting ----------------------------------------------------------------------------------------------------


def test_a_table_is_deleted_after_what_depends_on_it_is_named(folder):
    make_reviews(folder)
    key = {"model": "models:/films/1", "source": str(folder / "data/tables/films"), "source_version": "0"}
    write_table("films_predictions", pa.table({"row_id": ["a"]}), key=key)
    write_table("films_quarantine", pa.table({"row_id": ["a"]}))
    write_table("apart", pa.table({"row_id": ["a"]}))
    with contextlib.closing(State.open()) as state:
        version = Version("A", 0, "A", "code", "flow.py", "0" * 64, str(folder), sys.executable, {})
        state.deploy(dataclasses.replace(version, parameters={"table": "films"}), now=0.0)
        state.deploy(dataclasses.replace(version, deployment="B", parameters={"table": "apart"}), now=0.0)
    refused = dlpipe("delete", "films")
    assert refused.exit_code == 1
    assert "(1 version, 30 rows in the latest) is to be deleted" in refused.stderr
    assert "films_predictions  computed from its version 0 by models:/films/1" in refused.stderr
    assert "films_quarantine   bad rows of its last ingest" in refused.stderr
    assert "apart" not in refused.stderr
    assert "Pass --yes" in refused.stderr
    assert table_at("films").rows == 30
    gone = json.loads(dlpipe("delete", "films", "--yes", "--json").stdout)
    assert [found["name"] for found in gone["dependents"]] == ["films_predictions", "films_quarantine", "A"]
    assert gone["dependents"][2]["how"] == "runs with --table films"
    assert sorted(path.name for path in (folder / "data/tables").iterdir()) == [
        "apart",
        "films_predictions",
        "films_quarantine",
    ]
    assert "no table at 'data/tables/films'" in said("delete", "films", "--yes")
    assert not (folder / "mlflow.db").exists()  # looking for models makes no store


def test_what_cannot_be_deleted_is_one_line(folder):
    write_table("one", pa.table({"n": [1]}))
    write_table("one/two", pa.table({"n": [1]}))
    assert "another table in its folder, 'two'" in said("delete", "one", "--yes")
    (folder / "data/tables/link").symlink_to("one")
    assert "is a link to one" in said("delete", "link", "--yes")
    assert "in an object store" in said("delete", "s3://bucket/one", "--yes")
    (folder / "data/tables/plain").mkdir()
    assert "not a Delta table" in said("delete", "plain", "--yes")


KILLED_DELETION = """
import os, shutil, signal
from dlpipe.tables import delete_table
shutil.rmtree = lambda folder: os.kill(os.getpid(), signal.SIGKILL)
delete_table("films")
"""


def test_a_killed_deletion_leaves_no_table_and_is_finished_by_the_next(folder):
    make_reviews(folder)
    assert subprocess.run([sys.executable, "-c", KILLED_DELETION], check=False).returncode == -9
    assert "No tables yet" in dlpipe().stderr
    assert "no table is beside it" in said("show", "films")
    assert dlpipe("delete", "films", "--yes").exit_code == 0
    assert list((folder / "data/tables").iterdir()) == []
