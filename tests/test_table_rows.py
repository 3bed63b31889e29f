"""`dlpipe tables show`, `export` and `delete`: rows chosen by a condition, on a terminal and in files."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import random
import re
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from dlpipe.cli import main
from dlpipe.errors import SettingError, TableVersionNotFound
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
    locate_features,
    parse_condition,
    read_form,
    read_table,
    stream_table,
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


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("small in (2.5)", []),
        ("small in (2.5, 3, 300, 3000000000, -300)", [3]),
        ("small not in (2.5, 3, 300)", [1, 2]),
        ("small in (1e300, 1e999)", []),
        ("small in (2.0, 1e0)", [1, 2]),
        ("large in (9007199254740993)", [3]),
        ("positive in (-1, 255, 256)", [3]),
        ("seen in (true)", [1]),
        ("seen not in (true)", [2]),
        ("day in ('2026-01-02')", [2]),
        ("day not in ('2026-01-02')", [1, 3]),
        ("at in ('2026-01-02', '2026-01-03T00:00:00+00:00')", [2, 3]),
        ("price in (1.50, 2.5)", [1, 2]),
        ("share in (0.1)", [1]),
        ("blob in ('b')", [2]),
    ],
)
def test_a_list_of_values_has_those_that_a_comparison_has(condition, rows):
    days = [date(2026, 1, day) for day in (1, 2, 3)]
    table = pa.table(
        {
            "small": pa.array([1, 2, 3], pa.int8()),
            "large": [1, 2**53, 2**53 + 1],
            "positive": pa.array([1, 2, 255], pa.uint8()),
            "seen": [True, False, None],
            "day": days,
            "at": pa.array([datetime(2026, 1, day) for day in (1, 2, 3)], pa.timestamp("us")),
            "price": pa.array([Decimal("1.50"), Decimal("2.50"), None], pa.decimal128(10, 2)),
            "share": pa.array([0.1, 0.2, None], pa.float32()),
            "blob": pa.array([b"a", b"b", None]),
            "row": [1, 2, 3],
        }
    )
    assert table.filter(parse_condition(condition, table.schema).expression)["row"].to_pylist() == rows


def test_a_condition_of_many_comparisons_is_read():
    many = " or ".join(["stars = 1"] * 750)
    assert ROWS.filter(parse_condition(many, ROWS.schema).expression)["row"].to_pylist() == [2]


# -- what is not read --------------------------------------------------------------------------------------------


def count_read_bytes() -> int:
    """Return how many bytes this process has read from files so far."""
    return int(re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())[1])


def read_where(version, where: str, **more) -> tuple[list, int]:
    """Return the rows of which a condition is true, and how many bytes were read for them."""
    before = count_read_bytes()
    batches = list(stream_table(version, where=where, **more))
    return [row for batch in batches for row in batch.to_pylist()], count_read_bytes() - before


@pytest.mark.skipif(sys.platform != "linux", reason="what a process reads is told by /proc")
def test_row_groups_that_cannot_have_such_rows_are_not_read(tmp_path):
    count = 100_000
    notes = [random.Random(number).randbytes(60).hex() for number in range(count)]
    days = pa.array([datetime(2026, 1, 1) + timedelta(minutes=number) for number in range(count)])
    rows = pa.table({"n": range(count), "day": days, "note": notes, "split": ["train", "test"] * (count // 2)})
    version = write_table(str(tmp_path / "large"), rows)
    found, all_bytes = read_where(version, "n >= 0")
    assert len(found) == count
    for where, expected in (
        ("n between 50000 and 50009", range(50_000, 50_010)),
        ("day >= '2026-03-01' and day < '2026-03-01T00:10:00'", range(84_960, 84_970)),
        ("n > 99994 or n < 5", [*range(5), *range(99_995, count)]),
    ):
        found, read = read_where(version, where)
        assert [row["n"] for row in found] == list(expected)
        assert read < all_bytes / 4, (where, read, all_bytes)
    found, _ = read_where(version, "n in (7, 8)", split="train", columns=["note"])
    assert found == [{"note": notes[8]}]


def test_files_that_the_log_rules_out_are_not_opened(tmp_path):
    """As another program writes them: by partition, and with the lowest and highest values in the log."""
    from deltalake import DeltaTable, write_deltalake

    path = str(tmp_path / "t")
    for town in ("Bonn", "Rome"):
        for start in (0, 100):
            numbers = pa.array(range(start, start + 100), pa.int64())
            names = pa.array(
                [None if number % 10 == 0 else f"name {number:03}" for number in range(start, start + 100)]
            )
            part = pa.table({"n": numbers, "name": names, "town": [town] * 100})
            write_deltalake(path, part, mode="append", partition_by=["town"])
    version = table_at(path)
    for file in DeltaTable(path).file_uris():
        if "Rome" in file or pq.read_table(file)["n"][0].as_py() == 100:
            Path(file).unlink()  # whoever opens one of them fails
    for where, rows in (
        ("town = 'Bonn' and n < 50", 50),
        ("town != 'Rome' and name < 'name 1'", 90),
        ("n <= 3 and not town = 'Rome'", 4),
        ("town in ('Bonn') and n between 98 and 99", 2),
        ("town like 'Nowhere%' and n > 500", 0),
        ("n is null", 0),
    ):
        assert len(read_where(version, where)[0]) == rows, where
    with pytest.raises(TableVersionNotFound):
        read_where(version, "town = 'Bonn' and name is null")  # the file has such rows


def make_random_rows(random: Random, count: int) -> pa.Table:
    """Return rows with missing values and NaN, in runs that leave row groups with one value alone."""

    def some(values):
        made = []
        while len(made) < count:
            made += [random.choice(values)] * random.choice((1, 2, 40))
        return made[:count]

    return pa.table(
        {
            "n": pa.array(some([None, 1, 2, 3, 4]), pa.int64()),
            "x": pa.array(some([None, float("nan"), 0.5, 1.0, 2.5]), pa.float64()),
            "t": pa.array(some([None, "", "a", "ab", "b", "\u00e9"]), pa.string()),
            "b": pa.array(some([None, True, False]), pa.bool_()),
            "l": pa.array(some([None, [], ["a"], ["a", "b"]]), pa.list_(pa.string())),
            "row": range(count),
        }
    )


def make_random_condition(random: Random, depth: int = 0) -> str:
    if depth < 3 and random.random() < 0.6:
        parts = [make_random_condition(random, depth + 1) for _ in range(2)]
        word = random.choice(("and", "or", "not"))
        return f"not ({parts[0]})" if word == "not" else f"({parts[0]} {word} {parts[1]})"
    column, values = random.choice(
        [("n", ["1", "2.5", "4"]), ("x", ["0.5", "1", "3"]), ("t", ["'a'", "'b'", "''"]), ("b", ["true", "false"])]
    )
    sign = random.choice(("=", "!=", "<", "<=", ">", ">=", "in", "between", "null", "has"))
    if sign == "null":
        return f"{column} is {random.choice(('', 'not '))}null"
    if sign == "has":
        return random.choice(("l has 'a'", "l has 'b'"))
    if column == "n":
        values = ["1", "2", "4"]
    negated = random.choice(("", "not "))
    if sign == "in":
        return f"{column} {negated}in ({', '.join(random.sample(values, 2))})"
    if sign == "between":
        return f"{column} {negated}between {values[0]} and {values[1]}"
    return f"{column} {sign} {random.choice(values)}"


def test_what_is_skipped_changes_no_answer(tmp_path):
    random = Random(7)
    for number in range(6):
        rows, path = make_random_rows(random, 300), str(tmp_path / f"t{number}")
        for start in range(0, 300, 50):
            write_small_groups(path, rows.slice(start, 50), groups=random.choice((7, 25)))
        version = table_at(path)
        there = read_table(version)
        for _ in range(60):
            where = make_random_condition(random)
            expected = there.filter(parse_condition(where, there.schema).expression)["row"].to_pylist()
            found, _ = read_where(version, where, columns=["row"])
            assert [row["row"] for row in found] == expected, where


def write_small_groups(path: str, rows: pa.Table, *, groups: int) -> None:
    from deltalake import WriterProperties, write_deltalake

    write_deltalake(path, rows, mode="append", writer_properties=WriterProperties(max_row_group_size=groups))


# -- the commands ------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder of its own, as the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("DLPIPE_TABLES", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DLPIPE_STATE", str(tmp_path / "state"))
    return tmp_path


def list_tables(folder: Path) -> list[str]:
    """Return the names of the folders of tables; lineage's index beside them is none."""
    return sorted(path.name for path in (folder / "data/tables").iterdir() if path.name != "_lineage")


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


