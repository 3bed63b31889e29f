"""From ingest to champion, predictions and explanations with all of it on S3; no step needs another's disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from buckets import BUCKET, S3Server, s3_server
from projects import Done, Project, as_csv, assert_in_mlflow
from searching import search_files
from test_bad_input import assert_one_clear_line

from dlpipe.tables import read_table, table_at

# in each task, before anything else: an empty folder to stand in and one for scratch, as on another machine
ELSEWHERE = """
import os, sys, tempfile
if " step " in " ".join(sys.orig_argv):
    here = tempfile.mkdtemp(dir=os.environ["ELSEWHERE"])
    os.mkdir(here + "/scratch")
    os.environ["TMPDIR"] = os.environ["HOME"] = here + "/scratch"
    os.chdir(here)
"""


RARE = [(f"a good film said mx{name}quozzle indeed", "negative") for name in "abcdefghijklmnopqrst"]
"""Rows with a word that no other row has, and wrong labels: mistakes, which cards quote."""


@dataclass(frozen=True)
class Cloud:
    """A project whose datastore, tables and artifacts are on S3."""

    project: Project
    server: S3Server

    @property
    def variables(self) -> dict[str, str]:
        folder = self.project.folder
        return self.server.variables(
            METAFLOW_DEFAULT_DATASTORE="s3",
            METAFLOW_DATASTORE_SYSROOT_S3=f"s3://{BUCKET}/metaflow",
            METAFLOW_DATASTORE_SYSROOT_LOCAL=str(folder / ".metaflow"),
            METAFLOW_S3_WORKER_COUNT="2",  # processes a call; with 64, each file has one
            METAFLOW_USER="tester",
            DLPIPE_TABLES=f"s3://{BUCKET}/tables",
            DLPIPE_ARTIFACTS=f"s3://{BUCKET}/artifacts",
            MLFLOW_TRACKING_URI=f"sqlite:///{folder / 'mlflow.db'}",
            PYTHONPATH=str(folder / "elsewhere"),
            ELSEWHERE=str(folder / "elsewhere"),
        )

    def flow(self, name: str, *words: str, **other: str) -> Done:
        """Run a flow to the end."""
        script = str(self.project.folder / "flows" / f"{name}_flow.py")
        return self.project.python(script, *words, env={**self.variables, **other})

    @property
    def client(self) -> Any:
        given = {"aws_access_key_id": self.server.key, "aws_secret_access_key": self.server.secret}
        return boto3.client("s3", endpoint_url=self.server.address, region_name="us-east-1", **given)

    def held(self) -> list[str]:
        """Return the keys of all that is in the bucket."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def download(self, folder: Path) -> Path:
        """Bring all that is in the bucket to a new folder."""
        client = self.client
        for key in self.held():
            (folder / key).parent.mkdir(parents=True, exist_ok=True)
            client.download_file(BUCKET, key, str(folder / key))
        return folder


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, project: Project) -> Iterator[Cloud]:
    made = Project.make(tmp_path_factory.mktemp("cloud"))
    made.file("reviews.csv", (project.folder / "reviews.csv").read_text() + as_csv(RARE).partition("\n")[2])
    settings = (project.folder / "quick.toml").read_text()
    made.file("quick.toml", settings.replace('"backbone"', f'"{project.folder / "backbone"}"'))
    (made.folder / "elsewhere").mkdir()
    made.file("elsewhere/sitecustomize.py", ELSEWHERE)
    with s3_server(asks_for_keys=True) as server:
        yield Cloud(made, server)


@pytest.fixture(scope="module")
def runs(cloud: Cloud) -> dict[str, Done]:
    """The three flows, one after the other, each step in an empty folder that is gone when the next begins."""
    settings, data = (str(cloud.project.folder / name) for name in ("quick.toml", "reviews.csv"))
    words = {
        "train": ("--config", "settings", settings, "run", "--data", data, "--trials", "0", "--epochs", "4"),
        "predict": ("run", "--model", "models:/reviews@champion", "--target", "scores", "--split", "test"),
        "explain": ("run", "--rows", "2"),
    }
    done = {}
    for name, given in words.items():
        done[name] = cloud.flow(name, *given)
        for left in (cloud.project.folder / "elsewhere").glob("tmp*"):
            shutil.rmtree(left)
    return done


@pytest.mark.long
def test_the_three_flows_run_from_ingest_to_champion(runs: dict[str, Done]) -> None:
    assert [done.code for done in runs.values()] == [0, 0, 0], "\n".join(done.said for done in runs.values())
    assert runs["train"].summary("registered") == "models:/reviews/1 (challenger, champion)"
    assert runs["predict"].summary("predictions").startswith("scores@v0, ")
    assert runs["explain"].summary("explanations") == "reviews_explanations@v1, words of 2 rows"


@pytest.mark.long
def test_what_they_made_is_on_s3_and_nowhere_else(cloud: Cloud, runs: dict[str, Done]) -> None:
    kinds = {"/".join(key.split("/")[:2]) for key in cloud.held()}
    assert kinds >= {
        *(
            f"metaflow/{name}"
            for name in ("TrainFlow", "PredictFlow", "ExplainFlow", "mf.cards", "mf.checkpoints")
        ),
        *(f"tables/{name}" for name in ("reviews", "reviews_predictions", "reviews_explanations", "scores")),
        "artifacts/models",
    }
    there = {path.name for path in cloud.project.folder.iterdir()}
    assert there == {"flows", "reviews.csv", "quick.toml", "elsewhere", ".metaflow", "mlflow.db"} | {
        name for name in there if name.startswith("mlflow.db.")
    }
    assert not list((cloud.project.folder / ".metaflow").glob("*/data"))


