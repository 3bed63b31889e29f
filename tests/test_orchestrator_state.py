"""The state: what is kept, what is refused, and that neither kills nor full disks leave a half."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from disks import tiny_disk

from dlpipe.errors import DeploymentNotFound, RunEnded, RunNotFound, StateUnusable, StorageFull
from dlpipe.orchestrator import database
from dlpipe.orchestrator.database import Database
from dlpipe.orchestrator.deployments import NeededEvent, Policies, Schedule, Trigger, Version
from dlpipe.orchestrator.rows import MIGRATIONS
from dlpipe.orchestrator.runs import ENDED, OPEN, Event, Run, RunAttempt
from dlpipe.orchestrator.state import FILE, State, state_folder

NIGHTLY = Schedule("0 3 * * *", "Europe/Berlin")


def version(name: str = "PredictFlow", **values: object) -> Version:
    plain = Version(name, 0, name, "code", "flow.py", "d1", "/srv", "python", {"numpy": "1.26"})
    return dataclasses.replace(plain, **values)  # type: ignore[arg-type]


def add(state: State, name: str = "PredictFlow", key: str = "manual:1") -> Run:
    return state.add_run(name, cause="by hand", key=key, due=5.0)[0]


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State.open(tmp_path / "state")


# -- deployments -------------------------------------------------------------------------------------------------


def test_a_version_reads_back_from_another_process_as_it_was(state: State) -> None:
    full = version(
        options=("--with", "retry"),
        run_options=("--tag", "nightly"),
        parameters={"rows": 3, "options": {"a": [1]}},
        parameter_names=("rows", "options"),
        required=("rows",),
        parameter_types={"rows": "int"},
        variables={"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"},
        schedule=NIGHTLY,
        trigger=Trigger(
            (NeededEvent("drift", {"rows": "n"}), NeededEvent("metaflow.A.end", kind="run", flow="A")), "0 0 * * *"
        ),
        policies=Policies(overlap="queue", missed="all", missed_limit=3),
        tags=("a", "b"),
        created=7.0,
    )
    made = state.deploy(full, now=9.0)
    assert made == dataclasses.replace(full, number=1)
    other = State.open(state.folder)
    assert other.get_version("PredictFlow", 1) == made
    assert other.get_deployment("PredictFlow").version == made
    assert other.get_deployment("PredictFlow").scheduled_until == 9.0


def test_versions_count_on_over_deletion(state: State) -> None:
    assert [state.deploy(version(), now=1.0).number for _ in range(2)] == [1, 2]
    state.delete("PredictFlow")
    assert state.deploy(version(digest="d3"), now=2.0).number == 3
    assert [one.number for one in state.list_versions("PredictFlow")] == [3, 2, 1]
    assert state.get_version("PredictFlow", 3).digest == "d3"


def test_the_same_schedule_goes_on_over_a_new_version_and_another_begins_then(state: State) -> None:
    state.deploy(version(schedule=NIGHTLY), now=1.0)
    state.deploy(version(schedule=NIGHTLY), now=2.0)
    assert state.get_deployment("PredictFlow").scheduled_until == 1.0
    state.deploy(version(schedule=Schedule("0 4 * * *")), now=3.0)
    assert state.get_deployment("PredictFlow").scheduled_until == 3.0


def test_an_unknown_deployment_is_refused_with_near_names(state: State) -> None:
    with pytest.raises(DeploymentNotFound, match="nothing is deployed here"):
        state.get_deployment("PredictFlow")
    state.deploy(version(), now=1.0)
    with pytest.raises(DeploymentNotFound, match="did you mean 'PredictFlow'"):
        state.get_deployment("PredictFlo")
    with pytest.raises(DeploymentNotFound, match="no version 4; its latest is 1"):
        state.get_version("PredictFlow", 4)
    with pytest.raises(DeploymentNotFound):
        add(state, "Other")


def test_suspension_lasts_over_a_new_version_and_ends_with_now(state: State) -> None:
    state.deploy(version(schedule=NIGHTLY), now=1.0)
    state.suspend("PredictFlow", True, now=2.0)
    state.deploy(version(schedule=NIGHTLY), now=3.0)
    assert state.get_deployment("PredictFlow").suspended
    state.suspend("PredictFlow", False, now=50.0)
    assert state.get_deployment("PredictFlow").scheduled_until == 50.0
    state.suspend("PredictFlow", False, now=60.0)
    assert state.get_deployment("PredictFlow").scheduled_until == 50.0


def test_deletion_ends_what_is_queued_and_keeps_what_ran(state: State) -> None:
    state.deploy(version(), now=1.0)
    ran, queued = add(state), add(state, key="manual:2")
    state.add_attempt(ran.number, RunAttempt(0, "t", "f"))
    state.request_stop(queued.number)
    state.delete("PredictFlow")
    assert state.list_deployments() == []
    assert [(one.status, one.reason) for one in state.list_runs()] == [
        ("terminated", "the deployment was deleted"),
        ("running", ""),
    ]
    assert state.list_stop_requested() == []
    assert state.get_version("PredictFlow", 1).number == 1
    with pytest.raises(RunEnded):
        state.add_attempt(queued.number, RunAttempt(0, "t", "f"))


# -- runs --------------------------------------------------------------------------------------------------------


def test_a_cause_makes_one_run_whoever_notes_it(state: State) -> None:
    state.deploy(version(), now=1.0)
    event = Event("e1", "drift", {"rows": 3}, 4.0)
    first, new = state.add_run(
        "PredictFlow", cause="event drift", key="event:e1", due=4.0, parameters={"rows": 3}, events=[event]
    )
    assert new
    assert first.events == (event,)
    assert first.parameters == {"rows": 3}
    again, new = State.open(state.folder).add_run("PredictFlow", cause="other", key="event:e1", due=9.0)
    assert not new
    assert again == first


def test_attempts_follow_each_other_and_are_found_by_their_metaflow_run(state: State) -> None:
    state.deploy(version(), now=1.0)
    number = add(state).number
    state.add_attempt(number, RunAttempt(0, "t0", "f0", metaflow_run="ls-1-aa"))
    assert state.get_run(number).status == "running"
    ended = RunAttempt(0, "t0", "f0", metaflow_run="ls-1-aa", ended=9.0, outcome="killed", exit_code=-9)
    state.set_attempt(number, ended)
    state.set_status(number, "waiting", reason="killed", not_before=30.0)
    state.add_attempt(number, RunAttempt(1, "t1", "f1", origin="ls-1-aa", metaflow_run="ls-1-bb"))
    run = state.get_run(number)
    assert run.attempts[0] == ended
    assert run.attempts[1].origin == "ls-1-aa"
    assert (run.status, run.reason, run.not_before) == ("running", "", 0.0)
    for text in ("1", "ls-1-bb", "PredictFlow/ls-1-aa", "PredictFlow/ls-1-aa/start/3"):
        assert state.find_run(text) == run
    with pytest.raises(ValueError, match="the next attempt of run 1 is 2"):
        state.add_attempt(number, RunAttempt(1, "t2", "f2"))


def test_an_unknown_run_is_refused(state: State) -> None:
    with pytest.raises(RunNotFound, match="nothing has run here"):
        state.get_run(1)
    state.deploy(version(), now=1.0)
    add(state)
    for text in ("2", "ls-9-cc", "PredictFlow/12", ""):
        with pytest.raises(RunNotFound, match="runs are 1 to 1"):
            state.find_run(text)
    with pytest.raises(RunNotFound):
        state.set_status(7, "failed")


def test_a_request_to_stop_lasts_until_the_end(state: State) -> None:
    state.deploy(version(), now=1.0)
    number = add(state).number
    state.request_stop(number)
    state.add_attempt(number, RunAttempt(0, "t", "f"))
    assert State.open(state.folder).list_stop_requested() == [number]
    state.set_status(number, "terminated", reason="by hand")
    assert state.list_stop_requested() == []
    with pytest.raises(RunEnded, match="Run 1 of PredictFlow is terminated already"):
        state.request_stop(number)


def test_runs_are_chosen_by_deployment_status_and_number(state: State) -> None:
    for name in ("A", "B"):
        state.deploy(version(name), now=1.0)
    draw = random.Random(3)
    expected = []
    for key in range(40):
        number = add(state, draw.choice("AB"), f"manual:{key}").number
        state.set_status(number, draw.choice([*OPEN, *ENDED]))
        expected.append(state.get_run(number))
    expected.reverse()
    assert state.list_runs() == expected
    assert state.list_runs(deployment="A", limit=3) == [one for one in expected if one.deployment == "A"][:3]
    failed = [one for one in expected if one.status in ("failed", "queued")]
    assert state.list_runs(status=["queued", "failed", "queued"], limit=5) == failed[:5]
    assert state.list_runs(deployment="B", status=OPEN) == [
        one for one in expected if one.deployment == "B" and one.status in OPEN
    ]


def test_reading_stays_fast_with_a_hundred_thousand_ended_runs(state: State) -> None:
    state.deploy(version("D7"), now=1.0)
    other = sqlite3.connect(state.folder / "state.db")
    with other:
        other.executemany(
            "INSERT INTO runs (deployment, version, cause, key, due, parameters, events, status, not_before, "
            "reason) VALUES (?, 1, 'schedule', ?, 1.0, '{}', '[]', ?, 0.0, '')",
            [(f"D{one % 200}", f"k{one}", "failed" if one % 50 == 0 else "succeeded") for one in range(100_000)],
        )
    other.close()
    queued = add(state, "D7")
    began = time.perf_counter()
    for _ in range(10):
        assert state.list_runs(status=OPEN) == [queued]
        assert len(state.list_runs(limit=20)) == len(state.list_runs(status=ENDED, limit=20)) == 20
        assert len(state.list_runs(deployment="D7", status=["succeeded", "queued"], limit=20)) == 20
        assert state.list_stop_requested() == []
    assert (time.perf_counter() - began) / 10 < 0.1  # a scan of all takes ten times as long


# -- events ------------------------------------------------------------------------------------------------------


def test_an_event_counts_once(state: State) -> None:
    event = Event("e1", "drift", {"rows": [1, None, "ü"]}, 4.0)
    assert state.publish(event)
    assert not State.open(state.folder).publish(event)
    assert state.publish(dataclasses.replace(event, id="e2"))
    last = state.list_events_after(1)[0][0]
    assert [(number, one.id) for number, one in state.list_events_after(0)] == [(1, "e1"), (last, "e2")]
    assert state.list_events_after(1)[0][1].payload == event.payload
    assert state.get_events_dealt() == 0
    state.set_events_dealt(last)
    assert State.open(state.folder).get_events_dealt() == last


# -- the file ----------------------------------------------------------------------------------------------------


def test_the_folder_is_the_one_named_or_the_place_for_states(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLPIPE_STATE", "mine")
    assert state_folder() == tmp_path / "mine"
    monkeypatch.setenv("DLPIPE_STATE", "")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert state_folder() == tmp_path / "xdg" / "dlpipe"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state_folder() == tmp_path / ".local" / "state" / "dlpipe"


def test_a_state_from_a_newer_dlpipe_is_refused_and_left_as_it_was(state: State) -> None:
    state.deploy(version(), now=1.0)
    state.close()
    file = state.folder / "state.db"
    other = sqlite3.connect(file)
    other.execute("PRAGMA user_version = 99")
    other.close()
    before = file.read_bytes()
    with pytest.raises(StateUnusable, match=r"newer dlpipe \(its schema is 99, this one knows 3\)"):
        State.open(state.folder)
    assert file.read_bytes() == before


def test_a_state_of_an_older_dlpipe_is_taken_over(tmp_path: Path) -> None:
    old = Database(tmp_path / FILE, MIGRATIONS[:1])
    old.execute(
        "INSERT INTO runs (deployment, version, cause, key, due, parameters, events, status, not_before, reason) "
        "VALUES ('A', 1, 'by hand', 'k', 5.0, '{}', '[]', 'waiting', 7.0, 'work: no')"
    )
    old.close()
    state = State.open(tmp_path)
    (run,) = state.list_runs()
    assert (run.status, run.not_before, run.deadline, run.suspended) == ("waiting", 7.0, 0.0, False)
    state.suspend_run(run.number, True)
    assert State.open(tmp_path).get_run(run.number).suspended


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "state.db")
    other.execute("CREATE TABLE theirs (a)")
    other.close()
    with pytest.raises(StateUnusable, match="of another program"):
        State.open(tmp_path)


def test_a_file_that_is_no_database_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StateUnusable, match="and was left as it is"):
        State.open(tmp_path)
    assert (tmp_path / "state.db").read_bytes() == b"no database" * 1000


def test_damage_within_the_file_is_found_by_the_check_and_by_use(state: State) -> None:
    state.deploy(version(), now=1.0)
    for key in range(300):
        add(state, key=f"manual:{key}")
    state.close()
    file = state.folder / "state.db"
    content = bytearray(file.read_bytes())
    for page in range(3, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = os.urandom(64)
    file.write_bytes(content)
    with pytest.raises(StateUnusable, match="is damaged"):
        State.open(state.folder, check=True)
    used = State.open(state.folder)
    with pytest.raises(StateUnusable, match="is damaged"):
        used.list_runs()


def test_a_state_that_another_process_locks_says_so(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    state.deploy(version(), now=1.0)
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    waiting = State.open(state.folder)
    with state.transaction():
        with pytest.raises(StateUnusable, match="is locked"):
            add(waiting)
        assert waiting.list_runs() == []  # reading does not wait for a writer
    assert add(waiting).number == 1


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateUnusable, match="Name another folder with DLPIPE_STATE"):
        State.open(tmp_path / "file" / "state")


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk") as disk:
        state = State.open(disk)
        state.deploy(version(), now=1.0)

        def fill(noted: list[int]) -> None:
            for key in range(10_000):
                state.add_run("PredictFlow", cause="x" * 1000, key=str(key), due=1.0)
                noted.append(key)

        with pytest.raises(StorageFull, match="nothing was written"), state.transaction():
            fill([])
        assert state.list_runs() == []
        noted: list[int] = []
        with pytest.raises(StorageFull):
            fill(noted)
        kept = len(noted)
        assert kept > 10
        assert len(state.list_runs()) == kept
        state.close()
        assert len(State.open(disk, check=True).list_runs()) == kept


def test_an_exception_undoes_all_calls_of_a_transaction_or_only_the_inner_ones(state: State) -> None:
    state.deploy(version(), now=1.0)

    def fail(key: str) -> None:
        with state.transaction():
            add(state, key=key)
            raise KeyError

    with pytest.raises(KeyError):
        fail("manual:1")
    assert state.list_runs() == []
    with state.transaction():
        add(state, key="manual:2")
        with pytest.raises(KeyError):
            fail("manual:3")
    assert [run.key for run in state.list_runs()] == ["manual:2"]


def test_threads_of_one_state_do_not_mix_their_transactions(state: State) -> None:
    state.deploy(version(), now=1.0)

    def note(thread: int) -> None:
        for key in range(20):
            with state.transaction():
                number = add(state, key=f"manual:{thread}-{key}").number
                state.add_attempt(number, RunAttempt(0, f"{thread}", "f"))

    threads = [threading.Thread(target=note, args=(one,)) for one in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(state.list_runs(status=["running"])) == 80


WRITER = """
import sys
from dlpipe.orchestrator.runs import RunAttempt
from dlpipe.orchestrator.state import State
state = State.open(__import__("pathlib").Path(sys.argv[1]))
print("open", flush=True)
for key in range(100_000):
    with state.transaction():
        number = state.add_run("PredictFlow", cause="by hand", key=f"{sys.argv[2]}-{key}", due=1.0)[0].number
        state.add_attempt(number, RunAttempt(0, "t", "f"))
    print(key, flush=True)
