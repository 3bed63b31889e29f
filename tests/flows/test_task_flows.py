"""Whole runs of the train flow for other tasks than text classification: each step knows the protocol alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from projects import Project, as_csv

from dlpipe.tables import TableVersion, read_table

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/characters"

SETTINGS = """
task = "character-classification"

[data]
data = "reviews.csv"

[training]
epochs = 8

[tuning]
trials = 2
epochs = 2

[search_space]
learning_rate = { low = 1e-2, high = 5e-2 }

[gate]
baseline_margin = 0.5

[explanation]
rows = 2
mistakes = 0
"""
USE = """
import json, mlflow
from dlpipe.inference import load_predictor
model = mlflow.pyfunc.load_model("models:/reviews@champion")
explainer = mlflow.pyfunc.load_model("models:/reviews-explainer@champion")
texts = ["a good film", "an awful soup", None]
print(json.dumps([model.predict(texts)["predicted"].tolist(), explainer.predict(texts[:1])["parts"].tolist()]))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's package, installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    options = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
    source = tmp_path_factory.mktemp("source") / "characters"
    source.mkdir()
    for file in EXAMPLE.iterdir():
        if file.is_file():
            (source / file.name).write_bytes(file.read_bytes())
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), str(source)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return folder


def test_the_example_is_short() -> None:
    assert len((EXAMPLE / "dlpipe_characters.py").read_text().splitlines()) <= 150


def test_a_task_of_another_package_goes_through_every_step(
    installed: Path, tiny_table: TableVersion, tmp_path: Path
) -> None:
    project = Project.make(tmp_path)
    columns = read_table(tiny_table, columns=["text", "label"])
    project.file("reviews.csv", as_csv(zip(*columns.to_pydict().values(), strict=True)))
    project.file("settings.toml", SETTINGS)
    environ = {"PYTHONPATH": str(installed)}
    done = project.flow("--config", "settings", "settings.toml", "run", env=environ)
    assert done.code == 0, done.said
    assert done.summary("model").startswith("accuracy ")
    assert done.summary("registered") == "models:/reviews/1 (challenger, champion)"
    assert done.summary("explainer") == "models:/reviews-explainer/1 (challenger, champion)"
    assert "pipeline" not in [line.split(" ")[0] for line in done.of_task("end")]
    assert done.summary("predictions").endswith("250 new rows")
    assert "words of 2 rows" in done.said
    used = project.python("-W", "ignore", "-c", USE, env=environ)
    labels, words = json.loads(used.said.splitlines()[-1])
    assert labels[:2] == ["positive", "negative"]
    assert labels[2] is None
    assert words == [["a", "good", "film"]]


def test_a_task_that_no_package_brings_is_named_before_a_run_begins(tmp_path: Path) -> None:
    project = Project.make(tmp_path)
    project.file("settings.toml", SETTINGS)
    done = project.flow("--config", "settings", "settings.toml", "run")
    assert done.code == 1
    assert "has no task 'character-classification'" in done.said
    assert not (tmp_path / ".metaflow/TrainFlow").exists() or not os.listdir(tmp_path / ".metaflow/TrainFlow")
