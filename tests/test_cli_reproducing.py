"""`dlpipe reproduce` before it trains."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from made_up_lineage import History, list_ids
from stores import keep_runs_in, new_store, untouched_environment

from dlpipe.cli import main
from dlpipe.reproducing import compare_answers, list_models
from dlpipe.tables import read_table, write_table


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "Name a model, or pass --all."),
        (["--all", "reviews"], "Name a model or pass --all, not both."),
    ],
)
def test_a_model_or_all_is_asked_for(words: list[str], problem: str) -> None:
    done = CliRunner().invoke(main, ["reproduce", *words])
    assert (done.exit_code, problem in done.stderr) == (2, True)


def test_of_a_pipeline_the_first_line_says_which_version_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with untouched_environment():
        history = History(tmp_path)
        history.register("TrainFlow/17", history.ingest("TrainFlow/17"))
        done, plain = (
            CliRunner().invoke(main, ["reproduce", f"{name}/1"]) for name in ("reviews-pipeline", "reviews")
        )
    told = "models:/reviews-pipeline/1 is made from models:/reviews/1, which is trained again"
    assert done.stderr.splitlines()[0].strip() == told
    assert "is made from" not in plain.stderr


def test_that_no_answers_of_a_model_are_left_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with untouched_environment():
        history = History(tmp_path)
        rows = history.ingest("TrainFlow/17")
        model = history.register("TrainFlow/17", rows)
        first, *_ = list_ids(rows)
        predictions = history.predict("TrainFlow/17", model, rows, [first])
        write_table("reviews_predictions", read_table(predictions).slice(1), mode="overwrite")
        assert list_models("reviews_predictions") == [model.uri]
        (answers,) = compare_answers("reviews_predictions", [model.uri])
    assert (answers.outcome, answers.exit_code) == ("not compared", 1)
    assert "has none of them any more" in str(answers)


LINEAGE = {
    "metaflow.pathspec": "TrainFlow/17/train/3",
    "delta.table": "reviews",
    "delta.version": "0",
    "delta.digest": "0" * 32,
    "dlpipe.task": "text-classification",
}


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        (
            {},
            "has no tag metaflow.pathspec and no tag delta.table and no tag delta.version. Only models",
        ),
        ({**LINEAGE, "delta.version": "three"}, "no tag delta.version ('three' is none)"),
        ({**LINEAGE, "metaflow.pathspec": "by hand"}, "no tag metaflow.pathspec ('by hand' is none)"),
        ({**LINEAGE, "metaflow.pathspec": "a/../../b"}, "no tag metaflow.pathspec ('a/../../b' is none)"),
        (LINEAGE, "Nothing says with which settings models:/reviews/1 was trained"),
        ({**LINEAGE, "dlpipe.task": "telepathy"}, "This environment has no task 'telepathy'"),
    ],
)
def test_a_version_without_the_lineage_of_a_flow_says_what_is_missing(
    tags: dict[str, str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with untouched_environment():
        client = new_store(tmp_path).client()
        keep_runs_in(tmp_path, monkeypatch)
        client.create_registered_model("reviews")
        client.create_model_version("reviews", "nowhere", tags=tags)
        one, every = (CliRunner().invoke(main, ["reproduce", *words]) for words in (["reviews/1"], ["--all"]))
    assert (one.exit_code, why in one.stderr) == (1, True), one.stderr
    assert len(one.stderr.splitlines()) == 1
    if "metaflow.pathspec" in tags:
        assert (every.exit_code, why in every.stdout) == (1, True)


def test_a_registry_on_a_server_that_is_down_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with untouched_environment():
        os.environ["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
        found = [
            CliRunner().invoke(main, ["reproduce", *words]) for words in (["reviews/1"], ["--all"], ["reviews"])
        ]
    assert [done.exit_code for done in found] == [1, 1, 1]
    assert all("127.0.0.1:9" in done.stderr and len(done.stderr.splitlines()) == 1 for done in found)
    assert not list(tmp_path.iterdir())
