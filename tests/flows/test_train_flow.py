"""The main job: from a file with labelled text to a registered, scored and explained model, and again."""

from __future__ import annotations

import base64
import json
import re
import time
from pathlib import Path

import mlflow.data
import pytest
from mlflow import MlflowClient
from projects import Done, Project
from stores import plain_name

from dlpipe.tables import history, read_table, table_at

OFFLINE = ("unshare", "--net", "--map-root-user")
PREDICT = """
import json, mlflow
model = mlflow.pyfunc.load_model("models:/reviews@champion")
print(json.dumps(model.predict(["the film was superb", "an awful plot indeed"]).to_dict("records")))
"""


def test_summary_says_where_everything_is(first: Done) -> None:
    assert first.summary("data") == "reviews@v0, 250 rows"
    assert re.match(r"accuracy 1.000 \(1.000 to 1.000\), macro F1 ", first.summary("model"))
    assert re.match(r"accuracy [01]\.\d+ \(.*\), macro F1 ", first.summary("baseline"))
    assert first.summary("registered") == "models:/reviews/1 (challenger, champion)"
    assert first.summary("pipeline") == "models:/reviews-pipeline/1 (challenger, champion)"
    assert first.summary("explainer") == "models:/reviews-explainer/1 (challenger, champion)"
    assert len(first.summary("weights")) == 64
    assert first.summary("gate").endswith("champion of reviews moves from none to v1")
    assert first.summary("predictions") == "reviews_predictions@v0, 250 new rows"
    assert first.summary("explanations") == "reviews_explanations@v0"
    assert f"card view {first.run_id}/evaluate" in first.summary("cards")
    assert first.summary("portal") == "dlpipe ui"


def test_every_stage_leaves_its_artifact(project: Project, first: Done) -> None:
    made = project.run(first.run_id).data
    assert str(made.data_version) == "reviews@v0"
    assert len(made.tuned.trials) == 2
    assert made.training.learning_rate == made.tuned.best["learning_rate"]
    assert made.best_epoch <= len(made.epoch_scores) == 5
    assert made.trained_model.digest == first.weights == made.model_version.digest
    assert made.evaluation.metrics["accuracy"] == 1.0
    assert set(made.baseline.metrics) == set(made.evaluation.metrics)
    assert made.model_version.aliases == ("challenger", "champion")
    assert made.model_version.tags["delta.digest"] == made.data_version.digest
    assert made.model_version.tags["metaflow.pathspec"].startswith(f"TrainFlow/{first.run_id}/train/")


def test_each_row_of_the_data_has_one_prediction(project: Project, first: Done) -> None:
    made = project.run(first.run_id).data
    data = read_table(made.data_version, columns=["row_id", "label"]).to_pydict()
    scored = read_table(made.predictions.table, columns=["row_id", "predicted"]).to_pydict()
    assert sorted(scored["row_id"]) == sorted(data["row_id"])
    truth = dict(zip(data["row_id"], data["label"], strict=True))
    right = [truth[row] == label for row, label in zip(scored["row_id"], scored["predicted"], strict=True)]
    assert sum(right) / len(right) > 0.9


def test_explanations_add_up_to_the_predictions(project: Project, first: Done) -> None:
    made = project.run(first.run_id).data
    assert len(made.explanations.rows) == 3
    for row in made.explanations.rows:
        assert row.base + row.attributions.sum(axis=0) == pytest.approx(row.output, abs=1e-4)
    kept = read_table(made.explained)
    assert kept.num_rows == sum(row.attributions.size for row in made.explanations.rows)


@pytest.mark.parametrize(
    ("step", "shows"),
    [
        ("start", "rows in reviews@v0"),
        ("tune", "# Trials"),
        ("train", "of 5 is the best: "),
        ("evaluate", "enough for the gate so far"),
        ("register", "passes the gate"),
        ("predict", "rows scored by reviews v1"),
        ("explain", "# Explanations"),
    ],
)
def test_steps_show_what_they_did_on_their_cards(step: str, shows: str, project: Project, first: Done) -> None:
    done = project.flow("card", "get", f"{first.run_id}/{step}", f"{step}.html")
    assert done.code == 0, done.said
    assert shows in card_data((project.folder / f"{step}.html").read_text())


