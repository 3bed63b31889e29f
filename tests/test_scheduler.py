"""The scheduler's process: it starts what is due, leaves runs alone when it ends, and tells of failures."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from disks import tiny_disk
from schedulers import FAILS, deployed, ended, run_when, scheduling, started, succeeds, triggered, wait_until
from webhooks import Webhook, webhook

from dlpipe.errors import SchedulerRunning, SettingError, StateUnusable, StorageFull
from dlpipe.orchestrator import alerts, keeper, logfile, presence, scheduler, service
from dlpipe.orchestrator.alerts import Alerts
from dlpipe.orchestrator.deployments import NeededEvent, Policies, Schedule, Trigger
from dlpipe.orchestrator.runs import Event, RunAttempt
from dlpipe.orchestrator.scheduler import Scheduler
from dlpipe.orchestrator.state import State
from dlpipe.orchestrator.watching import Watch
from dlpipe.redaction import redact
from dlpipe.systemd import SystemdUnit

pytestmark = pytest.mark.slow


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with contextlib.closing(State.open(tmp_path / "state")) as made:
        yield made


# -- the process -------------------------------------------------------------------------------------------------


def test_a_run_begins_within_a_second_of_its_due_time(state: State) -> None:
    due = (time.time() // 60 + 1) * 60
    schedule = Schedule("* * * * *")
    clock = f"import time; time.time = lambda real=time.time, ahead={due - 4.0 - time.time()}: real() + ahead"
    deployed(state, "Due", succeeds(), now=due - 5.0, schedule=schedule)
    program = f"{clock}; import sys; sys.argv[1:] = ['scheduler', '--port', '0']; import dlpipe.cli.__main__"
    with subprocess.Popen(
        [sys.executable, "-c", f"{program}; dlpipe.cli.main()"],
        env={**os.environ, "DLPIPE_STATE": str(state.folder)},
        stderr=subprocess.DEVNULL,
    ) as process:
        wait_until(lambda: state.list_runs(status=["succeeded"]))
        process.terminate()
    (run,) = state.list_runs()
    assert run.due == due
    assert 0 <= run.attempts[0].started - due < 1


def test_what_another_process_asks_for_is_noticed_within_a_second(state: State) -> None:
    deployed(state, "Told", succeeds(), trigger=Trigger((NeededEvent("go"),)))
    with scheduling(state.folder):
        time.sleep(1.5)
        published = time.time()
        state.publish(Event("1", "go", {}, published))
        wait_until(lambda: state.list_runs(status=["running", "succeeded"]))
    (run,) = state.list_runs()
    assert run.attempts[0].started - published < 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_scheduler_that_comes_back_finds_its_runs_and_starts_none_twice(
    number: signal.Signals, state: State, tmp_path: Path
) -> None:
    go, ran = tmp_path / "go", tmp_path / "ran"
    waits = (
        f"import time; print(run, file=open({str(ran)!r}, 'a'), flush=True)\n"
        f"while not Path({str(go)!r}).exists(): time.sleep(0.1)"
    )
    deployed(state, "Long", succeeds(waits))
    run = triggered(state, "Long")
    first = started(state.folder)
    wait_until(ran.exists)
    assert ("runs go on" in ended(first, number)) == (number == signal.SIGTERM)
    assert first.returncode == (0 if number == signal.SIGTERM else -number)
    with scheduling(state.folder):
        time.sleep(1.0)
        assert state.get_run(run).status == "running"
        go.touch()
        done = run_when(state, run, "succeeded")
    assert len(done.attempts) == 1
    assert len(ran.read_text().splitlines()) == 1


def test_a_second_scheduler_says_who_the_first_is_and_ends(state: State) -> None:
    with scheduling(state.folder) as first:
        second = subprocess.run(
            [sys.executable, "-m", "dlpipe.cli", "scheduler", "--port", "0"],
            env={**os.environ, "DLPIPE_STATE": str(state.folder)},
            capture_output=True,
            text=True,
        )
        about = presence.find_scheduler(state.folder)
        assert second.returncode == 1
        assert second.stderr.count("\n") == 1
        assert f"pid {first.pid}" in second.stderr
        assert about is not None
        assert about["pid"] == first.pid
        assert presence.stop_scheduler(state.folder) == first.pid
    assert presence.find_scheduler(state.folder) is None
    assert presence.stop_scheduler(state.folder) is None


def test_a_scheduler_that_was_killed_leaves_no_lock(state: State) -> None:
    first = started(state.folder)
    ended(first, signal.SIGKILL)
    assert presence.find_scheduler(state.folder) is None
    with (
        presence.only_scheduler(state.folder),
        pytest.raises(SchedulerRunning),
        presence.only_scheduler(state.folder),
    ):
        pass


def test_the_scheduler_imports_nothing_heavy() -> None:
    heavy = ["metaflow", "mlflow", "torch", "pandas", "numpy", "pyarrow", "deltalake", "pydantic"]
    program = (
        "import sys, dlpipe.cli, dlpipe.redaction, dlpipe.orchestrator.scheduler, waitress\n"
        "from dlpipe.orchestrator.page import make_app\n"
        f"make_app(None); print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_taken_port_costs_the_page_only(state: State) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with scheduling(state.folder, "--port", str(port)) as process:
            deployed(state, "Told", succeeds())
            run_when(state, triggered(state, "Told"), "succeeded")
            assert f"port {port} cannot be used" in ended(process)


# -- bad states --------------------------------------------------------------------------------------------------


def test_a_damaged_state_ends_the_scheduler_with_one_line(state: State) -> None:
    state.close()
    (state.folder / "state.db").write_bytes(b"no database" * 1000)
    done = subprocess.run(
        [sys.executable, "-m", "dlpipe.cli", "scheduler", "--port", "0"],
        env={**os.environ, "DLPIPE_STATE": str(state.folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "damaged" in done.stderr
    assert "Traceback" not in done.stderr
    assert (state.folder / "state.db").read_bytes() == b"no database" * 1000


def test_a_state_that_is_moved_away_ends_the_scheduler(state: State) -> None:
    with scheduling(state.folder) as process:
        for file in state.folder.glob("state.db*"):
            file.rename(file.with_name(f"old-{file.name}"))
        State.open(state.folder).close()
        _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "was moved or replaced" in said
    assert "Traceback" not in said


def test_a_lock_is_waited_for_and_damage_is_not() -> None:
    locked, damaged = StateUnusable("locked"), StateUnusable("damaged")
    locked.__cause__, damaged.__cause__ = sqlite3.OperationalError(), sqlite3.DatabaseError()
    locked.__cause__.sqlite_errorcode = sqlite3.SQLITE_BUSY
    damaged.__cause__.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    assert scheduler.may_pass(locked)
    assert not scheduler.may_pass(damaged)
    assert not scheduler.may_pass(StateUnusable("moved"))


def test_a_full_disk_is_said_and_the_run_begins_when_there_is_space_again(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk") as disk, contextlib.closing(State.open(disk / "state")) as state:
        deployed(state, "Told", succeeds())
        process = started(disk / "state")
        number = triggered(state, "Told")
        run_when(state, number, "succeeded")
        filling = disk / "filling"
        with contextlib.suppress(OSError), filling.open("wb") as file:
            while True:
                file.write(b"0" * 1024)
                file.flush()
        with contextlib.suppress(StorageFull):
            for key in range(100):
                number = triggered(state, "Told", f"manual:more-{key}")
        time.sleep(2.0)
        assert process.poll() is None
        filling.unlink()
        done = run_when(state, number, "succeeded")
        assert len(done.attempts) == 1
        ended(process)


# -- the log -----------------------------------------------------------------------------------------------------


def test_the_log_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logfile, "LOG_BYTES", 2000)
    with logfile.logging_to(tmp_path):
        for number in range(400):
            logging.getLogger("dlpipe.orchestrator").info("line %d", number)
    logs = sorted(path.name for path in tmp_path.glob("scheduler.log*"))
    assert logs == ["scheduler.log", *(f"scheduler.log.{number}" for number in range(1, 6))]
    assert all(path.stat().st_size <= 2000 for path in tmp_path.glob("scheduler.log*"))
    assert "line 399" in (tmp_path / "scheduler.log").read_text()


# -- alerts ------------------------------------------------------------------------------------------------------


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with webhook() as server:
        yield server


class Clock:
    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


def failed(state: State, name: str, reason: str = "ValueError: no", key: str = "1") -> Any:
    number = triggered(state, name, key)
    state.add_attempt(number, RunAttempt(0, key, "nowhere", started=1.0))
    state.set_attempt(
        number,
        RunAttempt(0, key, "nowhere", started=1.0, ended=2.0, outcome="failed", step="train", reason=reason),
    )
    state.set_status(number, "failed", reason=f"train: {reason}")
    return state.get_run(number)


def succeeded(state: State, name: str, key: str) -> Any:
    number = triggered(state, name, key)
    state.add_attempt(number, RunAttempt(0, key, "nowhere", started=3.0, ended=4.0, outcome="succeeded"))
    state.set_status(number, "succeeded")
    return state.get_run(number)


def sent(sender: Alerts) -> None:
    sender.send()
    sender.close(20.0)


def test_a_failure_and_the_recovery_are_told_and_nothing_else(state: State, tmp_path: Path) -> None:
    told = tmp_path / "told"
    flaky = f"Path({str(tmp_path / 'good')!r}).exists() or sys.exit('ValueError: no such column: stars')"
    command = f"{sys.executable} -c \"import sys; open('{told}', 'a').write(sys.stdin.read() + chr(10))\""
    deployed(state, "Flaky", succeeds(flaky), policies=Policies(alert=command, resumes=0))
    with scheduling(state.folder):
        run_when(state, triggered(state, "Flaky", "1"), "failed")
        (tmp_path / "good").touch()
        for key in ("2", "3"):
            run_when(state, triggered(state, "Flaky", key), "succeeded")
        wait_until(lambda: state.find_next_alert() is None)
    first, second = map(json.loads, told.read_text().splitlines())
    assert (first["kind"], first["run"], first["resume"]) == ("failed", 1, "dlpipe runs resume 1")
    assert "no such column: stars" in first["reason"]
    assert (second["kind"], second["run"], second["resume"]) == ("recovered", 2, "")


def test_the_end_of_every_run_is_told_if_that_was_asked_for(state: State, hook: Webhook) -> None:
    deployed(state, "Told", FAILS, policies=Policies(alert=hook.url, alert_on="end"))
    sender = Alerts(state)
    for status in ("succeeded", "failed", "succeeded", "terminated"):
        number = triggered(state, "Told", f"manual:{time.monotonic_ns()}")
        state.set_status(number, status, reason="" if status == "succeeded" else "by hand")  # type: ignore[arg-type]
        sender.note(state.get_run(number))
    sender.send()
    wait_until(lambda: state.find_next_alert() is None)
    assert [body["kind"] for body in hook.got] == ["succeeded", "refused", "recovered", "terminated"]
    assert "Told: run 1 succeeded, due " in hook.got[0]["text"]
    assert "Told: run 3 succeeded again, due " in hook.got[2]["text"]


def test_a_refused_start_is_told_as_refused(state: State, hook: Webhook) -> None:
    deployed(state, "Changed", succeeds(), policies=Policies(alert=hook.url))
    number = triggered(state, "Changed")
    state.set_status(number, "failed", reason="the Python packages are not those of `create`: numpy 1 -> 2")
    sender = Alerts(state)
    sender.note(state.get_run(number))
    sent(sender)
    assert [(one["kind"], one["step"]) for one in hook.got] == [("refused", "")]
    assert "numpy 1 -> 2" in hook.got[0]["reason"]


def test_the_same_news_is_told_once(state: State, hook: Webhook) -> None:
    deployed(state, "Once", FAILS, policies=Policies(alert=hook.url))
    run = failed(state, "Once")
    for _ in range(2):
        sender = Alerts(state)
        sender.note(run)
        sent(sender)
    assert len(hook.got) == 1


def test_what_was_not_sent_before_a_kill_is_sent_by_the_next_scheduler(state: State, hook: Webhook) -> None:
    deployed(state, "Late", FAILS, policies=Policies(alert=hook.url))
    Alerts(state).note(failed(state, "Late"))
    assert hook.got == []
    with contextlib.closing(State.open(state.folder)) as again:
        sent(Alerts(again))
    assert len(hook.got) == 1


def test_alerts_hold_no_credentials(state: State, hook: Webhook, caplog: pytest.LogCaptureFixture) -> None:
    deployed(state, "Leaky", FAILS, policies=Policies(alert=hook.url))
    hook.answers = [500]
    sender = Alerts(state, clean=redact)
    sender.note(failed(state, "Leaky", "cannot reach postgresql://ana:hunter2@db/x with api_token=abc123"))
    sent(sender)
    assert "hunter2" not in caplog.text
    (alert,) = state.list_alerts_to_send(time.time() + 1000)
    assert "[redacted]" in alert.body["reason"]
    assert not [word for word in ("hunter2", "abc123") if word in json.dumps(alert.body)]


@pytest.mark.parametrize("answer", [500, 302])
def test_a_webhook_that_refuses_is_tried_again_but_not_for_ever(answer: int, state: State, hook: Webhook) -> None:
    deployed(state, "Refused", FAILS, policies=Policies(alert=hook.url))
    clock = Clock()
    hook.answers = [answer] * 100
    Alerts(state, clock=clock).note(failed(state, "Refused"))
    waits = []
    while (due := state.find_next_alert()) is not None:
        waits.append(due - clock.now)
        clock.now = due
        sent(Alerts(state, clock=clock))
    assert waits == [0, *(5 * 2**number for number in range(10)), *[3600] * 5]
    assert sum(waits) < 7 * 3600
    assert len(hook.answers) == 100 - alerts.TRIES
    assert hook.got == []


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("sleep 60", "took more than 0 s and was ended"),
        ("/no/such/program --now", "'/no/such/program' cannot be started"),
        (f"{sys.executable} -c 'import sys; sys.exit(\"no mail server\")'", "ended with 1: no mail server"),
        ("echo 'unclosed", "'echo' cannot be started"),
    ],
)
def test_a_command_that_fails_or_hangs_is_said(command: str, problem: str) -> None:
    began = time.monotonic()
    assert problem in alerts.deliver(command, {"kind": "failed"}, seconds=0.4 if "sleep" in command else 20.0)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("target", ["http://[::1", "http://host:99999999/x", "   ", "no\x00such", "http://"])
def test_a_target_that_is_none_keeps_no_other_alert_from_being_sent(
    target: str, state: State, hook: Webhook
) -> None:
    deployed(state, "Malformed", FAILS, policies=Policies(alert=target))
    deployed(state, "Right", FAILS, policies=Policies(alert=hook.url))
    sender = Alerts(state)
    sender.note(failed(state, "Malformed", reason="half a pair: \ud800"))
    sender.note(failed(state, "Right", reason="half a pair: \ud800", key="2"))
    sender.send()
    wait_until(lambda: [one["deployment"] for one in hook.got] == ["Right"])
    sender.close()


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("no-such-command --now", "there is no command 'no-such-command'"),
        ("./alert.sh", "give the full path"),
        ("echo 'unclosed", "cannot be read"),
        ("  ", "blank"),
        ("http://[::1", "cannot be read"),
        ("https://host:70000/x", "cannot be read"),
        ("https:///hook", "no host"),
        ("https://hooks.example/a b", "a blank in it"),
    ],
)
def test_where_no_alert_can_go_is_said_when_it_is_asked_for(target: str, problem: str) -> None:
    with pytest.raises(SettingError, match=problem):
        alerts.check_target(target)
    for right in ("", "sh -c 'cat > told'", sys.executable, "https://hooks.example:8443/alerts?key=1"):
        assert alerts.check_target(right) == right


def test_events_are_published_while_a_keeper_takes_long_to_begin(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "slow_keeper.py"
    slow.write_text("import time; time.sleep(3)")
    monkeypatch.setattr(keeper, "__file__", str(slow))
    deployed(state, "Slow", FAILS)
    number = triggered(state, "Slow")
    folder = state.folder / "runs" / str(number) / "0"
    state.add_attempt(number, RunAttempt(0, "its starter was killed", str(folder), started=1.0))
    with contextlib.closing(State.open(state.folder)) as other:
        made = Scheduler(other, max_runs=1)
        ticking = threading.Thread(target=made.tick)
        ticking.start()
        wait_until(lambda: (folder / "attempt.json").exists())
        began = time.monotonic()
        state.publish(Event("e1", "drifted", {}, 1.0))
        assert time.monotonic() - began < 2
        ticking.join()
        made.close()


def test_a_slow_alert_does_not_hold_up_the_scheduler(state: State) -> None:
    deployed(state, "Slow", FAILS, policies=Policies(alert="sleep 20"))
    sender = Alerts(state)
    sender.note(failed(state, "Slow"))
    began = time.monotonic()
    for _ in range(3):
        sender.send()
    assert time.monotonic() - began < 1
    sender.close(0.0)


# -- the clock ---------------------------------------------------------------------------------------------------


def test_the_scheduler_sleeps_until_the_next_due_time(state: State) -> None:
    clock = Clock()
    deployed(state, "Hourly", succeeds(), now=clock.now, schedule=Schedule("0 * * * *"))
    deployed(state, "Daily", succeeds(), now=clock.now, schedule=Schedule("0 0 * * *", "Europe/Berlin"))
    made = Scheduler(state, max_runs=2, clock=clock)
    assert made.is_time()
    assert made.tick() == []
    assert not made.is_time()
    due = (clock.now // 3600 + 1) * 3600
    assert scheduler.next_moment(state, clock.now) == due
    made.close()


@pytest.mark.parametrize("jump", [-7200.0, 100.0])
def test_a_clock_that_jumps_is_noticed(jump: float, state: State) -> None:
    clock = Clock()
    made = Scheduler(state, max_runs=2, clock=clock)
    made.tick()
    assert not made.is_time()
    clock.now += jump
    assert made.is_time()
    made.close()


def test_a_folders_changes_are_told_and_where_they_are_not_the_scheduler_looks(state: State) -> None:
    told = Watch(state.folder)
    assert select.select([told.descriptor], [], [], 0)[0] == []
    with contextlib.closing(State.open(state.folder)) as other:
        other.publish(Event("1", "go", {}, 1.0))
    assert select.select([told.descriptor], [], [], 5)[0] == [told.descriptor]
    told.take()
    assert select.select([told.descriptor], [], [], 0)[0] == []
    told.close()
    assert Watch(state.folder / "not there").descriptor is None
    made = Scheduler(state, max_runs=2, clock=Clock())
    made.tick()
    assert made._until_next_look() == scheduler.WATCH_SECONDS
    made._stop.told = time.monotonic()
    assert made._until_next_look() == scheduler.POLL_SECONDS
    made._stop.told = -1e9
    made._watch.close()
    assert made._until_next_look() == scheduler.POLL_SECONDS
    made.close()


# -- what ended long ago -----------------------------------------------------------------------------------------


def test_what_ended_long_ago_is_forgotten_once_a_day(state: State) -> None:
    clock = Clock()
    deployed(state, "Told", succeeds(), now=clock.now, trigger=Trigger((NeededEvent("go"), NeededEvent("later"))))
    deployed(state, "Other", FAILS, now=clock.now)
    held = Event("held", "go", {}, clock.now)
    gone = [Event(f"gone-{number}", "nobody", {}, clock.now) for number in range(3)]
    for event in (held, *gone):
        state.publish(event)
    asked = {"cause": "by hand", "due": clock.now}
    old, waiting, long = (state.add_run("Other", key=key, **asked)[0].number for key in ("1", "2", "3"))
    for run, at in ((old, clock.now), (long, clock.now + 9 * 86400)):
        state.add_attempt(run, RunAttempt(0, "token", ""))
        state.set_attempt(run, RunAttempt(0, "token", "", ended=at))
        state.set_status(run, "failed")
    state.set_status(waiting, "waiting")
    for number in (old, waiting, long, 999):
        (state.folder / "runs" / str(number) / "0").mkdir(parents=True)
    made = Scheduler(state, max_runs=0, keep_days=10, clock=clock)
    made.tick()
    assert state.list_run_numbers() == [old, waiting, long]
    assert not (state.folder / "runs/999").exists()
    clock.now += 10 * 86400 + 1
    made.tick()
    assert state.list_run_numbers() == [waiting, long]
    assert sorted(int(folder.name) for folder in (state.folder / "runs").iterdir()) == [waiting, long]
    assert [event.id for _, event in state.list_events_after(0)] == ["held"]
    assert state.get_held_events("Told") == {"go": held}
    clock.now += 3600
    state.set_status(waiting, "failed")
    made.tick()
    assert state.list_run_numbers() == [waiting, long]  # it was looked at an hour ago
    clock.now += 86400
    made.tick()
    assert state.list_run_numbers() == [long]
    made.close()


def test_with_nought_days_nothing_is_forgotten(state: State) -> None:
    deployed(state, "Other", FAILS)
    state.set_status(triggered(state, "Other"), "failed")
    made = Scheduler(state, max_runs=0, keep_days=0, clock=lambda: time.time() + 36500 * 86400)
    made.tick()
    assert state.list_run_numbers() == [1]
    made.close()


# -- the unit ----------------------------------------------------------------------------------------------------


def unit(system: bool = False, **environ: str) -> SystemdUnit:
    return service.make_unit(
        system=system, max_runs=3, port=8710, keep_days=9, environ=environ, python="/opt/my env/bin/python"
    )


def test_the_unit_leaves_runs_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DLPIPE_STATE", str(tmp_path / "100% state"))
    lines = unit(PATH="/usr/bin", XDG_CONFIG_HOME=str(tmp_path)).text.splitlines()
    assert "KillMode=process" in lines
    assert "OOMPolicy=continue" in lines
    assert f'Environment="DLPIPE_STATE={tmp_path}/100%% state"' in lines
    command = "-P -m dlpipe.cli scheduler --max-runs 3 --port 8710 --keep-days 9"
    assert f'ExecStart="/opt/my env/bin/python" {command}' in lines


def test_a_units_place_and_commands_are_the_users_or_the_systems(tmp_path: Path) -> None:
    own, systems = unit(XDG_CONFIG_HOME=str(tmp_path), USER="ana"), unit(system=True)
    assert own.path == tmp_path / "systemd/user/dlpipe-scheduler.service"
    assert own.commands[-1] == "loginctl enable-linger ana"
    assert systems.path == Path("/etc/systemd/system/dlpipe-scheduler.service")
    assert "User=" in systems.text
    assert "User=" not in own.text


def test_systemd_takes_the_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLPIPE_STATE", str(tmp_path))
    made = service.make_unit(system=True, max_runs=3, port=8710, keep_days=9, no_token=True)
    (tmp_path / made.path.name).write_text(made.text)
    try:
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(tmp_path / made.path.name)],
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        pytest.skip("there is no systemd here")
    assert made.path.name not in done.stderr, done.stderr
