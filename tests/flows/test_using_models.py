"""Predicting and explaining a table with a model of the registry: flows of their own."""

from __future__ import annotations

import dataclasses
import json

import pyarrow as pa
import pytest
from projects import Done, Project, assert_in_mlflow
from serving_kills import make_entry
from test_bad_input import assert_one_clear_line
from test_train_flow import card_data

from dlpipe.explain import ExplainSettings, explain_table
from dlpipe.serving.feedback import Given, write_feedback
from dlpipe.serving.request_log import RequestLog
from dlpipe.serving.settings import LogSettings
from dlpipe.tables import TableVersion, read_table, table_at, write_table
from dlpipe.task import open_predictor

PREDICT, EXPLAIN, MONITOR = "flows/predict_flow.py", "flows/explain_flow.py", "flows/monitor_flow.py"
MISTAKES = {
    "model": (PREDICT, "--model revues", ("No model 'revues' is registered", "there are reviews")),
    "alias": (PREDICT, "--model models:/reviews@canary", ("has no alias 'canary'", "champion (v1)")),
    "table": (PREDICT, "--table revues", ("There is no table at 'data/tables/revues'", "reviews, ")),
    "table version": (EXPLAIN, "--table-version 7", ("'data/tables/reviews' has no version 7", "its latest is 0")),
    "columns": (PREDICT, "--table odd", ("'odd@v0' has no column 'row_id' and no column 'text'", "review, stars")),
    "split": (PREDICT, "--split tests", ("has no split 'tests'; did you mean 'test'?",)),
    "explaining a pipeline": (EXPLAIN, "--model reviews-pipeline", ("its classifier is models:/reviews/1",)),
    "split to explain": (EXPLAIN, "--split al", ("has no split 'al'; did you mean 'all'?",)),
    "explaining an explainer": (EXPLAIN, "--model reviews-explainer", ("its classifier is models:/reviews/1",)),
    "predicting with an explainer": (PREDICT, "--model reviews-explainer", ("of the kind 'explainer'",)),
    "split without rows": (
        PREDICT,
        "--table letters --split test",
        ("no row in its 'test' split: 1 in no split",),
    ),
    "rows without labels to explain": (EXPLAIN, "--table letters", ("no row in its 'test' split", "--split all")),
    "no rows to explain": (EXPLAIN, "--rows 0", ("rows = 0 explains nothing",)),
    "table of something else": (PREDICT, "--target odd", ("'data/tables/odd' has the columns review",)),
    "explanations of something else": (EXPLAIN, "--target odd", ("'data/tables/odd' has the columns review",)),
    "predictions into the rows themselves": (
        PREDICT,
        "--target reviews",
        ("'data/tables/reviews' has the columns",),
    ),
    "explanations into the rows themselves": (
        EXPLAIN,
        "--target reviews",
        ("'data/tables/reviews' has the columns",),
    ),
    "table to monitor": (MONITOR, "--table revues", ("There is no table at 'data/tables/revues'",)),
    "table of predictions": (MONITOR, "--target none", ("There is no table at 'data/tables/none'",)),
    "table that nobody scored": (MONITOR, "--table letters", ("No model has scored 'letters@v0' yet",)),
    "model that nobody has asked": (MONITOR, "--served true", ("Nobody has asked a server for reviews yet",)),
    "setting": (EXPLAIN, "--rows -1", ("[explanation] and --rows: rows = -1 is refused",)),
    # of the command dlpipe
    "alias of dlpipe": (None, "predict --model models:/reviews@canary x", ("no alias 'canary'", "champion (v1)")),
    "version of dlpipe": (None, "predict --model reviews/9 x", ("has no version 9", "it has 1")),
    "model of dlpipe": (
        None,
        "predict --model revues x",
        ("No model 'revues' is registered", "there are reviews"),
    ),
    "table of dlpipe": (None, "tables revues", ("revues", "reviews")),
}


@pytest.fixture(scope="module")
def predicted(project: Project, first: Done) -> Done:
    """A run with the champion's pipeline."""
    words = ("--model", "models:/reviews-pipeline@champion", "--table-version", "0", "--split", "valid")
    return project.python(PREDICT, "run", *words)


@pytest.fixture(scope="module")
def sample(project: Project, first: Done) -> TableVersion:
    """The table of a sample of two rows."""
    made = project.run(first.run_id).data
    _, table = explain_table(
        open_predictor(made.trained_model),
        table_at(project.tables / "reviews"),
        target=str(project.tables / "two_rows"),
        model=made.model_version.uri,
        settings=ExplainSettings(rows=2, max_evals=60),
    )
    return table


@pytest.fixture(scope="module")
def whole(project: Project, sample: TableVersion) -> Done:
    """A run over every row of a split, into the table of a sample, with settings of its own."""
    project.file("explain.toml", "[explanation]\nmax_evals = 60\n")
    words = ("--rows", "2", "--split", "valid", "--target", sample.name)
    return project.python(EXPLAIN, "--config", "settings", "explain.toml", "run", *words)