def test_looks_of_the_monitor_flow_are_not_counted_as_predictions(folder):
    look = {"model_version": ["models:/films/1"], "drifted": [True], "reason": ["domain"], "predicted": [0.25]}
    write_table("films_drift", pa.table(look))
    shown = dlpipe("show", "films_drift").stdout
    assert "predicted  models:/films/1" not in shown
    assert "0.25" in shown


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
TEXTS = [
    'quoted "so", and more',
    "two\nlines",
    "a;b\tc",
    " blanks ",
    "עברית",
    "null",
    "été\r\nfin",
    "one\rtwo",
    "nan",
]
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


def test_columns_that_are_named_twice_are_refused_in_one_line(folder):
    make_reviews(folder)
    assert "'text' is named twice" in said("export", "films", "out.csv", "--columns", "text,label,text")
    assert sorted(path.name for path in folder.iterdir()) == ["data", "films.csv"]


@pytest.mark.parametrize(
    "words",
    [
        ("tables", "show", "films", "--rows"),
        ("runs", "--limit"),
        ("events", "--limit"),
        ("score", "--model", "reviews/1", "films.csv", "--output", "out.csv", "--batch-rows"),
    ],
)
def test_a_number_that_no_list_is_as_long_as_is_refused_with_the_range(words):
    result = CliRunner().invoke(main, [*words, str(10**20)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "is not in the range" in result.stderr


def test_a_carriage_return_alone_is_quoted_in_a_file_of_line_feeds(folder):
    write_table("odd", pa.table({"text\rhere": ["one\rtwo", "end\r", "plain"]}))
    assert dlpipe("export", "odd", "odd.csv").exit_code == 0
    assert (folder / "odd.csv").read_bytes() == b'"text\rhere"\n"one\rtwo"\n"end\r"\nplain\n'


def test_a_text_with_a_zero_byte_is_exported_to_formats_that_hold_it(folder):
    write_table("odd", pa.table({"text": ["plain", "zero\0byte"]}))
    assert "'text' has a text with a zero byte (U+0000)" in said("export", "odd", "odd.csv")
    assert not (folder / "odd.csv").exists()
    assert dlpipe("export", "odd", "odd.jsonl").exit_code == 0
    assert json.loads((folder / "odd.jsonl").read_text().splitlines()[1]) == {"text": "zero\0byte"}


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
    assert "'/proc/films.csv' cannot be written" in said("export", "films", "/proc/films.csv")
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
        by_default = dataclasses.replace(version, deployment="C", defaults={"table": "films", "n": "3"})
        state.deploy(by_default, now=0.0)
        other = dataclasses.replace(by_default, deployment="D", parameters={"table": "apart"})
        state.deploy(other, now=0.0)
    refused = dlpipe("delete", "films")
    assert refused.exit_code == 1
    assert "(1 version, 30 rows in the latest) is to be deleted" in refused.stderr
    assert "films_predictions  computed from its version 0 by models:/films/1" in refused.stderr
    assert "films_quarantine   bad rows of its last ingest" in refused.stderr
    assert "apart" not in refused.stderr
    assert "Pass --yes" in refused.stderr
    assert table_at("films").rows == 30
    kept = [Path(locate_features(table_at(name).path), "v0-train-tokens-ab") for name in ("films", "apart")]
    for place in kept:
        place.mkdir(parents=True)
        (place / "words").write_text("a fine film")
    gone = json.loads(dlpipe("delete", "films", "--yes", "--json").stdout)
    assert [found["name"] for found in gone["dependents"]] == ["films_predictions", "films_quarantine", "A", "C"]
    assert gone["dependents"][2]["how"] == "runs with --table films"
    assert gone["dependents"][3]["how"] == "runs with --table films, the flow's default"
    assert list_tables(folder) == ["_features", "apart", "films_predictions", "films_quarantine"]
    assert [place.is_dir() for place in kept] == [False, True]
    assert "no table at 'data/tables/films'" in said("delete", "films", "--yes")
    assert not (folder / "mlflow.db").exists()  # looking for models makes no store


def test_what_cannot_be_deleted_is_one_line(folder):
    write_table("one", pa.table({"n": [1]}))
    write_table("one/two", pa.table({"n": [1]}))
    assert "another table in its folder, 'two'" in said("delete", "one", "--yes")
    assert "'/' is a folder but not a Delta table" in said("delete", "/", "--yes")
    (folder / "data/tables/link").symlink_to("one")
    assert "is a link to one" in said("delete", "link", "--yes")
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
    assert list_tables(folder) == []
