"""`dlpipe runs`, `logs`, `deployments`, `event`, `scheduler`: what people and programs read; what is refused."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from schedulers import FAILS, deployed, ended, run_when, scheduling, started, succeeds, triggered, wait_until

from dlpipe.cli import main
from dlpipe.orchestrator.deployments import NeededEvent, Policies, Schedule, Trigger
from dlpipe.orchestrator.keeper import find_processes
from dlpipe.orchestrator.runs import RunAttempt
from dlpipe.orchestrator.state import State, state_folder
from dlpipe.tables import write_table

FLOW = """
from metaflow import FlowSpec, Parameter, step


class HandFlow(FlowSpec):
    fine = Parameter("fine", default=0)

    @step
    def start(self):
        from dlpipe.registry import ModelVersion
        self.made = ModelVersion("films", 7, "models:/films/7", "", "", "")
        self.next(self.count)

    @step
    def count(self):
        import os
        if not os.path.exists("repaired"):
            raise ValueError("no such column: stars")
        self.next(self.end)

    @step
    def end(self):
        print("all is well")


if __name__ == "__main__":
    HandFlow()
"""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[State]:
    monkeypatch.setenv("DLPIPE_STATE", str(tmp_path / "state"))
    with contextlib.closing(State.open()) as made:
        yield made


def dlpipe(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def attempted(state: State, name: str, status: str = "succeeded", reason: str = "", log: str = "hello\n") -> int:
    """A run with an attempt, as it stands after a while."""
    number = triggered(state, name, f"manual:{time.monotonic_ns()}")
    folder = state.folder / "runs" / str(number) / "0"
    folder.mkdir(parents=True)
    (folder / "log").write_text(log)
    step, _, why = reason.partition(": ")
    state.add_attempt(
        number, RunAttempt(0, f"t{number}", str(folder), metaflow_run=f"ls-{number}-abc", started=100.0)
    )
    state.set_attempt(
        number,
        RunAttempt(
            *(0, f"t{number}", str(folder)),
            **{"metaflow_run": f"ls-{number}-abc", "started": 100.0, "ended": 175.0},  # type: ignore[arg-type]
            outcome="failed" if status == "failed" else "succeeded",
            step=step,
            reason=why,
        ),
    )
    state.set_status(number, status, reason=reason)  # type: ignore[arg-type]
    return number


# -- runs --------------------------------------------------------------------------------------------------------


def test_runs_say_for_each_failed_one_the_step_the_reason_and_the_command_that_resumes_it(state: State) -> None:
    deployed(state, "TrainFlow", FAILS)
    attempted(state, "TrainFlow")
    attempted(state, "TrainFlow", "failed", "train: ValueError: no such column: stars")
    head, failed, why, resume, good = dlpipe("runs").stdout.splitlines()
    assert head.split() == ["run", "deployment", "status", "due", "took", "cause"]
    assert failed.split()[:3] == ["2", "TrainFlow", "failed"]
    assert why == "    train: ValueError: no such column: stars"
    assert resume == "    resume: dlpipe runs resume 2"
    assert "1 min 15 s" in good


def test_runs_are_json_for_programs(state: State) -> None:
    deployed(state, "TrainFlow", FAILS)
    attempted(state, "TrainFlow", "failed", "train: ValueError: no", log="MLflow has this run: http://x/1\n")
    (row,) = json.loads(dlpipe("runs", "--json").stdout)
    assert (row["run"], row["status"], row["step"], row["why"]) == (1, "failed", "train", "ValueError: no")
    assert row["started"] == "1970-01-01T00:01:40+00:00"
    assert row["attempts"][0]["metaflow_run"] == "ls-1-abc"
    assert row["attempts"][0]["mlflow"] == "http://x/1"


def test_runs_of_one_deployment_and_so_many(state: State) -> None:
    for name in ("A", "B", "A", "A"):
        if name not in {one.name for one in state.list_deployments()}:
            deployed(state, name, FAILS)
        attempted(state, name)
    rows = json.loads(dlpipe("runs", "--deployment", "A", "--limit", "2", "--json").stdout)
    assert [row["run"] for row in rows] == [4, 3]


def test_watching_prints_what_changes(state: State) -> None:
    deployed(state, "A", FAILS)
    attempted(state, "A", "failed", "start: OSError: no")
    said = dlpipe("runs", "--watch", "--rounds", "2").stdout
    assert said == "run 1 of A failed: start: OSError: no; resume: dlpipe runs resume 1\n"
    assert "add --watch, or leave out --rounds" in dlpipe("runs", "--rounds", "1").stderr
    assert "leave out --watch" in dlpipe("runs", "--local", "--watch").stderr
    assert json.loads(dlpipe("runs", "--watch", "--rounds", "1", "--json").stdout)["run"] == 1


def test_the_command_that_runs_print_resumes_the_run(state: State, tmp_path: Path) -> None:
    repaired = tmp_path / "repaired"
    program = succeeds(f"Path({str(repaired)!r}).exists() or sys.exit('ValueError: no such column')")
    deployed(state, "A", program, policies=Policies(resumes=0))
    number = triggered(state, "A")
    with scheduling(state.folder):
        run_when(state, number, "failed")
        repaired.touch()
        (row,) = json.loads(dlpipe("runs", "--json").stdout)
        words = shlex.split(row["resume"])[1:]
        assert dlpipe(*words).exit_code == 0
        run_when(state, number, "succeeded")
    assert len(state.get_run(number).attempts) == 2


def test_a_run_is_terminated(state: State) -> None:
    deployed(state, "A", succeeds("import time; time.sleep(60)"))
    number = triggered(state, "A")
    with scheduling(state.folder):
        run_when(state, number, "running")
        assert dlpipe("runs", "terminate", str(number)).exit_code == 0
        run_when(state, number, "terminated")


def test_without_a_scheduler_a_run_is_stopped_at_once(state: State) -> None:
    deployed(state, "A", succeeds("import time; time.sleep(60)"))
    number = triggered(state, "A")
    scheduler = started(state.folder)
    token = run_when(state, number, "running").attempts[0].token
    wait_until(lambda: find_processes(token))
    ended(scheduler, signal.SIGTERM)
    assert find_processes(token)
    assert "is terminated." in dlpipe("runs", "terminate", str(number)).stderr
    assert not find_processes(token)
    assert (state.get_run(number).status, state.get_run(number).attempts[0].outcome) == (
        "terminated",
        "terminated",
    )


def test_without_a_scheduler_a_run_that_waits_is_terminated_and_others_are_left_alone(state: State) -> None:
    deployed(state, "A", FAILS, policies=Policies(alert="true", alert_on="end"))
    number, other = triggered(state, "A"), triggered(state, "A", "manual:2")
    assert "is terminated." in dlpipe("runs", "terminate", str(number)).stderr
    assert [state.get_run(one).status for one in (number, other)] == ["terminated", "queued"]
    assert [alert.kind for alert in state.list_alerts_to_send(time.time() + 1)] == ["terminated"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runs", "terminate", "99"], "No run '99'; runs are 1 to 1, `dlpipe runs` lists them."),
        (["runs", "terminate", "1"], "Run 1 of TrainFlow is succeeded already."),
        (["runs", "resume", "1"], "Run 1 of TrainFlow is succeeded: there is nothing to resume."),
        (["runs", "resume", "ls-7-abc"], "No run 'ls-7-abc'"),
        (["runs", "--deployment", "TrianFlow"], "No deployment 'TrianFlow'; did you mean 'TrainFlow'?"),
        (["logs", "99"], "No run '99'"),
        (["logs", str(2**63)], "No run '9223372036854775808'"),
        (["runs", "resume", "9" * 5000], "No run '999"),
        (["logs", "\udcff"], "No run '"),
        (["logs", "1", "--attempt", "3"], "Run 1 has no attempt 3; its attempts are 0 to 0."),
        (["event", "publish", "a b"], "'a b' has others"),
        (["event", "publish", "metaflow.A.end"], "publishes by itself"),
        (["event", "publish", "go", "--payload", "[1]"], "The payload is a list, not an object."),
        (["event", "publish", "go", "--payload", "{"], "The payload is not JSON"),
        (["event", "publish", "drifted"], "event 'drifted' has no field 'accuracy'"),
        (["event", "publish", "drifted", "--payload", '{"accuracy": "low"}'], 'accuracy = "low"'),
        (["scheduler", "stop"], "No scheduler works on"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_1(words: list[str], said: str, state: State) -> None:
    trigger = Trigger((NeededEvent("drifted", {"accuracy": "accuracy"}),))
    names = {"parameter_names": ("accuracy",), "required": ("accuracy",), "parameter_types": {"accuracy": "float"}}
    deployed(state, "TrainFlow", FAILS, trigger=trigger, **names)
    attempted(state, "TrainFlow")
    done = dlpipe(*words)
    assert done.exit_code == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert state.list_events_after(0) == []


def test_nothing_is_said_when_nothing_has_run(state: State) -> None:
    where = f"(looked in {str(state_folder())!r}). Stand in the folder of the project"
    assert f"Nothing has run here yet {where}" in dlpipe("runs").stderr
    assert f"Nothing is deployed here {where}" in dlpipe("deployments").stderr
    assert json.loads(dlpipe("runs", "--json").stdout) == []


def test_a_state_of_a_newer_dlpipe_is_refused_in_one_line(state: State) -> None:
    state._database.execute("PRAGMA user_version = 99")
    for words in (["runs"], ["deployments"], ["logs", "1"], ["event", "publish", "go"], ["scheduler"]):
        done = dlpipe(*words)
        assert done.exit_code == 1
        assert "newer dlpipe" in done.stderr
        assert done.stderr.count("\n") == 1


# -- runs of the datastore ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_by_hand_that_failed_is_resumed_by_the_command_that_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows/hand_flow.py").write_text(FLOW)
    variables = {name: value for name, value in os.environ.items() if not name.startswith("METAFLOW_")}
    given = {"cwd": tmp_path, "env": {**variables, "METAFLOW_USER": "ana"}, "capture_output": True, "text": True}
    python = [sys.executable, "flows/hand_flow.py", "run"]
    assert subprocess.run(python, **given).returncode == 1  # type: ignore[call-overload]
    listing = [sys.executable, "-m", "dlpipe.cli", "runs", "--local", "--json"]
    (row,) = json.loads(subprocess.run(listing, **given).stdout)  # type: ignore[call-overload]
    assert (row["status"], row["step"], row["why"]) == ("failed", "count", "ValueError: no such column: stars")
    assert "flows/hand_flow.py resume --origin-run-id " in row["resume"]
    (tmp_path / "repaired").touch()
    assert subprocess.run(shlex.split(row["resume"]), **given).returncode == 0  # type: ignore[call-overload]
    rows = json.loads(subprocess.run(listing, **given).stdout)  # type: ignore[call-overload]
    assert [(one["status"], one["resume"]) for one in rows] == [("finished", ""), ("resumed", "")]
    later, first = (one["run"] for one in rows)
    delete = [sys.executable, "-m", "dlpipe.cli", "runs", "delete"]
    # no registry has the version by now: it was deleted, and the run alone tells that it made it
    key = {"source": "/t/films", "source_version": "0", "model": "models:/films/7"}
    write_table(tmp_path / "data/tables/films_predictions", pa.table({"row_id": ["a"]}), key=key)
    asked = subprocess.run([*delete, first], stdin=subprocess.DEVNULL, **given)  # type: ignore[call-overload]
    assert (asked.returncode, f"{later}  resumed {first}" in asked.stderr) == (1, True)
    assert re.search(r"table +films_predictions +computed by models:/films/7", asked.stderr), asked.stderr
    of_flow = subprocess.run([*delete, "HandFlow", "--yes"], **given)  # type: ignore[call-overload]
    assert f"'HandFlow' is a flow. Name a run of it, such as {later}." in of_flow.stderr
    latest = tmp_path / ".metaflow/HandFlow/latest_run"
    assert latest.read_text() == first.partition("/")[2]
    gone = subprocess.run([*delete, first, "--yes", "--json"], **given)  # type: ignore[call-overload]
    assert json.loads(gone.stdout)["deleted"] == [{"run": first, "mlflow_runs": 0}]
    assert not latest.exists()  # it would name a run that is gone to `resume`
    resume = [sys.executable, "flows/hand_flow.py", "resume"]
    told = subprocess.run(resume, **given)  # type: ignore[call-overload]
    assert (told.returncode, "--origin-run-id" in told.stderr, "Traceback" in told.stderr) == (1, True, False)
    left = tmp_path / ".metaflow/.deleted" / later / "0-0"  # as a kill in the middle leaves the other one
    left.parent.mkdir(parents=True)
    (tmp_path / ".metaflow" / later).rename(left)
    assert subprocess.run(listing, **given).stdout == "[]\n"  # type: ignore[call-overload]
    gone = subprocess.run([*delete, later.partition("/")[2], "--yes"], **given)  # type: ignore[call-overload]
    assert (gone.returncode, (tmp_path / ".metaflow/.deleted").exists()) == (0, False)


# -- logs --------------------------------------------------------------------------------------------------------


def test_a_log_is_found_by_the_number_or_by_the_metaflow_run(state: State) -> None:
    deployed(state, "A", FAILS)
    attempted(state, "A", log="hello\n")
    for name in ("1", "ls-1-abc", "A/ls-1-abc", "A/ls-1-abc/start/2"):
        assert dlpipe("logs", name).stdout == "hello\n"


def test_a_log_is_followed_over_attempts_until_the_run_ends(state: State, tmp_path: Path) -> None:
    repaired = tmp_path / "repaired"
    doing = f"Path({str(repaired)!r}).exists() or (print('not yet'), Path({str(repaired)!r}).touch(), os.abort())"
    deployed(state, "A", succeeds(doing), policies=Policies(backoff=0.5))
    number = triggered(state, "A")
    with scheduling(state.folder):
        done = subprocess.run(
            [sys.executable, "-m", "dlpipe.cli", "logs", str(number), "--follow"],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.stdout.count("hello from") == 2
    assert "-- attempt 1" in done.stderr
    assert done.stderr.splitlines()[-1] == f"run {number} of A succeeded"


# -- deployments and events --------------------------------------------------------------------------------------


def test_deployments_say_when_they_are_due_in_their_own_time_zone(state: State) -> None:
    deployed(state, "A", FAILS, schedule=Schedule("0 3 * * *", "Europe/Berlin"))
    deployed(state, "B", FAILS, trigger=Trigger((NeededEvent("metaflow.A.end", kind="run", flow="A"),)))
    deployed(state, "C", FAILS, schedule=Schedule("0 3 * * *"))
    state.suspend("C", True, now=time.time())
    head, a, b, c = dlpipe("deployments").stdout.splitlines()
    assert head.split("  ")[0] == "deployment"
    assert "03:00 Europe/Berlin" in a
    assert "end of A" in b
    assert "suspended" in c
    rows = json.loads(dlpipe("deployments", "--json").stdout)
    assert [row["timezone"] for row in rows] == ["Europe/Berlin", None, "UTC"]
    assert rows[1]["events"] == ["metaflow.A.end"]
    assert rows[2]["next_due"] is None


def test_an_event_says_whom_it_reaches(state: State) -> None:
    deployed(state, "A", FAILS, trigger=Trigger((NeededEvent("go"),)))
    deployed(state, "B", FAILS, trigger=Trigger((NeededEvent("go"),)))
    state.suspend("B", True, now=time.time())
    done = dlpipe("event", "publish", "go", "--payload", '{"rows": 10}')
    assert done.stdout == "go is published; it reaches A.\n"
    assert "B does not run: it is suspended" in done.stderr
    assert "No scheduler is running" in done.stderr
    ((_, event),) = state.list_events_after(0)
    assert event.payload == {"rows": 10}


def test_an_event_that_nobody_waits_for_is_published_with_a_warning(state: State) -> None:
    deployed(state, "A", FAILS, trigger=Trigger((NeededEvent("model-drifted"),)))
    done = dlpipe("event", "publish", "model-drited")
    assert done.exit_code == 0
    assert "No deployment waits for 'model-drited'; did you mean 'model-drifted'?" in done.stderr


def test_an_event_that_fits_one_of_two_reaches_that_one(state: State) -> None:
    deployed(state, "A", FAILS, trigger=Trigger((NeededEvent("go"),)))
    needs = {"parameter_names": ("rows",), "required": ("rows",), "parameter_types": {"rows": "int"}}
    deployed(state, "B", FAILS, trigger=Trigger((NeededEvent("go", {"rows": "rows"}),)), **needs)
    done = dlpipe("event", "publish", "go", "--json")
    assert json.loads(done.stdout)["starts"] == ["A"]
    assert "B does not run: event 'go' has no field 'rows'" in done.stderr


# -- install -----------------------------------------------------------------------------------------------------


def test_install_shows_the_unit_and_asks_before_it_writes(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    unit = tmp_path / "systemd/user/dlpipe-scheduler.service"
    refused = CliRunner().invoke(main, ["scheduler", "install"], input="n\n")
    assert "KillMode=process" in refused.stdout
    assert not unit.exists()
    done = CliRunner().invoke(main, ["scheduler", "install", "--max-runs", "3"], input="y\n")
    assert unit.read_text().strip() == done.stdout.strip()
    assert "--max-runs 3 --port 8710" in unit.read_text()
    assert "systemctl --user enable --now dlpipe-scheduler" in done.stderr
    assert CliRunner().invoke(main, ["scheduler", "install", "--yes"]).exit_code == 0
    assert "--max-runs 3" not in unit.read_text()


def test_a_unit_that_cannot_be_written_is_one_line(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "systemd").write_text("a file where a folder is needed")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    done = dlpipe("scheduler", "install", "--yes")
    assert done.exit_code == 1
    assert "cannot be written" in done.stderr


@pytest.mark.parametrize("command", ["resume", "terminate", "suspend", "unsuspend"])
def test_runs_of_somebody_elses_deployment_are_changed_with_the_token_alone(
    command: str, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METAFLOW_HOME", str(tmp_path / "home"))
    status = "failed" if command == "resume" else "waiting"
    deployed(state, "Annas", FAILS, author="anna", token="annas-0-abcd")
    number = attempted(state, "Annas", status, "train: ValueError: no")
    before = state.get_run(number)
    for wrong in ([], ["--authorize", "annas-0-x"]):
        done = dlpipe("runs", command, str(number), *wrong)
        assert (done.exit_code, done.output.count("\n")) == (1, 1), done.output
        assert (
            f"Annas was deployed by anna: to {command} runs of it, ask them for the production token"
            in done.output
        )
        assert state.get_run(number) == before
    done = dlpipe("runs", command, str(number), "--authorize", "production:annas-0-abcd")
    assert done.exit_code == 0, done.output
