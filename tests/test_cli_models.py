"""`dlpipe models` and `dlpipe predict` with whole families: real models, judged on the rows of a real table."""

from __future__ import annotations

import contextlib
import json
import re
from datetime import datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner
from schedulers import deployed
from stores import make_scores, new_store, untouched_environment
from texts import GOOD, THINGS, reviews, write_csv

from dlpipe.cli import main
from dlpipe.errors import ModelNotFound
from dlpipe.evaluation import evaluate_baseline, evaluate_champion, evaluate_model, judge, make_gate_tag
from dlpipe.explain import ExplainSettings, register_explainer
from dlpipe.inference import register_pipeline
from dlpipe.orchestrator.state import State
from dlpipe.registry import log_and_register, promote, register_family, resolve
from dlpipe.registry.history import read_moves
from dlpipe.tables import Sources, ingest, write_table
from dlpipe.task import find_task
from dlpipe.task.classes import ClassThresholds
from dlpipe.task.text_classification import TextClassData
from dlpipe.task.texts import TextModel

TASK = find_task()
FAMILY = ("reviews", "reviews-explainer", "reviews-pipeline")
SCORES = {**make_scores(accuracy=0.9, log_loss=0.2), "baseline": make_scores(accuracy=0.8)["test"]}
ENGINES = {"engine.chosen": "torch", "mlflow.dlpipe.engines": '{"onnx": {"speedup": 2.1}}'}


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
    tags = {"delta.table": table.path, "delta.version": str(table.version), "seed": "0", **ENGINES}
    gate = make_gate_tag(ClassThresholds(baseline_margin=0.2))
    shared = {"example": ["the film was good"], "challenger": False}
    register_family(
        "reviews",
        lambda: log_and_register(model, name="reviews", params={}, scores=SCORES, tags={**tags, **gate}, **shared),
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


def test_a_version_is_shown_with_its_origin_its_scores_its_past_and_what_uses_it(store, tmp_path, monkeypatch):
    monkeypatch.setenv("DLPIPE_TABLES", str(tmp_path))
    rows = pa.table({"row_id": ["a"], "predicted": ["positive"]})
    for name, uri in (("reviews_predictions", "models:/reviews/1"), ("others", "models:/reviews/2")):
        key = {"model": uri, "source": "data/tables/reviews", "source_version": "0"}
        write_table(tmp_path / name, rows, key=key)
    shown = dlpipe("models", "show", "reviews@champion").stdout
    lines = [line.split("  ") for line in shown.splitlines()]
    cells = [[cell.strip() for cell in line if cell] for line in lines if any(line)]
    assert cells[0] == ["models:/reviews/1 (champion)"]
    assert ["table", "reviews@v0"] in cells
    assert ["100 test rows", "accuracy", "log loss"] in cells
    assert ["this version", "0.900 (0.880 to 0.920)", "0.200 (0.180 to 0.220)"] in cells
    assert ["baseline", "0.800 (0.780 to 0.820)"] in cells
    assert any(line[0] == "champion" and line[-1].endswith(": the first") for line in cells)
    assert ["torch", "chosen"] in cells
    assert ["onnx", "2.1"] in cells
    assert ["models:/reviews-pipeline/1", "champion"] in cells
    assert any(line[:2] == ["reviews_predictions@v0", "predictions of reviews@v0"] for line in cells)
    assert "others" not in shown
    facts = json.loads(dlpipe("models", "show", "models:/reviews/1", "--json").stdout)
    assert facts["scores"][1] == {
        "of": "baseline",
        "rows": 100,
        "metrics": {"accuracy": {"value": 0.8, "low": 0.78, "high": pytest.approx(0.82)}},
    }
    assert [table["table"] for table in facts["tables"]] == ["reviews_predictions@v0"]
    assert (facts["gate"], facts["champion_moves"][0]["why"]) == (None, "the first")
    times = re.findall(r"\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)?(.{4}|$)", shown, flags=re.MULTILINE)
    assert times == [" UTC"] * 3  # registered, champion since, predictions written
    moments = (facts["registered"], facts["champion_moves"][0]["at"], facts["tables"][0]["written"])
    assert all(datetime.fromisoformat(moment).tzinfo for moment in moments)
    made = dlpipe("models", "show", "reviews-explainer/2").stdout
    assert "made from    models:/reviews/2" in made
    assert "\n\n\n" not in made
    engines = {(row["model"], row["engine"]) for row in json.loads(dlpipe("models", "--json").stdout)}
    assert engines == {("reviews", "torch"), ("reviews-explainer", None), ("reviews-pipeline", None)}


def test_a_version_names_the_deployments_that_work_with_it(store, tmp_path, monkeypatch):
    monkeypatch.setenv("DLPIPE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("DLPIPE_TABLES", str(tmp_path / "tables"))
    assert json.loads(dlpipe("models", "show", "reviews", "--json").stdout)["deployments"] == []
    assert not (tmp_path / "state").exists()  # looking makes no state
    here = {"MLFLOW_TRACKING_URI": store.uri}
    with contextlib.closing(State.open()) as state:
        deployed(state, "PredictFlow", "", defaults={"model": "reviews", "table": "reviews"}, variables=here)
        deployed(state, "MonitorFlow", "", parameters={"model": "models:/reviews-pipeline/1"}, variables=here)
        deployed(state, "ScoreOld", "", parameters={"model": "reviews/2"}, variables=here)
        deployed(
            state,
            "GivenAnother",
            "",
            defaults={"model": "reviews"},
            parameters={"model": "reviews/3"},
            variables=here,
        )
        deployed(state, "OtherProject", "", defaults={"model": "reviews"})  # with an mlflow.db of its own
        deployed(state, "OfATable", "", parameters={"table": "reviews", "model": "gone"}, variables=here)
        state.suspend("MonitorFlow", True, now=0.0)
    facts = json.loads(dlpipe("models", "show", "reviews@champion", "--json").stdout)
    assert [(use["deployment"], use["uses"]) for use in facts["deployments"]] == [
        ("MonitorFlow", "models:/reviews-pipeline/1"),
        ("PredictFlow", "models:/reviews/1"),
    ]
    shown = [re.split(r"  +", line.strip()) for line in dlpipe("models", "show", "reviews/1").stdout.splitlines()]
    assert ["deployment PredictFlow", "runs with --model reviews, the flow's default"] in shown
    assert ["deployment MonitorFlow", "runs with --model models:/reviews-pipeline/1; suspended"] in shown
    assert "ScoreOld" in dlpipe("models", "show", "reviews/2").stdout
    assert "GivenAnother" in dlpipe("models", "show", "reviews/3").stdout


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("revues", "No model 'revues' is registered; there are reviews, reviews-explainer, reviews-pipeline."),
        ("reviews@best", "'reviews' has no alias 'best'; it has challenger (v3), champion (v1)."),
        ("reviews/9", "'reviews' has no version 9; it has 1, 2, 3."),
    ],
)
def test_a_version_that_is_gone_is_named_with_what_there_is(store, uri, words):
    for command in (["models", "show", uri], ["explain", "--model", uri, "a good film"]):
        result = dlpipe(*command)
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
        assert words in result.stderr


