"""Flows of all shapes, each run bare and with the bridge: Metaflow does the same, and MLflow has what it did."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from commands import without_system
from mlflow import MlflowClient
from projects import warm_python

from dlpipe.tracking import find_page

FOLDER = Path(__file__).with_name("shapes")
NOT_INHERITED = ("METAFLOW_", "MLFLOW_", "DLPIPE_", "PYTEST_")
PATIENCE = 120.0  # seconds for followers to end; they take a few on a quiet machine
SHAPES = {
    "linear": 0,
    "single": 0,
    "project": 0,
    "branch": 0,
    "conflict": 1,
    "nested_foreach": 0,
    "empty_foreach": 1,
    "foreach_failure": 1,
    "parallel": 0,
    "switch": 0,
    "retry": 0,
    "catch": 0,
    "exception": 1,
    "artifact": 1,
    "exit": 1,
    "scores": 0,
}
"""Exit codes by shape, those of Metaflow 2.19."""

READ = """
import json, pickle, sys
from hashlib import sha1
from metaflow import Run, Task, metadata, namespace


def value(artifact):
    try:
        data = artifact.data
        return f"{sha1(pickle.dumps(data)).hexdigest()} {repr(data)[:200]}"
    except Exception as error:  # of a class that is not here
        return f"{artifact.sha} {type(error).__name__}"


def log(task, stream):
    try:
        return getattr(task, stream)
    except UnicodeDecodeError as error:  # Metaflow's client takes UTF-8 only
        return repr(error.object)


def attempt(task, number):
    own = Task(task.pathspec, attempt=number)
    ok = [one.value for one in own.metadata if one.name == "attempt_ok"]
    found = {one.id: value(one) for one in own if not one.id.startswith("_")}
    return {"ok": ok, "artifacts": found, "stdout": log(own, "stdout"), "stderr": log(own, "stderr")}


def attempts(task):
    numbers = sorted({int(one.value) for one in task.metadata if one.name == "attempt"})
    place = task.metadata_dict.get("foreach-execution-path")
    return {"place": place, "attempts": [attempt(task, one) for one in numbers]}


def order(task):
    return json.dumps([task["place"], task], sort_keys=True)


told = {}
for path, run in (one.split("=") for one in sys.argv[1:]):
    metadata(f"local@{path}")
    namespace(None)
    told[run] = {one.id: sorted(map(attempts, one), key=order) for one in Run(run)}
print(json.dumps(told))
"""
CHECK = """
import json, sys
from dlpipe.bridge import check

print(json.dumps({run: [str(one) for one in check(run)] for run in sys.argv[1:]}))
"""


def plain(text: str) -> str:
    """Return a log without times, folders, and the numbers of runs, tasks and processes."""
    timeless = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ |\(pid \d+\)|\d{16}|\S+(?=/\.metaflow)", "", text)
    return re.sub(r"(/\w+/)\d+ ", r"\1N ", timeless)


@dataclass(frozen=True)
class Ended:
    """A run of a flow that has ended; ``steps`` is what Metaflow's client says of its tasks."""

    code: int
    said: str
    run: str
    steps: dict[str, list[dict[str, Any]]]

    @property
    def attempts(self) -> dict[str, list[tuple[str | None, list[list[str]]]]]:
        """Place of each task in its foreaches and the results of its attempts, by step."""
        return {
            step: [(task["place"], [one["ok"] for one in task["attempts"]]) for task in tasks]
            for step, tasks in self.steps.items()
        }

    def each(self, what: str) -> dict[str, list[list[Any]]]:
        """Return one thing of all attempts, by step."""
        return {
            step: [[one[what] for one in task["attempts"]] for task in all_] for step, all_ in self.steps.items()
        }

    @property
    def lines(self) -> Counter[str]:
        """What the launcher said, line by line: tasks beside each other take turns as they like."""
        return Counter(plain(self.said).splitlines())

    def logs(self, stream: str) -> Counter[str]:
        """Return what the attempts said, line by line, without what is different each time."""
        said = [(step, text) for step, tasks in self.each(stream).items() for task in tasks for text in task]
        return Counter(f"{step}: {line}" for step, text in said for line in plain(text).splitlines())