"""


def test_processes_killed_while_they_write_leave_all_that_they_committed_and_no_half(state: State) -> None:
    state.deploy(version(), now=1.0)
    draw = random.Random(5)
    said: dict[str, int] = {}
    for round_ in range(4):
        writers = {
            f"{round_}-{one}": subprocess.Popen(
                [sys.executable, "-c", WRITER, str(state.folder), f"{round_}-{one}"],
                stdout=subprocess.PIPE,
                text=True,
            )
            for one in range(2)
        }
        for writer in writers.values():
            assert writer.stdout is not None
            assert writer.stdout.readline() == "open\n"
        time.sleep(draw.uniform(0.0, 0.4))
        for name, writer in writers.items():
            writer.send_signal(signal.SIGKILL)
            lines = writer.communicate()[0].split()
            said[name] = int(lines[-1]) + 1 if lines else 0
    after = State.open(state.folder, check=True)
    runs = after.list_runs()
    assert all(run.status == "running" and len(run.attempts) == 1 for run in runs)
    for name, count in said.items():
        keys = {run.key for run in runs if run.key.startswith(f"{name}-")}
        # one more may be committed than was said
        assert len(keys) in (count, count + 1)
        assert keys == {f"{name}-{key}" for key in range(len(keys))}
    assert sum(said.values()) > 20


def test_processes_that_open_a_new_state_at_once_make_one(tmp_path: Path) -> None:
    program = "import sys, pathlib; from dlpipe.orchestrator.state import State\n"
    program += "print(len(State.open(pathlib.Path(sys.argv[1])).list_runs()))"
    for round_ in range(3):
        folder = str(tmp_path / str(round_))
        openers = [
            subprocess.Popen([sys.executable, "-c", program, folder], stdout=subprocess.PIPE, text=True)
            for _ in range(6)
        ]
        assert [one.communicate()[0] for one in openers] == ["0\n"] * 6


def test_data_version_tells_of_changes_by_others(state: State) -> None:
    other = State.open(state.folder)
    before = state.get_data_version()
    assert state.get_data_version() == before
    other.publish(Event("e1", "drift", {}, 1.0))
    assert state.get_data_version() != before
