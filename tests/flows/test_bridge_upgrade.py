"""An MLflow database that the mirror of the last release has written, synced with this one."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import DatasetInput, Run
from servers import SHAPES, Folder
from stores import copy_database

pytestmark = pytest.mark.long

HERE = Path(__file__).resolve().parents[2]
LAST_RELEASE = "9557efd"
"""The commit before numbers inside artifacts were metrics."""
FLOW = '''
from dataclasses import dataclass

from metaflow import FlowSpec, JSONType, Parameter, catch, retry, step


@dataclass(frozen=True)
class Table:
    path: str
    version: int
    digest: str
    rows: int


@dataclass(frozen=True)
class Model:
    name: str
    version: int
    uri: str


class KeptFlow(FlowSpec):
    """Score three folds.

    Nothing is trained.
    """

    rate = Parameter("rate", type=float, default=None)
    settings = Parameter("settings", type=JSONType, default='{"layers": {"n": 2}}')

    @step
    def start(self):
        self.data = Table("tables/reviews", 3, "abc", 100)
        self.params = {"rate": 0.1, "head": {"layers": 2}}
        self.at = [0, 1, 2]
        self.next(self.fold, foreach="at")

    @retry(times=1, minutes_between_retries=0)
    @step
    def fold(self):
        from metaflow import current

        if self.input == 1 and current.retry_count == 0:
            raise ValueError("the first attempt fails")
        self.f1 = 0.5 + self.input / 10
        self.scores = {"accuracy": 0.25 + self.input / 4}
        self.next(self.join)

    @step
    def join(self, inputs):
        self.merge_artifacts(inputs, include=["data", "params"])
        self.epochs = [{"epoch": at, "loss": 1 / at} for at in (1, 2, 3)]
        self.next(self.evaluate)

    @catch(var="caught", print_exception=False)
    @step
    def evaluate(self):
        self.evaluation = {"metrics": {"accuracy": 0.875, "f1": 0.75}, "rows": 12, "note": "fine"}
        self.verdict = {"passed": True, "reason": "accuracy 0.875 is above 0.8"}
        self.model = Model("reviews", 2, "models:/reviews/2")
        self.next(self.end)

    @step
    def end(self):
        self.rows = 12


if __name__ == "__main__":
    KeptFlow()
'''


@dataclass(frozen=True)
class OldFolder(Folder):
    """A folder in which runs were made and mirrored by the last release."""

    python: str = ""

    def old(self, *words: str) -> str:
        done = self.command(self.python, *words)
        assert done.code == 0, done.said
        return done.said


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> OldFolder:
    """A folder, with a Python whose dlpipe is that of the last release."""
    place = tmp_path_factory.mktemp("upgrade")
    git = ("git", "-C", str(HERE))
    known = subprocess.run(
        [*git, "cat-file", "-e", f"{LAST_RELEASE}^{{commit}}"], capture_output=True, check=False
    )
    if known.returncode:
        pytest.skip(f"git has no commit {LAST_RELEASE} here: the code of the last release is not to be had")
    old = place / "old"
    old.mkdir()
    packed = subprocess.run(
        [*git, "archive", LAST_RELEASE, "dlpipe", "metaflow_extensions"], stdout=subprocess.PIPE, check=True
    )
    subprocess.run(["tar", "-x", "-C", str(old)], input=packed.stdout, check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place / "venv")], check=True)
    packages = next((place / "venv" / "lib").glob("python*/site-packages"))
    # a path in such a file is searched without the files like it that lie there: not today's dlpipe
    (packages / "old.pth").write_text(f"{old}\n{sysconfig.get_path('purelib')}\n")
    work = copy_database(place / "work")
    (work / ".metaflow").mkdir()
    made = OldFolder(work, python=str(place / "venv" / "bin" / "python"))
    where = made.old("-c", "import dlpipe, metaflow_extensions as m; print(dlpipe.__file__, list(m.__path__))")
    assert where.count(f"{old}/") == 2
    assert f"{HERE}/dlpipe" not in where
    assert f"{HERE}/metaflow_extensions" not in where
    return made


@dataclass(frozen=True)
class Held:
    """All that MLflow holds of one run."""

    name: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    points: frozenset[tuple[str, float, int, int]]
    files: Mapping[str, bytes]
    datasets: frozenset[str]


def read(client: MlflowClient, run: Run) -> Held:
    points = frozenset(
        (point.key, point.value, point.step, point.timestamp)
        for key in run.data.metrics
        for point in client.get_metric_history(run.info.run_id, key)
    )
    root = Path(run.info.artifact_uri.removeprefix("file://"))
    files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    datasets = frozenset(one.dataset.name for one in run.inputs.dataset_inputs)
    return Held(run.info.run_name, run.data.params, run.data.tags, points, files, datasets)


def read_all(folder: Folder, flow: str) -> dict[str, tuple[Run, Held]]:
    """Return what MLflow holds of all runs of a flow, by key."""
    client = folder.client()
    experiment = client.get_experiment_by_name(flow)
    assert experiment
    runs = client.search_runs([experiment.experiment_id])
    return {run.data.tags["metaflow.key"]: (run, read(client, run)) for run in runs}


def find(held: Mapping[str, tuple[Run, Held]], step: str) -> tuple[Run, Held]:
    """Return the last attempt of the first task of a step, or the run itself."""
    keys = [key for key in sorted(held) if key.split("/")[2:3] == ([step] if step else [])]
    return held[keys[0]]


def add_what_people_add(folder: Folder, held: Mapping[str, tuple[Run, Held]]) -> None:
    """Name, describe, tag, measure and attach, also under names that this release writes."""
    client = folder.client()
    (top, was), (evaluate, _), (fold, _) = (find(held, step) for step in ("", "evaluate", "fold"))
    client.update_run(top.info.run_id, name="the one we shipped")
    client.set_tag(top.info.run_id, "verdict", "ship it")
    client.set_tag(
        top.info.run_id, "mlflow.note.content", was.tags["mlflow.note.content"] + "\n\nAna: looks good."
    )
    client.log_metric(top.info.run_id, "by_hand", 0.5)
    client.log_param(top.info.run_id, "reviewer", "ana")
    client.log_text(top.info.run_id, "dear all", "letters/to_all.txt")
    frame = __import__("pandas").DataFrame({"text": ["a"]})
    client.log_inputs(top.info.run_id, [DatasetInput(from_pandas(frame, name="by hand")._to_mlflow_entity(), [])])
    client.update_run(fold.info.run_id, name="the odd fold")
    # what this release would write under the same names
    client.set_tag(evaluate.info.run_id, "mlflow.note.content", "Ana: too few rows.")
    client.log_metric(evaluate.info.run_id, "evaluation/accuracy", 0.5)
    client.log_param(evaluate.info.run_id, "evaluation/note", "poor")
    client.log_param(top.info.run_id, "head/layers", "7")


@pytest.fixture(scope="module")
def before(folder: OldFolder) -> dict[str, tuple[Run, Held]]:
    """A run of the last release, and what people have added to it since."""
    script = folder.folder / "kept_flow.py"
    script.write_text(FLOW)
    folder.old(str(script), "run", "--with", "mlflow_bridge")
    folder.wait_until_nothing_is_behind()
    fresh = read_all(folder, "KeptFlow")
    was = find(fresh, "")[1]
    assert was.params["rate"] == "None"
    assert (was.points, was.datasets, find(fresh, "evaluate")[1].points) == (frozenset(), frozenset(), frozenset())
    add_what_people_add(folder, fresh)
    return read_all(folder, "KeptFlow")


@pytest.fixture(scope="module")
def after(folder: OldFolder, before: dict[str, tuple[Run, Held]]) -> dict[str, tuple[Run, Held]]:
    """The same run, synced by this release."""
    assert "metric evaluate/evaluation/accuracy" in folder.bridge("check", "KeptFlow", code=1)
    folder.bridge("sync")
    assert folder.bridge("check", "KeptFlow") == "0 differences\n"
    return read_all(folder, "KeptFlow")


def test_nothing_that_stood_there_is_gone(
    before: dict[str, tuple[Run, Held]], after: dict[str, tuple[Run, Held]]
) -> None:
    assert after.keys() == before.keys()
    for key, (_, old) in before.items():
        new = after[key][1]
        assert old.points <= new.points, key
        assert old.params.items() <= new.params.items(), key
        assert old.datasets <= new.datasets, key
        assert old.files.keys() <= new.files.keys(), key
        gone = old.tags.keys() - new.tags.keys()
        assert gone <= {"metaflow.digest", "metaflow.tags"}, key


def test_what_people_added_is_as_they_left_it(
    before: dict[str, tuple[Run, Held]], after: dict[str, tuple[Run, Held]]
) -> None:
    (_, top), (_, evaluate), (_, fold) = (find(after, step) for step in ("", "evaluate", "fold"))
    assert (top.name, fold.name) == ("the one we shipped", "the odd fold")
    assert top.tags["verdict"] == "ship it"
    assert top.tags["mlflow.note.content"].endswith("\n\nAna: looks good.")
    assert top.tags["mlflow.note.content"] == find(before, "")[1].tags["mlflow.note.content"]
    assert (top.params["reviewer"], top.files["letters/to_all.txt"]) == ("ana", b"dear all")
    assert evaluate.tags["mlflow.note.content"] == "Ana: too few rows."
    assert (evaluate.params["evaluation/note"], top.params["head/layers"]) == ("poor", "7")


def test_the_run_has_what_this_release_shows(after: dict[str, tuple[Run, Held]]) -> None:
    (_, top), (_, evaluate), (_, join), (_, start) = (
        find(after, step) for step in ("", "evaluate", "join", "start")
    )
    points = {(key, step): value for key, value, step, _ in top.points}
    assert points["evaluate/evaluation/accuracy", 0] == 0.875
    assert [points["fold/f1", at] for at in range(3)] == [0.5, 0.6, 0.7]
    assert points["fold/accuracy/max", 0] == 0.75
    assert {name for name in top.datasets if name != "by hand"} == {"reviews@v3"}
    assert top.params["settings/layers/n"] == "2"
    # where the last release, or a person, has a parameter of the name, which MLflow never changes
    assert (top.params["metaflow/rate"], top.params["metaflow/head/layers"]) == ("0.1", "2")
    assert evaluate.params["metaflow/evaluation/note"] == "fine"
    values = {(key, value) for key, value, _, _ in evaluate.points}
    assert values >= {("evaluation/accuracy", 0.875), ("evaluation/accuracy", 0.5), ("evaluation/rows", 12.0)}
    losses = sorted((step, value) for key, value, step, _ in join.points if key == "epochs/loss")
    assert losses == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert "Data: reviews v3 (100 rows)" in start.tags["mlflow.note.content"]
    assert start.name == "1 start"


def test_a_second_sync_writes_nothing(folder: OldFolder, after: dict[str, tuple[Run, Held]]) -> None:
    assert folder.bridge("sync", "KeptFlow").endswith(f"{len(after)} records, 0 differences written\n")
    assert read_all(folder, "KeptFlow").keys() == after.keys()


def test_descriptions_that_nobody_has_touched_are_those_of_this_release(folder: OldFolder) -> None:
    """Of a run with a retry, a foreach of more than 50 tasks, cards and logs."""
    folder.old(str(SHAPES / "tour_flow.py"), "run", "--with", "mlflow_bridge", "--fan-out", "51")
    folder.wait_until_nothing_is_behind()
    before = read_all(folder, "TourFlow")
    folder.bridge("sync", "TourFlow")
    assert folder.bridge("check", "TourFlow") == "0 differences\n"
    after = read_all(folder, "TourFlow")
    top, spread = find(after, "")[1], find(after, "spread")[1]
    assert find(before, "")[1].tags["mlflow.note.content"].startswith("Count words in two ways.")
    assert top.tags["mlflow.note.content"].startswith("**Tried again:** `left`")
    assert top.name.startswith("TourFlow \N{MIDDLE DOT} ")
    assert spread.name == "6 spread (51 tasks)"
    assert len({step for key, _, step, _ in top.points if key == "spread/square"}) == 51
    for key, (_, old) in before.items():
        assert old.points <= after[key][1].points, key
        assert old.files.keys() <= after[key][1].files.keys(), key
