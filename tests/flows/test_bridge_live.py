"""A training as MLflow shows it while it runs, whatever is killed meanwhile."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import without_system
from mlflow.entities import Run
from servers import PATIENCE, SHAPES, Folder
from stores import copy_database

LIVE_SECONDS = 5.0 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # five where a core is free
SAMPLED = ("run", "--with", "mlflow_bridge:resources=0.5")
SERIES = {"epochs/loss", "epochs/f1", "batches/loss"}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / ".metaflow").mkdir()
    copy_database(tmp_path)
    return Folder(tmp_path)


def attempts(folder: Folder, run_id: str = "") -> dict[str, Run]:
    """Return the runs of the training's attempts in MLflow by number."""
    client = folder.client()
    experiment = client.get_experiment_by_name("LiveFlow")
    found = client.search_runs([experiment.experiment_id]) if experiment else []
    return {
        run.data.tags["metaflow.attempt"]: run
        for run in found
        if run.data.tags.get("metaflow.step") == "start" and run_id in run.data.tags["metaflow.run"]
    }


def points(folder: Folder, number: str, key: str, run_id: str = "") -> list[tuple[int, float]]:
    """Return step and value of each point of a series, as often as MLflow has it."""
    run = attempts(folder, run_id)[number]
    return sorted((one.step, one.value) for one in folder.client().get_metric_history(run.info.run_id, key))


def wait_for(seen: Callable[[], bool], seconds: float = PATIENCE) -> float:
    """Return how long it took until ``seen``; fail after ``seconds``."""
    began = time.monotonic()
    while not seen():
        assert time.monotonic() - began < seconds, f"not within {seconds:.0f} s"
        time.sleep(0.05)
    return time.monotonic() - began


def kill(folder: Folder, *words: str) -> None:
    """End the one process of the folder whose command has all of these words, by SIGKILL."""
    (found,) = [
        int(entry.name)
        for entry in Path("/proc").glob("[0-9]*")
        if is_in(folder, entry) and set(words) <= set((entry / "cmdline").read_text().split("\0"))
    ]
    os.kill(found, signal.SIGKILL)


def is_in(folder: Folder, process: Path) -> bool:
    try:
        return (process / "cwd").readlink() == folder.folder.resolve()
    except OSError:
        return False


def test_epochs_stand_in_mlflow_within_seconds_and_once_though_follower_and_task_are_killed(
    folder: Folder,
) -> None:
    launcher = folder.start(sys.executable, str(SHAPES / "live_flow.py"), *SAMPLED, "--wait", "True")
    try:
        wait_for(lambda: "0" in attempts(folder))
        (folder.folder / "epoch-1").touch()
        wait_for(lambda: "epochs/loss" in attempts(folder)["0"].data.metrics, LIVE_SECONDS)
        assert attempts(folder)["0"].info.status == "RUNNING"

        kill(folder, "dlpipe.bridge.follow")
        (folder.folder / "epoch-2").touch()
        wait_for(lambda: attempts(folder)["0"].data.metrics.get("epochs/loss") == 0.5)  # another one goes on
        kill(folder, "step", "start")
        wait_for(lambda: "1" in attempts(folder))
        for epoch in (3, 4):
            (folder.folder / f"epoch-{epoch}").touch()
        wait_for(lambda: "epochs/loss" in attempts(folder)["1"].data.metrics, LIVE_SECONDS)
        said, _ = launcher.communicate(timeout=PATIENCE)
    finally:
        for epoch in range(1, 5):  # a task that has lost its launcher would wait for ever
            (folder.folder / f"epoch-{epoch}").touch()
        launcher.kill()
    assert launcher.returncode == 0, said
    folder.wait_until_nothing_is_behind()
    assert folder.bridge("check", "LiveFlow") == "0 differences\n"
    killed, done = attempts(folder)["0"], attempts(folder)["1"]
    assert (killed.info.status, done.info.status) == ("KILLED", "FINISHED")
    assert without_system(killed.data.metrics).keys() == without_system(done.data.metrics).keys() == SERIES
    assert "system/cpu_seconds" in done.data.metrics.keys() - killed.data.metrics.keys()
    assert points(folder, "0", "epochs/loss") == [(1, 1.0), (2, 0.5)]
    assert points(folder, "1", "epochs/loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)]
    assert points(folder, "1", "epochs/f1") == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)]
    assert points(folder, "1", "batches/loss") == [(3, 0.5), (4, 0.5)]
    sampled = points(folder, "1", "system/memory_mb")
    assert len(sampled) == len(dict(sampled)) > 0
    assert 10 < max(memory for _, memory in sampled) < 10_000