@pytest.fixture(scope="module")
def watched(project: Project, first: Done, mistakes: dict[str, Done]) -> Done:
    """A look at what a server was asked of the champion, half of which has a label."""
    answers = [{"predicted": "positive", "probability": 0.9, "p_negative": 0.1, "p_positive": 0.9}] * 40
    texts = [f"the cable number {number} broke" for number in range(40)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DLPIPE_TABLES", str(project.tables))
        log = RequestLog(LogSettings(texts=True))
        log.start()
        entry = dataclasses.replace(make_entry("reviews", 40), texts=texts, records=answers)
        log.write([entry])
        write_feedback(log, "reviews", [Given(entry.request_id, "positive", row) for row in range(20)])
        log.close()
    few = ("monitoring.min_rows=20", "monitoring.min_labels=10")
    return project.python(
        MONITOR, "run", "--served", "true", "--set", few[0], "--set", few[1], "--publish", "false"
    )


@pytest.fixture(scope="module")
def mistakes(project: Project, first: Done, predicted: Done) -> dict[str, Done]:
    """What came of the mistakes, and of comparing runs of two flows."""
    letters = {"row_id": ["a"], "text": ["good"], "split": pa.nulls(1, pa.string())}
    write_table(project.tables / "letters", pa.table(letters))
    write_table(project.tables / "odd", pa.table({"review": ["good"], "stars": [5]}))
    compare = ("-m", "dlpipe.cli", "compare", first.run_id, f"PredictFlow/{predicted.run_id}", "--json")
    return project.each(
        {
            "compare": compare,
            **{
                name: [*((flow, "run") if flow else ("-m", "dlpipe.cli")), *words.split()]
                for name, (flow, words, _) in MISTAKES.items()
            },
        }
    )


def test_a_pipeline_of_the_registry_scores_a_split_of_a_table(project: Project, predicted: Done) -> None:
    assert predicted.code == 0, predicted.said
    assert predicted.summary("data") == "reviews@v0, valid"
    assert predicted.summary("model") == "models:/reviews-pipeline/1"
    made = project.run(predicted.run_id, "PredictFlow").data
    data, scored = read_table(made.scored_rows, split="valid").to_pydict(), read_table(made.predictions.table)
    assert (
        predicted.summary("predictions")
        == f"reviews_answers@v0, {len(data['text'])} new of {len(data['text'])} rows"
    )
    assert scored["row_id"].to_pylist() == data["row_id"]
    assert scored["predicted"].to_pylist() == data["label"]
    assert set(scored["model_version"].to_pylist()) == {"models:/reviews/1"}


def test_every_row_of_a_split_is_explained(project: Project, whole: Done) -> None:
    assert whole.code == 0, whole.said
    made = project.run(whole.run_id, "ExplainFlow").data
    valid = read_table(made.explained_rows, split="valid").to_pydict()
    count = len(valid["row_id"])
    assert whole.summary("data") == "reviews@v0, every row of valid, the first 2 on the card"
    assert whole.summary("explanations") == f"two_rows@v1, words of {count} rows, {count} new"
    assert set(read_table(made.explained)["row_id"].to_pylist()) >= set(valid["row_id"])
    assert [row.row_id for row in made.explanations.rows] == valid["row_id"][:2]
    assert f"two_rows@v1: words of {count} rows" in explain_card(project, whole)


def explain_card(project: Project, done: Done) -> str:
    """Return what the card of a run that explained draws."""
    made = project.python(EXPLAIN, "card", "get", f"{done.run_id}/explain", "explain.html")
    assert made.code == 0, made.said
    return card_data((project.folder / "explain.html").read_text())


def test_what_a_server_was_asked_is_compared_and_judged_by_its_labels(project: Project, watched: Done) -> None:
    assert watched.code == 0, watched.said
    assert watched.summary("outcome").startswith("drift: AUC of telling new texts from old ones")
    assert watched.summary("data") == "reviews_requests@v0, the last 40 new rows"
    assert watched.summary("quality").startswith("Accuracy 1.000 (0.839 to 1.000) on 20 new rows; ")
    assert watched.summary("numbers") == "reviews_requests_drift@v0"
    assert_in_mlflow(project, "MonitorFlow")


def test_runs_of_two_flows_are_compared_as_far_as_they_go(mistakes: dict[str, Done]) -> None:
    done = mistakes["compare"]
    assert done.code == 0, done.said
    found = json.loads(done.said)
    trained, used = found["sides"]
    assert used["notes"] == ["it made no model; it used models:/reviews-pipeline/1"]
    assert (trained["no_model"], used["no_model"]) == ("", "")
    assert found["pairs"][0]["problem"] == "both are models:/reviews/1, which does not differ from itself"
    (table,) = found["tables"]
    assert table["versions"] == [0, 0]
    assert "accuracy" in trained["scores"]
    assert used["scores"] == {}


def test_each_run_stands_in_mlflow_with_its_model_and_its_tables(
    project: Project, predicted: Done, whole: Done
) -> None:
    assert_in_mlflow(project, "PredictFlow", "ExplainFlow")


@pytest.mark.parametrize("name", MISTAKES)
def test_what_is_not_there_is_said_in_one_clear_line(name: str, mistakes: dict[str, Done]) -> None:
    done = mistakes[name]
    assert_one_clear_line(done, *MISTAKES[name][2])
    assert "run-id" not in done.said  # no run was begun that would stand in MLflow as failed
