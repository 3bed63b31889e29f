"""What a step logs to MLflow itself stands in that task's run, and what stands there can be used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import without_system
from mlflow import MlflowClient
from mlflow.entities import Run
from projects import warm_python
from stores import copy_database, plain_name
from test_bridge_runs import DLPIPE, SHAPES, Place, named

TRIALS = """
import sys

from ray import init, tune
from dlpipe.bridge.trials import TrialRuns


def attempt(config):
    for epoch in range(3):
        if config["lr"] == 3 and epoch == 1:
            raise ValueError("diverged")
        tune.report({"score": config["lr"] * (epoch + 1), "note": "words are no metric"})


init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
tuner = tune.Tuner(
    attempt,
    param_space={"lr": tune.grid_search([1, 2, 3])},
    run_config=tune.RunConfig(name="search", storage_path=sys.argv[1], verbose=0, callbacks=[TrialRuns()]),
)
tuner.fit()
tune.Tuner.restore(f"{sys.argv[1]}/search", trainable=attempt, resume_errored=True).fit()
"""
LIGHT = """
import sys
from metaflow import FlowSpec, mlflow_bridge, step


@mlflow_bridge
class LightFlow(FlowSpec):
    @step
    def start(self):
        self.heavy = [one for one in ("mlflow", "pandas", "dlpipe") if one in sys.modules]
        self.next(self.end)

    @step
    def end(self):
        print("heavy", self.heavy)


if __name__ == "__main__":
    LightFlow()
"""
SAID = """
import json
from metaflow import Flow, namespace

