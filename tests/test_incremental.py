"""New rows: appended to a table with labels and without, and scored exactly once whatever is killed."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner

from dlpipe.cli import main
from dlpipe.errors import BadRows, MarkMoved
from dlpipe.inference import ScoredVersion, find_scored_version, score, score_new
from dlpipe.inference.scoring import PartScorer
from dlpipe.registry import ModelVersion
from dlpipe.tables import (
    Mark,
    Sources,
    TableVersion,
    append,
    commit_parts,
    describe_table,
    history,
    ingest,
    read_added,
    read_table,
    stage_part,
    table_at,
    write_table,
)
from dlpipe.task import open_predictor
from dlpipe.task.text_classification import TextClassData

pytestmark = pytest.mark.slow

KILLS = 3  # in each of ten commits of new rows


@pytest.fixture(scope="module")
def champion(tiny_model) -> ModelVersion:
    return ModelVersion("reviews", 1, "models:/reviews/1", tiny_model.digest, run_id="", model_id="")


@pytest.fixture(scope="module")
def successor(tiny_model) -> ModelVersion:
    return ModelVersion("reviews", 2, "models:/reviews/2", tiny_model.digest, run_id="", model_id="")


@pytest.fixture(scope="module")
def make(tiny_model):
    return functools.partial(PartScorer, open_predictor(tiny_model, threads=1))


def make_rows(first: int, count: int) -> pa.Table:
    ids = [f"{number:04}" for number in range(first, first + count)]
    return pa.table({"row_id": ids, "text": [f"the plot was good {row_id}" for row_id in ids]})


@pytest.fixture
def grown(tmp_path):
    """A function that adds rows to a table and returns its version."""
    path, there = tmp_path / "letters", iter(range(0, 10_000, 1000))

    def more(count: int = 5) -> TableVersion:
        return write_table(path, make_rows(next(there), count))

    return more


def read_ids(version: TableVersion) -> list[str]:
    return read_table(version, columns=["row_id"])["row_id"].to_pylist()


# --- new rows are scored once


def test_only_rows_that_came_since_the_last_time_are_scored(make, champion, grown, tmp_path):
    target = str(tmp_path / "p")
    first = score_new(make, grown(), model=champion, target=target, say=None)
    later = score_new(make, grown(3), model=champion, target=target, say=None)
    again = score_new(make, table_at(tmp_path / "letters"), model=champion, target=target, say=None)
    assert (first.new_rows, later.new_rows, again.new_rows) == (5, 3, 0)
    assert (later.rows, again.rows, again.table) == (8, 8, later.table)
    assert read_table(later.table)["source_version"].to_pylist() == [0] * 5 + [1] * 3
    assert read_added(later.table)["row_id"].to_pylist() == ["1000", "1001", "1002"]


def test_another_champion_does_not_score_old_rows_again(make, champion, successor, grown, tmp_path):
    target = str(tmp_path / "p")
    score_new(make, grown(), model=champion, target=target, say=None)
    done = score_new(make, grown(3), model=successor, target=target, say=None)
    assert done.new_rows == 3
    rows = read_table(done.table).to_pydict()
    assert Counter(rows["model_version"]) == {champion.uri: 5, successor.uri: 3}


def test_rows_that_the_same_model_scored_as_a_whole_are_not_new(make, champion, successor, grown, tmp_path):
    """As the train flow does with the model that it registers."""
    target = str(tmp_path / "p")
    score(make.args[0], grown(), model=champion, target=target, split=None, say=None)
    assert find_scored_version(target, table_at(tmp_path / "letters"), champion) == ScoredVersion(0, None)
    assert find_scored_version(target, table_at(tmp_path / "letters"), successor) == ScoredVersion(-1, None)
    done = score_new(make, grown(3), model=champion, target=target, say=None)
    assert done.new_rows == 3
    assert find_scored_version(target, table_at(tmp_path / "letters"), successor) == ScoredVersion(1, 1)


def test_what_a_challenger_scored_is_new_for_the_champion(make, champion, successor, grown, tmp_path):
    target = str(tmp_path / "p")
    score_new(make, grown(), model=champion, target=target, say=None)
    source = grown(3)
    score(make.args[0], source, model=successor, target=target, split=None, say=None)
    assert score_new(make, source, model=champion, target=target, say=None).new_rows == 3


def test_a_row_id_that_comes_twice_is_scored_once(make, champion, grown, tmp_path):
    target = str(tmp_path / "p")
    grown()
    source = write_table(tmp_path / "letters", pa.concat_tables([make_rows(3, 4), make_rows(5, 2)]))
    assert score_new(make, source, model=champion, target=target, say=None).new_rows == 7
    source = write_table(tmp_path / "letters", make_rows(0, 8))
    assert score_new(make, source, model=champion, target=target, say=None).new_rows == 1
    assert sorted(read_ids(table_at(target))) == [f"{number:04}" for number in range(8)]


def test_a_table_made_anew_in_the_same_place_is_scored_anew(make, champion, grown, tmp_path):
    target, folder = str(tmp_path / "p"), tmp_path / "letters"
    grown()
    score_new(make, grown(), model=champion, target=target, say=None)
    folder.rename(tmp_path / "old")
    assert score_new(make, grown(4), model=champion, target=target, say=None).new_rows == 4


def test_two_that_score_the_same_rows_make_one_commit(make, champion, successor, grown, tmp_path):
    """The second began before the first had committed, on a later version and with another model."""
    target = str(tmp_path / "p")
    early, late = grown(), grown(3)
    begun = find_scored_version(target, early, champion)
    first = score_new(make, early, model=champion, target=target, until=begun, say=None)
    second = score_new(make, late, model=successor, target=target, until=begun, say=None)
    assert (first.new_rows, second.new_rows) == (5, 3)
    assert read_ids(table_at(target)) == read_ids(late)
    assert not list((tmp_path / "p/_staged").iterdir())


def test_who_comes_back_after_the_commit_finds_what_it_committed(make, champion, grown, tmp_path):
    target, source = str(tmp_path / "p"), grown()
    begun = find_scored_version(target, source, champion)
    first = score_new(make, source, model=champion, target=target, until=begun, say=None)
    score_new(make, grown(), model=champion, target=target, say=None)
    assert score_new(make, source, model=champion, target=target, until=begun, say=None) == first


def test_a_mark_that_moved_meanwhile_stops_a_commit_and_leaves_nothing_of_it(tmp_path):
    target, rows = tmp_path / "sums", pa.table({"sum": [1]})
    for key, before in (("a", None), ("b", None)):
        stage_part(target, rows, key={"sum": key}, part=0)
        mark = Mark("rows", before, 7)
        if key == "a":
            commit_parts(target, key={"sum": key}, parts=1, marks=[mark])
            continue
        with pytest.raises(MarkMoved, match="from None to 7"):
            commit_parts(target, key={"sum": key}, parts=1, marks=[mark])
    assert len(history(target)) == 1
    assert not list((target / "_staged").iterdir())
    assert len(list(target.glob("*.parquet"))) == 1


# --- kill -9


NURSERY = """
import functools, os, sys
from pathlib import Path
import deltalake, pyarrow.dataset, pyarrow.parquet, transformers.models.bert.modeling_bert, tqdm
import dlpipe.task.texts.engines.opening, dlpipe.task.texts.network
from dlpipe.inference import score_new
from dlpipe.inference.scoring import PartScorer
from dlpipe.registry import ModelVersion
from dlpipe.tables import table_at
from dlpipe.task import open_predictor