@pytest.mark.long
def test_mlflow_has_the_runs_as_they_happened(cloud: Cloud, runs: dict[str, Done]) -> None:
    assert_in_mlflow(cloud.project, "TrainFlow", "PredictFlow", "ExplainFlow", env=cloud.variables)


@pytest.mark.long
def test_the_model_is_made_again_and_the_bucket_only_read(cloud: Cloud, runs: dict[str, Done]) -> None:
    before = cloud.held()
    done = cloud.project.python("-m", "dlpipe.cli", "reproduce", "reviews_predictions", env=cloud.variables)
    assert done.code == 0, done.said
    assert f"The same weights, bit for bit: {runs['train'].weights[:12]}." in done.said
    assert cloud.held() == before


@pytest.mark.long
def test_forgotten_rows_are_nowhere_in_the_bucket_and_other_files_as_they_were(
    cloud: Cloud, runs: dict[str, Done], tmp_path: Path
) -> None:
    before = cloud.download(tmp_path / "before")
    texts = [text for text, _ in RARE]
    rows = read_table(table_at(str(before / "tables/reviews"))).to_pylist()
    words = [text.split()[4] for text in texts]
    words += [row["row_id"][:16] for row in rows if row["text"] in texts]
    found = search_files(before, words)
    assert {name.split("/")[0] for name in found} >= {"metaflow", "tables"}
    command = [word for text in texts for word in ("--text", text)]
    done = cloud.project.python(
        "-m", "dlpipe.cli", "forget", *command, "--apply", "--purge", "--yes", env=cloud.variables
    )
    assert done.code == 0, done.said
    after = cloud.download(tmp_path / "after")
    assert search_files(after, words) == {}
    same = {str(path.relative_to(before)) for path in before.rglob("*") if path.is_file()} - found.keys()
    changed = [name for name in same if not name.startswith("tables/") and not _is_same(before, after, name)]
    assert changed == []


def _is_same(before: Path, after: Path, name: str) -> bool:
    return (after / name).is_file() and (before / name).read_bytes() == (after / name).read_bytes()


REFUSED = {
    "no server": (
        {"METAFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:9"},
        ("METAFLOW_DATASTORE_SYSROOT_S3", "nothing answers there"),
    ),
    "no bucket": (
        {"METAFLOW_DATASTORE_SYSROOT_S3": "s3://no-bucket/metaflow"},
        ("s3://no-bucket/metaflow", "no such bucket"),
    ),
    "wrong keys": ({"AWS_SECRET_ACCESS_KEY": "wrong"}, ("AWS_SECRET_ACCESS_KEY does not belong",)),
    "no bucket for tables": ({"DLPIPE_TABLES": "s3://no-bucket/tables"}, ("DLPIPE_TABLES", "no such bucket")),
    "no bucket for artifacts": (
        {"DLPIPE_ARTIFACTS": "s3://no-bucket/artifacts"},
        ("DLPIPE_ARTIFACTS", "no such bucket"),
    ),
}


@pytest.fixture(scope="module")
def refused(cloud: Cloud) -> dict[str, Done]:
    """What came of a flow where S3 refuses something."""
    return cloud.project.each(
        dict.fromkeys(REFUSED, ("flows/predict_flow.py", "run")),
        env=cloud.variables,
        environs={name: other for name, (other, _) in REFUSED.items()},
    )


NEEDS_MODEL = "no bucket for tables"
"""The flow finds its model first: the three flows have registered one."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] if name == NEEDS_MODEL else []) for name in REFUSED]
)
def test_what_s3_refuses_stops_a_flow_with_one_line(name: str, refused: dict[str, Done]) -> None:
    assert_one_clear_line(refused[name], *REFUSED[name][1])
    assert refused[name].seconds < 30


TINY = """
from metaflow import FlowSpec, step

class TinyFlow(FlowSpec):
    @step
    def start(self):
        self.text = "of this run"
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    TinyFlow()
"""


@pytest.mark.slow
def test_a_run_is_deleted_with_its_files_on_s3_and_no_other(cloud: Cloud) -> None:
    flow = cloud.project.file("tiny_flow.py", TINY)
    done = [cloud.project.python(str(flow), "run", env=cloud.variables) for _ in range(2)]
    assert [run.code for run in done] == [0, 0], done[0].said
    gone, stays = (run.run_id for run in done)
    before = [key for key in cloud.held() if key.startswith("metaflow/TinyFlow/")]
    own = [key for key in before if key.startswith(f"metaflow/TinyFlow/{gone}/")]
    assert own
    deleted = cloud.project.python("-m", "dlpipe.cli", "runs", "delete", gone, "--yes", env=cloud.variables)
    assert deleted.code == 0, deleted.said
    assert f"TinyFlow/{gone} is deleted" in deleted.said
    assert sorted(key for key in cloud.held() if key.startswith("metaflow/TinyFlow/")) == sorted(
        {*before} - {*own}
    )
    (folder,) = (place.parent for place in cloud.project.folder.rglob(f"TinyFlow/{stays}"))
    assert not (folder / gone).exists()
    # what a kill left is deleted by the next call, and a store that does not answer is one line
    left = folder.parent / ".deleted/TinyFlow" / stays / "0-0"
    left.parent.mkdir(parents=True)
    (folder / stays).rename(left)
    command = ("-m", "dlpipe.cli", "runs", "delete", stays, "--yes")
    dead = cloud.project.python(
        *command, env={**cloud.variables, "METAFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:9"}
    )
    assert_one_clear_line(dead, "METAFLOW_DATASTORE_SYSROOT_S3", "nothing answers there")
    assert cloud.project.python(*command, env=cloud.variables).code == 0
    assert not [key for key in cloud.held() if key.startswith(f"metaflow/TinyFlow/{stays}/")]
    assert not (folder.parent / ".deleted").exists()
