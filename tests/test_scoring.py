"""Scoring tables: what the rows hold, once only, in order, through kills, and with texts nobody expects."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner

from dlpipe.cli import main
from dlpipe.errors import MarkMoved, ModelNotFound, NoRows, SchemaMismatch, TableVersionNotFound
from dlpipe.explain.table_explaining import read_named_rows
from dlpipe.inference import predict_frame, read_latest_answers, score
from dlpipe.inference.scoring import PartScorer
from dlpipe.parts import RowProgress, Scoring, choose_missing, commit_scoring, prefetch
from dlpipe.registry import ModelVersion
from dlpipe.tables import TableVersion, check_text, find_staged_parts, history, read_table, table_at, write_table
from dlpipe.task import open_predictor


@pytest.fixture(scope="module")
def version(tiny_model) -> ModelVersion:
    return ModelVersion("reviews", 1, "models:/reviews/1", tiny_model.digest, run_id="", model_id="")


@pytest.fixture(scope="module")
def predictor(tiny_model):
    return open_predictor(tiny_model, threads=1)


@pytest.fixture(scope="module")
def in_parts(tiny_table, tmp_path_factory):
    """``reviews`` in files, and so row groups, of 20 rows."""
    path, rows = tmp_path_factory.mktemp("parts") / "reviews", read_table(tiny_table)
    for start in range(0, len(rows), 20):
        made = write_table(path, rows.slice(start, 20))
    return made


def answers(table: TableVersion) -> list[dict]:
    """Return the rows without the time, which no two scorings share."""
    return read_table(table).drop_columns(["scored_at"]).to_pylist()


def texts_table(path: Path, texts: list[str | None]):
    ids = [str(number) for number in range(len(texts))]
    return write_table(path, pa.table({"row_id": ids, "text": pa.array(texts, pa.string())}))


# --- the rows


def test_scores_name_their_model_and_source_in_one_commit(predictor, version, tiny_table, tmp_path):
    target = str(tmp_path / "predictions")
    done = score(predictor, tiny_table, model=version, target=target)
    rows = read_table(done.table).to_pandas()
    expected = read_table(tiny_table, split="test").to_pandas()
    assert done.rows == done.new_rows == len(rows) == len(expected) > 0
    assert len(history(target)) == 1
    assert rows["row_id"].tolist() == expected["row_id"].tolist()
    assert set(rows["model_version"]) == {version.uri}
    assert set(rows["source"]) == {tiny_table.path}
    assert set(rows["source_version"]) == {tiny_table.version}
    shares = pd.DataFrame(rows["probabilities"].tolist(), columns=rows["labels"].iloc[0])
    whole = predict_frame(predictor, expected["text"].tolist())
    np.testing.assert_allclose(shares["positive"], whole["p_positive"], atol=1e-5)
    np.testing.assert_allclose(rows["probability"], whole["probability"], atol=1e-5)
    assert rows["predicted"].tolist() == whole["predicted"].tolist()


@pytest.mark.parametrize("split", ["test", None])
def test_rows_keep_their_order_over_many_parts(predictor, version, in_parts, tmp_path, split):
    done = score(predictor, in_parts, model=version, target=str(tmp_path / "p"), split=split, part_rows=40)
    rows, expected = read_table(done.table).to_pandas(), read_table(in_parts, split=split).to_pandas()
    assert rows["row_id"].tolist() == expected["row_id"].tolist()
    assert rows["predicted"].tolist() == predict_frame(predictor, expected["text"].tolist())["predicted"].tolist()


def test_same_model_on_same_table_version_makes_no_new_rows(predictor, version, tiny_table, tmp_path):
    target = str(tmp_path / "predictions")
    first = score(predictor, tiny_table, model=version, target=target)
    again = score(predictor, tiny_table, model=version, target=target, part_rows=10)
    assert (again.table, again.rows, again.new_rows) == (first.table, first.rows, 0)
    assert len(history(target)) == 1


@pytest.mark.parametrize("splits", [(None, "test", "train"), ("test", "valid", None)])
def test_no_row_gets_a_second_answer_of_one_model_whichever_split_was_asked_for(
    predictor, version, tiny_table, tmp_path, splits
):
    target = str(tmp_path / "predictions")
    done = [score(predictor, tiny_table, model=version, target=target, split=split, say=None) for split in splits]
    rows = read_table(table_at(target)).to_pydict()
    assert sorted(rows["row_id"]) == sorted(read_table(tiny_table)["row_id"].to_pylist())
    assert sum(scored.new_rows for scored in done) == tiny_table.rows
    assert done[splits.index(None)].rows == tiny_table.rows


def test_texts_that_another_program_wrote_as_bytes_are_scored_as_the_same_texts(predictor, version, tmp_path):
    texts = ["a good film", "an awful plot", None, "a caf\xe9"]
    plain, as_bytes = (
        write_table(tmp_path / name, pa.table({"row_id": pa.array(range(4)), "text": pa.array(texts).cast(kind)}))
        for name, kind in (("plain", pa.string()), ("bytes", pa.binary()))
    )
    made = [
        read_table(score(predictor, source, model=version, target=f"{source.path}_p", split=None, say=None).table)
        for source in (plain, as_bytes)
    ]
    assert made[0]["probability"].to_pylist() == made[1]["probability"].to_pylist()
    assert read_named_rows(as_bytes, ["3", "0"], predictor) == [("0", "a good film"), ("3", "a caf\xe9")]


def test_bytes_that_are_no_utf8_do_not_stop_a_scoring(predictor, version, tmp_path):
    rows = pa.table({"row_id": ["a"], "text": pa.array([b"a good caf\xe9"])})
    done = score(
        predictor, write_table(tmp_path / "t", rows), model=version, target=f"{tmp_path}/p", split=None, say=None
    )
    assert done.new_rows == 1


def test_a_text_column_of_numbers_is_refused_with_one_line(predictor, version, tmp_path):
    rows = write_table(tmp_path / "t", pa.table({"row_id": ["a"], "text": [7]}))
    with pytest.raises(
        SchemaMismatch, match=r"column 'text' of 't@v0' holds values of type long, not text"
    ) as told:
        score(predictor, rows, model=version, target=f"{tmp_path}/p", split=None, say=None)
    assert "\n" not in str(told.value)
    with pytest.raises(SchemaMismatch, match="holds values of type long, not text"):
        check_text(rows)


def test_another_table_version_adds_its_rows(predictor, version, tmp_path):
    target = str(tmp_path / "predictions")
    texts_table(tmp_path / "t", ["a good film"])
    score(predictor, table_at(tmp_path / "t"), model=version, target=target, split=None, say=None)
    write_table(tmp_path / "t", pa.table({"row_id": ["0"], "text": ["a bad film"]}), mode="overwrite")
    score(predictor, table_at(tmp_path / "t"), model=version, target=target, split=None, say=None)
    assert read_table(table_at(target))["predicted"].to_pylist() == ["positive", "negative"]


def test_two_that_score_the_same_rows_at_once_give_each_one_answer(predictor, version, tiny_table, tmp_path):
    """One asks for a split and the other for all rows; the first chose its rows before the second committed."""
    target = str(tmp_path / "predictions")
    plan, parts = choose_missing(Scoring(tiny_table, version, target, split="test"))
    scorer = PartScorer(predictor, plan)
    for part in parts:
        scorer(part)
    score(predictor, tiny_table, model=version, target=target, split=None, say=None)
    with pytest.raises(MarkMoved, match="moved the mark 'answers "):
        commit_scoring(plan, parts)
    assert score(predictor, tiny_table, model=version, target=target, split="test", say=None).new_rows == 0
    assert table_at(target).rows == tiny_table.rows


def test_a_model_of_the_same_name_with_other_weights_answers_anew(predictor, version, tiny_table, tmp_path):
    """As after a registry that was made anew."""
    target = str(tmp_path / "predictions")
    other = ModelVersion("reviews", 1, "models:/reviews/1", "0" * 64, run_id="", model_id="")
    assert choose_missing(Scoring(tiny_table, version, target))[0].rows == tiny_table.rows
    score(predictor, tiny_table, model=version, target=target, split=None, say=None)
    assert choose_missing(Scoring(tiny_table, version, target))[0].rows == 0
    assert choose_missing(Scoring(tiny_table, other, target))[0].rows == tiny_table.rows


def test_of_rows_with_one_id_the_first_is_answered_and_rows_without_one_are_refused(predictor, version, tmp_path):
    rows = {"row_id": ["a", "b", "a"], "text": ["a good film", "a bad film", "a bad film"]}
    source = write_table(tmp_path / "twice", pa.table(rows))
    lines = []
    done = score(predictor, source, model=version, target=str(tmp_path / "p"), split=None, say=lines.append)
    assert read_table(done.table)["predicted"].to_pylist() == ["positive", "negative"]
    assert lines[0] == "scoring twice@v0 all splits: 1 row has the row_id of an earlier row, which alone is scored"
    none = write_table(tmp_path / "none", pa.table({"row_id": ["a", None], "text": ["good", "bad"]}))
    with pytest.raises(SchemaMismatch, match=r"1 of the 2 rows of 'none@v0' have no row_id"):
        score(predictor, none, model=version, target=str(tmp_path / "q"), split=None, say=None)


def test_the_latest_answer_of_each_row_is_read(predictor, version, tmp_path):
    target, second = str(tmp_path / "p"), dataclasses.replace(version, version=2, uri="models:/reviews/2")
    texts_table(tmp_path / "t", ["a good film", "a bad film"])
    began = datetime.now(UTC)
    score(predictor, table_at(tmp_path / "t"), model=version, target=target, split=None, say=None)
    grown = write_table(tmp_path / "t", pa.table({"row_id": ["2"], "text": ["a good plot"]}))
    score(predictor, grown, model=version, target=target, split=None, say=None)
    score(predictor, grown, model=second, target=target, split=None, say=None)
    every = read_latest_answers(table_at(target)).to_pydict()
    assert (sorted(every["row_id"]), set(every["model_version"])) == (["0", "1", "2"], {"models:/reviews/2"})
    own = read_latest_answers(table_at(target), model="models:/reviews/1").to_pydict()
    assert (sorted(own["row_id"]), own["source_version"]) == (["0", "1", "2"], [1, 1, 1])
    assert all(began < at < datetime.now(UTC) for at in every["scored_at"])
    made, file = CliRunner(), tmp_path / "answers.csv"
    words = ["answers", target, "--model", "reviews/1", "--output", str(file)]
    assert made.invoke(main, words).output == f"p@v2: 3 rows in {file}\n"
    assert pd.read_csv(file, dtype=str)["row_id"].tolist() == own["row_id"]
    assert json.loads(made.invoke(main, ["answers", target, "--json"]).output)[0]["labels"] == every["labels"][0]
    told = made.invoke(main, ["answers", target, "--output", str(tmp_path / "none/a.csv")])
    assert (told.exit_code, told.stderr.count("\n"), "There is no folder" in told.stderr) == (1, 1, True)
    with pytest.raises(NoRows, match=r"no answer of models:/reviews/3; it has those of: models:/reviews/1, .*/2"):
        read_latest_answers(table_at(target), model="models:/reviews/3")


def test_predictor_of_another_model_is_refused(predictor, version, tiny_table, tmp_path):
    other = dataclasses.replace(version, digest="0" * 64)
    with pytest.raises(ModelNotFound, match=r"load_predictor\('models:/reviews/1'\)"):
        score(predictor, tiny_table, model=other, target=str(tmp_path / "predictions"))


def test_table_that_cannot_take_the_rows_is_refused_before_any_is_scored(version, tiny_table, tmp_path):
    write_table(tmp_path / "p", pa.table({"n": [1]}))

    class Unused:
        digest, card = version.digest, {"task": "text-classification", "labels": ["negative", "positive"]}

    with pytest.raises(SchemaMismatch, match=r"has the columns n \(int64\)"):
        score(Unused(), tiny_table, model=version, target=str(tmp_path / "p"))


def test_empty_split_gives_an_empty_commit(predictor, version, tmp_path):
    rows = pa.table({"row_id": ["a"], "text": ["good"], "label": ["positive"], "split": ["train"]})
    source = write_table(tmp_path / "t", rows)
    done = score(predictor, source, model=version, target=str(tmp_path / "p"))
    assert (done.rows, done.new_rows) == (0, 0)
    assert (table_at(tmp_path / "p").rows, len(history(tmp_path / "p"))) == (0, 1)


@pytest.mark.parametrize(
    ("texts", "doubt"),
    [
        ([None, "", " "], "all 3 rows of t@v0, scored just now, are empty"),
        (["fine", "fine"], "all 2 rows of t@v0, scored just now, are the same"),
        (["fine"], ""),
        (["fine", None], ""),
    ],
)
def test_a_scoring_whose_texts_are_missing_or_all_the_same_says_so(
    predictor, version, tmp_path, texts, doubt, capsys
):
    target, source = str(tmp_path / "p"), texts_table(tmp_path / "t", texts)
    done = score(predictor, source, model=version, target=target, split=None)
    assert done.new_rows == len(texts)
    assert done.doubt.startswith(doubt)
    assert bool(done.doubt) == bool(doubt) == ("look at where" in capsys.readouterr().out)


# --- texts nobody expects


def test_ten_thousand_equal_texts_are_predicted_once(predictor, version, tmp_path, monkeypatch):
    source = texts_table(tmp_path / "t", ["the film was good"] * 10_000 + ["awful plot"])
    seen = []
    encode = predictor.encode
    monkeypatch.setattr(predictor, "encode", lambda texts: seen.extend(texts) or encode(texts))
    done = score(predictor, source, model=version, target=str(tmp_path / "p"), split=None)
    assert sorted(seen) == ["awful plot", "the film was good"]
    rows = read_table(done.table)
    assert rows["row_id"].to_pylist() == [str(number) for number in range(10_001)]
    assert rows["predicted"].to_pylist() == ["positive"] * 10_000 + ["negative"]


def test_a_megabyte_of_text_and_emoji_alone_are_scored_like_any_other(predictor, version, tmp_path):
    texts = ["a good film", "good " * 200_000, "🎉🎉🎉", "", None, "\n\t ", "a bad film"]
    source = texts_table(tmp_path / "t", texts)
    done = score(predictor, source, model=version, target=str(tmp_path / "p"), split=None)
    rows = read_table(done.table).to_pandas()
    assert rows["row_id"].tolist() == [str(number) for number in range(len(texts))]
    assert np.isfinite(rows["probability"]).all()
    np.testing.assert_allclose([sum(shares) for shares in rows["probabilities"]], 1, atol=1e-5)
    assert rows["predicted"].tolist()[0] == "positive"
    assert rows["predicted"].tolist()[-1] == "negative"


# --- kills, failures, and processes side by side


SCORE = """if True:
    import os, signal, sys
    from pathlib import Path
    from dlpipe.inference import score
    from dlpipe.registry import ModelVersion
    from dlpipe.tables import table_at
    from dlpipe.task import open_predictor
    source, model, target, log, deaths = sys.argv[1:]
    predictor = open_predictor(Path(model), threads=1)
    predict, left = predictor.predict_encoded, int(deaths)

    def predict_and_die(encoded, **options):
        global left
        with open(log, "a") as lines:
            print(len(encoded.lengths), file=lines)
        left -= 1
        shares = predict(encoded, **options)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return shares

    predictor.predict_encoded = predict_and_die
    version = ModelVersion("reviews", 1, "models:/reviews/1", predictor.digest, run_id="", model_id="")
    done = score(predictor, table_at(source), model=version, target=target, split=None, part_rows=40)
    print(done.new_rows)
    """


def test_killed_scoring_goes_on_after_its_last_part_and_ends_with_the_same_table(tiny_model, in_parts, tmp_path):
    tiny_model.save(tmp_path / "model")

    def run(target: str, deaths: int) -> subprocess.CompletedProcess:
        paths = [in_parts.path, tmp_path / "model", tmp_path / target, tmp_path / f"{target}.log", deaths]
        command = [sys.executable, "-c", SCORE, *map(str, paths)]
        return subprocess.run(command, capture_output=True, text=True, timeout=100)

    undisturbed = run("whole", 0)
    assert undisturbed.returncode == 0, undisturbed.stderr
    assert run("killed", 4).returncode == -signal.SIGKILL
    assert not (tmp_path / "killed/_delta_log").exists()
    resumed = run("killed", 0)
    assert resumed.returncode == 0, resumed.stderr
    # of seven parts three were staged, the fourth was predicted and then lost
    assert "going on, 120 of 250 rows were there already" in resumed.stdout
    assert (tmp_path / "killed.log").read_text().split() == ["40"] * 7 + ["10"]
    assert resumed.stdout.split()[-1] == undisturbed.stdout.split()[-1] == "250"
    whole, killed = table_at(tmp_path / "whole"), table_at(tmp_path / "killed")
    assert answers(killed) == answers(whole)
    assert killed.version == 0


def test_failure_half_way_commits_nothing_and_what_was_scored_is_kept(predictor, version, in_parts, tmp_path):
    target = str(tmp_path / "p")

    class Failing:
        card, labels, digest, encode = predictor.card, predictor.labels, predictor.digest, predictor.encode
        calls = 0

        def predict_encoded(self, encoded, **options):
            self.calls += 1
            if self.calls == 3:
                raise RuntimeError("power cut")
            return predictor.predict_encoded(encoded, **options)

    with pytest.raises(RuntimeError, match="power cut"):
        score(Failing(), in_parts, model=version, target=target, split=None, part_rows=40)
    assert not Path(target, "_delta_log").exists()
    lines = []
    done = score(predictor, in_parts, model=version, target=target, split=None, part_rows=40, say=lines.append)
    assert lines[0] == f"scoring {in_parts} all splits: going on, 80 of 250 rows were there already"
    assert re.fullmatch(r".*: 170 rows in [\d.]+ s, [\d,]+ rows/s", lines[-1])
    assert done.new_rows == 250
    assert read_table(done.table)["row_id"].equals(read_table(in_parts)["row_id"])


def test_resuming_with_other_parts_begins_again_and_mixes_nothing(predictor, version, in_parts, tmp_path):
    scoring, parts = choose_missing(Scoring(in_parts, version, str(tmp_path / "p"), split="test"), part_rows=20)
    PartScorer(predictor, scoring)(parts[1])
    done = score(predictor, in_parts, model=version, target=scoring.target, part_rows=60)
    expected = read_table(in_parts, split="test")
    assert read_table(done.table)["row_id"].equals(expected["row_id"])
    assert list(Path(scoring.target, "_staged").iterdir()) == []


def test_parts_scored_in_any_order_by_anybody_give_the_same_table(predictor, version, in_parts, tmp_path):
    scoring, parts = choose_missing(Scoring(in_parts, version, str(tmp_path / "p")), part_rows=50)
    openers = [PartScorer(predictor, scoring) for _ in range(2)]
    for number, part in enumerate(reversed(parts)):
        assert openers[number % 2](part) == part.rows
    assert len(find_staged_parts(scoring.target, key=scoring.key, cut=parts[0].cut)) == len(parts)
    made = commit_scoring(scoring, parts)
    alone = score(predictor, in_parts, model=version, target=str(tmp_path / "q"), split=None, part_rows=50)
    assert answers(made) == answers(alone.table)
    assert score(predictor, in_parts, model=version, target=scoring.target, split=None).table == made


def test_scoring_a_table_that_is_vacuumed_meanwhile_says_so_and_commits_nothing(predictor, version, tmp_path):
    from deltalake import DeltaTable

    for number in range(6):
        source = write_table(tmp_path / "t", pa.table({"row_id": [str(number)], "text": ["good film"]}))

    class Slow:
        card, labels, digest, encode = predictor.card, predictor.labels, predictor.digest, predictor.encode

        def predict_encoded(self, encoded, **options):
            table = DeltaTable(source.path)
            if table.version() == source.version:
                table.optimize.compact()
                table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
            return predictor.predict_encoded(encoded, **options)

    with pytest.raises(TableVersionNotFound, match=r"'t@v5' can no longer be read: .* vacuum"):
        score(Slow(), source, model=version, target=str(tmp_path / "p"), split=None, part_rows=1)
    assert not (tmp_path / "p/_delta_log").exists()


# --- progress


def test_progress_is_a_line_every_ten_seconds_where_there_is_no_terminal(monkeypatch):
    lines, now = [], [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    progress = RowProgress("scoring t@v0", total=1_000_000, there=4_000, say=lines.append)
    for _ in range(40):
        now[0] += 1
        progress.add(1_000)
    progress.end()
    assert lines == [
        "scoring t@v0: going on, 4,000 of 1,000,000 rows were there already",
        "scoring t@v0: 15,000 of 1,000,000 rows, 1,000 rows/s",
        "scoring t@v0: 26,000 of 1,000,000 rows, 1,000 rows/s",
        "scoring t@v0: 37,000 of 1,000,000 rows, 1,000 rows/s",
        "scoring t@v0: 40,000 rows in 40.0 s, 1,000 rows/s",
    ]


def test_next_item_is_made_while_this_one_is_used():
    import threading

    second = threading.Event()

    def make(item: int) -> int:
        if item == 2:
            second.set()
        return item

    made = prefetch([1, 2, 3], make)
    assert next(made) == 1
    assert second.wait(10)
    assert list(made) == [2, 3]
