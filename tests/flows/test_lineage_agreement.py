"""The graph from MLflow alone against that from Metaflow and Delta alone: each kind of difference made by hand."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from made_up_lineage import History
from mlflow import MlflowClient
from stores import keep_runs_in, untouched_environment

from dlpipe.bridge import sync
from dlpipe.lineage import Records, check_records

FLOW = """
import sys

from metaflow import FlowSpec, current, step

sys.path.insert(0, TESTS)


class TrainFlow(FlowSpec):
    @step
    def start(self):
        from dlpipe.tables import Sources, ingest
        from dlpipe.task.text_classification import TextClassData

        self.rows = ingest(Sources(data="films.csv"), "reviews", settings=TextClassData()).table
        self.next(self.train)

    @step
    def train(self):
        self.trained_by = current.pathspec
        self.next(self.register)

    @step
    def register(self):
        import mlflow
        from dlpipe.registry import KIND, MADE_FROM, resolve

        if FAIL:
            raise ValueError("fails")
        client = mlflow.MlflowClient()
        lineage = {"delta.table": self.rows.path, "delta.version": str(self.rows.version)}
        lineage |= {"metaflow.pathspec": self.trained_by, "metaflow.attempt": "0"}
        lineage |= {"metaflow.task": f"{current.pathspec}/0"}
        experiment = client.get_experiment_by_name("Default").experiment_id

        def make(name, tags):
            if not client.search_registered_models(f"name = '{name}'"):
                client.create_registered_model(name)
            logged = client.create_logged_model(experiment, name=name).model_id
            made = client.create_model_version(
                name, "nowhere", tags={**lineage, "dlpipe.model_id": logged, **tags}, model_id=logged
            )
            return resolve(f"models:/{name}/{made.version}")

        self.model = make("reviews", {})
        self.pipeline = make("reviews-pipeline", {MADE_FROM: self.model.uri, KIND: "pipeline"})
        self.next(self.predict)

    @step
    def predict(self):
        from made_up_lineage import list_ids, make_key, make_origin
        import pyarrow as pa
        from datetime import UTC, datetime
        from dlpipe.tables import write_table

        ids = list_ids(self.rows)[:5]
        columns = {
            "row_id": ids,
            "predicted": ["positive"] * 5,
            **make_origin(self.model, self.rows, 5),
            "scored_at": pa.array([datetime.now(UTC)] * 5, pa.timestamp("us", "UTC")),
        }
        self.answers = write_table(
            "reviews_predictions", pa.table(columns), key=make_key(self.model, self.rows, split="*")
        )
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    TrainFlow()
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A failed run and one that resumed it, both in MLflow."""
    with pytest.MonkeyPatch.context() as patch, untouched_environment():
        folder = tmp_path_factory.mktemp("agreement")
        patch.chdir(folder)
        keep_runs_in(folder, patch)
        history = History(folder)
        history.ingest("Nobody/1")
        shutil.rmtree(folder / "tables")
        for fail, words in ((True, ["run"]), (False, ["resume"])):
            flow = FLOW.replace("TESTS", repr(str(Path(__file__).parents[1]))).replace("FAIL", str(fail))
            (folder / "train_flow.py").write_text(flow)
            command = [sys.executable, "train_flow.py", *words]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == int(fail), done.stdout + done.stderr
        sync()
        yield folder


@pytest.fixture
def kept(made: Path) -> Iterator[Path]:
    """What is changed by hand is as it was afterwards."""
    copy_database(made / "mlflow.db", made / "kept.db")
    shutil.copytree(made / "tables", made / "kept-tables")
    yield made
    copy_database(made / "kept.db", made / "mlflow.db")
    shutil.rmtree(made / "tables")
    shutil.move(made / "kept-tables", made / "tables")


def copy_database(source: Path, target: Path) -> None:
    """Copy by SQLite's own means: this process has the file open."""
    with sqlite3.connect(source) as read, sqlite3.connect(target) as written:
        read.backup(written)
    read.close()
    written.close()


def list_problems() -> list[str]:
    return [str(finding) for finding in check_records(Records())]


def write(statement: str, *values: object) -> None:
    with sqlite3.connect("mlflow.db") as database:
        done = database.execute(statement, values)
        assert done.rowcount > 0
    database.close()


def find_runs() -> list[str]:
    runs = (place.name for place in Path(".metaflow/TrainFlow").iterdir() if place.name.isdigit())
    return [f"TrainFlow/{run}" for run in sorted(runs)]


def find_entry(key: str) -> str:
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (entry,) = client.search_runs(experiments, f"tags.`metaflow.key` = '{key}'")
    return str(entry.info.run_id)


