"""Runs told to a catalog while they happen: attempts, failures, resumes, kills, and a catalog that is down."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from commands import dlpipe
from openlineage_graph import PATHSPEC, find_problems, list_edges, read_tags, rebuild
from openlineage_receiver import Receiver, receiving
from projects import Done
from servers import BRIDGED, Folder, wait_until
from stores import copy_database, keep_runs_in

from dlpipe.bridge.metadata import find_runs
from dlpipe.lineage import Records
from dlpipe.openlineage.events import find_key

FLOW = '''
import os
import time
from pathlib import Path

import pyarrow as pa
from metaflow import FlowSpec, Parameter, current, retry, step


class ToldFlow(FlowSpec):
    """A flow that is told to a catalog."""

    password = Parameter("password", default="hunter2-of-ana")

    @step
    def start(self):
        """Write a table."""
        from dlpipe.tables import write_table

        rows = pa.table({"row_id": ["a"], "text": ["one"]})
        self.notes = write_table("notes", rows, key={"run": current.run_id})
        self.places = [0, 1]
        self.next(self.part, foreach="places")

    @retry(times=1, minutes_between_retries=0)
    @step
    def part(self):
        if self.input == 1 and current.retry_count == 0:
            raise ValueError(f"the password is {self.password}")
        self.trained_on = self.notes
        self.next(self.join)

    @step
    def join(self, inputs):
        while os.environ.get("WAITS") and not Path("go").exists():
            time.sleep(0.05)
        if os.environ.get("FAILS"):
            raise RuntimeError("no luck")
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ToldFlow()
'''


@dataclass
class Told:
    """What a catalog got, by the pathspecs of runs and tasks."""

    events: list[dict[str, Any]]

    def spell(self, run: str) -> list[str]:
        """Return what happened in a run, in the order in which the catalog heard of it, each once."""
        words = [f"{self._name(event)} {event['eventType']}" for event in self.events if "run" in event]
        return list(dict.fromkeys(word for word in words if word.startswith(run)))

    def _name(self, event: Mapping[str, Any]) -> str:
        tags = read_tags(event, "run")
        path, place = tags.get(PATHSPEC, ""), tags.get("metaflow.foreach", "")
        return "/".join(path.split("/")[:3]) + place + (f" {tags['metaflow.attempt']}" if place else "")

    def find(self, words: str) -> dict[str, Any]:
        of_runs = (event for event in self.events if "run" in event)
        return next(event for event in of_runs if f"{self._name(event)} {event['eventType']}" == words)


def read(receiver: Receiver) -> Told:
    """Return each event once; what was told twice was told with the same id."""
    return Told(list({find_key(event): event for event in receiver.read()}.values()))


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    with receiving(tmp_path_factory.mktemp("catalog") / "got", start=False) as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Folder:
    folder = tmp_path_factory.mktemp("project")
    (folder / ".metaflow").mkdir()
    (folder / "told_flow.py").write_text(FLOW)
    copy_database(folder)
    named = {"DLPIPE_OPENLINEAGE": receiver.address, "DLPIPE_STATE": str(folder / "state")}
    return Folder(folder, named)


@pytest.fixture(scope="module")
def failed(folder: Folder, receiver: Receiver) -> str:
    """A run that fails while its catalog is down; the catalog comes after it has ended."""
    failing = Folder(folder.folder, {**folder.variables, "FAILS": "1", "WAITS": "1"})
    launcher = failing.start(sys.executable, "told_flow.py", *BRIDGED)
    try:
        behind = Path(folder.folder, ".metaflow/ToldFlow")
        wait_until(lambda: list(behind.glob("*/_bridge/openlineage")), "nobody is told")
        (folder.folder / "go").touch()
        said, _ = launcher.communicate()
    finally:
        launcher.kill()
        (folder.folder / "go").unlink(missing_ok=True)
    assert launcher.returncode == 1
    assert "OpenLineage is behind" in said
    assert "Connection refused" in said
    receiver.start()
    run = f"ToldFlow/{Done(1, said, 0).run_id}"
    wait_until(lambda: f"{run} FAIL" in read(receiver).spell(run), "the run is told")
    return run


def test_a_catalog_that_was_down_hears_of_a_whole_run_from_the_process_beside_it(
    failed: str, receiver: Receiver
) -> None:
    told = read(receiver)
    words = told.spell(failed)
    assert words[0] == f"{failed} START"
    assert words[-1] == f"{failed} FAIL"
    assert sorted(words) == sorted(
        [
            *(f"{failed} {kind}" for kind in ("START", "FAIL")),
            *(f"{failed}/start {kind}" for kind in ("START", "COMPLETE")),
            *(f"{failed}/part[0] 0 {kind}" for kind in ("START", "COMPLETE")),
            *(f"{failed}/part[1] 0 {kind}" for kind in ("START", "FAIL")),
            *(f"{failed}/part[1] 1 {kind}" for kind in ("START", "COMPLETE")),
            *(f"{failed}/join {kind}" for kind in ("START", "FAIL")),
        ]
    )
    assert [problem for event in told.events for problem in find_problems(event)] == []
    assert told.find(f"{failed} FAIL")["run"]["facets"]["errorMessage"]["message"] == "join: RuntimeError: no luck"
    (used,) = told.find(f"{failed}/part[0] 0 COMPLETE")["inputs"]  # that trained, and made nothing yet
    assert (used["name"].rpartition("/")[2], used["facets"]["version"]["datasetVersion"]) == ("notes", "0")
    assert told.find(f"{failed}/start COMPLETE").get("inputs", []) == []


def follow(run: str, folder: Folder, where: Path) -> str:
    """Tell of a run that has ended, and return what is said beside it afterwards."""
    wait_until(lambda: not find_processes(folder, "dlpipe.openlineage.follow"), "its own teller has ended")
    command = [sys.executable, "-m", "dlpipe.openlineage.follow", run]
    subprocess.run(command, cwd=where, env=folder.environment, stdin=subprocess.DEVNULL, check=True, timeout=120)
    note = where / ".metaflow" / run / "_bridge/openlineage"
    return note.read_text() if note.exists() else ""


def test_events_that_a_catalog_does_not_take_are_said_beside_the_run(
    failed: str, folder: Folder, tmp_path: Path
) -> None:
    for word, taken in ((failed, False), ("\n", True)):
        with receiving(tmp_path / f"got-{taken}", RECEIVER_REFUSES=word) as picky:
            told = Folder(folder.folder, {**folder.variables, "DLPIPE_OPENLINEAGE": picky.address})
            said = follow(failed, told, folder.folder)
        assert bool(re.match(r"\d+ events were not taken: http.* \(status 422, not this one\)", said)) != taken, (
            said
        )
        assert (said == "") == taken


def test_a_record_that_cannot_be_read_does_not_keep_the_process_beside_a_run_for_an_hour(
    failed: str, folder: Folder, tmp_path: Path
) -> None:
    shutil.copytree(folder.folder / ".metaflow", tmp_path / ".metaflow")
    (tmp_path / ".metaflow" / failed / "_meta/_self.json").write_text("{")
    told = Folder(tmp_path, {**folder.variables, "DLPIPE_OPENLINEAGE": "told.jsonl"})
    assert "Error: " in follow(failed, told, tmp_path)


def test_what_looks_like_a_credential_is_not_told(failed: str, receiver: Receiver) -> None:
    error = read(receiver).find(f"{failed}/part[1] 0 FAIL")["run"]["facets"]["errorMessage"]["message"]
    assert error == "ValueError: the password is [redacted]"
    assert b"hunter2" not in receiver.file.read_bytes()
    parameters = read(receiver).find(f"{failed} START")["run"]["facets"]["executionParameters"]["parameters"]
    assert {given["key"]: given["value"] for given in parameters}["password"] == "[redacted]"


@pytest.mark.long
def test_a_resumed_run_made_nothing_of_what_it_took_over(failed: str, folder: Folder, receiver: Receiver) -> None:
    done = folder.flow(
        "resume", "--origin-run-id", failed.partition("/")[2], "--with", "mlflow_bridge", script="told_flow.py"
    )
    assert done.code == 0, done.said
    assert "OpenLineage" not in done.said
    run = f"ToldFlow/{done.run_id}"
    wait_until(lambda: f"{run} COMPLETE" in read(receiver).spell(run), "the run is told")
    told = read(receiver)
    graph = rebuild(told.events)
    assert (run, "resumed from", failed) in graph
    assert len([1 for result, how, _ in graph if how == "resumed from" and result.startswith(f"{run}/")]) == 3
    made = {(result.rpartition("/")[2], origin) for result, how, origin in graph if how == "made by"}
    assert made == {("notes 0", f"{failed}/start/1")}


@pytest.mark.chaos
def test_a_killed_run_and_its_task_are_aborted_and_a_killed_teller_is_replaced(
    failed: str, folder: Folder, receiver: Receiver
) -> None:
    waiting = Folder(folder.folder, {**folder.variables, "WAITS": "1"})
    launcher = waiting.start(sys.executable, "told_flow.py", *BRIDGED)
    try:
        wait_until(lambda: find_new_tellers(folder, receiver), "the teller is there")
        (teller,) = find_new_tellers(folder, receiver)
        run = teller[1][-1]
        os.kill(teller[0], signal.SIGKILL)
        wait_until(
            lambda: f"{run}/join START" in read(receiver).spell(run), "the waiting task is told while it runs"
        )
        launcher.kill()
        for number, _ in find_processes(folder, run.partition("/")[2]):
            os.kill(number, signal.SIGKILL)
    finally:
        launcher.kill()
        launcher.communicate()
    exported = dlpipe(
        "lineage", "export", "--to", receiver.address, folder=folder.folder, environment=folder.environment
    )
    assert exported.returncode == 0, exported.stderr
    wait_until(lambda: f"{run} ABORT" in read(receiver).spell(run), "the end is told")
    words = read(receiver).spell(run)
    assert f"{run}/join ABORT" in words
    assert not [word for word in words if word.startswith(f"{run}/end")]


@pytest.mark.long
def test_a_catalog_that_is_down_for_half_a_minute_and_killed_at_random_has_the_graph_of_lineage(
    failed: str, folder: Folder, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.kill()
    before, began = len(receiver.read()), time.monotonic()
    waiting = Folder(folder.folder, {**folder.variables, "WAITS": "1"})
    launcher = waiting.start(sys.executable, "told_flow.py", *BRIDGED)
    try:
        wait_until(lambda: time.monotonic() - began > 30, "half a minute has passed")
        assert len(receiver.read()) == before
        receiver.start()
        with receiver.killed_at_random(seed=2, alive=2.0, down=1.0):
            wait_until(lambda: len(receiver.read()) > before, "it hears of the run while that goes on")
            (folder.folder / "go").touch()
            assert launcher.wait() == 0
            wait_until(lambda: not find_processes(folder, "dlpipe.openlineage.follow"), "all is told")
    finally:
        launcher.kill()
        launcher.communicate()
    monkeypatch.chdir(folder.folder)
    monkeypatch.setenv("DLPIPE_STATE", folder.variables["DLPIPE_STATE"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder.folder / 'mlflow.db'}")
    keep_runs_in(folder.folder, monkeypatch)
    told = read(receiver)
    assert [problem for event in told.events for problem in find_problems(event)] == []
    expected = list_edges(Records(), find_runs())
    assert len(expected) > 10
    assert rebuild(told.events) == expected


def find_new_tellers(folder: Folder, receiver: Receiver) -> list[tuple[int, list[str]]]:
    """Return the processes that tell of a run of which nothing was told yet."""
    tellers, told = find_processes(folder, "dlpipe.openlineage.follow"), read(receiver)
    return [teller for teller in tellers if not told.spell(teller[1][-1])]


def find_processes(folder: Folder, word: str) -> list[tuple[int, list[str]]]:
    """Return number and command of the processes of a folder whose command has a word."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_text().strip("\0").split("\0")
            if (entry / "cwd").readlink() == folder.folder.resolve() and word in words:
                found.append((int(entry.name), words))
        except OSError:  # it has ended
            continue
    return found
