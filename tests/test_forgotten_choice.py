"""Only the rows that are asked for go, and those that are the same: never others for sharing a value or an id."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from deltalake import DeltaTable, write_deltalake
from made_up_lineage import History, find_id
from searching import search_files
from stores import keep_runs_in, untouched_environment
from texts import reviews

from dlpipe.cli import main
from dlpipe.forgetting.asked import AskedRow
from dlpipe.forgetting.choosing import RowChooser
from dlpipe.tables import Sources, TableVersion, ingest, read_table, table_at
from dlpipe.tables import _removal as removal
from dlpipe.task.tabular_classification import TabularData
from dlpipe.task.text_classification import TextClassData

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


# -- tables that refuse, are elsewhere, or are damaged ------------------------------------------------------------

TEXT = "Our weekend at the gasthof was spoiled by noise"
PLAIN = [*reviews()[:40], *reviews()[-40:]]


def write_rows(path: str) -> str:
    lines = [f'"{text.replace(chr(34), "")}","{label}"' for text, label in [*PLAIN, (TEXT, "negative")]]
    Path(path).write_text("\n".join(["review,sentiment", *lines]) + "\n")
    return path


def list_states() -> list[str]:
    return [record["state"] for record in json.loads(forget("--records", "--json").stdout)]


def test_a_table_that_cannot_be_changed_is_said_and_the_others_go_on(history):
    history.ingest("TrainFlow/17", rows=[*PLAIN, (TEXT, "negative")])
    rows = pa.table({"note": [TEXT, "soup"]})
    write_deltalake("tables/archive", rows, configuration={"delta.appendOnly": "true"})
    write_deltalake("tables/copy", rows)
    said = forget("--text", TEXT, "--apply", "--purge", "--yes", code=3)
    assert "archive still has 1 row" in said.output
    assert "Take them out with that program" in said.output
    assert len(read_strange("copy")) == len(read_strange("archive")) - 1 == 1
    assert table_at("reviews").rows == len(PLAIN)
    assert list_states() == ["purged in part"]
    # changed by its owner, it goes on
    DeltaTable("tables/archive").alter.set_table_properties({"delta.appendOnly": "false"})
    forget("--text", TEXT, "--apply", "--purge", "--yes")
    assert len(read_strange("archive")) == 1
    assert list_states() == ["purged"]


def test_a_row_is_found_again_while_a_table_is_stuck(history):
    row = find_id(history.ingest("TrainFlow/17", rows=[*PLAIN, (TEXT, "negative")]), TEXT)
    write_deltalake("tables/archive", pa.table({"note": [TEXT]}), configuration={"delta.appendOnly": "true"})
    for _ in range(2):
        words = [f"reviews#{row}", "--apply", "--purge", "--sources", "--yes"]
        assert "archive still has 1 row" in forget(*words, code=3).output
    assert TEXT in Path("films.csv").read_text()
    DeltaTable("tables/archive").alter.set_table_properties({"delta.appendOnly": "false"})
    forget(*words)
    assert search_files(history.folder, ["gasthof"]) == {}


def test_a_table_outside_the_tables_root_is_changed_too(history):
    history.ingest("TrainFlow/17", rows=PLAIN)
    location = str(history.folder / "elsewhere" / "letters")
    rows = ingest(Sources(data=write_rows("letters.csv")), location, settings=TextClassData()).table
    forget(f"{location}#{find_id(rows, TEXT)}", "--apply", "--purge", "--sources", "--yes")
    assert search_files(history.folder, ["gasthof"]) == {}
    assert json.loads(forget("--records", "--json").stdout)[0]["tables"] == "letters"


def test_a_table_elsewhere_that_a_model_learnt_from_is_searched(history):
    location = str(history.folder / "elsewhere" / "letters")
    rows = ingest(Sources(data=write_rows("letters.csv")), location, settings=TextClassData()).table
    history.register("TrainFlow/17", rows)
    assert list_counts("--text", TEXT) == {"letters": 1}
    forget("--text", TEXT, "--apply", "--purge", "--yes")
    assert table_at(location).rows == len(PLAIN)
    assert search_files(history.folder, ["gasthof"], skip=["letters.csv"]) == {}
    shutil.rmtree(location)
    forget("--text", TEXT)  # a table that was deleted is no problem


def test_rows_that_come_again_and_again_leave_the_record_unfinished(history, monkeypatch):
    history.ingest("TrainFlow/17", rows=[*PLAIN, (TEXT, "negative")])
    write_deltalake("tables/busy", pa.table({"note": [TEXT]}))
    purge = removal.purge_rows

    def write_meanwhile(search: removal.FileSearch) -> int:
        write_deltalake("tables/busy", pa.table({"note": [TEXT]}), mode="append")
        return purge(search)

    monkeypatch.setattr("dlpipe.tables.purge_rows", write_meanwhile)
    said = forget("--text", TEXT, "--apply", "--purge", "--yes", code=1).output
    assert "call this again with the same words" in said
    assert list_states() == ["not finished"]
    monkeypatch.undo()
    forget("--text", TEXT, "--apply", "--purge", "--yes")
    assert list_states() == ["purged"]


@pytest.mark.parametrize("where", ["end", "middle"])
def test_a_damaged_data_file_is_a_problem_and_stays(history, where):
    rows = history.ingest("TrainFlow/17", rows=[*PLAIN, (TEXT, "negative")])
    shutil.copytree(rows.path, "tables/copy")
    (file,) = Path("tables/copy").glob("*.parquet")
    damaged = bytearray(file.read_bytes())
    if where == "end":
        damaged[-4:] = b"XXXX"
    else:
        damaged[200:1200] = bytes(byte ^ 0x5A for byte in damaged[200:1200])
    file.write_bytes(damaged)
    os.utime(file, (0, 0))
    said = forget("--text", TEXT, "--apply", "--purge", "--yes", code=3).output
    assert "of 'tables/copy' cannot be read, and may have rows that are to be forgotten" in said
    assert table_at("reviews").rows == len(PLAIN)
    assert file.read_bytes() == damaged
    assert list_states() == ["purged in part"]


def test_a_file_that_was_half_written_when_it_was_looked_at_is_not_called_damaged(history):
    rows = history.ingest("TrainFlow/17", rows=[*PLAIN, (TEXT, "negative")])
    (file,) = Path(rows.path).glob("*.parquet")
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    row = AskedRow("", "a text", inputs={"text": TEXT}, text_columns=("text",))
    search = removal.FileSearch(rows.path, RowChooser([row]))
    assert search.look(file.name) is None
    file.write_bytes(whole)
    assert removal.explain_left(search) == []
    assert len(search.find_all()) == 1


@pytest.mark.parametrize("value", [["soup", TEXT], {"said": TEXT}, TEXT.encode()], ids=["list", "record", "bytes"])
def test_what_is_inside_other_values_is_named_and_stays(history, value):
    history.ingest("TrainFlow/17", rows=[*PLAIN, (TEXT, "negative")])
    write_strange("theirs", note=["a", TEXT], inside=[value, value], also=[b"a", None])
    said = forget("--text", TEXT, "--apply", "--purge", "--yes", code=3).output
    assert "has what is to be forgotten inside lists, records or bytes (inside)" in said
    assert read_table(table_at("theirs")).column("note").to_pylist() == ["a"]
    assert table_at("reviews").rows == len(PLAIN)


def test_what_is_inside_other_values_of_a_row_goes_with_it(history):
    write_strange("theirs", note=["a", TEXT], inside=[["soup"], ["soup", TEXT]])
    forget("--text", TEXT, "--apply", "--purge", "--yes")
    assert read_table(table_at("theirs")).column("inside").to_pylist() == [["soup"]]
    assert search_files(history.folder, ["gasthof"]) == {}