def test_each_step_stands_in_mlflow_within_seconds_of_its_end(folder: Folder) -> None:
    """Right from the start: the first look imports MLflow, and must not be taken for what looks cost."""
    names = ("start", "middle", "end")
    client = folder.client()

    def status(name: str) -> str:
        experiment = client.get_experiment_by_name("GatesFlow")
        found = client.search_runs([experiment.experiment_id]) if experiment else []
        return next((run.info.status for run in found if run.data.tags.get("metaflow.step") == name), "")

    launcher = folder.start(sys.executable, str(SHAPES / "gates_flow.py"), "run", "--with", "mlflow_bridge")
    try:
        for name in names:
            wait_for(lambda name=name: status(name) == "RUNNING", PATIENCE if name == "start" else LIVE_SECONDS)
            (folder.folder / name).touch()
            if name != "end":
                wait_for(lambda name=name: status(name) == "FINISHED", LIVE_SECONDS)
        said, _ = launcher.communicate(timeout=PATIENCE)
    finally:
        for name in names:
            (folder.folder / name).touch()
        launcher.kill()
    assert launcher.returncode == 0, said


def has_reported(folder: Folder, number: str, epoch: int) -> bool:
    """Return whether an attempt of any run has left the epoch in its file."""
    files = (folder.folder / ".metaflow/LiveFlow").glob(f"*/_bridge/points/*%2F{number}")
    return any(f'"epoch": {epoch},' in file.read_text() for file in files)


def list_runs(folder: Folder) -> set[str]:
    return {place.name for place in (folder.folder / ".metaflow/LiveFlow").glob("[0-9]*")}


def test_after_kills_resume_has_each_point_once_and_so_has_the_run_that_it_goes_on_from(folder: Folder) -> None:
    live = (sys.executable, str(SHAPES / "live_flow.py"))
    launcher = folder.start(*live, "run", "--with", "mlflow_bridge", "--wait", "True")
    try:
        for epoch in (1, 2):
            (folder.folder / f"epoch-{epoch}").touch()
        wait_for(lambda: has_reported(folder, "0", 2))
        kill(folder, "step", "start")
        wait_for(lambda: "1" in attempts(folder))
        kill(folder, "dlpipe.bridge.follow")
        (folder.folder / "epoch-3").touch()
        wait_for(lambda: has_reported(folder, "1", 3))
        kill(folder, "step", "start")
        said, _ = launcher.communicate(timeout=PATIENCE)
        assert launcher.returncode == 1, said
        (origin,) = list_runs(folder)
        folder.wait_until_nothing_is_behind()

        launcher = folder.start(*live, "resume", "--origin-run-id", origin, "--with", "mlflow_bridge")
        wait_for(lambda: len(list_runs(folder)) == 2)
        (resumed,) = list_runs(folder) - {origin}
        wait_for(lambda: "0" in attempts(folder, resumed))
        kill(folder, "dlpipe.bridge.follow")
        (folder.folder / "epoch-4").touch()
        said, _ = launcher.communicate(timeout=PATIENCE)
    finally:
        for epoch in range(1, 5):
            (folder.folder / f"epoch-{epoch}").touch()
        launcher.kill()
    assert launcher.returncode == 0, said
    folder.wait_until_nothing_is_behind()
    for _ in range(2):  # as the follower left it, and after a sync of everything
        assert folder.bridge("check", "LiveFlow") == "0 differences\n"
        losses = {
            (run_id, number): points(folder, number, "epochs/loss", run_id)
            for run_id in (origin, resumed)
            for number in attempts(folder, run_id)
        }
        assert losses == {
            (origin, "0"): [(1, 1.0), (2, 0.5)],
            (origin, "1"): [(3, 1 / 3)],
            (resumed, "0"): [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)],
        }
        assert points(folder, "0", "batches/loss", resumed) == [(4, 0.5)]
        folder.bridge("sync")


CLASS_FLOW = """
import time

from metaflow import FlowSpec, mlflow_bridge, step


@mlflow_bridge
class ClassFlow(FlowSpec):
    @step
    def start(self):
        time.sleep(2)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ClassFlow()
"""


def test_what_with_says_counts_where_the_class_has_the_bridge_already(folder: Folder) -> None:
    script = folder.folder / "class_flow.py"
    script.write_text(CLASS_FLOW)
    flow = (sys.executable, str(script), "run", "--with")
    done = folder.command(*flow, "mlflow_bridge:resources=0.2")
    assert done.code == 0, done.said
    folder.wait_until_nothing_is_behind()
    assert "system/memory_mb" in folder.held(f"ClassFlow/{done.run_id}")["start"].data.metrics
    refused = folder.command(*flow, "mlflow_bridge:resources=often")
    assert refused.code == 1
    assert "resources='often' is no number of seconds" in refused.said
