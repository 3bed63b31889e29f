"""The bridge on real runs: what stands in MLflow is what happened, and nothing is written twice.

The first run of the tour has no MLflow beside it and is written afterwards; the others are followed.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from commands import dlpipe, without_system
from mlflow import MlflowClient
from mlflow.entities import Run
from projects import warm_python
from stores import copy_database, plain_name

from dlpipe.bridge.records import NAME

SHAPES = Path(__file__).with_name("shapes")
NOT_INHERITED = ("METAFLOW_", "MLFLOW_", "DLPIPE_", "PYTEST_")
DLPIPE = str(Path(sys.executable).with_name("dlpipe"))
SECRETS = (b"sk-tour-0123456789", b"hunter2", b"abc-not-for-anyone")
SLEEP = """
import time
from metaflow import FlowSpec, step


class SleepFlow(FlowSpec):
    @step
    def start(self):
        print("asleep")
        time.sleep(600)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    SleepFlow()
"""
LATE_CARD = """
import os, signal, sys, time
from metaflow import FlowSpec, card, current, step
from metaflow.cards import Markdown

if "create" in sys.argv:
    time.sleep(5)


class LateCardFlow(FlowSpec):
    @card(type="blank")
    @step
    def start(self):
        current.card.append(Markdown("as far as it came"))
        current.card.refresh()
        os.kill(os.getpid(), signal.SIGKILL)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    LateCardFlow()
"""


@dataclass(frozen=True)
class Place:
    """A folder in which flows run and MLflow's database stands."""

    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def at(self, uri: str) -> Place:
        """Return the same folder with another MLflow."""
        return Place(self.folder, {"MLFLOW_TRACKING_URI": uri})

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
        return {**kept, "METAFLOW_USER": "tester", "PYTHONUNBUFFERED": "1", **self.variables}

    def flow(self, *words: str, code: int = 0) -> str:
        """Run the tour flow and return the id of the run."""
        done = self.command(str(warm_python().bin / "python"), str(SHAPES / "tour_flow.py"), *words)
        assert done.returncode == code, done.stdout
        return run_id(done.stdout)

    def bridge(self, *words: str, code: int = 0) -> str:
        """Run ``dlpipe bridge`` and return what it says on stdout."""
        done = dlpipe("bridge", *words, folder=self.folder, environment=self.environment)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def command(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command to the end."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def mirrored(self, run: str) -> dict[str, Run]:
        """Sync and check a run, and return what MLflow holds by key."""
        self.bridge("sync", f"TourFlow/{run}")
        assert self.bridge("check", f"TourFlow/{run}") == "0 differences\n"
        return self.held(run)

    def held(self, run: str) -> dict[str, Run]:
        client = self.client()
        experiment = client.get_experiment_by_name("TourFlow")
        assert experiment
        runs = client.search_runs([experiment.experiment_id], f"tags.`metaflow.run` = 'TourFlow/{run}'")
        held = {one.data.tags["metaflow.key"]: one for one in runs}
        assert len(held) == len(runs)
        return held

    def client(self) -> MlflowClient:
        return MlflowClient(self.variables.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.folder / 'mlflow.db'}")

    def text(self, run: Run, path: str) -> str:
        return Path(self.client().download_artifacts(run.info.run_id, path)).read_text()


def run_id(said: str) -> str:
    """Return the id of the run that a launcher talks of."""
    found = re.search(r"run-id (\d+)", said)
    assert found, said
    return found[1]


def card_data(page: str) -> str:
    """Return the data that the page of a card carries."""
    found = re.search(r'__MF_DATA__\["[^"]*"\] = "([^"]*)"', page)
    assert found
    return base64.b64decode(found[1]).decode()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("tour"))


@pytest.fixture(scope="module")
def outage(place: Place) -> str:
    """What is said of a run that has the bridge and no MLflow."""
    tour = (sys.executable, str(SHAPES / "tour_flow.py"), "run", "--with", "mlflow_bridge")
    done = place.at("http://127.0.0.1:9").command(*tour)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def run(outage: str) -> str:
    return run_id(outage)


@pytest.fixture(scope="module")
def held(place: Place, run: str) -> dict[str, Run]:
    """What MLflow holds after the commands, as a person gives them."""
    for word in ("sync", "check"):
        done = place.command(DLPIPE, "bridge", word, f"TourFlow/{run}")
        assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "0 differences\n"
    return place.held(run)


def named(held: dict[str, Run], name: str) -> Run:
    (found,) = [run for run in held.values() if plain_name(run) == name]
    return found


