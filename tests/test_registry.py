"""Model versions in real MLflow stores, registered by processes that may be killed."""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import pickle
from pathlib import Path

import pytest
from stores import kill_before_call, make_scores, new_store, untouched_environment

import dlpipe
from dlpipe.errors import ModelNotFound, SettingError
from dlpipe.registry import (
    KEY,
    ModelVersion,
    find_champion,
    list_requirements,
    list_versions,
    log_and_register,
    promote,
    resolve,
)
from dlpipe.registry.runs import open_flow_run
from dlpipe.task import Evaluation, find_task
from dlpipe.task.texts import TextModel

# the calls of MLflow's client that change something, in any order
CHANGES = (
    "create_experiment",
    "create_run",
    "create_logged_model",
    "log_batch",
    "log_outputs",
    "log_model_artifacts",
    "finalize_logged_model",
    "create_registered_model",
    "create_model_version",
    "set_logged_model_tags",
    "set_registered_model_alias",
    "set_terminated",
)


@pytest.fixture
def store(tmp_path):
    with untouched_environment():
        yield new_store(tmp_path)


def text_model(weights: bytes = b"weights") -> TextModel:
    """Return a model that can be stored (though not run): the registry looks at files only."""
    card = json.dumps(
        {"task": "text-classification", "labels": ["negative", "positive"], "max_length": 16}
    ).encode()
    return TextModel(
        {"model.safetensors": weights, "config.json": b"{}", "tokenizer.json": b"{}", "dlpipe.json": card}
    )


def register(
    weights: bytes = b"weights",
    *,
    name: str = "reviews",
    model: TextModel | None = None,
    scores: dict[str, Evaluation] | None = None,
    **tags: str,
) -> ModelVersion:
    return log_and_register(
        model or text_model(weights),
        name=name,
        experiment="train",
        run_name="register",
        example=["I loved every minute of it."],
        params={"epochs": 3},
        scores=scores or make_scores(accuracy=0.9),
        tags={"delta.table": "data/tables/reviews", "delta.version": "0", **tags},
    )


def runs(store):
    client = store.client()
    return client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])


def test_version_names_where_it_came_from(store):
    version = register(**{"metaflow.pathspec": "TrainFlow/1/register/5"})
    assert (version.name, version.version, version.uri) == ("reviews", 1, "models:/reviews/1")
    assert version.digest == hashlib.sha256(b"weights").hexdigest()
    assert version.aliases == ("challenger",)
    assert version.tags["metaflow.pathspec"] == "TrainFlow/1/register/5"
    assert pickle.loads(pickle.dumps(version)) == version


def test_a_registered_model_says_what_it_is_until_somebody_says_it_otherwise(store):
    client = store.client()
    register()
    first, _, use = client.get_registered_model("reviews").description.splitlines()
    assert first == "A model for text-classification: negative, positive. It learns from the table reviews."
    assert "dlpipe predict --model reviews@champion" in use
    register(b"others", **{"delta.table": "data/tables/films"})
    assert "from the table films." in client.get_registered_model("reviews").description
    client.update_registered_model("reviews", "Used by the shop.")
    register(b"more")
    assert client.get_registered_model("reviews").description == "Used by the shop."
    client.update_registered_model("reviews", "")
    register(b"yet more")
    assert client.get_registered_model("reviews").description.startswith(first)


def test_run_is_finished_and_holds_params_metrics_and_tags(store):
    version = register()
    (run,) = runs(store)
    assert run.info.run_id == version.run_id
    assert (run.info.status, run.info.run_name) == ("FINISHED", "register")
    assert run.data.params == {"epochs": "3"}
    assert run.data.metrics == {"test_accuracy": 0.9}
    assert run.data.tags["delta.version"] == "0"
    assert [output.model_id for output in run.outputs.model_outputs] == [version.model_id]
    assert list_versions() == [(version, {"test_accuracy": 0.9})]


