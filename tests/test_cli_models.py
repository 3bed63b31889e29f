"""`dlpipe models` and `dlpipe predict` with whole families: real models, judged on the rows of a real table."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from stores import new_store, untouched_environment
from texts import GOOD, THINGS, reviews, write_csv

from dlpipe.cli import main
from dlpipe.errors import ModelNotFound
from dlpipe.evaluation import evaluate_baseline, evaluate_champion, evaluate_model, judge, make_gate_tag
from dlpipe.explain import ExplainSettings, register_explainer
from dlpipe.inference import register_pipeline
from dlpipe.registry import log_and_register, promote, register_family, resolve
from dlpipe.registry.history import read_moves
from dlpipe.tables import Sources, ingest
from dlpipe.task import find_task
from dlpipe.task.classes import ClassThresholds
from dlpipe.task.text_classification import TextClassData
from dlpipe.task.texts import TextModel

TASK = find_task()
FAMILY = ("reviews", "reviews-explainer", "reviews-pipeline")


def always_the_same(model: TextModel, label: int, by: float) -> TextModel:
    """Return ``model`` with a head that gives one label, whatever the text; ``by`` makes its weights others."""
    from safetensors.numpy import load, save

    tensors = load(model.files["model.safetensors"])
    tensors["head.weight"] *= 0
    tensors["head.bias"] *= 0
    tensors["head.bias"][label] = by
    return TextModel({**model.files, "model.safetensors": save(tensors)})


@pytest.fixture(scope="module")
def store(tmp_path_factory, tiny_model, tiny_table):
    """Three families: a good model, which is champion, and two that always give one answer."""
    with untouched_environment():
        made = new_store(tmp_path_factory.mktemp("store"))
        for model in (tiny_model, always_the_same(tiny_model, 0, 1.0), always_the_same(tiny_model, 1, 2.0)):
            family(model, tiny_table)
        promote(resolve("reviews/1"), why="the first")
        yield made


def family(model: TextModel, table) -> None:
    tags = {"delta.table": table.path, "delta.version": str(table.version), "seed": "0"}
    gate = make_gate_tag(ClassThresholds(baseline_margin=0.2))
    shared = {"example": ["the film was good"], "challenger": False}
    register_family(
        "reviews",
        lambda: log_and_register(model, name="reviews", params={}, metrics={}, tags={**tags, **gate}, **shared),
        [
            lambda made: register_pipeline(made, **shared),
            lambda made: register_explainer(made, model, settings=ExplainSettings(), **shared),
        ],
    )


def dlpipe(*words: str):
    return CliRunner().invoke(main, list(words))


def champions() -> list[int]:
    rows = json.loads(dlpipe("models", "--json").stdout)
    return [row["version"] for row in rows if "champion" in row["aliases"]]


def test_a_version_is_promoted_through_the_gate_of_its_run_unless_it_is_forced(store):
    refused = dlpipe("models", "promote", "reviews/2", "--why", "a try")
    assert refused.exit_code == 1
    assert refused.stderr.count("\n") == 1
    assert "is not above the" in refused.stderr
    assert "worse than the champion v1's" in refused.stderr
    assert refused.stderr.endswith("champion of reviews stays v1. --force asks no gate.\n")
    assert champions() == [1, 1, 1]
    forced = dlpipe("models", "promote", "reviews/2", "--why", "a try", "--who", "ana", "--force")
    assert forced.stdout == "not judged; champion of reviews moves from v1 to v2\n"
    assert champions() == [2, 2, 2]
    back = json.loads(dlpipe("models", "promote", "reviews/1", "--json").stdout)
    assert (back["moved"], back["champion_before"]) == (True, 2)
    assert back["gate"].startswith("passed: ")
    assert champions() == [1, 1, 1]
    moves = read_moves(store.client().get_registered_model("reviews").tags)
    assert [(move.how, move.who) for move in moves[1:2]] == [("force", "ana")]
    assert moves[2].why == back["gate"]


def test_a_rollback_goes_through_the_same_gate(store):
    dlpipe("models", "promote", "reviews/3", "--force")
    done = dlpipe("models", "rollback", "reviews", "--why", "says one thing only")
    assert done.stdout.endswith("; champion of reviews moves from v3 to v1\n"), done.output
    assert champions() == [1, 1, 1]
    assert dlpipe("models", "rollback", "revues").exit_code == 1
    for version in ("reviews/1", "models:/reviews@champion"):
        assert dlpipe("models", "rollback", version).stderr.endswith("Pass the model's name alone: reviews.\n")
    again = dlpipe("models", "promote", "reviews-pipeline/1")
    assert again.stdout.startswith("not judged: its classifier was, and is champion; ")


def test_a_version_is_deleted_with_its_companions_but_for_the_champion(store):
    refused = dlpipe("models", "delete", "reviews/1")
    assert (refused.exit_code, "models:/reviews/1 is the champion" in refused.stderr) == (1, True)
    gone = json.loads(dlpipe("models", "delete", "reviews/3", "--why", "no use", "--json").stdout)["deleted"]
    assert sorted(gone) == sorted(f"models:/{name}/3" for name in FAMILY)
    assert "reviews/3" not in dlpipe("models").stdout


def test_a_pipeline_predicts_from_the_command_line(store):
    rows = json.loads(dlpipe("predict", "--model", "reviews-pipeline", "--json", "a <b>good</b> film", "5").stdout)
    assert [(row["predicted"], row["status"]) for row in rows] == [
        ("positive", "ok"),
        (rows[1]["predicted"], "no letters"),
    ]
    assert set(rows[0]) >= {"text", "probability", "p_negative", "p_positive", "language"}
    shown = dlpipe("predict", "--model", "reviews-pipeline@champion", "--engine", "torch", "a good film").stdout
    assert shown.splitlines()[0].split()[:3] == ["text", "predicted", "probability"]
    refused = dlpipe("predict", "--model", "reviews-explainer", "x")
    assert "of the kind 'explainer'; its classifier is models:/reviews/1" in refused.stderr


def test_an_explainer_has_nothing_to_say_of_a_missing_text(store):
    import mlflow.pyfunc

    model = mlflow.pyfunc.load_model("models:/reviews-explainer@champion")
    given = pd.Series(["a good film", None], name="review")
    there, nothing = model.predict(given, params={"method": "gradient"}).to_dict("records")
    assert (there["predicted"], there["parts"]) == ("positive", ["a", "good", "film"])
    assert (nothing["predicted"], nothing["parts"], nothing["attributions"]) == (None, [], [])
    assert pd.isna([nothing["output"], nothing["base_value"]]).all()


@pytest.mark.parametrize("name", ["reviews", "reviews-pipeline"])
def test_mlflow_evaluates_a_version_by_itself(store, tiny_table, name):
    import mlflow

    from dlpipe.tables import read_table

    rows = read_table(tiny_table, split="test", columns=["text", "label"]).to_pandas()
    mlflow.set_tracking_uri(store.uri)
    mlflow.set_experiment("again")
    found = mlflow.models.evaluate(f"models:/{name}/1", rows, targets="label", model_type="classifier")
    assert found.metrics["accuracy_score"] == 1.0
    assert found.metrics["log_loss"] < 0.5


class SaysTheWord:
    """A candidate that knows a third class, by its word."""

    card = {"task": "text-classification"}  # noqa: RUF012
    labels = ("negative", "neutral", "positive")

    def predict_outputs(self, texts):
        right = [1 if "plain" in text else 2 if any(word in text for word in GOOD) else 0 for text in texts]
        return np.eye(3)[right]


def test_a_class_that_is_new_in_the_data_leaves_the_champion_judged_on_the_others(store, tmp_path):
    plain = [(f"a plain {thing} number {number}", "neutral") for thing in THINGS for number in range(6)]
    source = write_csv(tmp_path / "three.csv", [*reviews(), *plain])
    table = ingest(Sources(data=str(source)), str(tmp_path / "three"), settings=TextClassData()).table
    mine = evaluate_model(SaysTheWord(), table)
    rival = evaluate_champion(resolve("reviews/1"), table, candidate=mine, open_candidate=SaysTheWord, task=TASK)
    (new,) = rival.unknown.values()
    assert rival.evaluation.rows == rival.candidate.rows == mine.rows - new
    assert rival.evaluation.labels == rival.candidate.labels == SaysTheWord.labels
    baseline = evaluate_baseline(table, beside=SaysTheWord())
    gate = ClassThresholds()
    verdict = judge(mine, baseline=baseline, champion=rival, thresholds=gate, target=TASK.target)
    assert verdict.passed, verdict.reason
    assert f"without 'neutral' ({new})" in verdict.reason
    others = TextClassData(label_column="kind")
    csv = write_csv(tmp_path / "other.csv", [(text, label.upper()) for text, label in reviews()], "review,kind")
    other = ingest(Sources(data=str(csv)), str(tmp_path / "other"), settings=others).table
    none = evaluate_champion(resolve("reviews/1"), other, candidate=mine, open_candidate=SaysTheWord, task=TASK)
    assert (none.evaluation, none.problem) == (
        None,
        "it knows negative, positive, none of which the test split has",
    )


def test_a_champion_whose_files_are_gone_does_not_end_a_training(store, tiny_table, tiny_model, monkeypatch):
    def gone(*_, **__):
        raise ModelNotFound("'models:/reviews/1' lacks model.safetensors.")

    monkeypatch.setattr("dlpipe.task.open_predictor", gone)
    rival = evaluate_champion(resolve("reviews/1"), tiny_table, candidate=None, open_candidate=None, task=TASK)
    assert (rival.evaluation, rival.problem) == (None, "'models:/reviews/1' lacks model.safetensors")
