"""One project with a tiny backbone, and the whole runs in it that several tests look at."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from projects import Done, Project, as_csv, warm_python

from dlpipe.tables import TableVersion, read_table

SETTINGS = """
[data]
data = "reviews.csv"

[training]
backbone = "backbone"
epochs = 5
batch_size = 16
learning_rate = 5e-3
patience = 9

[tuning]
trials = 2

[search_space]
learning_rate = { low = 4e-3, high = 8e-3, log = true }

[gate]
baseline_margin = 0.2

[explanation]
rows = 3
mistakes = 1
max_evals = 60
"""
"""Of ``quick.toml``: learns the reviews in seconds. The baseline makes no mistake on them, hence the margin."""


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path, tiny_table: TableVersion) -> Project:
    """A project with ``reviews.csv``, six times as much in ``many.csv``, ``backbone`` and ``quick.toml``."""
    made = Project.make(tmp_path_factory.mktemp("project"))
    shutil.copytree(tiny_backbone, made.folder / "backbone")
    columns = read_table(tiny_table, columns=["text", "label"])
    rows = list(zip(columns["text"].to_pylist(), columns["label"].to_pylist(), strict=True))
    made.file("reviews.csv", as_csv(rows))
    made.file("many.csv", as_csv([(f"{text} {n}", label) for n in range(6) for text, label in rows]))
    made.file("quick.toml", SETTINGS)
    return made


@pytest.fixture(scope="session")
def quick() -> tuple[str, ...]:
    """The command of a whole run with tuning."""
    return ("--config", "settings", "quick.toml", "run")


@pytest.fixture(scope="session")
def slow(quick: tuple[str, ...]) -> tuple[str, ...]:
    """The command of a run without tuning that learns next to nothing in four epochs of a second or more."""
    data = ("--data", "many.csv", "--table", "many")
    return (*quick, *data, "--trials", "0", "--epochs", "4", "--batch-size", "8", "--learning-rate", "1e-6")


@pytest.fixture(scope="session")
def first(project: Project, quick: tuple[str, ...]) -> Done:
    """The project's first run."""
    return finished(project, *quick)


@pytest.fixture(scope="session")
def again(project: Project, quick: tuple[str, ...], first: Done) -> Done:
    """The same command a second time."""
    return finished(project, *quick)


@pytest.fixture(scope="session")
def killed(project: Project, slow: tuple[str, ...], again: Done) -> Done:
    """A third run, whose training was killed twice: in its second epoch, and in its retry's first one."""
    with project.running(*slow, python=str(warm_python().bin / "python")) as run:
        for attempt in range(2):
            run.wait_for_checkpoint(attempt=attempt)
            run.kill_task("train")
        return run.end()


@pytest.fixture(scope="session")
def worse(project: Project, killed: Done) -> Done:
    """What that run came to when it was resumed: a worse model."""
    return finished(project, "resume", "--origin-run-id", killed.run_id)


def finished(project: Project, *words: str) -> Done:
    """Return a whole run that went well."""
    done = project.flow(*words)
    assert done.code == 0, done.said
    return done
