"""`dlpipe score`: a file with predictions beside its columns; what cannot be scored is named by its line."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from stores import new_store, untouched_environment

from dlpipe.cli import main
from dlpipe.cli.dependents import find_table_dependents
from dlpipe.durable import PART
from dlpipe.inference import load_predictor, predict_frame, register_pipeline, score_file
from dlpipe.registry import ModelVersion, log_and_register, promote, resolve

TEXTS = ["a lovely film", "the soup was awful", "what a dull, poor plot", "great acting\nand all"]
ADDED = ["predicted", "probability", "p_negative", "p_positive"]


@pytest.fixture(scope="module")
def store(tmp_path_factory, tiny_model, tiny_table):
    """A store with a champion that learnt from the columns review and sentiment, and its pipeline."""
    with untouched_environment():
        os.environ.pop("DLPIPE_TABLES", None)
        yield register(new_store(tmp_path_factory.mktemp("store")), tiny_model, tiny_table)


def register(store, model, table) -> ModelVersion:
    tags = {"delta.table": table.path, "delta.version": str(table.version)}
    shared = {"example": ["a film"], "challenger": False}
    version = log_and_register(model, name="reviews", params={}, tags=tags, **shared)
    promote(version, verdict_passed=True)
    register_pipeline(version, example=["a film"])
    return version


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder of its own, as the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def dlpipe(file: str, output: str, *words: str, model: str = "reviews/1") -> Result:
    return CliRunner().invoke(main, ["score", "--model", model, file, "--output", output, *words])


def said(file: str, output: str, *words: str) -> str:
    """Return what a command that fails as expected says: one line on stderr, exit code 1, no output."""
    before = sorted(Path().iterdir())
    result = dlpipe(file, output, *words)
    assert (result.exit_code, result.stdout) == (1, "")
    assert sorted(Path().iterdir()) == before
    assert result.stderr.count("\n") == 1
    return result.stderr


def read_csv(path: str, separator: str = ",") -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file, delimiter=separator))


def write_csv(path: str, header: list[str], rows: list[list[str]], separator: str = ",") -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file, delimiter=separator).writerows([header, *rows])


def test_a_csv_keeps_its_columns_and_gains_those_of_predict(store, folder):
    write_csv("new.csv", ["id", "review", "stars"], [[f"{at:03}", text, ""] for at, text in enumerate(TEXTS)], ";")
    done = dlpipe("new.csv", "scored.csv", "--batch-rows", "3")
    assert done.stdout == "4 rows with predictions of models:/reviews/1 in scored.csv\n"
    rows = read_csv("scored.csv", ";")
    assert list(rows[0]) == ["id", "review", "stars", *ADDED]
    assert [(row["id"], row["review"], row["stars"]) for row in rows] == [
        (f"{at:03}", text, "") for at, text in enumerate(TEXTS)
    ]
    expected = predict_frame(load_predictor("reviews/1"), TEXTS)
    assert [row["predicted"] for row in rows] == expected["predicted"].tolist()
    np.testing.assert_allclose([float(row["p_positive"]) for row in rows], expected["p_positive"], atol=1e-5)
    assert "scoring new.csv: 4 rows" in done.stderr


def test_json_lines_and_parquet_keep_what_they_hold(store, folder):
    records = [
        {"text": text, "tags": [at], "at": {"b": None}, **({"n": 1} if at else {})}
        for at, text in enumerate(TEXTS)
    ]
    Path("new.jsonl").write_text("".join(f"{json.dumps(record)}\n\n" for record in records))
    assert dlpipe("new.jsonl", "scored.jsonl").exit_code == 0
    found = [json.loads(line) for line in Path("scored.jsonl").read_text().splitlines()]
    assert [{name: row[name] for name in record} for row, record in zip(found, records, strict=True)] == records
    assert list(found[0]) == ["text", "tags", "at", *ADDED]
    rows = pa.table({"n": pa.array([1, 2, None, 4], pa.int8()), "text": TEXTS, "raw": [b"\xff"] * 4})
    pq.write_table(rows, "new.parquet")
    assert dlpipe("new.parquet", "scored.parquet").exit_code == 0
    scored = pq.read_table("scored.parquet")
    assert scored.select(rows.column_names).equals(rows)
    assert scored["predicted"].to_pylist() == [row["predicted"] for row in found]
    assert dlpipe("new.jsonl", "other.parquet").exit_code == 0
    other = pq.read_table("other.parquet")
    assert (other.schema.field("n").type, other["tags"].to_pylist()[1]) == (pa.int64(), "[1]")
    Path("huge.jsonl").write_text(f'{{"text": "good", "n": {2**80}}}\n')
    assert dlpipe("huge.jsonl", "huge.parquet").exit_code == 0
    assert pq.read_table("huge.parquet")["n"].to_pylist() == [str(2**80)]


def test_a_zero_byte_that_a_csv_cannot_hold_is_named_before_a_model_is_loaded(store, folder):
    Path("new.jsonl").write_text(json.dumps({"text": "good", "note": "a\0b"}) + "\n")
    line = said("new.jsonl", "out.csv")
    assert "'note' has a text with a zero byte" in line
    assert "scoring" not in line


def test_a_row_without_a_text_is_named_before_anything_is_written(store, folder):
    write_csv("new.csv", ["text", "n"], [["a fine film", "1"], ["", "2"], ["two\nlines", "3"], ["  ", "4"]])
    line = said("new.csv", "out.csv")
    assert "2 rows of 'new.csv' cannot be scored: line 3 (it has no text), line 6 (it has no text)" in line
    done = dlpipe("new.csv", "out.csv", "--skip-bad", "--json")
    assert json.loads(done.stdout)["rows_without_prediction"] == 2
    assert "2 rows of 'new.csv' cannot be scored: line 3" in done.stderr
    rows = read_csv("out.csv")
    assert [bool(row["predicted"]) for row in rows] == [True, False, True, False]
    assert [row["n"] for row in rows] == ["1", "2", "3", "4"]
    Path("new.jsonl").write_text('{"text": "good"}\n{"text": null}\n{"text": 3}\n')
    assert "line 2 (it has no text), line 3 (is no text but a number: 3. Pass" in said("new.jsonl", "out.jsonl")
    pq.write_table(pa.table({"text": ["good", None]}), "new.parquet")
    assert "1 row of 'new.parquet' cannot be scored: row 2" in said("new.parquet", "out.jsonl")
    # a pipeline says itself what is wrong with a row
    assert dlpipe("new.jsonl", "answers.csv", model="reviews-pipeline/1").exit_code == 0
    assert [row["status"] for row in read_csv("answers.csv")] == ["ok", "empty", "not text"]


def test_what_cannot_be_read_or_written_is_one_line(store, folder):
    write_csv("new.csv", ["body", "n"], [["a fine film", "1"]])
    assert "has no column 'text'; its columns are: 'body', 'n'. " in said("new.csv", "out.csv")
    assert "has no column 'bdy'" in said("new.csv", "out.csv", "--text-column", "bdy")
    assert "reads no column but 'text'" in said("new.csv", "out.csv", "--column", "stars=n")
    assert dlpipe("new.csv", "out.csv", "--text-column", "body").exit_code == 0
    assert "--overwrite" in said("new.csv", "out.csv", "--text-column", "body")
    assert "is the file that is read" in said("new.csv", "new.csv", "--overwrite")
    assert "has a column 'predicted' already" in said("out.csv", "again.csv", "--text-column", "body")
    assert "did you mean 'new.csv'" in said("nwe.csv", "x.csv")
    assert "no known format" in said("new.csv", "out.xlsx")
    Path("ragged.csv").write_text("text,n\ngood,1\nbad\n")
    assert "line 3 has 1 fields, the header has 2" in said("ragged.csv", "x.csv")
    Path("latin.csv").write_bytes("text\nfilm\ncafé\n".encode("latin-1"))
    assert "line 3 has bytes that are no utf-8" in said("latin.csv", "x.csv")
    assert dlpipe("latin.csv", "latin.jsonl", "--encoding", "latin-1").exit_code == 0
    assert "café" in Path("latin.jsonl").read_text()
    Path("twice.csv").write_text("text,text\na,b\n")
    assert "two columns 'text'" in said("twice.csv", "x.csv")
    Path("none.csv").write_text("text\n")
    assert "has no rows" in said("none.csv", "x.csv")
    Path("bad.jsonl").write_text('{"text": "good"}\n{"text": \n')
    assert "line 2 is not JSON" in said("bad.jsonl", "x.csv")


def test_models_depend_on_the_table_that_they_learnt_from(store, tiny_table):
    found = {dependent.name: dependent.how for dependent in find_table_dependents(tiny_table.path)}
    assert found["models:/reviews/1 (champion)"] == f"learnt from its version {tiny_table.version}"
    assert any(name.startswith("models:/reviews-pipeline/1") for name in found)
    assert find_table_dependents(f"{tiny_table.path}-of-others") == []


def kill_half_way(output: str, *words: str) -> int:
    """Score ``many.csv`` in a process that is killed while it writes; return the bytes that it wrote."""
    beside = Path(f".{output}{PART}")
    command = [sys.executable, "-m", "dlpipe.cli", "score", "--model", "reviews/1", "many.csv", "--output", output]
    process = subprocess.Popen([*command, "--batch-rows", "250", *words], stderr=subprocess.PIPE, text=True)
    try:
        while not (beside.exists() and beside.stat().st_size > 20_000):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.005)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    return beside.stat().st_size


@pytest.mark.parametrize("output", ["out.csv", "out.jsonl", "out.parquet"])
def test_a_killed_score_leaves_no_output_or_the_one_before(store, folder, output):
    rows = 6_000
    texts = [f"a {'lovely' if number % 3 else 'dull'} film, number {number}" for number in range(rows)]
    write_csv("many.csv", ["text", "id"], [[text, str(number)] for number, text in enumerate(texts)])
    written = kill_half_way(output)
    assert not Path(output).exists()
    write_csv("few.csv", ["text"], [[text] for text in TEXTS])
    assert dlpipe("few.csv", output).exit_code == 0  # what was left is in nobody's way
    assert list(Path().glob(".out*")) == []
    before = Path(output).read_bytes()
    kill_half_way(output, "--overwrite")
    assert Path(output).read_bytes() == before
    if output == "out.csv":
        assert dlpipe("many.csv", output, "--overwrite").exit_code == 0
        assert [int(row["id"]) for row in read_csv(output)] == list(range(rows))
        assert written < Path(output).stat().st_size / 2  # the kill came in the middle
        assert list(Path().glob(".out*")) == []


def test_memory_does_not_grow_with_the_file(store, folder):
    peaks = []
    for rows in (50, 250, 500):  # the first one for what is loaded once
        Path("new.csv").write_text("text,note\n" + f"a good film,{'x' * 20_000}\n" * rows)
        if peaks:
            tracemalloc.start()
        score_file("new.csv", "out.csv", model=resolve("reviews/1"), batch_rows=50, overwrite=True, say=None)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < peaks[1] + 500_000  # 250 notes have 5,000,000 bytes