@dataclass(frozen=True)
class Place:
    """Two folders in which the same flows run: bare in one, with the bridge in the other."""

    bare: Path
    bridged: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
        path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"  # @parallel starts `python`
        return {**kept, "PATH": path, "METAFLOW_USER": "tester", "PYTHONUNBUFFERED": "1"}

    def start(self, folder: Path, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(warm_python().bin / "python"), *command],
            cwd=folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )

    def run(self, shape: str) -> tuple[tuple[int, str], tuple[int, str]]:
        """Run a flow in both folders at once, and return both exit codes with what was said."""
        flow = str(FOLDER / f"{shape}_flow.py")
        bare = self.start(self.bare, flow, "run")
        bridged = self.start(self.bridged, flow, "run", "--with", "mlflow_bridge")
        return ended(bare), ended(bridged)

    def answer(self, folder: Path, program: str, *words: str) -> dict[str, Any]:
        """Return the JSON that a program prints in one of the folders."""
        done = subprocess.run(
            [str(warm_python().bin / "python"), "-c", program, *words],
            cwd=folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def wait_for_followers(self) -> None:
        """Wait until they have written all; what one cannot write is left to whoever compares."""
        deadline = time.monotonic() + PATIENCE / 2
        while list(self.bridged.glob(".metaflow/*/*/_bridge/behind.json")) and time.monotonic() < deadline:
            time.sleep(0.2)


@dataclass(frozen=True)
class Pair:
    """One flow, run twice."""

    bare: Ended
    bridged: Ended


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("bare"), tmp_path_factory.mktemp("bridged"))


@pytest.fixture(scope="module")
def pairs(place: Place, request: pytest.FixtureRequest) -> dict[str, Pair]:
    """Both runs of the shapes that are asked for, read by one process."""
    launched = {shape: place.run(shape) for shape in dict.fromkeys(asked_for(request))}
    names = {shape: tuple(map(pathspec, both)) for shape, both in launched.items()}
    where = [place.bare, place.bridged] * len(names)
    runs = [run for both in names.values() for run in both]
    told = place.answer(place.bare, READ, *(f"{folder}={run}" for folder, run in zip(where, runs, strict=True)))
    return {
        shape: Pair(*(Ended(*one, run, told[run]) for one, run in zip(both, names[shape], strict=True)))
        for shape, both in launched.items()
    }


@pytest.fixture(scope="module")
def differences(place: Place, pairs: dict[str, Pair]) -> dict[str, list[str]]:
    """What ``dlpipe bridge check`` finds, by run."""
    place.wait_for_followers()
    return place.answer(place.bridged, CHECK, *(pair.bridged.run for pair in pairs.values()))


