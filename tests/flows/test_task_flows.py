"""Whole runs of the train flow for other tasks than text classification: each step knows the protocol alone."""

from __future__ import annotations

import base64
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from projects import Done, Project, as_csv

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
import json, mlflow, warnings
warnings.simplefilter("ignore")
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


ALL = """
task = "{task}"

[data]
data = "rows.csv"
table = "rows"
{columns}

[training]
backbone = "backbone"
epochs = {epochs}
batch_size = 16
learning_rate = 5e-3
patience = 20

[tuning]
trials = 0

[gate]
baseline_margin = {margin}

[explanation]
rows = 2
mistakes = 1
max_evals = 40

[registry]
model = "rows"
"""
WORDS = ("good", "bad", "film", "soup", "plot", "awful", "great", "superb")


def draw_rows(task: str) -> str:
    """Return a CSV whose labels follow from its words and numbers."""
    draw = random.Random(0)
    lines = {
        "text-multilabel": "text,labels",
        "text-regression": "text,stars",
        "text-pair-classification": "question,answer,verdict",
        "tabular-classification": "size,town,note,bought",
    }
    rows = [lines[task]]
    for _ in range(300):
        words = draw.sample(WORDS, 3)
        text = " ".join(words)
        other = " ".join(draw.sample(WORDS, 2))
        if task == "text-multilabel":
            labels = "|".join(word for word in words if word in ("good", "bad", "film"))
            rows.append(f"{text} {draw.randint(0, 999)},{labels or '[]'}")
        elif task == "text-regression":
            rows.append(f"{text} {draw.randint(0, 999)},{3 + 2 * ('good' in words) - 1.5 * ('bad' in words)}")
        elif task == "text-pair-classification":
            rows.append(f"{text} {draw.randint(0, 999)},{other},{'yes' if 'good' in words else 'no'}")
        else:
            size, town = round(draw.uniform(1, 9), 2), draw.choice(["Bern", "Bonn", ""])
            rows.append(f"{size},{town},{text},{'yes' if size > 5 or 'good' in words else 'no'}")
    return "\n".join(rows)


COLUMNS = {
    "text-multilabel": "",
    "text-regression": 'label_column = "stars"',
    "text-pair-classification": (
        'text_column = "question"\ntext_pair_column = "answer"\nlabel_column = "verdict"'
    ),
    "tabular-classification": (
        'number_columns = ["size"]\ncategory_columns = ["town"]\ntext_column = "note"\nlabel_column = "bought"'
    ),
}
USE_ANY = """
import json, mlflow, pandas as pd, warnings
from dlpipe.cli.tables import predict_rows
warnings.simplefilter("ignore")
rows = pd.DataFrame(json.loads({rows!r}))
predict_rows("models:/rows@champion", None, [json.dumps({{**rows.iloc[0].to_dict(), "odd": 1}})])
model = mlflow.pyfunc.load_model("models:/rows@champion")
explainer = mlflow.pyfunc.load_model("models:/rows-explainer@champion")
print(json.dumps([model.predict(rows)["predicted"].tolist(), [len(p) for p in explainer.predict(rows)["parts"]]]))
"""
ASKED = {
    "text-multilabel": ({"text": ["the good film"]}, [[["film", "good"]], [3]]),
    "text-regression": ({"text": ["the good film"]}, None),
    "text-pair-classification": ({"text": ["the good film"], "text_pair": ["a soup"]}, [["yes"], [5]]),
    "tabular-classification": ({"size": [8.0], "town": ["Bern"], "text": ["the bad film"]}, [["yes"], [5]]),
}


@pytest.mark.long
@pytest.mark.parametrize("task", COLUMNS)
def test_each_task_goes_through_every_step(task: str, tiny_backbone: Path, tmp_path: Path) -> None:
    project = Project.make(tmp_path)
    shutil.copytree(tiny_backbone, tmp_path / "backbone")
    project.file("rows.csv", draw_rows(task))
    epochs = 30 if task == "tabular-classification" else 10
    settings = ALL.format(task=task, columns=COLUMNS[task], epochs=epochs, margin=5 if "regr" in task else 0.5)
    project.file("settings.toml", settings)
    done = project.flow("--config", "settings", "settings.toml", "run")
    assert done.code == 0, done.said
    assert done.summary("registered") == "models:/rows/1 (challenger, champion)", done.said
    assert done.summary("explainer") == "models:/rows-explainer/1 (challenger, champion)"
    assert done.summary("predictions").startswith("rows_predictions@v0, ")
    asked, expected = ASKED[task]
    used = project.python("-c", USE_ANY.format(rows=json.dumps(asked)))
    answer = json.loads(used.said.splitlines()[-1])
    assert ("Row 0: the model has no column 'odd'." in used.said) == (len(asked) > 1)
    if expected is None:
        assert abs(answer[0][0] - 5) < 1
    else:
        assert answer == expected
    looked = project.flow("card", "get", f"{done.run_id}/evaluate")
    assert looked.code == 0
    data = re.search(r'__MF_DATA__\["[^"]+"\] = "([^"]+)"', looked.said)[1]
    shown = base64.b64decode(data).decode()
    assert "Worst mistakes" in shown
    assert '"text", "label"' not in shown  # rows of columns are no texts
    assert_made_again(project, "rows", done)


def assert_made_again(project: Project, model: str, done: Done, env: dict[str, str] | None = None) -> None:
    again = project.python("-m", "dlpipe.cli", "reproduce", model, env=env)
    assert f"The same weights, bit for bit: {done.weights[:12]}." in again.said, again.said


def test_the_example_is_short() -> None:
    assert len((EXAMPLE / "dlpipe_characters.py").read_text().splitlines()) <= 150


@pytest.mark.long
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
    used = project.python("-c", USE, env=environ)
    labels, words = json.loads(used.said.splitlines()[-1])
    assert labels[:2] == ["positive", "negative"]
    assert labels[2] is None
    assert words == [["a", "good", "film"]]
    assert_made_again(project, "reviews", done, environ)


def test_a_task_that_no_package_brings_is_named_before_a_run_begins(tmp_path: Path) -> None:
    project = Project.make(tmp_path)
    project.file("settings.toml", SETTINGS)
    done = project.flow("--config", "settings", "settings.toml", "run")
    assert done.code == 1
    assert "has no task 'character-classification'" in done.said
    assert not (tmp_path / ".metaflow/TrainFlow").exists() or not os.listdir(tmp_path / ".metaflow/TrainFlow")