folder, source, digest = sys.argv[1:]
model = ModelVersion("reviews", 1, "models:/reviews/1", digest, run_id="", model_id="")
for target in sys.stdin:
    child = os.fork()
    if child:
        print("ended", os.waitpid(child, 0)[1], flush=True)
        continue
    make = functools.partial(PartScorer, open_predictor(Path(folder), threads=1))
    print("begun", os.getpid(), flush=True)
    score_new(make, table_at(source), model=model, target=target.strip(), part_rows=80, say=None)
    os._exit(0)
"""
"""Forks a process for each line that it reads; all is imported, so that a kill hits the work."""


class Nursery:
    """Scores new rows in processes that may be killed."""

    def __init__(self, *words: str) -> None:
        command = [sys.executable, "-c", NURSERY, *words]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def score(self, target: Path, *, kill_after: float | None = None) -> float:
        """Score into ``target`` and return the seconds that it took, or kill -9 that before."""
        print(target, file=self._process.stdin, flush=True)
        child, started = self._number("begun"), time.monotonic()
        if kill_after is not None:
            time.sleep(kill_after)
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.kill(child, signal.SIGKILL)
        status = self._number("ended")
        assert status in ((0, signal.SIGKILL) if kill_after is not None else (0,))
        return time.monotonic() - started

    def _number(self, word: str) -> int:
        words = self._process.stdout.readline().split()
        assert words[0] == word
        return int(words[1])

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


@pytest.mark.long
def test_each_row_of_ten_commits_is_scored_once_through_random_kills(tiny_model, tmp_path):
    chance, source, target = random.Random(5), tmp_path / "letters", tmp_path / "predictions"
    nursery = Nursery(str(tiny_model.save(tmp_path / "model")), str(source), tiny_model.digest)
    before = halfway = 0
    with contextlib.closing(nursery):
        for number in range(10):
            for piece in range(4):  # four files, so four parts
                made = write_table(source, make_rows(number * 1000 + piece * 200, 80))
            seconds = nursery.score(tmp_path / "undisturbed")
            for _ in range(KILLS):
                nursery.score(target, kill_after=chance.uniform(0, 1.1 * seconds))
                halfway += bool(list(target.glob("_staged/*.parquet")))
                before += not (target / f"_delta_log/{number:020}.json").exists()
            nursery.score(target)
            assert read_ids(table_at(target)) == read_ids(made)
    assert before >= 5  # kills before the commit, and of these some with a part of the work kept
    assert halfway >= 3
    assert len(history(target)) == 10
    assert not list((target / "_staged").iterdir())
    assert len(list(target.glob("*.parquet"))) == 40  # no file of a commit that did not come about


# --- rows come in


def reviews_file(path: Path, rows: list[tuple[str, str | None]], header: str = "review,sentiment") -> str:
    lines = [f'"{text}",{label or ""}' if "," in header else f'"{text}"' for text, label in rows]
    path.write_text("\n".join([header, *lines]) + "\n")
    return str(path)


@pytest.fixture
def table(tmp_path) -> Path:
    """A table of 60 rows with labels, by an ingest."""
    rows = [(f"text number {n}", "good" if n % 2 else "bad") for n in range(60)]
    ingest(Sources(data=reviews_file(tmp_path / "all.csv", rows)), tmp_path / "reviews", settings=TextClassData())
    return tmp_path / "reviews"


def read_by_text(version: TableVersion) -> dict[str, tuple[str | None, str | None]]:
    rows = read_table(version).to_pydict()
    return {t: (label, split) for t, label, split in zip(rows["text"], rows["label"], rows["split"], strict=True)}


def test_rows_without_labels_come_in_behind_those_that_are_there(table, tmp_path):
    before = read_table(table_at(table))
    done = append(reviews_file(tmp_path / "new.csv", [("one", None), ("two", None)], "review"), table)
    assert (done.new_rows, done.labelled_rows, done.known_rows, done.new_version) == (2, 0, 0, True)
    rows = read_table(done.table)
    assert rows.slice(0, 60).equals(before)
    assert rows.slice(60).to_pydict()["split"] == [None, None]
    assert done.table.rows == 62


def test_columns_are_called_as_in_the_last_ingest(tmp_path):
    @dataclass(frozen=True)
    class FlowSettings(TextClassData):
        data: str = "of the flow"

    rows = [(f"text number {n}", "good" if n % 2 else "bad") for n in range(60)]
    source = reviews_file(tmp_path / "all.csv", rows, "words,mood")
    settings = FlowSettings(text_column="words", label_column="mood")
    ingest(Sources(data=source), tmp_path / "moods", settings=settings)
    done = append(reviews_file(tmp_path / "new.csv", [("one", "good")], "words,mood"), tmp_path / "moods")
    assert (done.new_rows, done.labelled_rows) == (1, 1)


def test_the_same_file_again_changes_nothing(table, tmp_path):
    file = reviews_file(tmp_path / "new.csv", [("one", None), ("Two ", "good"), ("two", "good")])
    first, again = append(file, table), append(file, table)
    assert (first.new_rows, first.labelled_rows, first.known_rows) == (2, 1, 1)
    assert (again.new_rows, again.filled_labels, again.known_rows, again.new_version) == (0, 0, 3, False)
    assert again.table == first.table


def test_a_label_that_comes_later_is_filled_in_and_brings_the_split_of_an_ingest(table, tmp_path):
    texts = [f"late {n}" for n in range(40)]
    append(reviews_file(tmp_path / "new.csv", [(text, None) for text in texts], "review"), table)
    labelled = [(text, "good") for text in texts]
    done = append(reviews_file(tmp_path / "late.csv", labelled), table)
    assert (done.new_rows, done.filled_labels) == (0, 40)
    others = [(f"text number {n}", "good" if n % 2 else "bad") for n in range(60)]
    whole = ingest(
        Sources(data=reviews_file(tmp_path / "b.csv", [*others, *labelled])),
        tmp_path / "whole",
        settings=TextClassData(),
    ).table
    assert read_by_text(done.table) == read_by_text(whole)


def test_labels_that_contradict_or_are_unknown_are_set_aside(table, tmp_path):
    rows = [(f"fine {n}", "good") for n in range(40)]
    odd = [("text number 1", "bad"), ("other class", "meh"), ("both", "good"), ("both", "bad")]
    done = append(reviews_file(tmp_path / "new.csv", [*rows, *odd]), table)
    assert dict(done.bad_rows) == {"conflicting labels": 3, "label that the train split lacks": 1}
    assert done.new_rows == 40
    assert read_by_text(done.table)["text number 1"][0] == "good"
    assert set(read_table(done.quarantine)["text"].to_pylist()) == {text for text, _ in odd}


def test_a_file_that_is_mostly_bad_is_refused(table, tmp_path):
    # an append has no option for the share that may be bad
    with pytest.raises(BadRows, match=r"Nothing was committed.*\. Mend the source\.$"):
        append(reviews_file(tmp_path / "new.csv", [("", None), ("fine", None)]), table)
    assert table_at(table).version == 0


def test_a_later_ingest_keeps_what_was_appended(table, tmp_path):
    new = [("one", None), ("two", "good"), ("text number 3", None)]
    appended = append(reviews_file(tmp_path / "new.csv", new), table).table
    again = ingest(Sources(data=str(tmp_path / "all.csv")), table, settings=TextClassData())
    assert (again.table, again.new_version, again.appended_rows, again.unlabelled_rows) == (appended, False, 2, 1)
    more = [*((f"text number {n}", "good" if n % 2 else "bad") for n in range(80)), ("one", "bad")]
    grown = ingest(Sources(data=reviews_file(tmp_path / "more.csv", more)), table, settings=TextClassData())
    assert grown.table.rows == 82
    assert read_by_text(grown.table)["one"][0] == "bad"
    assert read_by_text(grown.table)["two"][0] == "good"
    assert append(str(tmp_path / "new.csv"), table).new_rows == 0


def test_what_is_appended_while_an_ingest_goes_on_is_kept(table, tmp_path, monkeypatch):
    """The append comes in between what the ingest has read and what it commits."""
    import dlpipe.tables._ingest as ingesting

    reading, file = ingesting._find_appended, reviews_file(tmp_path / "new.csv", [("one", None)], "review")

    def appended_meanwhile(*args):
        rows = reading(*args)
        append(file, table)  # changes nothing the second time
        return rows

    monkeypatch.setattr(ingesting, "_find_appended", appended_meanwhile)
    rows = [(f"text number {n}", "good" if n % 2 else "bad") for n in range(70)]
    done = ingest(Sources(data=reviews_file(tmp_path / "more.csv", rows)), table, settings=TextClassData())
    assert (done.table.rows, done.appended_rows) == (71, 1)


def test_the_stored_table_is_described_as_an_ingest_of_it_would_be(table, tmp_path):
    whole = ingest(Sources(data=str(tmp_path / "all.csv")), table, settings=TextClassData())
    append(reviews_file(tmp_path / "new.csv", [("one", None)], "review"), table)
    found = describe_table(table)
    assert (found.split_rows, found.labels) == (whole.split_rows, whole.labels)
    assert (found.appended_rows, found.unlabelled_rows, found.table.version) == (1, 1, 1)
    bare = reviews_file(tmp_path / "bare.csv", [("one", None)], "review")
    append(bare, tmp_path / "bare", settings=TextClassData())
    with pytest.raises(BadRows, match="no row with a label"):
        describe_table(tmp_path / "bare")


def test_the_command_says_what_it_did(table, tmp_path, monkeypatch):
    monkeypatch.setenv("DLPIPE_TABLES", str(tmp_path))
    (tmp_path / "new.jsonl").write_text('{"words": "one"}\n{"words": "two"}\n')
    words = ["append", "reviews", str(tmp_path / "new.jsonl"), "--text-column", "words"]
    done = CliRunner().invoke(main, words)
    assert done.output.startswith("reviews@v1: 2 new rows, 0 with a label;"), done.output
    again = json.loads(CliRunner().invoke(main, [*words, "--json"]).output)
    assert (again["new_rows"], again["known_rows"]) == (0, 2)
    wrong = CliRunner().invoke(main, ["append", "reviews", str(tmp_path / "new.jsonl"), "--text-column", "text"])
    assert wrong.exit_code == 1
    assert "no column 'text'" in wrong.output