@pytest.fixture(scope="module")
def killed(place: Place, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run without the bridge whose launcher and task are killed; it takes half a minute to be known as such."""
    launcher, run = asleep(place, tmp_path_factory.mktemp("killed"))
    place.bridge("sync", f"SleepFlow/{run}")
    assert status_of(place, "SleepFlow", run) == {"RUNNING"}
    assert "is running" in place.command(DLPIPE, "runs", "delete", run, "--yes").stderr
    os.killpg(launcher.pid, signal.SIGKILL)
    launcher.wait()
    return run


def test_a_run_that_was_killed_just_now_may_still_go_on(place: Place, killed: str) -> None:
    assert status_of(place, "SleepFlow", killed) == {"RUNNING"}


def test_without_mlflow_the_flow_ends_well_and_says_that_the_mirror_is_behind(outage: str) -> None:
    assert f"dlpipe bridge sync TourFlow/{run_id(outage)}" in outage


def test_the_run_and_each_attempt_stand_in_mlflow_once(held: dict[str, Run], run: str) -> None:
    parent = named(held, run)
    children = [one for one in held.values() if one is not parent]
    assert sorted(str(one.info.run_name) for one in children) == [
        "1 start",
        "2 left",
        "2 left (attempt 2)",
        "3 right",
        "4 meet",
        "5 fan",
        "6 spread[00]",
        "6 spread[01]",
        "6 spread[02]",
        "7 join",
        "8 end",
    ]
    assert {one.data.tags["mlflow.parentRunId"] for one in children} == {parent.info.run_id}


def test_status_and_times_are_those_of_metaflow(held: dict[str, Run], run: str) -> None:
    status = {plain_name(one): one.info.status for one in held.values()}
    assert status.pop("left") == "FAILED"
    assert set(status.values()) == {"FINISHED"}
    parent = named(held, run)
    for one in held.values():
        assert parent.info.start_time <= one.info.start_time <= one.info.end_time <= parent.info.end_time + 1000


def test_a_failed_attempt_stays_with_its_traceback_beside_the_one_that_worked(
    place: Place, held: dict[str, Run]
) -> None:
    assert "ValueError: the first attempt always fails" in place.text(named(held, "left"), "traceback.txt")
    assert "share" not in named(held, "left").data.metrics
    assert without_system(named(held, "left (attempt 2)").data.metrics) == {"attempt": 1.0, "share": 0.5}
    for name in ("left", "left (attempt 2)"):  # of each attempt that came to an end of its own
        assert named(held, name).data.metrics["system/cpu_seconds"] > 0
        assert 10 < named(held, name).data.metrics["system/peak_memory_mb"] < 10_000
    assert named(held, "left (attempt 2)").data.params == {"worst": "inf"}


def test_artifacts_go_where_their_type_says_and_stand_with_the_task_that_made_them(
    place: Place, held: dict[str, Run]
) -> None:
    assert without_system(named(held, "start").data.metrics) == {"count": 3.0}
    assert "count" not in named(held, "end").data.metrics
    assert without_system(named(held, "join").data.metrics) == {"total": 5.0}
    right = named(held, "right")
    assert right.data.params["nothing"] == "None"
    assert json.loads(place.text(right, "artifacts/notes.json"))["inner"] == {"values": [1, None]}
    assert place.text(right, "artifacts/essay.txt") == "long " * 2000
    index = json.loads(place.text(right, "artifacts.json"))
    kinds = {name: entry["kept"] for name, entry in index.items()}
    assert kinds == {
        "table": "file",
        "numbers": "file",
        "notes": "file",
        "essay": "parameter",
        "nothing": "parameter",
        "thing": "reference",
    }
    assert index["thing"]["why"] == "pathlib.PosixPath is not opened"


def test_cards_logs_and_description_are_there(place: Place, held: dict[str, Run], run: str) -> None:
    start = named(held, "start")
    assert "The words" in card_data(place.text(start, "cards/0-blank.html"))
    picture = place.client().download_artifacts(start.info.run_id, "pictures/0-blank/01-one_pixel.png")
    assert Path(picture).read_bytes().startswith(b"\x89PNG")
    assert "one two three" in place.text(start, "logs/stdout.txt")
    page = named(held, run).data.tags["mlflow.note.content"]
    assert "Count words in two ways." in page
    assert "start -> left, right" in page
    assert "fan each -> spread" in page
    assert "<svg" in place.text(named(held, run), "graph.svg")
    assert "| spread | 3 | 3 | 3 finished |" in page
    assert "| left | 1 | 2 | finished |" in page


def test_no_credential_is_anywhere_in_mlflow(place: Place, held: dict[str, Run], run: str) -> None:
    assert named(held, run).data.params["api_token"] == "[redacted]"
    for path in [place.folder / "mlflow.db", *(place.folder / "mlartifacts").rglob("*")]:
        if path.is_file():
            content = path.read_bytes()
            assert not [secret for secret in SECRETS if secret in content], path


def test_syncing_again_writes_nothing(place: Place, held: dict[str, Run], run: str) -> None:
    (done,) = json.loads(place.bridge("sync", f"TourFlow/{run}", "--json"))
    assert (done["records"], done["written"]) == (12, 0)


def test_what_people_changed_comes_back_and_what_they_added_or_deleted_stays_so(place: Place, run: str) -> None:
    held, client = place.mirrored(run), place.client()
    right = named(held, "right")
    client.set_tag(right.info.run_id, "verdict", "nice")
    client.set_tag(right.info.run_id, "metaflow.step", "wrong")
    (Path(right.info.artifact_uri) / "artifacts" / "notes.json").unlink()
    essay = Path(right.info.artifact_uri) / "artifacts" / "essay.txt"
    essay.write_text(essay.read_text().upper())
    client.set_terminated(named(held, "join").info.run_id, "KILLED", 1)
    client.update_run(named(held, run).info.run_id, name="my best run")
    client.update_run(named(held, "fan").info.run_id, name="fan")  # as the last release called it
    client.delete_tag(named(held, "fan").info.run_id, NAME)
    client.delete_run(named(held, "end").info.run_id)
    said = place.bridge("check", f"TourFlow/{run}", code=1)
    assert "tag metaflow.step should be 'right', MLflow holds 'wrong'" in said
    assert "file artifacts/notes.json should be" in said
    assert "file artifacts/essay.txt should be" in said
    assert "status should be FINISHED, MLflow holds KILLED" in said
    assert "name should be 5 fan, MLflow holds fan" in said
    assert "my best run" not in said
    assert "end/" not in said
    again = place.mirrored(run)
    assert named(again, "right").data.tags["verdict"] == "nice"
    assert named(again, run).info.run_name == "my best run"
    assert named(again, "fan").info.run_name == "5 fan"
    assert [one for one in again.values() if plain_name(one) == "end"] == []
    (done,) = json.loads(place.bridge("sync", f"TourFlow/{run}", "--json"))
    assert (done["written"], done["deleted"]) == (0, 1)
    place.bridge("sync", "--restore", f"TourFlow/{run}")
    assert named(place.mirrored(run), "end").info.run_id == named(held, "end").info.run_id


def test_a_followed_run_that_fails_keeps_its_exit_code_and_stands_beside_its_resume(
    place: Place, tmp_path: Path
) -> None:
    trigger = tmp_path / "fail"
    trigger.touch()
    words = ("run", "--fail-file", str(trigger), "--with", "mlflow_bridge")
    done = place.command(str(warm_python().bin / "python"), str(SHAPES / "tour_flow.py"), *words)
    failed = run_id(done.stdout)
    resume = f"python {SHAPES / 'tour_flow.py'} resume --origin-run-id {failed}"
    assert done.returncode == 1
    assert done.stdout.count(f" To resume this run, after a repair: {resume}\n") == 1
    assert place.bridge("check", f"TourFlow/{failed}") == "0 differences\n"
    held = place.held(failed)
    top = named(held, failed)
    assert top.info.status == "FAILED"
    assert re.fullmatch(r"TourFlow · .+ · failed in join · \d+ \w{3} \d\d:\d\d", top.info.run_name)
    first, second = top.data.tags["mlflow.note.content"].splitlines()[:3:2]
    assert re.match(r"\*\*Failed in `join`\*\* \(task \d+\): `\w+: .+`\. After a repair, `python ", first)
    assert first.endswith(f", `{resume}` goes on from there.")
    assert re.match(
        r"\*\*Tried again:\*\* `left` \(task \d+\) 1 time, after `ValueError: the first attempt", second
    )
    assert named(held, "join").info.status == "FAILED"
    assert named(held, "join").data.tags["mlflow.note.content"].startswith("**Failed:** `")
    trigger.unlink()
    resumed = place.flow("resume", "--origin-run-id", failed)
    after = place.mirrored(resumed)
    assert named(after, resumed).info.status == "FINISHED"
    assert named(after, resumed).data.tags["metaflow.origin"] == f"TourFlow/{failed}"
    reused = {plain_name(one) for one in after.values() if "metaflow.origin" in one.data.tags} - {resumed}
    assert reused == {"start", "left", "right", "meet", "fan", "spread[00]", "spread[01]", "spread[02]"}
    assert "| start | 1 | 1 | reused |" in named(after, resumed).data.tags["mlflow.note.content"]
    assert not named(after, "start").data.metrics
    assert named(place.held(failed), failed).info.status == "FAILED"

    # without what the launcher left beside it, as a run without the bridge, into another MLflow
    shutil.rmtree(place.folder / ".metaflow" / "TourFlow" / failed / "_bridge")
    other = place.at(f"sqlite:///{copy_database(tmp_path) / 'mlflow.db'}")
    assert {key: one.info.status for key, one in other.mirrored(failed).items()} == {
        key: one.info.status for key, one in held.items()
    }


def asleep(place: Place, folder: Path, *words: str) -> tuple[subprocess.Popen[str], str]:
    """Start a flow whose first step sleeps; return its launcher and the id of the run."""
    flow = folder / "sleep_flow.py"
    flow.write_text(SLEEP)
    launcher = subprocess.Popen(
        [sys.executable, str(flow), "run", *words],
        cwd=place.folder,
        env=place.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert launcher.stdout
    said = ""
    while "asleep" not in said:
        line = launcher.stdout.readline()
        assert line, said
        said += line
    return launcher, run_id(said)


def status_of(place: Place, flow: str, run: str) -> set[str]:
    """Return the statuses of all records of a run; none while there is no record."""
    client = place.client()
    experiment = client.get_experiment_by_name(flow)
    if experiment is None:
        return set()
    runs = client.search_runs([experiment.experiment_id], f"tags.`metaflow.run` = '{flow}/{run}'")
    return {one.info.status for one in runs}


def waited_for(place: Place, run: str, status: str) -> bool:
    """Wait up to a minute until all records of the sleeping flow have this status."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if status_of(place, "SleepFlow", run) == {status}:
            return True
        time.sleep(0.2)
    return False


# -- beside a live run -----------------------------------------------------------------------------------------


def test_a_followed_run_is_in_mlflow_when_it_ends_and_a_foreach_of_many_tasks_is_one_record_with_a_table(
    place: Place,
) -> None:
    run = place.flow("run", "--fan-out", "51", "--with", "mlflow_bridge")
    assert place.bridge("check", f"TourFlow/{run}") == "0 differences\n"
    held = place.held(run)
    spread = named(held, "spread (51 tasks)")
    table = json.loads(place.text(spread, "tasks.json"))
    assert len(table["data"]) == 51
    assert {row[table["columns"].index("status")] for row in table["data"]} == {"FINISHED"}
    assert len(held) == 10


@pytest.mark.parametrize(("number", "ended"), [(signal.SIGKILL, "KILLED"), (signal.SIGINT, "FAILED")])
def test_the_follower_outlives_the_flow_and_writes_how_it_ended(
    number: signal.Signals, ended: str, place: Place, tmp_path: Path
) -> None:
    launcher, run = asleep(place, tmp_path, "--with", "mlflow_bridge")
    assert waited_for(place, run, "RUNNING")
    os.killpg(launcher.pid, number)
    launcher.wait()
    assert waited_for(place, run, ended)
    assert place.bridge("check", f"SleepFlow/{run}") == "0 differences\n"


def test_a_card_that_outlives_its_killed_task_is_waited_for(place: Place, tmp_path: Path) -> None:
    flow = tmp_path / "late_card_flow.py"
    flow.write_text(LATE_CARD)
    command = [sys.executable, str(flow), "run", "--with", "mlflow_bridge"]
    done = place.command(*command)
    assert done.returncode == 1, done.stdout
    deadline = time.monotonic() + 60
    while "LateCardFlow" in place.bridge("status"):
        assert time.monotonic() < deadline
        time.sleep(1)
    run = run_id(done.stdout)
    (card,) = (place.folder / ".metaflow/mf.cards").glob(f"LateCardFlow/runs/{run}/**/*.html")
    assert place.bridge("check", f"LateCardFlow/{run}") == "0 differences\n", card


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("check", "NoFlow/1"), "Metaflow has no flow 'NoFlow' here; it has "),
        (("sync", "TourFlow/77"), "TourFlow has no run '77'; its latest: "),
    ],
)
def test_what_does_not_exist_is_one_line(place: Place, run: str, words: tuple[str, ...], line: str) -> None:
    done = place.command(DLPIPE, "bridge", *words)
    assert done.returncode == 1
    assert line in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_whose_launcher_and_task_were_killed_is_killed(place: Place, killed: str) -> None:
    deadline = time.monotonic() + 60
    while status_of(place, "SleepFlow", killed) == {"RUNNING"} and time.monotonic() < deadline:
        time.sleep(1)
        place.bridge("sync", f"SleepFlow/{killed}")
    assert status_of(place, "SleepFlow", killed) == {"KILLED"}
    assert place.bridge("check", f"SleepFlow/{killed}") == "0 differences\n"
    gone = place.command(DLPIPE, "runs", "delete", f"SleepFlow/{killed}", "--yes")
    assert re.search(r"is deleted; its \d+ runs in MLflow can be restored", gone.stdout), gone.stderr
    assert status_of(place, "SleepFlow", killed) == set()