def test_scores_stand_on_the_model_with_the_rows_that_they_were_measured_on(store):
    scores = {**make_scores(accuracy=0.9, auroc=math.nan), "baseline": make_scores(accuracy=0.8)["test"]}
    version = register(scores=scores, **{"delta.digest": "ab" * 32})
    client = store.client()
    logged = client.get_logged_model(version.model_id)
    assert (logged.name, logged.params) == ("reviews", {"epochs": "3", "table": "reviews@v0"})
    points = {point.key: (point.value, point.dataset_name, point.dataset_digest) for point in logged.metrics}
    rows = ("reviews@v0", "ab" * 18)  # as the data set of the runs
    # no value, and not the 0 that MLflow would make of it
    assert points == {"test_accuracy": (0.9, *rows), "baseline_accuracy": (0.8, *rows)}
    run = client.get_run(version.run_id)
    assert math.isnan(run.data.metrics["test_auroc"])
    best = client.search_logged_models(
        [run.info.experiment_id],
        "metrics.test_accuracy > 0.85",
        order_by=[{"field_name": "metrics.test_accuracy", "dataset_name": "reviews@v0", "ascending": False}],
    )
    assert [model.model_id for model in best] == [version.model_id]


def test_page_of_the_model_says_who_made_it_and_from_what(store):
    tags = store.client().get_logged_model(register().model_id).tags
    assert tags["mlflow.note.content"] == "Trained on reviews@v0."
    assert {"mlflow.user", "mlflow.source.name"} <= tags.keys()


def test_version_of_a_task_belongs_to_the_run_of_the_flow_whose_row_shows_it(store):
    client, experiment = store.client(), store.experiment("TrainFlow")
    flow = client.create_run(experiment)
    task = client.create_run(experiment, tags={"mlflow.parentRunId": flow.info.run_id})
    for _ in range(2):
        assert open_flow_run(client, task).info.run_id == flow.info.run_id
    assert client.get_run(flow.info.run_id).data.tags["mlflow.log-model.history"] == "[]"
    assert open_flow_run(client, flow).info.run_id == flow.info.run_id


def test_artifact_is_complete_and_has_no_pickle(store):
    from mlflow.models import Model

    version = register()
    root = Path(store.client().get_model_version_download_uri("reviews", "1"))
    assert root.is_relative_to(store.artifact_location)
    files = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    assert "data/files/model.safetensors" in files
    assert "input_example.json" in files
    assert not [name for name in files if Path(name).suffix in (".pkl", ".pickle", ".bin", ".pt", ".py")]
    asked = (root / "requirements.txt").read_text().splitlines()
    assert asked == [*list_requirements(find_task()), "-f wheels", f"dlpipe=={dlpipe.__version__}"]
    card = Model.load(str(root))
    assert card.model_id == version.model_id
    assert [column.name for column in card.signature.outputs] == [
        "predicted",
        "probability",
        "p_negative",
        "p_positive",
    ]


def test_requirements_are_exact_and_without_local_suffix():
    assert all(line.count("==") == 1 and "+" not in line for line in list_requirements(find_task()))


def test_same_weights_on_same_table_version_are_the_same_version(store):
    first = register()
    assert register() == first
    assert len(runs(store)) == 1


def test_other_weights_or_table_version_or_name_make_a_new_version(store):
    register()
    assert register(b"other").version == 2
    assert register(**{"delta.version": "1"}).version == 3
    assert register(name="others").version == 1
    assert register().version == 1


def test_challenger_is_the_one_registered_last(store):
    register()
    register(b"other")
    assert resolve("reviews@challenger").version == 2
    register()
    assert resolve("reviews@challenger").version == 1


def kill_before_change(number: int) -> None:
    """Register in this process, which is killed before its change ``number``."""
    from mlflow import MlflowClient

    kill_before_call(number, MlflowClient, CHANGES)
    register()


def test_killed_between_any_two_calls_the_next_try_ends_with_one_complete_version(tmp_path):
    import mlflow.pyfunc  # noqa: F401  (imported once here, not in each fork)

    register_in_fork = multiprocessing.get_context("fork").Process
    for number in range(1, 100):
        with untouched_environment():
            store = new_store(tmp_path / str(number))
            dying = register_in_fork(target=kill_before_change, args=(number,))
            dying.start()
            dying.join()
            version = register()
            (run,) = runs(store)
            client = store.client()
            assert (version.version, version.aliases) == (1, ("challenger",))
            assert len(client.search_model_versions("name = 'reviews'")) == 1
            assert run.info.status == "FINISHED"
            assert run.data.metrics == {"test_accuracy": 0.9}
            (logged,) = client.search_logged_models([run.info.experiment_id])
            assert (logged.status, logged.model_id) == ("READY", version.model_id)
            assert [(point.key, point.value) for point in logged.metrics] == [("test_accuracy", 0.9)]
            assert (Path(logged.artifact_location) / "data/files/model.safetensors").read_bytes() == b"weights"
        if dying.exitcode == 0:
            break
    assert number > len(CHANGES)


