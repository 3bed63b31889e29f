"""What a launcher says at its end, by what the process beside it does."""

from __future__ import annotations

import sys
from pathlib import Path

import metaflow  # noqa: F401  # it loads the plugins itself
import pytest

from dlpipe.bridge import follow
from metaflow_extensions.dlpipe.plugins import mlflow_bridge
from metaflow_extensions.dlpipe.plugins.mlflow_bridge import DOING, Follower, tells_receiver

WAITS_AND = "import sys, time; sys.stdin.read(); "


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from metaflow.plugins.datastores.local_storage import LocalStorage

    monkeypatch.setattr(LocalStorage, "datastore_root", str(tmp_path / ".metaflow"))
    monkeypatch.setattr(mlflow_bridge, "WAIT_SECONDS", 2.0)
    monkeypatch.setattr(mlflow_bridge, "STARTS", 1)
    return tmp_path


def last_line(script: str) -> str:
    """Return what a launcher says whose follower is ``script``."""
    line = Follower("Flow/1", command=[sys.executable, "-c", WAITS_AND + script]).last_line()
    assert line
    return line


def test_a_follower_that_is_busy_is_not_behind() -> None:
    line = last_line("print('doing: reading'); print('doing: writing 3 of 8', flush=True); time.sleep(8)")
    assert "is writing 3 of 8, and goes on by itself" in line
    assert "behind" not in line


def test_a_follower_that_has_an_answer_gives_it() -> None:
    assert last_line("print('doing: reading'); print('MLflow has this run: r')") == "MLflow has this run: r"


def test_a_follower_that_died_is_named_as_one() -> None:
    line = last_line("raise SystemExit(1)")
    assert line.startswith("MLflow is behind (the process that follows the run has ended)")
    assert line.endswith("dlpipe bridge sync Flow/1")


def test_a_follower_that_was_killed_as_the_launcher_ended_is_followed_by_another(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_bridge, "STARTS", 4)
    monkeypatch.setattr(mlflow_bridge, "WAIT_SECONDS", 30.0)
    first = place / "first"
    script = f"""
import os, pathlib, signal
first = pathlib.Path({str(first)!r})
if first.exists():
    print("MLflow has this run: r")
else:
    first.touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    follower = Follower("Flow/1", command=[sys.executable, "-c", f"import sys\nsys.stdin.read()\n{script}"])
    assert follower.last_line() == "MLflow has this run: r"


def test_after_an_error_mlflow_is_behind_with_its_reason(place: Path) -> None:
    from dlpipe.bridge.marks import find_marks

    follower = Follower("Flow/1", command=[sys.executable, "-c", WAITS_AND + "time.sleep(8)"])
    find_marks("Flow/1").set_behind("the server does not answer")
    line = follower.last_line()
    assert line == "MLflow is behind (the server does not answer). To catch up: dlpipe bridge sync Flow/1"


def test_launcher_and_follower_mean_the_same_lines() -> None:
    assert follow.DOING == DOING


def test_runs_of_a_folder_above_are_named_as_such(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dlpipe.cli.bridge import say_shared_runs

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (place / ".metaflow").mkdir()
    (place / "project").mkdir()
    monkeypatch.chdir(place)
    say_shared_runs()
    assert capsys.readouterr().err == ""
    monkeypatch.chdir(place / "project")
    say_shared_runs()
    assert capsys.readouterr().err.startswith(
        f"The runs are those in {place / '.metaflow'}, of all projects below it"
    )


@pytest.mark.parametrize(
    ("setting", "tells"), [("", False), ("0", False), (" Off ", False), ("1", True), ("a", True)]
)
def test_a_receiver_of_openlineage_is_told_where_the_setting_names_one(setting, tells, monkeypatch):
    monkeypatch.setenv("DLPIPE_OPENLINEAGE", setting)
    assert tells_receiver() == tells