def asked_for(request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the shapes of the tests that will run: ``pytest -k switch`` runs no other flow."""
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.path == request.path and hasattr(item, "callspec"):
            yield item.callspec.params["shape"]


def ended(launcher: subprocess.Popen[str]) -> tuple[int, str]:
    """Return the exit code of a launcher, and what it said."""
    try:
        said, _ = launcher.communicate(timeout=PATIENCE)
    finally:
        launcher.kill()
    return launcher.returncode, said


def pathspec(launched: tuple[int, str]) -> str:
    """Return the run that a launcher talks of."""
    flow, run = re.search(r"executing (\w+)", launched[1]), re.search(r"run-id (\d+)", launched[1])
    assert flow, launched[1]
    assert run, launched[1]
    return f"{flow[1]}/{run[1]}"


def only_in_one(some: Counter[str], others: Counter[str]) -> list[str]:
    """Return the lines that the other has not, or not as often; a whole diff of long logs would take minutes."""
    return sorted(((some - others) + (others - some)).elements())


every_shape = pytest.mark.parametrize("shape", SHAPES)


@every_shape
def test_the_exit_code_is_the_same(shape: str, pairs: dict[str, Pair]) -> None:
    pair = pairs[shape]
    assert pair.bare.code == SHAPES[shape], pair.bare.said
    assert pair.bridged.code == SHAPES[shape], pair.bridged.said


@every_shape
def test_the_same_tasks_have_the_same_attempts(shape: str, pairs: dict[str, Pair]) -> None:
    assert pairs[shape].bridged.attempts == pairs[shape].bare.attempts


@every_shape
def test_the_artifacts_are_the_same(shape: str, pairs: dict[str, Pair]) -> None:
    assert pairs[shape].bridged.each("artifacts") == pairs[shape].bare.each("artifacts")


@every_shape
def test_tasks_and_launcher_say_the_same_but_for_where_the_run_stands_and_how_to_resume_it(
    shape: str, pairs: dict[str, Pair]
) -> None:
    bare, bridged = pairs[shape].bare, pairs[shape].bridged
    for stream in ("stdout", "stderr"):
        assert only_in_one(bare.logs(stream), bridged.logs(stream)) == []
    ours, *resume = only_in_one(bare.lines, bridged.lines)
    assert ours.startswith("MLflow ")
    assert [line.partition(":")[0] for line in resume] in ([], ["To resume this run, after a repair"])
    assert not (resume and bridged.code == 0)


@every_shape
def test_mlflow_holds_what_happened(
    shape: str, place: Place, pairs: dict[str, Pair], differences: dict[str, list[str]]
) -> None:
    bridged = pairs[shape].bridged
    assert differences[bridged.run] == []
    client = MlflowClient(f"sqlite:///{place.bridged / 'mlflow.db'}")
    experiments = [one.experiment_id for one in client.search_experiments()]
    (parent,) = client.search_runs(experiments, f"tags.`metaflow.key` = '{bridged.run}'")
    assert (parent.info.status == "FINISHED") == (bridged.code == 0)
    assert parent.info.status != "RUNNING"


def test_an_exception_that_was_caught_is_shown_where_a_person_sees_it(
    place: Place, pairs: dict[str, Pair], differences: dict[str, list[str]]
) -> None:
    if "catch" not in pairs:
        pytest.skip("the flow that catches was not asked for")
    client = MlflowClient(f"sqlite:///{place.bridged / 'mlflow.db'}")
    experiments = [one.experiment_id for one in client.search_experiments()]
    runs = client.search_runs(experiments, f"tags.`metaflow.run` = '{pairs['catch'].bridged.run}'")
    (parent,) = [one for one in runs if one.data.tags["metaflow.key"].count("/") == 1]
    caught = [one for one in runs if one is not parent and "metaflow.caught" in one.data.tags]
    assert caught
    for one in caught:
        assert one.info.run_name.endswith(" (exception caught)")
        assert (
            Path(client.download_artifacts(one.info.run_id, "traceback.txt")).read_text().startswith("Traceback")
        )
    assert parent.info.run_name.endswith(" (exception caught)")
    assert "**Caught by `@catch`:**" in parent.data.tags["mlflow.note.content"]


def test_numbers_stand_where_mlflow_can_compare_sort_and_draw_them(
    place: Place, pairs: dict[str, Pair], differences: dict[str, list[str]]
) -> None:
    if "scores" not in pairs:
        pytest.skip("the flow with scores was not asked for")
    run = pairs["scores"].bridged.run
    client = MlflowClient(f"sqlite:///{place.bridged / 'mlflow.db'}")
    experiments = [one.experiment_id for one in client.search_experiments()]
    of_run = f"tags.`metaflow.run` = '{run}'"
    (joined,) = client.search_runs(experiments, f"{of_run} and tags.`metaflow.step` = 'join'")
    (parent,) = client.search_runs(
        experiments, "metrics.`join/accuracy` > 0.5", order_by=["metrics.`join/accuracy`"]
    )
    assert parent.data.tags["metaflow.key"] == run
    first, second, *_ = parent.data.metrics  # as MLflow's page lists them
    assert {first, second} == {"join/accuracy", "join/by_class/good"}
    assert find_page(client, "ScoresFlow").endswith("/runs?workflowType=machine_learning&viewStateShareKey=dlpipe")
    view = client.get_experiment(parent.info.experiment_id).tags["mlflow.sharedViewState.dlpipe"]
    assert json.loads(view)["selectedColumns"][0] == "metrics.`join/accuracy`"

    assert without_system(joined.data.metrics) == {
        "accuracy": 0.875,
        "by_class/good": 0.5,
        "by_fold/f1": 0.75,
        "epochs/loss": 1 / 3,
        "epochs/inner/f1": 0.3,
        "summary/loss": 0.25,
        "summary/rows": 12,
        "summary/worst/loss": 1.5,
        "odd/a_u2f__u2f_b": 1,
    }
    own = {name: value for name, value in joined.data.params.items() if "/" in name or name in ("strategy",)}
    assert own == {
        "strategy": "freeze",
        "by_class/bad": "nan",
        "summary/note": "fine",
        "odd/x_u25_y": "inf",
        "odd/size": "about 2^1329",
        "odd/api_token": "[redacted]",
    }
    points = client.get_metric_history(joined.info.run_id, "epochs/loss")
    assert [(one.step, one.value) for one in points] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    curve = client.get_metric_history(parent.info.run_id, "join/epochs/loss")  # two runs are compared by theirs
    assert [(one.step, one.value) for one in curve] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert parent.data.metrics["join/epochs/loss"] == 1 / 3
    notes = joined.data.tags["metaflow.notes"]
    assert notes == "many: more than 200 numbers and texts: they are in the file alone"
    assert "artifacts/many.json" in [one.path for one in client.list_artifacts(joined.info.run_id, "artifacts")]

    folds = client.get_metric_history(parent.info.run_id, "fold/accuracy")
    assert [(one.step, round(one.value, 2)) for one in folds] == [
        (at, round(0.5 + at / 100, 2)) for at in range(12)
    ]
    of_folds = {name: round(parent.data.metrics[f"fold/accuracy/{name}"], 3) for name in ("mean", "min", "max")}
    assert of_folds == {"mean": 0.555, "min": 0.5, "max": 0.61}
    assert parent.data.params == {
        "folds": "12",
        "size": "1",
        "params/size": "2",
        "rate": "0.1",
        "head/layers": "2",
        "given/name": "first",
    }
    assert "s3cr3t" not in str(joined.data) + str(parent.data)
    rows = re.findall(r"^\| (\w+) \| \d", parent.data.tags["mlflow.note.content"], re.MULTILINE)
    assert rows == ["start", "fold", "join", "end"]


def test_what_a_step_has_only_looked_at_is_not_told_again(
    place: Place, pairs: dict[str, Pair], differences: dict[str, list[str]]
) -> None:
    if "scores" not in pairs:
        pytest.skip("the flow with scores was not asked for")
    run = pairs["scores"].bridged.run
    joined, ended_ = (summary_of(place.bridged, f"{run}/{step}") for step in ("join", "end"))
    assert joined != ended_  # so that a digest does not tell
    client = MlflowClient(f"sqlite:///{place.bridged / 'mlflow.db'}")
    experiments = [one.experiment_id for one in client.search_experiments()]
    (end,) = client.search_runs(experiments, f"tags.`metaflow.run` = '{run}' and tags.`metaflow.step` = 'end'")
    assert without_system(end.data.metrics) == {"looked_at": 12}
    assert list(json.loads(Path(client.download_artifacts(end.info.run_id, "artifacts.json")).read_text())) == [
        "looked_at"
    ]
    (parent,) = client.search_runs(experiments, f"tags.`metaflow.key` = '{run}'")
    assert {name for name in parent.data.metrics if name.startswith("end/")} == {"end/looked_at"}


def summary_of(folder: Path, step: str) -> str:
    """Return the digest that Metaflow has of the artifact ``summary`` of the only task of a step."""
    (file,) = (folder / ".metaflow").glob(f"{step}/*/_meta/0_artifact_summary.json")
    return str(json.loads(file.read_text())["sha"])