def test_a_prediction_is_explained_in_the_terminal_word_by_word(store):
    text = "the film was good and superb"
    shown = dlpipe("explain", "--model", "reviews", text).stdout
    headline, words, meaning, *bars = shown.splitlines()
    assert re.fullmatch(r"positive \d+\.\d %, without any word \d+\.\d %", headline)
    assert words.strip() == text
    assert "+ and red speak for positive" in meaning
    assert sorted(line.split()[-1] for line in bars) == sorted(words.split())
    numbers = [float(line.split()[0]) for line in bars]
    assert numbers == sorted(numbers, key=abs, reverse=True)
    output, base = (float(found) for found in re.findall(r"[\d.]+(?= %)", headline))
    assert base + sum(numbers) == pytest.approx(output, abs=0.5)
    first = dlpipe("explain", "--model", "reviews", "--top", "2", text).stdout.splitlines()
    assert first[3:5] == bars[:2]
    assert first[5].endswith("the other 4 words together")
    assert r"\x1b[31m" in dlpipe("explain", "--model", "reviews", "good \x1b[31m film").stdout.splitlines()[1]


def test_colours_are_for_terminals_alone(store, monkeypatch):
    def run(text: str) -> str:
        return CliRunner().invoke(main, ["explain", "--model", "reviews", text], color=True).stdout

    assert "\x1b[31m\x1b[1mgood" in run("a good film")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in run("a good film")


def test_an_explanation_is_a_page_or_json_that_adds_up(store, tmp_path):
    page = tmp_path / "page.html"
    done = dlpipe("explain", "--model", "reviews-explainer/1", "--html", str(page), "a <b>good</b> film", "awful")
    assert done.stdout == f"2 rows explained in {page}\n"
    written = page.read_text()
    assert written.count("<h2>") == 2
    assert "&lt;" in written
    assert "<b>" not in written
    assert "src=" not in written
    (row,) = json.loads(dlpipe("explain", "--model", "reviews/1", "--json", "a good film").stdout)
    assert [part["part"] for part in row["parts"]] == ["a", "good", "film"]
    total = sum(part["attribution"] for part in row["parts"])
    assert row["base_value"] + total == pytest.approx(row["output"], abs=1e-4)
    assert (row["predicted"], row["parts"][0]["input_column"]) == ("positive", "text")
    nowhere = dlpipe("explain", "--model", "reviews", "--html", str(tmp_path / "none/page.html"), "good")
    assert nowhere.stderr.endswith("there is no folder {}. Make it first.\n".format(tmp_path / "none"))
    pipeline = dlpipe("explain", "--model", "reviews-pipeline", "good")
    assert pipeline.stderr.endswith("is a pipeline. Explain its classifier: --model reviews/1.\n")


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
    shown = dlpipe("models", "show", "reviews/2").stdout
    assert re.search(r"^gate +not promoted: ", shown, re.MULTILINE)
    assert re.search(r"^champion v1, \d+ rows +1\.000 ", shown, re.MULTILINE)
    assert re.search(r"^champion +\S+ \S+ UTC after v1 by force, ana: a try$", shown, re.MULTILINE)
    assert re.search(r"^no longer +\S+ \S+ UTC replaced by v1 by gate, ", shown, re.MULTILINE)
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
    asked = dlpipe("models", "delete", "reviews/3")
    assert asked.stderr.endswith("Nothing was deleted: there is nobody to ask. Pass --yes to delete.\n")
    assert "models:/reviews-pipeline/3" in asked.stderr
    assert "reviews/3" in dlpipe("models").stdout
    done = dlpipe("models", "delete", "reviews/3", "--why", "no use", "--yes", "--json")
    gone = json.loads(done.stdout)["deleted"]
    assert sorted(gone) == sorted(f"models:/{name}/3" for name in FAMILY)
    assert "reviews/3" not in dlpipe("models").stdout


def test_tables_that_a_version_computed_are_named_before_it_is_deleted(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    key = {"source": "/t/films", "source_version": "0", "model": "models:/reviews/2"}
    write_table("films_predictions", pa.table({"row_id": ["a"]}), key=key)
    asked = dlpipe("models", "delete", "reviews/2")
    assert asked.exit_code == 1
    assert re.search(r"table +films_predictions +computed by models:/reviews/2", asked.stderr), asked.stderr


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
