"""What the bridge writes into a real store beside what others have written there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from stores import new_store, untouched_environment

from dlpipe.bridge.apply import Mirror
from dlpipe.bridge.attempts import TaskAttempt
from dlpipe.bridge.contents import Contents, find_models
from dlpipe.bridge.records import NOTE, NOTE_MARK, Metric, Model, RunRecord
from dlpipe.bridge.snapshots import RunSnapshot
from dlpipe.bridge.steps import make_step_record
from dlpipe.bridge.totals import TaskTotals, make_run_totals, make_task_totals

RECORD = RunRecord("Flow/1", None, "Flow", "RUNNING", 1000, None, tags={NOTE: "so far"})


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    with untouched_environment():
        store = new_store(tmp_path)
        yield Mirror(store.client(), store.experiment("Flow"), "Flow/1")


def find_differences(mirror: Mirror, record: RunRecord) -> list[str]:
    """Return what is different to whoever looks for the first time."""
    mirror.refresh()
    return [difference.what for difference in mirror.compare(record)]


def test_a_number_that_the_step_has_logged_as_a_point_of_a_series_stands_beside_it(mirror: Mirror) -> None:
    mirror.write(RECORD)
    client, run_id = mirror._client, mirror.run_id("Flow/1")
    client.log_metric(run_id, "loss", 0.25, timestamp=1500, step=3)
    ended = replace(RECORD, status="FINISHED", end=2000, metrics=(Metric("loss", 0.25, 2000),))
    mirror.refresh()
    mirror.write(ended)
    assert find_differences(mirror, ended) == []
    assert {(one.step, one.value) for one in client.get_metric_history(run_id, "loss")} == {(0, 0.25), (3, 0.25)}


def test_a_name_and_a_description_that_people_give_while_the_run_goes_on_stay(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlpipe.bridge.apply.OLD_SECONDS", 0.0)
    mirror.write(RECORD)
    mirror.write(further := replace(RECORD, name="Flow v1", tags={NOTE: "further"}))
    client, run_id = mirror._client, str(mirror.run_id("Flow/1"))
    assert client.get_run(run_id).info.run_name == "Flow v1"
    assert client.get_run(run_id).data.tags[NOTE] == "further"
    client.update_run(run_id, name="the good one")
    client.set_tag(run_id, NOTE, "too few rows")
    ended = replace(further, name="Flow v2", tags={NOTE: "**Failed**"}, status="FAILED", end=2000)
    mirror.write(ended)
    held = client.get_run(run_id)
    assert (held.info.run_name, held.data.tags[NOTE]) == ("the good one", "too few rows")
    assert find_differences(mirror, ended) == []
    client.delete_tag(run_id, NOTE)
    assert find_differences(mirror, ended) == [f"tag {NOTE}", f"tag {NOTE_MARK}"]
    mirror.refresh()
    mirror.write(ended)
    assert client.get_run(run_id).data.tags[NOTE] == "**Failed**"


@pytest.mark.parametrize(
    ("note", "stays"),
    [
        ("Count.\n\n| a |\n| b |", False),
        ("Count.\n\n| a |\n\nAna: fine.", True),
        ("Ana: fine.\n\nCount.\n\n| a |", True),
        (" ", False),
    ],
)
def test_a_description_of_the_last_release_is_known_by_how_it_begins_and_ends(
    mirror: Mirror, note: str, stays: bool
) -> None:
    mirror.write(RECORD)
    client, run_id = mirror._client, str(mirror.run_id("Flow/1"))
    client.set_tag(run_id, NOTE, note)
    client.delete_tag(run_id, NOTE_MARK)
    mirror.refresh()
    mirror.write(replace(RECORD, tags={NOTE: "new"}, former_note=("Count.", "|")))
    assert client.get_run(run_id).data.tags[NOTE] == (note if stays else "new")


def test_a_number_that_one_task_of_a_foreach_has_under_another_name_too_counts_in_the_series() -> None:
    steps = {
        "start": {"type": "split-foreach", "next": ["fold"]},
        "fold": {"type": "linear", "next": ["join"]},
        "join": {"type": "join", "next": []},
    }
    folds = tuple(TaskAttempt(f"Flow/1/fold/{at}", 0, 0, 9, "FINISHED", place=f"[{at}]") for at in range(2))
    join = TaskAttempt("Flow/1/join/9", 0, 0, 9, "FINISHED")
    snapshot = RunSnapshot("Flow/1", 0, (), (), {"steps": steps}, {}, None, False, (*folds, join))
    path = ("last", "f1")
    told = TaskTotals(
        {"last": {"last/f1": 0.25}, "f1": {"f1": 0.5}}, held={"last": {path: 0.25}}, paths={"last/f1": path}
    )
    same = TaskTotals({"f1": {"f1": 0.75}}, held={"last": {path: 0.75}}, names=frozenset({"last", "f1"}))
    totals = {folds[0].key: told, folds[1].key: same, join.key: TaskTotals()}
    made = make_run_totals(snapshot, lambda task, names: totals[task.key])
    found = {(metric.key, metric.step): metric.value for metric in made.metrics}
    assert (found["fold/last/f1", 0], found["fold/last/f1", 1]) == (0.25, 0.75)
    assert found["fold/last/f1/mean", 0] == 0.5


def test_a_model_that_a_run_made_is_logged_once_however_soon_the_run_is_written_again(mirror: Mirror) -> None:
    mirror.write(RECORD)
    made = [mirror._client.create_logged_model(mirror.experiment_id, name=name).model_id for name in ("a", "b")]
    first, second = (Model(name, 1, "made", model_id) for name, model_id in zip("ab", made, strict=True))
    mirror.write(replace(RECORD, models=(first,)))
    mirror.write(replace(RECORD, models=(first,), tags={NOTE: "further"}))
    ended = replace(RECORD, models=(first, second), status="FINISHED", end=2000, tags={NOTE: "done"})
    mirror.write(ended)
    assert find_differences(mirror, ended) == []
    outputs = mirror._client.get_run(str(mirror.run_id("Flow/1"))).outputs.model_outputs
    assert sorted(output.model_id for output in outputs) == sorted(made)


def test_the_table_of_runs_names_a_version_that_existed_when_the_run_was_to_make_it() -> None:
    """The same weights are the same version: it belongs to the run that was first, where MLflow shows it alone."""
    first = "Flow/1/register/2/0"
    version = {"name": "reviews", "version": 1, "uri": "models:/reviews/1", "tags": {"metaflow.task": first}}
    (again,) = find_models(version, "model_version", "Flow/2/register/2/0", 1)
    (used,) = find_models(version, "scored_by", "Flow/2/predict/3/0", 1)
    (made,) = find_models(version, "model_version", first, 1)
    assert [(model.role, model.again) for model in (again, used, made)] == [
        ("used", True),
        ("used", False),
        ("made", False),
    ]
    run = replace(RECORD, models=(again, used))
    (entry,) = json.loads(run.all_tags["mlflow.log-model.history"])
    assert list(entry["flavors"]) == ["reviews v1"]
    for other in (replace(run, parent="Flow"), replace(RECORD, models=(used,)), replace(RECORD, models=(made,))):
        assert "mlflow.log-model.history" not in other.all_tags


def test_a_run_is_deleted_and_restored_with_the_runs_that_its_steps_have_made(mirror: Mirror) -> None:
    mirror.write(RECORD)
    client, parent = mirror._client, str(mirror.run_id("Flow/1"))
    for task in ("Flow/1/tune/2/0", "Flow/10/tune/2/0"):
        client.create_run(mirror.experiment_id, tags={"metaflow.task": task, "mlflow.parentRunId": parent})
    assert mirror.delete() == 2
    (other,) = client.search_runs([mirror.experiment_id])
    assert other.data.tags["metaflow.task"] == "Flow/10/tune/2/0"
    mirror.refresh()
    mirror.restore()
    assert len(client.search_runs([mirror.experiment_id])) == 3


@pytest.mark.parametrize(("points", "shown"), [(1, [1]), (2, [1, 2]), (201, [201])])
def test_the_points_of_a_curve_stand_at_their_places_in_a_run(points: int, shown: list[int]) -> None:
    steps = {"start": {"type": "linear", "next": []}}
    task = TaskAttempt("Flow/1/start/1", 0, 0, 9, "FINISHED")
    snapshot = RunSnapshot("Flow/1", 0, (), (), {"steps": steps}, {}, None, False, (task,))
    metrics = [Metric("epochs/loss", 1 / at, 9, at) for at in range(1, points + 1)]
    contents = Contents(
        metrics=[*metrics, Metric("rows", 5, 9)], numbers={"epochs": {"epochs/loss"}, "rows": {"rows"}}
    )
    made = make_run_totals(snapshot, lambda task, names: make_task_totals(contents, names))
    assert [metric.step for metric in made.metrics if metric.key == "start/epochs/loss"] == shown
    assert [(metric.step, metric.value) for metric in made.metrics if metric.key == "start/rows"] == [(0, 5)]


@dataclass(frozen=True)
class Trial:
    trial_id: str
    config: dict[str, int]


def test_a_trial_has_all_of_its_settings_though_mlflow_was_away_for_a_moment(mirror: Mirror) -> None:
    import mlflow

    from dlpipe.bridge.trials import TrialRuns

    client = mirror._client
    mlflow.set_tracking_uri(client.tracking_uri)
    trial = Trial("a", {f"setting_{at}": at for at in range(250)})
    runs = TrialRuns()
    runs.on_trial_start(0, [trial], trial)
    runs.on_trial_result(0, [trial], trial, {"training_iteration": 1, "loss": 0.5})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(TrialRuns, "_client", lambda self: MlflowClient("http://127.0.0.1:9"))
        patched.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        runs.on_trial_complete(0, [trial], trial)
    runs.on_trial_complete(0, [trial], trial)
    (run,) = client.search_runs(["0"])
    assert (len(run.data.params), run.data.metrics, run.info.status) == (250, {"loss": 0.5}, "FINISHED")


def test_a_step_of_many_tasks_says_that_what_they_report_is_not_shown() -> None:
    steps = {"fold": {"type": "linear", "next": []}}
    folds = tuple(TaskAttempt(f"Flow/1/fold/{at}", 0, 0, 9, "FINISHED", place=f"[{at}]") for at in range(60))
    snapshot = RunSnapshot("Flow/1", 0, (), (), {"steps": steps}, {}, None, False, folds)
    quiet, reporting = (make_step_record(snapshot, "fold", folds, 60, reporting=told) for told in (False, True))
    assert "metaflow.notes" not in quiet.tags
    assert reporting.tags["metaflow.notes"].startswith("points that the tasks report while they run are not shown")


def test_a_run_is_as_it_was_at_a_moment():
    steps = {"start": {"type": "start", "next": ["end"]}, "end": {"type": "end", "next": []}}
    tasks = (
        TaskAttempt("Flow/1/start/1", 0, 10, 20, "FINISHED"),
        TaskAttempt("Flow/1/end/2", 0, 30, 40, "FINISHED"),
    )
    run = RunSnapshot("Flow/1", 5, (), (), {"steps": steps}, {}, None, False, tasks)
    found = {at: [(task.step, task.status) for task in run.as_of(at).attempts] for at in (7, 15, 25, 35, 40)}
    assert found == {
        7: [],
        15: [("start", "RUNNING")],
        25: [("start", "FINISHED")],
        35: [("start", "FINISHED"), ("end", "RUNNING")],
        40: [("start", "FINISHED"), ("end", "FINISHED")],
    }
    assert [run.as_of(at).status for at in (7, 35, 40)] == ["RUNNING", "RUNNING", "FINISHED"]
    assert run.as_of(35).end is None
