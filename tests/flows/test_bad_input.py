"""What a person gets wrong: one clear line, exit code 1, no traceback, no half-made table."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from disks import tiny_disk
from projects import Done, Project, as_csv

GOOD = [(f"the film was good {n}", "positive" if n % 2 else "negative") for n in range(60)]
TRAIN = "flows/train_flow.py"
USAGE = 2  # Metaflow's exit code for a command line that it cannot read
DEAD, SILENT = "http://127.0.0.1:9", "http://127.0.0.1:{port}"


@dataclass(frozen=True)
class Mistake:
    """Options (those of ``run``; those after a ``|`` stand before it) and what the line has to say."""

    options: str
    says: tuple[str, ...]
    environ: dict[str, str] = field(default_factory=dict)
    code: int = 1

    def command(self, table: str) -> list[str]:
        options, _, before = self.options.partition("|")
        return [TRAIN, *before.split(), "run", "--table", table, *options.split()]


def mistake(options: str, *says: str, code: int = 1, **environ: str) -> Mistake:
    return Mistake(options, says, environ, code)


FILES = {
    "good.csv": as_csv(GOOD),
    "empty.csv": "",
    "columns.csv": as_csv(GOOD).replace("review,sentiment", "text,label"),
    "test.csv": as_csv([*((f"{text} too", label) for text, label in GOOD), ("what is this", "neutral")]),
    "nulls.csv": as_csv([(text if n % 5 else "", label) for n, (text, label) in enumerate(GOOD)]),
    "quote.csv": as_csv(GOOD).replace('"the film was good 20"', '"the film was good 20'),
    "table/notes.txt": "not a Delta table",
    "broken/_delta_log/00000000000000000000.json": "{",
    "setting.toml": "[training]\nepoch = 3\n",
    "section.toml": "[trainning]\nepochs = 3\n",
    "range.toml": "[training]\ndropout = 1.5\n",
    "space.toml": "[search_space]\nlearning_rat = { low = 1e-5, high = 1e-4 }\n",
    "broken.toml": "[training\nepochs = 3\n",
}

MISTAKES = {
    "missing file": mistake("--data goud.csv", "no file 'goud.csv'", "did you mean 'good.csv'"),
    "unreadable file": mistake("--data loop.csv", "'loop.csv' cannot be read", "Check the file"),
    "empty file": mistake("--data empty.csv", "'empty.csv' is empty"),
    "missing column": mistake("--data columns.csv", "columns.csv", "'review'", "text", "label"),
    "label that train lacks": mistake("--train-data good.csv --test-data test.csv", "train lacks: 'neutral'"),
    "nulls": mistake("--data nulls.csv", "12 of 60 rows are bad", "empty text (first: ", "nulls.csv", "line 2"),
    "broken quote": mistake("--data quote.csv", "quote.csv", "line 22", "quote"),
    "folder that is no table": mistake("--data table", "'table' is a folder but not a Delta table"),
    "broken table": mistake("--data broken", "broken"),
    "two kinds of source": mistake("--data good.csv --test-data test.csv", "--test-data do not go together"),
    "unknown data set": mistake("--dataset imbd", "'imbd'", "imdb"),
    "unknown backbone": mistake("--backbone no/such", "'no/such' is neither a folder nor", "all-MiniLM-L6-v2"),
    "unknown strategy": mistake("--strategy frieze", "strategy = 'frieze'", "freeze"),
    "option out of range": mistake("--epochs 0", "[training] and --epochs: epochs = 0 is refused"),
    "trials out of range": mistake("--trials -1", "--trials: trials = -1 is refused"),
    "option of another type": mistake("--epochs three", "'--epochs': three is not", code=USAGE),
    "misspelt option": mistake("--epoch 3", "no such option: --epoch ", "mean --epochs?", code=USAGE),
    "model name": mistake("--model a/b", "'a/b' cannot name a model"),
    "setting out of range": mistake("| --config settings range.toml", "[training]: dropout = 1.5 is refused"),
    "misspelt setting": mistake("| --config settings setting.toml", "'epoch'; did you mean 'epochs'?"),
    "misspelt section": mistake("| --config settings section.toml", "'trainning'; did you mean 'training'?"),
    "misspelt tuned setting": mistake("| --config settings space.toml", "did you mean 'learning_rate'?"),
    "broken settings file": mistake("| --config settings broken.toml", "not valid TOML", "line 1"),
    "missing settings file": mistake(
        "| --config settings nowhere.toml", "'nowhere.toml' could not be read", code=USAGE
    ),
    "dead MLflow": mistake("", f"{DEAD} does not answer", MLFLOW_TRACKING_URI=DEAD),
    "silent MLflow": mistake("", "does not answer", MLFLOW_TRACKING_URI=SILENT),
    "MLflow in a folder": mistake("", "'./mlruns' is a folder", "sqlite:///", MLFLOW_TRACKING_URI="./mlruns"),
}

IN_ROWS = ("label that train lacks", "nulls")
"""Mistakes that only all rows of a source tell: those are read in the run. ``test_ingest.py`` has more of them."""


@pytest.fixture(scope="module")
def desk(project: Project) -> Project:
    """The project with bad files in it."""
    for name, content in FILES.items():
        (project.folder / name).parent.mkdir(parents=True, exist_ok=True)
        project.file(name, content)
    (project.folder / "loop.csv").symlink_to("loop.csv")
    # two first runs at once: both would make it, and Metaflow fails the slower one
    (project.folder / ".metaflow").mkdir(exist_ok=True)
    return project


@pytest.fixture(scope="module")
def outcomes(desk: Project, request: pytest.FixtureRequest) -> dict[str, Done]:
    """What came of the mistakes that are tested."""
    asked = {item.callspec.params.get("name") for item in request.session.items if hasattr(item, "callspec")}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        return desk.each(
            {name: one.command(table_of(name)) for name, one in MISTAKES.items() if name in asked},
            environs={
                name: {key: value.format(port=port) for key, value in one.environ.items()}
                for name, one in MISTAKES.items()
            },
        )


def table_of(name: str) -> str:
    return name.replace(" ", "_")


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_said_in_one_clear_line(name: str, desk: Project, outcomes: dict[str, Done]) -> None:
    done = outcomes[name]
    assert_one_clear_line(done, *MISTAKES[name].says, code=MISTAKES[name].code)
    assert not (desk.tables / table_of(name)).exists()
    # otherwise there is no run that would stand in MLflow as failed for ever
    assert ("run-id" in done.said) == (name in IN_ROWS)


def test_a_run_that_is_not_there_cannot_be_resumed(desk: Project, first: Done) -> None:
    for words in (["--origin-run-id", "1795494849196362"], ["--origin-run-id=1795494849196362"]):
        done = desk.flow("resume", *words)
        assert_one_clear_line(done, "TrainFlow has no run '1795494849196362'; its latest: ")


def assert_one_clear_line(done: Done, *says: str, code: int = 1) -> None:
    assert "Traceback" not in done.said
    # where MLflow is not there, or the machine is busy, the bridge says in a line of its own how far it has come
    lines = [line for line in done.said.splitlines() if not re.search("MLflow (is behind|has not all)", line)]
    clear = [line for line in lines if all(part in line for part in says)]
    assert len(clear) == 1, done.said
    assert done.code == code


def test_a_bad_option_is_not_deployed(desk: Project, tmp_path: Path) -> None:
    state = {"DLPIPE_STATE": str(tmp_path / "state")}
    done = desk.flow("local-scheduler", "create", "--epochs", "0", env=state)
    assert_one_clear_line(done, "[training] and --epochs: epochs = 0 is refused")
    assert "Nothing is deployed here" in desk.python("-m", "dlpipe.cli", "deployments", env=state).said


def test_silent_server_is_given_up_within_ten_seconds(outcomes: dict[str, Done]) -> None:
    quick, waited = (outcomes[name].seconds for name in ("MLflow in a folder", "silent MLflow"))
    assert waited - quick < 10


def test_a_full_folder_of_runs_is_said_in_one_line(tmp_path: Path) -> None:
    project = Project.make(tmp_path / "project")
    with tiny_disk(project.folder / ".metaflow") as disk:
        (disk / "filled").write_bytes(bytes(2**19))
        done = project.flow("run")
    assert_one_clear_line(done, f"No space is left in {project.folder / '.metaflow'}")