def test_the_curves_of_the_champion_stand_behind_on_the_card_of_a_training(
    project: Project, first: Done, again: Done
) -> None:
    pages = []
    for run in (first, again):
        assert project.flow("card", "get", f"{run.run_id}/train", "train.html").code == 0
        pages.append(card_data((project.folder / "train.html").read_text()))
    assert ["Grey: reviews v1, the champion so far, trained on reviews@v0" in page for page in pages] == [
        False,
        True,
    ]
    assert ["v1 valid" in page for page in pages] == [False, True]


def card_data(page: str) -> str:
    """Return what a card's page draws: it is in there as JSON in base 64."""
    data = re.search(r'__MF_DATA__\["[^"]+"\] = "([^"]+)"', page)[1]
    return base64.b64decode(data).decode()


def test_nothing_runs_on_after_the_end(project: Project, first: Done) -> None:
    deadline = time.monotonic() + 20
    while left := project.processes():
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def test_each_run_stands_in_mlflow_as_it_happened(project: Project, worse: Done) -> None:
    assert "MLflow has this run: " in worse.said
    done = project.python("-m", "dlpipe.cli", "bridge", "check", "TrainFlow")
    assert done.said == "0 differences\n"


def test_a_run_is_found_and_compared_by_what_it_reached(project: Project, first: Done, worse: Done) -> None:
    client = MlflowClient(f"sqlite:///{project.folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("TrainFlow")
    best_first = client.search_runs(
        [experiment.experiment_id],
        "metrics.`evaluate/accuracy` > 0.1 and tags.`metaflow.pathspec` LIKE 'TrainFlow/%'",
        order_by=["metrics.`evaluate/accuracy` DESC"],
    )
    runs = {plain_name(run): run for run in best_first}
    assert best_first[0].data.metrics["evaluate/accuracy"] == 1.0
    run, other = runs[first.run_id], runs[worse.run_id]
    assert other.data.metrics["evaluate/accuracy"] < 1.0
    made = project.run(first.run_id).data
    assert run.data.metrics["start/data_version/version"] == 0
    assert run.data.metrics["train/epoch_scores/val_loss"] == pytest.approx(
        made.epoch_scores[-1].scores["val_loss"]
    )
    assert run.data.params["training/learning_rate"] == str(made.training.learning_rate)
    assert run.data.params["training/epochs"] == str(made.training.epochs)
    assert run.data.params["task"] == "text-classification"
    assert "None" not in run.data.params.values()
    of_file = {name for name in run.data.params if name.startswith("settings/")}
    assert {name.split("/")[1] for name in of_file} == {"search_space"}  # the others stand as they were in force
    assert other.data.params["training/epochs"] == "4"
    assert not {"epochs", "learning_rate", "trials"} & other.data.params.keys()  # nor again as options
    for both in (run, other):
        assert {"evaluate/accuracy", "evaluate/macro_f1", "start/data_version/version"} <= both.data.metrics.keys()
        assert {"training/learning_rate", "training/epochs"} <= both.data.params.keys()
    differ = {name for name in run.data.params if run.data.params[name] != other.data.params.get(name)}
    assert any(name.startswith("training/") for name in differ)
    assert {one.dataset.name for one in run.inputs.dataset_inputs} >= {"reviews@v0", "reviews_predictions@v0"}
    registered = {made.model_version.model_id, made.pipeline_version.model_id}
    assert {one.model_id for one in run.outputs.model_outputs} >= registered


def test_lineage_leads_from_the_model_to_the_rows_and_back(project: Project, first: Done) -> None:
    client = MlflowClient(f"sqlite:///{project.folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("TrainFlow")
    found = client.search_runs([experiment.experiment_id], f"tags.`metaflow.run` = 'TrainFlow/{first.run_id}'")
    runs = {plain_name(run): run for run in found}
    assert re.fullmatch(r"reviews v0 · 1\.000 · \d+ \w{3} \d\d:\d\d", runs[first.run_id].info.run_name)
    page = runs[first.run_id].data.tags["mlflow.note.content"].splitlines()
    assert page[0].startswith("accuracy **1.000** (baseline ")
    assert page[2].startswith("Verdict: passed: ")
    top, scored = runs[first.run_id].data, runs["evaluate"]
    assert "evaluate/accuracy" in top.metrics
    repeated = {"evaluate/evaluation/accuracy", "register/evaluation/accuracy", "tune/training/epochs"}
    assert not repeated & set(top.metrics)
    assert {f"evaluate/evaluation/{name}/positive" for name in ("precision", "recall")} <= set(top.metrics)
    register = runs["register"].data
    assert not {name for name in register.metrics if name.startswith(("evaluation/", "baseline/"))}
    assert "epochs" not in register.params  # which stand on the model
    assert register.params["verdict/passed"] == "True"
    assert register.params["verdict/reason"].startswith("passed: accuracy 1.000 ")
    assert "start/data_version/version" in top.metrics
    assert not {name for name in top.metrics if name.startswith(("tune/tuned_on/", "start/ingest/table/"))}
    assert not [name for run in found for name in (*run.data.params, *run.data.metrics) if ":" in name]
    epochs = client.get_metric_history(runs["train"].info.run_id, "epoch_scores/val_loss")
    assert [point.step for point in epochs] == [1, 2, 3, 4, 5]
    assert len({point.timestamp for point in epochs}) == 5  # reported one by one, while the step ran
    assert client.get_metric_history(runs["train"].info.run_id, "batches/loss")
    assert client.list_artifacts(scored.info.run_id, "pictures/0-blank")
    evaluation = json.loads(
        Path(client.download_artifacts(scored.info.run_id, "artifacts/evaluation.json")).read_text()
    )
    assert sum(map(sum, evaluation["confusion"])) == evaluation["rows"]
    # in the row of the flow's run, MLflow's table shows the versions that belong to it, if it has this tag
    assert runs[first.run_id].data.tags["mlflow.log-model.history"] == "[]"
    assert client.get_model_version("reviews", "1").run_id == runs[first.run_id].info.run_id
    assert client.get_model_version("reviews-pipeline", "1").run_id == runs["register"].info.run_id
    made = {f"models:/{name}/1" for name in ("reviews", "reviews-pipeline", "reviews-explainer")}
    assert set(runs["register"].data.tags["metaflow.models.made"].split()) == made
    assert runs["register"].data.tags["mlflow.parentRunId"] == runs[first.run_id].info.run_id
    # a step's models are in its run and its experiment, and make none of their own
    models = client.search_logged_models([experiment.experiment_id])
    of_step = [model for model in models if model.source_run_id == runs["register"].info.run_id]
    assert {f"models:/{model.name}/1" for model in of_step} == made
    assert not {one.name for one in client.search_experiments() if one.name.startswith("reviews")}
    (classifier,) = (model for model in of_step if model.name == "reviews")
    (read_by_step,) = [one.dataset for one in runs["register"].inputs.dataset_inputs]
    points = {point.key: (point.value, point.dataset_name, point.dataset_digest) for point in classifier.metrics}
    assert points["test_accuracy"] == (1.0, read_by_step.name, read_by_step.digest)
    assert "baseline_accuracy" in points
    assert classifier.params["table"] == "reviews@v0"
    assert classifier.params["epochs"] == "5"
    described = client.get_model_version("reviews", "1").description
    assert described.startswith(f"Trained by TrainFlow/{first.run_id}/train/")
    assert "\n\nGate: passed: " in described
    assert "| this version | &ensp;1.000 (1.000 to 1.000) |" in described
    for step in ("predict", "explain"):
        assert runs[step].data.tags["metaflow.models.used"] == "models:/reviews/1"
    (trained_on,) = [one.dataset for one in runs["train"].inputs.dataset_inputs]
    assert trained_on.name == "reviews@v0"
    assert {column["name"] for column in json.loads(trained_on.schema)["mlflow_colspec"]} >= {"text", "label"}
    assert mlflow.data.get_source(trained_on).load().num_rows == 250
    assert {one.dataset.name for one in runs["predict"].inputs.dataset_inputs} == {
        "reviews@v0",
        "reviews_predictions@v0",
    }
    above = f"tags.`mlflow.parentRunId` = '{runs['tune'].info.run_id}'"
    trials = client.search_runs([experiment.experiment_id], above)
    assert [trial.info.status for trial in trials] == ["FINISHED", "FINISHED"]
    assert all("val_f1" in trial.data.metrics and "learning_rate" in trial.data.params for trial in trials)
    assert {trial.info.run_name for trial in trials} == {"trial 1", "trial 2"}  # as the log calls them


def test_champion_predicts_in_a_new_process_without_a_network(project: Project, first: Done) -> None:
    if project.python("--version", under=OFFLINE).code:
        pytest.skip("no network namespace can be made here")
    done = project.python("-c", PREDICT, under=OFFLINE)
    assert done.code == 0, done.said
    good, bad = json.loads(done.said.splitlines()[-1])
    assert (good["predicted"], bad["predicted"]) == ("positive", "negative")
    assert good["p_positive"] == good["probability"] > 0.9
    assert good["p_positive"] + good["p_negative"] == pytest.approx(1, abs=1e-5)


def test_the_same_command_again_changes_nothing(project: Project, first: Done, again: Done) -> None:
    assert again.weights == first.weights
    for line in ("data", "model", "baseline", "registered", "pipeline", "explainer", "explanations"):
        assert again.summary(line) == first.summary(line)
    assert again.summary("gate").endswith("champion of reviews is v1 already")
    assert again.summary("predictions") == "reviews_predictions@v0, 0 new rows"
    before, after = (project.run(done.run_id).data.tuned.trials for done in (first, again))
    assert [(trial.values, trial.score) for trial in after] == [(trial.values, trial.score) for trial in before]
    for table in ("reviews", "reviews_predictions", "reviews_explanations"):
        assert len(history(table_at(project.tables / table).path)) == 1


def test_a_worse_model_becomes_challenger_and_the_champion_stays(project: Project, worse: Done) -> None:
    assert worse.summary("registered") == "models:/reviews/2 (challenger)"
    assert worse.summary("pipeline") == "models:/reviews-pipeline/2 (challenger)"
    assert worse.summary("explainer") == "models:/reviews-explainer/2 (challenger)"
    client = MlflowClient(f"sqlite:///{project.folder / 'mlflow.db'}")
    described = client.get_model_version("reviews", "2").description
    assert "\n| champion v1 | " in described
    assert "\n\nGate: not promoted: " in described
    reason, _, promotion = worse.summary("gate").rpartition("; ")
    assert reason.startswith("not promoted: accuracy ")
    assert "worse than the champion v1's" in reason
    assert promotion == "champion of reviews stays v1"
    assert worse.summary("predictions") == "many_predictions@v0, 1,500 new rows"
    done = project.python("-m", "dlpipe.cli", "models", "--json")
    champions = [model for model in json.loads(done.said) if "champion" in model["aliases"]]
    names = ("reviews", "reviews-explainer", "reviews-pipeline")
    assert [(one["model"], one["version"]) for one in champions] == [(name, 1) for name in names]


def test_the_records_of_killed_and_resumed_runs_agree(project: Project, worse: Done) -> None:
    done = project.python("-m", "dlpipe.cli", "lineage", "check")
    assert done.said.splitlines()[-1] == "0 dangling, 0 missing, 0 differs", done.said


def test_an_answer_leads_to_its_line_and_to_the_run_that_was_resumed(
    project: Project, killed: Done, worse: Done
) -> None:
    scored = read_table(project.run(worse.run_id).data.predictions.table, columns=["row_id"])["row_id"]
    told = project.python("-m", "dlpipe.cli", "lineage", f"many_predictions#{scored[0]}", "--up", "--json")
    edges = {(edge["how"], edge["origin"]) for edge in json.loads(told.said)["edges"]}
    assert ("resumed from", f"TrainFlow/{killed.run_id}") in edges
    assert [origin for how, origin in edges if how == "ingested from" and origin.endswith(":2")]
    assert ("made by", f"TrainFlow/{worse.run_id}/predict/6") in {
        (how, re.sub(r"/predict/\d+$", "/predict/6", origin)) for how, origin in edges
    }