def test_what_flows_and_the_bridge_leave_agrees(made: Path) -> None:
    assert list_problems() == []


def test_versions_whose_tags_another_program_wrote_are_of_no_run(kept: Path) -> None:
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    client.create_registered_model("theirs")
    for value in ("nightly", find_runs()[1]):
        tags = {"metaflow.pathspec": value, "metaflow.task": value}
        client.create_model_version("theirs", "nowhere", tags=tags)
    assert list_problems() == []


def move_task(runs: list[str]) -> str:
    keys = MlflowClient(os.environ["MLFLOW_TRACKING_URI"]).search_runs(
        [e.experiment_id for e in MlflowClient(os.environ["MLFLOW_TRACKING_URI"]).search_experiments()],
        f"tags.`metaflow.run` = '{runs[1]}'",
    )
    entry = next(run for run in keys if run.data.tags["metaflow.key"].count("/predict/"))
    write(
        "UPDATE tags SET value = ? WHERE key = 'mlflow.parentRunId' AND run_uuid = ?",
        find_entry(runs[0]),
        entry.info.run_id,
    )
    task = entry.data.tags["metaflow.key"].rpartition("/")[0]
    return f"differs: {task}: MLflow says that it is part of {runs[0]}, and Metaflow and Delta do not"


def forget_origin(runs: list[str]) -> str:
    write("DELETE FROM tags WHERE key = 'metaflow.origin' AND run_uuid = ?", find_entry(runs[1]))
    return f"differs: {runs[1]}: Metaflow and Delta say that it was resumed from {runs[0]}, and MLflow does not"


def change_trained_on(runs: list[str]) -> str:
    write("UPDATE model_version_tags SET value = '7' WHERE key = 'delta.version' AND name = 'reviews'")
    return "differs: models:/reviews/1: MLflow says that it was trained on reviews@v7, and Metaflow and Delta"


def forget_trained_on(runs: list[str]) -> str:
    write("DELETE FROM model_version_tags WHERE key LIKE 'delta.%' AND name = 'reviews'")
    return "differs: models:/reviews/1: Metaflow and Delta say that it was trained on reviews@v0, and MLflow"


def forget_classifier(runs: list[str]) -> str:
    write("DELETE FROM model_version_tags WHERE key = 'dlpipe.classifier'")
    return (
        "differs: models:/reviews-pipeline/1: Metaflow and Delta say that it was made from models:/reviews/1, "
        "and MLflow does not"
    )


def change_maker(runs: list[str]) -> str:
    change = "UPDATE model_version_tags SET value = replace(value, ?, ?) WHERE key LIKE 'metaflow.%'"
    write(f"{change} AND name = 'reviews'", runs[1], runs[0])
    return f"missing: models:/reviews/1: its tags name {runs[0]}, which does not say that it made it"


def forget_dataset(runs: list[str]) -> str:
    write("DELETE FROM inputs WHERE destination_id = ? AND source_type = 'DATASET'", find_entry(runs[1]))
    return f"differs: {runs[1]}: Metaflow and Delta say that it used reviews@v0"


def forget_scoring_model(runs: list[str]) -> str:
    write("DELETE FROM inputs WHERE source_type = 'RUN_OUTPUT'")
    return (
        f"differs: {runs[1]}: Metaflow and Delta say that it scored or explained with models:/reviews/1, "
        "and MLflow does not"
    )


def forget_run(runs: list[str]) -> str:
    for run in runs:
        write("DELETE FROM tags WHERE key = 'metaflow.run' AND value = ?", run)
    return f"differs: {runs[0]}: Metaflow and Delta know it, and MLflow does not"


def change_commit(runs: list[str]) -> str:
    commit = Path("tables/reviews_predictions/_delta_log/00000000000000000000.json")
    commit.write_text(commit.read_text().replace("models:/reviews/1", "models:/reviews-other/1"))
    return f"differs: {runs[1]}: Metaflow and Delta say that it scored or explained with models:/reviews-other/"


@pytest.mark.parametrize(
    "change",
    [
        move_task,
        forget_origin,
        change_trained_on,
        forget_trained_on,
        forget_classifier,
        change_maker,
        forget_dataset,
        forget_scoring_model,
        forget_run,
        change_commit,
    ],
)
def test_a_difference_between_the_two_is_listed(change: Callable[[list[str]], str], kept: Path) -> None:
    expected = change(find_runs())
    found = list_problems()
    assert [text for text in found if text.startswith(expected)], found


def test_a_run_that_somebody_deleted_in_mlflow_is_no_difference(kept: Path) -> None:
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    client.delete_run(find_entry(find_runs()[0]))
    assert not [text for text in list_problems() if text.startswith("differs")]
