"""A registered model made again from its lineage: `dlpipe reproduce`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import dlpipe
from fingerprints import take_fingerprint
from projects import Done, Project, environment

pytestmark = pytest.mark.slow


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """Where commands of a test have their temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


@contextmanager
def untouched(project: Project) -> Iterator[None]:
    """Fail where the block changes a file of the project or a row of its MLflow."""
    before = take_fingerprint(project.folder)
    yield
    after = take_fingerprint(project.folder)
    assert {name for name in {*before, *after} if before.get(name) != after.get(name)} == set()


@contextmanager
def without(project: Project, *names: str) -> Iterator[None]:
    """Have the project lack some of its files and folders."""
    for name in names:
        (project.folder / name).rename(project.folder.with_name(f"moved-{name}"))
    try:
        yield
    finally:
        for name in names:
            project.folder.with_name(f"moved-{name}").rename(project.folder / name)


@pytest.mark.long
def test_models_of_a_search_and_of_a_killed_and_resumed_run_are_made_again_bit_for_bit(
    project: Project, first: Done, worse: Done, temporary: Path
) -> None:
    """Without the files of the models, the sources and the flows."""
    with without(project, "mlartifacts", "reviews.csv", "many.csv", "flows"), untouched(project):
        env = environment({"TMPDIR": str(temporary)})
        done = dlpipe("reproduce", "--all", "--json", folder=project.folder, environment=env)
    assert done.returncode == 0, done.stderr
    found = {record["model"]: record for record in json.loads(done.stdout)}
    assert {name: (record["outcome"], record["differences"]) for name, record in found.items()} == {
        "models:/reviews/1": ("same", []),
        "models:/reviews/2": ("same", []),
    }
    assert found["models:/reviews/1"]["weights"]["now"] == first.weights
    assert found["models:/reviews/1"]["code"] == f"the code package of TrainFlow/{first.run_id}"
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    ("table", "code", "outcomes"),
    [("reviews_predictions", 0, ["same"]), ("reviews_explanations", 0, ["same"])],
)
def test_a_table_of_answers_means_the_models_that_made_them(
    table: str, code: int, outcomes: list[str], project: Project, first: Done
) -> None:
    done = dlpipe("reproduce", table, "--json", folder=project.folder, environment=environment())
    assert done.returncode == code, done.stderr
    told = json.loads(done.stdout)
    assert (told["model"], told["outcome"]) == ("models:/reviews/1", "same")
    assert [each["outcome"] for each in told["answers"]] == outcomes


def test_what_is_asked_to_be_otherwise_is_named_first(project: Project, first: Done) -> None:
    words = ("--set", "seed=1", "--threads", "3", "--code", "here")
    with untouched(project):
        done = dlpipe("reproduce", "reviews/1", *words, folder=project.folder, environment=environment())
    assert done.returncode == 4, done.stderr
    outcome, _, title, *lines = done.stdout.splitlines()
    assert outcome.startswith("Different weights: ")
    assert outcome.endswith(f"registered {first.weights[:12]}.")
    assert title == "What is not as it was:"
    assert lines[:3] == ["  settings: seed 1, it was 0", "  domain: threads 3, it was 2", ""]
    assert "code: " not in done.stdout  # what is installed is what the run kept
    assert "accuracy  1.0000, registered 1.0000, registered interval 1.0000 to 1.0000" in done.stdout
    assert "weights   differ by at most " in done.stdout
    assert "of these rows are decided alike" in done.stdout


def test_without_the_records_of_its_run_the_settings_of_the_registry_are_taken(
    project: Project, first: Done
) -> None:
    with without(project, ".metaflow", "mlartifacts"):
        refused = dlpipe("reproduce", "reviews/1", folder=project.folder, environment=environment())
        words = ("reproduce", "reviews/1", "--code", "here", "--set", "epochs=1", "--json")
        done = dlpipe(*words, folder=project.folder, environment=environment())
    assert refused.returncode == 1
    assert "was not kept" in refused.stderr
    assert done.returncode == 4, done.stderr
    record = json.loads(done.stdout)
    assert record["differences"] == [{"kind": "settings", "what": "epochs 1, it was 5"}]
    assert record["notes"] == [
        f"the records of TrainFlow/{first.run_id} are not here: its settings are those that the registry keeps",
        "the files of the registered model cannot be read: only its scores are compared",
    ]
    assert record["scores"]["accuracy"]["registered"] == 1
    assert record["largest_difference"] == {"weight": None, "output": None}


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGTERM, marks=pytest.mark.long), pytest.param(signal.SIGINT, marks=pytest.mark.chaos)],
)
def test_one_that_is_ended_leaves_nothing_and_one_that_is_killed_what_the_next_one_removes(
    number: signal.Signals, project: Project, worse: Done, temporary: Path
) -> None:
    """Beside one that is at work, whose folder nobody removes."""
    with untouched(project), start(project, temporary) as killed, start(project, temporary) as at_work:
        for process in (killed, at_work):
            read_until(process, "epoch 1/")
        killed.kill()
        wait_until(lambda: len(list_trainings(temporary)) == 1)  # its training ended with it
        assert len(list_folders(temporary)) == 2
        with start(project, temporary) as ended:
            removed, *_ = read_until(ended, "epoch 1/")
            assert removed.strip().startswith("removed ")
            assert removed.strip().endswith(", which a command that was killed had left")
            ended.send_signal(number)
            assert ended.wait(60) == {signal.SIGTERM: 143, signal.SIGINT: 1}[number]
        said, _ = at_work.communicate(timeout=120)
        assert said.startswith(b"The same weights, bit for bit: ")
    assert not list_folders(temporary)
    assert not list_trainings(temporary)


@contextmanager
def start(project: Project, temporary: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Make a model of the project again that takes seconds; end it by force if need be."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dlpipe.cli", "reproduce", "reviews/2"],
        cwd=project.folder,
        env=environment({"TMPDIR": str(temporary)}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def list_folders(temporary: Path) -> list[Path]:
    return list(temporary.glob("dlpipe-scratch-*"))


def read_until(process: subprocess.Popen[bytes], words: str) -> list[str]:
    """Return the lines that a command says until one has these words."""
    said: list[str] = []
    assert process.stderr is not None
    while not said or words not in said[-1]:
        line = process.stderr.readline()
        assert line, said
        said.append(line.decode())
    return said


def list_trainings(temporary: Path) -> list[int]:
    """Return the processes that train in this folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(temporary).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("reviews/9",), "no version 9"),
        ((), "Name a model, or pass --all"),
        (("reviews/1", "--all"), "Name a model or pass --all, not both"),
        (("reviews/1", "--set", "seed"), "write NAME=VALUE"),
        (("reviews/1", "--set", "sed=1"), "did you mean 'seed'"),
        (("reviews/1", "--set", "epochs=0"), "epochs"),
        (("reviews/1", "--version", "9"), "version 9"),
    ],
)
def test_what_cannot_be_made_again_is_refused_in_a_line(
    words: tuple[str, ...], why: str, project: Project, first: Done
) -> None:
    done = dlpipe("reproduce", *words, folder=project.folder, environment=environment())
    assert done.returncode in (1, 2)
    assert why in done.stderr
    assert "Traceback" not in done.stderr