def test_four_processes_register_the_same_model_once(store):
    import mlflow.pyfunc  # noqa: F401

    racing = [multiprocessing.get_context("fork").Process(target=register) for _ in range(4)]
    for process in racing:
        process.start()
    for process in racing:
        process.join()
    assert [process.exitcode for process in racing] == [0] * 4
    assert register().version == 1
    assert len(runs(store)) == 1


def test_failure_leaves_a_failed_run_that_the_next_try_finishes(store):
    class Unwritable(TextModel):
        def save(self, folder):
            raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        register(model=Unwritable(text_model().files))
    assert [run.info.status for run in runs(store)] == ["FAILED"]
    assert register().version == 1
    assert [run.info.status for run in runs(store)] == ["FINISHED"]


def test_given_run_is_used_and_left_open(store, monkeypatch):
    client = store.client()
    given = client.create_run(store.experiment("flows")).info.run_id
    client.log_param(given, "epochs", "7")
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    version = register()
    register()
    (run,) = runs(store)
    assert (version.run_id, run.info.status) == (given, "RUNNING")
    assert run.data.params == {"epochs": "7"}
    assert run.data.metrics == {"test_accuracy": 0.9}
    assert KEY not in run.data.tags
    assert len(client.get_metric_history(given, "test_accuracy")) == 1
    assert os.environ["MLFLOW_RUN_ID"] == given


def test_repeat_under_another_given_run_links_the_same_version(store, monkeypatch):
    first = register()
    given = store.client().create_run(store.experiment("flows")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    assert register() == first
    run = store.client().get_run(given)
    assert [output.model_id for output in run.outputs.model_outputs] == [first.model_id]
    assert run.data.metrics == {"test_accuracy": 0.9}


def test_champion_moves_once_and_only_when_the_gate_passes(store):
    first, second = register(), register(b"other")
    assert find_champion("reviews") is None
    assert str(promote(first, verdict_passed=False)) == "champion of reviews stays none"
    assert str(promote(first, verdict_passed=True)) == "champion of reviews moves from none to v1"
    assert str(promote(first, verdict_passed=True)) == "champion of reviews is v1 already"
    assert str(promote(second, verdict_passed=False)) == "champion of reviews stays v1"
    moved = promote(second, verdict_passed=True)
    assert (moved.moved, moved.previous, moved.version.aliases) == (True, 1, ("challenger", "champion"))
    assert find_champion("reviews") == moved.version
    assert find_champion("unknown") is None


def test_version_is_found_by_every_form_of_its_uri(store):
    version = promote(register(), verdict_passed=True).version
    for uri in ("models:/reviews/1", "models:/reviews@champion", "reviews@challenger", "reviews/1", "reviews"):
        assert resolve(uri) == version


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("models:/review@champion", "No model 'review' is registered; there are reviews."),
        ("models:/reviews@champoin", "no alias 'champoin'; it has challenger (v2)"),
        ("models:/reviews/9", "no version 9; it has 1, 2"),
        ("models:/it's/1", 'No model "it\'s" is registered'),
        ("models:/a/b/c", "names no model"),
        ("caf\udce9", "names no model"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(store, uri, words):
    register()
    register(b"other")
    with pytest.raises(ModelNotFound) as caught:
        resolve(uri)
    assert words in str(caught.value)


def test_name_that_no_uri_can_hold_is_refused(store):
    with pytest.raises(SettingError, match="cannot name a model"):
        register(name="a/b")
    assert runs(store) == []


def test_registering_changes_no_global_of_mlflow(store):
    import mlflow

    mlflow.set_tracking_uri("sqlite:////nowhere/else.db")
    os.environ["MLFLOW_TRACKING_URI"] = store.uri
    register()
    assert mlflow.active_run() is None
    assert mlflow.get_tracking_uri() == "sqlite:////nowhere/else.db"
    assert os.environ["MLFLOW_TRACKING_URI"] == store.uri