namespace(None)
run = Flow("LoggingFlow").latest_run
ours = [one for step in run for task in step for one in task.metadata_dict if "mlflow" in one.lower()]
print(json.dumps([run.pathspec, sorted(run.user_tags), ours]))
"""
SLIM = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AIR_NEW_OUTPUT": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(copy_database(tmp_path_factory.mktemp("logging")))


@pytest.fixture(scope="module")
def runs(place: Place) -> dict[str, Run]:
    """Every run in MLflow by name, after the flow that logs in all ways."""
    done = place.command(sys.executable, str(SHAPES / "logging_flow.py"), "run", "--with", "mlflow_bridge")
    assert done.returncode == 0, done.stdout
    return every_run(place.client())


def every_run(client: MlflowClient) -> dict[str, Run]:
    experiments = [one.experiment_id for one in client.search_experiments()]
    return {plain_name(one): one for one in client.search_runs(experiments)}


def parent(runs: dict[str, Run], name: str) -> str:
    above = runs[name].data.tags["mlflow.parentRunId"]
    (found,) = [plain_name(one) for one in runs.values() if one.info.run_id == above]
    return found


def test_what_is_logged_without_a_run_is_the_tasks_own(runs: dict[str, Run], place: Place) -> None:
    start = runs["start"]
    history = place.client().get_metric_history(start.info.run_id, "loss")
    assert [(one.value, one.step) for one in history if one.step] == [(0.5, 1), (0.25, 2)]
    assert 0.125 in [one.value for one in history]
    assert start.data.params["by_hand"] == "yes"
    assert start.data.params["metaflow/by_hand"] == "another value than the step's own"


def test_threads_and_child_processes_log_into_the_tasks_run(runs: dict[str, Run]) -> None:
    assert without_system(runs["threads"].data.metrics) == {
        "from_main": 1.0,
        "from_a_thread": 2.0,
        "from_a_process": 3.0,
    }


def test_the_first_run_of_an_attempt_is_its_own_and_later_ones_stand_under_it(runs: dict[str, Run]) -> None:
    assert runs["runs"].data.params == {"attempt": "0"}
    assert runs["runs"].info.status == "FAILED"
    again = runs["runs (attempt 2)"]
    assert again.data.params == {"attempt": "1"}
    assert again.data.tags["mine"] == "yes"
    assert {parent(runs, name) for name in ("second", "child 1", "child 2")} == {"runs (attempt 2)"}
    assert parent(runs, "inner").startswith("runs")
    assert "first" not in runs


def test_a_logger_that_asks_for_a_run_gets_the_tasks_own(runs: dict[str, Run]) -> None:
    assert without_system(runs["lightning"].data.metrics) == {"epoch_loss": 0.75}
    assert runs["lightning"].data.tags["logger"] == "lightning"
    assert "lit" not in runs


@pytest.fixture(scope="module")
def without_launcher(place: Place) -> float:
    """Steps that are run one by one, as on Argo and Step Functions; nothing stands beside them. When it ended."""
    bridged = ("--with", "mlflow_bridge", "--metadata", "local", "--datastore", "local")
    flow = (str(warm_python().bin / "python"), str(SHAPES / "quick_flow.py"), "--quiet", *bridged)
    for words in (
        ("init", "--run-id", "argo-77", "--task-id", "p0"),
        ("step", "start", "--run-id", "argo-77", "--task-id", "t1", "--input-paths", "argo-77/_parameters/p0"),
        ("step", "end", "--run-id", "argo-77", "--task-id", "t2", "--input-paths", "argo-77/start/t1"),
    ):
        done = place.command(*flow, *words)
        assert done.returncode == 0, done.stdout + done.stderr
    return time.monotonic()


def test_without_a_launcher_each_task_mirrors_the_run(place: Place, without_launcher: float) -> None:
    found = place.client().search_runs(
        [place.client().get_experiment_by_name("QuickFlow").experiment_id],
        "tags.`metaflow.run` = 'QuickFlow/argo-77'",
    )
    assert {one.info.status for one in found} == {"FINISHED"}
    assert len(found) == 3
    assert without_system(named({str(number): one for number, one in enumerate(found)}, "end").data.metrics) == {
        "share": 1 / 3
    }


def test_autolog_and_lightnings_own_logger_log_into_the_tasks_run(place: Place) -> None:
    python = str(warm_python().bin / "python")
    done = place.command(python, str(SHAPES / "auto_flow.py"), "run", "--with", "mlflow_bridge")
    assert done.returncode == 0, done.stdout
    client = place.client()
    experiment = client.get_experiment_by_name("AutoFlow")
    assert experiment
    found = {plain_name(one): one for one in client.search_runs([experiment.experiment_id])}
    assert found["start"].data.metrics["training_accuracy_score"] == 1.0
    assert found["start"].data.params["C"] == "1.0"
    assert without_system(found["light"].data.metrics) == {"loss": 0.5}
    assert found["light"].data.params == {"lr": "0.1"}
    assert len(found) == 4
    assert place.bridge("check", "AutoFlow") == "0 differences\n"


def test_check_finds_no_difference_after_all_this(runs: dict[str, Run], place: Place) -> None:
    assert place.bridge("check", "LoggingFlow") == "0 differences\n"
    assert {one.info.status for one in runs.values()} == {"FINISHED", "FAILED"}


def test_the_tasks_without_mlflow_import_nothing(place: Place) -> None:
    flow = place.folder / "light_flow.py"
    flow.write_text(LIGHT)
    done = place.command(sys.executable, str(flow), "run")
    assert "heavy []" in done.stdout, done.stdout
    assert (
        "LightFlow" in done.stdout.partition("MLflow ")[2]
    )  # where it stands, or on a busy machine how to catch up


def test_the_marks_say_where_a_run_stands_and_metaflows_tags_and_metadata_stay_as_they_were(
    runs: dict[str, Run], place: Place
) -> None:
    said = place.folder / "said.py"
    said.write_text(SAID)
    done = place.command(sys.executable, str(said))
    pathspec, tags, ours = json.loads(done.stdout.splitlines()[-1])
    assert (tags, ours) == ([], [])
    (top,) = [one for one in runs.values() if one.data.tags.get("metaflow.key") == pathspec]
    found = {one["record"]: one["run_id"] for one in json.loads(place.bridge("where", pathspec, "--json"))}
    assert found[pathspec] == top.info.run_id
    assert found[runs["meet"].data.tags["metaflow.key"]] == runs["meet"].info.run_id


def test_what_a_run_without_a_launcher_left_last_comes_with_a_sync(place: Place, without_launcher: float) -> None:
    time.sleep(max(0.0, without_launcher + 6 - time.monotonic()))  # until then, logs might still come
    place.bridge("sync", "QuickFlow/argo-77")
    assert place.bridge("check", "QuickFlow/argo-77") == "0 differences\n"


def test_watch_follows_runs_that_know_nothing_of_the_bridge(place: Place) -> None:
    done = place.command(str(warm_python().bin / "python"), str(SHAPES / "quick_flow.py"), "run")
    assert done.returncode == 0, done.stdout
    said = place.bridge("watch", "--rounds", "1", "--json")
    assert "QuickFlow" in [json.loads(line)["run"].partition("/")[0] for line in said.splitlines()]
    assert place.bridge("check", "QuickFlow") == "0 differences\n"
    assert place.bridge("watch", "--rounds", "1") == ""


@pytest.mark.long
def test_trials_are_runs_and_a_restored_search_goes_on_in_them(place: Place, tmp_path: Path) -> None:
    program = tmp_path / "trials.py"
    program.write_text(TRIALS)
    environment = {
        **place.environment,
        **SLIM,
        "MLFLOW_TRACKING_URI": f"sqlite:///{place.folder / 'mlflow.db'}",
        "MLFLOW_EXPERIMENT_NAME": "search",
    }
    command = [sys.executable, str(program), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "MLflow lacks" not in done.stdout + done.stderr, done.stderr
    experiment = place.client().get_experiment_by_name("search")
    assert experiment, done.stderr
    found = place.client().search_runs([experiment.experiment_id])
    assert sorted(one.data.params["lr"] for one in found) == ["1", "2", "3"]
    statuses = {one.data.params["lr"]: one.info.status for one in found}
    assert statuses == {"1": "FINISHED", "2": "FINISHED", "3": "FAILED"}
    (second,) = [one for one in found if one.data.params["lr"] == "2"]
    assert second.data.metrics == {"score": 6.0}
    points = place.client().get_metric_history(second.info.run_id, "score")
    assert [(one.step, one.value) for one in points] == [(1, 2.0), (2, 4.0), (3, 6.0)]


def test_the_commands_say_what_they_do(place: Place) -> None:
    done = subprocess.run([DLPIPE, "bridge", "--help"], env=dict(os.environ), capture_output=True, text=True)
    assert all(name in done.stdout for name in ("check", "status", "sync", "watch"))


def test_what_was_not_committed_stands_beside_the_commit(tmp_path: Path) -> None:
    place = Place(tmp_path)
    shutil.copy(SHAPES / "quick_flow.py", tmp_path)
    (tmp_path / "settings.txt").write_text("before\n")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *words], cwd=tmp_path, check=True)
    copy_database(tmp_path)
    (tmp_path / "settings.txt").write_text("after, with api_token=sk-0123456789\n")
    done = place.command(sys.executable, "quick_flow.py", "run", "--with", "mlflow_bridge")
    assert done.returncode == 0, done.stdout
    place.bridge("sync", "QuickFlow")
    assert place.bridge("check", "QuickFlow") == "0 differences\n"
    (top,) = [one for one in every_run(place.client()).values() if "mlflow.parentRunId" not in one.data.tags]
    assert "+after, with api_token=[redacted]" in place.text(top, "uncommitted.diff")
    assert top.data.tags["metaflow.git.uncommitted"] == "True"
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True, text=True).stdout
    assert top.data.tags["mlflow.source.git.commit"] == commit.strip()
