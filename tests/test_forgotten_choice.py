"""Only the rows that are asked for go, and those that are the same: never others for sharing a value or an id."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from deltalake import DeltaTable, write_deltalake
from made_up_lineage import History
from stores import keep_runs_in, untouched_environment
from texts import reviews

from dlpipe.cli import main
from dlpipe.tables import Sources, TableVersion, ingest, read_table, table_at
from dlpipe.task.tabular_classification import TabularData

ANSWERS = ["I do not agree at all", "I agree with it fully", "I would rather not say"]


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[History]:
    monkeypatch.chdir(tmp_path)
    keep_runs_in(tmp_path, monkeypatch)
    with untouched_environment():
        yield History(tmp_path)


def forget(*words: str, code: int = 0) -> Result:
    done = CliRunner().invoke(main, ["forget", *words])
    assert done.exit_code == code, (done.output, done.exception)
    return done


def list_counts(*words: str) -> dict[str, int]:
    """Return how many rows of each table would go."""
    said = json.loads(forget(*words, "--json").stdout)
    return {table["name"]: table["rows"] for table in said["tables"]}


def ingest_people() -> TableVersion:
    lines = [f"{20 + at},{ANSWERS[at % 3]},{'ab'[at % 2]}" for at in range(36)]
    Path("people.csv").write_text("\n".join(["age,answer,label", *lines]) + "\n")
    settings = TabularData(number_columns=["age"], category_columns=["answer"])
    return ingest(Sources(data="people.csv"), "people", settings=settings).table


def write_strange(table: str, **columns: list[object]) -> None:
    write_deltalake(f"tables/{table}", pa.table(columns))


def read_strange(name: str) -> list[dict[str, object]]:
    return DeltaTable(f"tables/{name}").to_pyarrow_table().to_pylist()


def test_others_with_the_same_category_stay_however_many_words_it_has(history):
    rows = read_table(ingest_people()).to_pylist()
    blobs = Path(".metaflow/TrainFlow/data/ab")
    blobs.mkdir(parents=True)
    (blobs / "answers.json").write_text(json.dumps(ANSWERS))
    assert list_counts(f"people#{rows[0]['row_id']}") == {"people": 1}
    forget(f"people#{rows[0]['row_id']}", "--apply", "--purge", "--yes")
    assert read_table(table_at("people")).to_pylist() == rows[1:]
    assert json.loads((blobs / "answers.json").read_text()) == ANSWERS


def test_rows_that_are_the_same_are_named_before_they_go(history):
    write_strange("calls", row_id=["1", "2", "3"], text=["ring me back", "Ring me  back", "soup"])
    said = forget("calls#1").output
    assert "calls: 2 rows go, for they are the same as what is asked for" in said
    assert "go, for they" not in forget("calls#3").output


def test_what_another_program_calls_a_row_counts_in_its_own_table_alone(history):
    write_strange("letters", row_id=["17", "18"], text=["a cold soup and a rude waiter", "something else"])
    write_strange("calls", row_id=["17", "17-2", "99"], text=["about the invoice", "whatever comes", "third"])
    answers = [{"row_id": "17", "model_version": "models:/a/1", "source_version": 0, "scored_at": 0}] * 2
    places = [table_at(name).path for name in ("letters", "calls")]
    scored = [{**row, "source": place} for row, place in zip(answers, places, strict=True)]
    write_deltalake("tables/letters_predictions", pa.Table.from_pylist(scored))
    assert list_counts("letters#17") == {"letters": 1, "letters_predictions": 1}
    forget("letters#17", "--apply", "--yes")
    assert [row["row_id"] for row in read_strange("letters")] == ["18"]
    assert len(read_strange("calls")) == 3
    assert [row["source"] for row in read_strange("letters_predictions")] == places[1:]


def test_a_row_of_another_program_is_not_its_first_column(history):
    history.ingest("TrainFlow/17", rows=[*reviews()[:60], ("Very good", "positive"), *reviews()[-60:]])
    write_strange("letters", row_id=["17", "18"], rating=["very good", "bad"], text=["a rude waiter", "else"])
    assert list_counts("letters#17") == {"letters": 1}
    assert "Pass a text of it with --text" in forget("letters#17").output
    forget("letters#17", "--apply", "--yes")
    added = history.append("more.csv", 'review,sentiment\n"very good",positive\n')
    assert "forgotten" not in " ".join(added.notes)


def test_a_row_of_another_program_with_one_text_is_found_elsewhere(history):
    text = "Wilhelmina wept at the zither"
    history.ingest("TrainFlow/17", rows=[*reviews()[:60], (text, "positive"), *reviews()[-60:]])
    write_strange("letters", row_id=["17", "18"], stars=[1, 2], text=[text, "something else"])
    write_strange("towns", row_id=["a", "b"], age=[30, 40], town=["Ulm", "Bonn"])
    write_strange("places", row_id=["c"], town=["Ulm"])
    assert list_counts("letters#17") == {"letters": 1, "reviews": 1}
    assert list_counts("towns#a") == {"towns": 1}


@pytest.mark.parametrize(
    ("city", "score", "age"), [("L'Aquila", 0.1, 20), ("Ulm", math.nan, 30), (None, 1e-7, 40)]
)
def test_a_copy_by_another_program_loses_the_row_with_all_of_its_values(history, city, score, age):
    rows = {"city": [city, city, "Bonn", city], "score": [score, 5.0, score, score], "age": [age, age, age, 1]}
    write_strange("theirs", row_id=list("abcd"), name=["Ana", "Ana", "Ana", "Ana"], **rows)
    write_strange("copy", note=list("vwxy"), name=["Ana", "Ana", "Ana", "Ana"], **rows)
    forget("theirs#a", "--apply", "--purge", "--yes")
    assert [row["row_id"] for row in read_strange("theirs")] == list("bcd")
    assert [row["note"] for row in read_strange("copy")] == list("wxy")
    log = b"".join(path.read_bytes() for path in Path("tables/copy/_delta_log").iterdir())
    assert log.count(b'"predicate":"_"') == 1
