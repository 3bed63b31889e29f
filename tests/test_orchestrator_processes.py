"""An attempt's processes: begun once, found again, ended with all that they started, whatever is killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dlpipe.orchestrator import keeper, processes
from dlpipe.orchestrator.keeper import end_all, find_processes
from dlpipe.orchestrator.processes import (
    conclude_attempt,
    has_begun,
    has_keeper,
    is_alive,
    read_end,
    reap,
    start_attempt,
)

pytestmark = pytest.mark.slow

PATIENCE = 20.0
SCHEDULER = """
import sys
from pathlib import Path
from dlpipe.orchestrator.processes import start_attempt
folder, token, *command = sys.argv[1:]
start_attempt(Path(folder), command, cwd="/", variables={}, token=token, time_limit=0)
"""
SLEEPER = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"]


@dataclass
class Attempt:
    folder: Path
    token: str

    def start(self, *command: str, time_limit: float = 0.0, cwd: str = "/", **variables: str) -> None:
        words = list(command) or SLEEPER
        start_attempt(self.folder, words, cwd=cwd, variables=variables, token=self.token, time_limit=time_limit)

    def shell(self, script: str, **more: float) -> None:
        self.start("/bin/sh", "-c", script, **more)

    @property
    def keeper(self) -> int:
        return json.loads((self.folder / "begun").read_text())["keeper"]

    @property
    def launcher(self) -> int:
        found = keeper.find_launcher(self.token, json.loads((self.folder / "attempt.json").read_text())["command"])
        assert found is not None
        return found

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def end(self) -> processes.LauncherEnd:
        wait_until(lambda: read_end(self.folder) is not None)
        found = read_end(self.folder)
        assert found is not None
        return found


@pytest.fixture
def attempt(tmp_path: Path) -> Iterator[Attempt]:
    made = Attempt(tmp_path / "0", str(uuid.uuid4()))
    yield made
    end_all(made.token, 0.0)
    wait_until(lambda: not has_keeper(made.folder))
    reap()


def wait_until(seen: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_exit_code_and_what_was_said_are_kept(attempt: Attempt) -> None:
    attempt.start("/bin/sh", "-c", "echo hello $NAME; echo oops >&2; exit 3", NAME="there")
    assert attempt.end().exit_code == 3
    assert attempt.log == "hello there\noops\n"


def test_launcher_works_in_its_folder_with_no_input_and_signals_as_by_default(
    attempt: Attempt, tmp_path: Path
) -> None:
    script = "pwd; cat; grep SigIgn /proc/self/status; grep SigBlk /proc/self/status"
    attempt.start("/bin/sh", "-c", script, cwd=str(tmp_path))
    attempt.end()
    folder, ignored, blocked = attempt.log.splitlines()
    assert folder == str(tmp_path)
    assert int(ignored.split()[1], 16) & sum(1 << (one - 1) for one in (signal.SIGINT, signal.SIGTERM)) == 0
    assert int(blocked.split()[1], 16) == 0


def test_signal_that_ended_the_launcher_is_said(attempt: Attempt) -> None:
    attempt.shell("kill -9 $$")
    assert attempt.end().exit_code == -signal.SIGKILL


@pytest.mark.parametrize(
    ("command", "cwd", "said"),
    [
        ("/no/such/python", "/", "No such file or directory: '/no/such/python'"),
        ("true", "/no/folder", "/no/folder"),
        ("a\0b", "/", "null byte"),
    ],
)
def test_launcher_that_cannot_be_started_has_ended_with_the_reason(
    attempt: Attempt, command: str, cwd: str, said: str
) -> None:
    attempt.start(command, cwd=cwd)
    done = attempt.end()
    assert (done.exit_code, said in done.reason) == (keeper.NOT_STARTED, True)


def test_attempt_is_begun_once_however_often_it_is_started(attempt: Attempt) -> None:
    counter = attempt.folder.parent / "count"
    for _ in range(3):
        attempt.shell(f"echo begun >> {counter}; sleep 0.2")
    attempt.end()
    attempt.shell(f"echo begun >> {counter}")
    assert counter.read_text() == "begun\n"


def test_attempt_is_begun_once_by_many_schedulers_at_a_time(attempt: Attempt) -> None:
    counter = attempt.folder.parent / "count"
    words = [sys.executable, "-c", SCHEDULER, str(attempt.folder), attempt.token]
    command = ["/bin/sh", "-c", f"echo begun >> {counter}; sleep 0.5"]
    twins = [subprocess.Popen([*words, *command]) for _ in range(4)]
    assert [one.wait() for one in twins] == [0, 0, 0, 0]
    attempt.end()
    assert counter.read_text() == "begun\n"


def test_late_keeper_leaves_an_attempt_that_was_noted_as_lost(attempt: Attempt) -> None:
    assert conclude_attempt(attempt.folder, attempt.token).exit_code is None
    attempt.shell("true")
    assert not (attempt.folder / "begun").exists()
    assert not (attempt.folder / "log").exists()


def test_keeper_of_another_attempt_leaves(attempt: Attempt) -> None:
    attempt.folder.mkdir()
    keeper.write_file(attempt.folder, "attempt.json", {"token": attempt.token})
    words = [sys.executable, "-I", "-S", keeper.__file__, str(attempt.folder)]
    said = subprocess.run(words, env={keeper.KEEPER: "other"}, capture_output=True, text=True)
    assert said.stdout == "it is another attempt's folder\n"
    assert not has_begun(attempt.folder)


def test_attempt_outlives_the_scheduler_that_is_killed(attempt: Attempt) -> None:
    script = SCHEDULER + "import os, signal\nos.killpg(0, signal.SIGKILL)\n"
    words = [
        sys.executable,
        "-c",
        script,
        str(attempt.folder),
        attempt.token,
        "/bin/sh",
        "-c",
        "sleep 0.5; exit 4",
    ]
    assert subprocess.run(words, start_new_session=True).returncode == -signal.SIGKILL
    assert conclude_attempt(attempt.folder, attempt.token) is None
    assert attempt.end().exit_code == 4


def test_attempt_goes_on_when_its_keeper_is_killed(attempt: Attempt) -> None:
    attempt.shell("sleep 0.7")
    os.kill(attempt.keeper, signal.SIGKILL)
    time.sleep(0.1)
    assert is_alive(attempt.folder, attempt.token)
    assert conclude_attempt(attempt.folder, attempt.token) is None
    wait_until(lambda: not is_alive(attempt.folder, attempt.token))
    assert conclude_attempt(attempt.folder, attempt.token).exit_code is None


def test_what_a_killed_launcher_leaves_behind_is_ended_before_the_end_is_noted(attempt: Attempt) -> None:
    attempt.shell("setsid sleep 60 & sleep 60 & wait")
    wait_until(lambda: len(find_processes(attempt.token)) == 3)
    os.kill(attempt.launcher, signal.SIGKILL)
    assert attempt.end().exit_code == -signal.SIGKILL
    assert find_processes(attempt.token) == []


def test_orphans_of_keeper_and_launcher_are_ended_when_the_attempt_is_settled(attempt: Attempt) -> None:
    attempt.shell("setsid sleep 60 & sleep 60 & wait")
    wait_until(lambda: len(find_processes(attempt.token)) == 3)
    os.kill(attempt.keeper, signal.SIGKILL)
    os.kill(attempt.launcher, signal.SIGKILL)
    wait_until(lambda: not is_alive(attempt.folder, attempt.token))
    assert len(find_processes(attempt.token)) == 2
    assert conclude_attempt(attempt.folder, attempt.token).exit_code is None
    assert find_processes(attempt.token) == []


def test_child_that_wrote_over_its_environment_is_found_by_its_parent(attempt: Attempt) -> None:
    attempt.shell("env -i sleep 60 & wait")
    wait_until(lambda: len(find_processes(attempt.token)) == 2)
    assert end_all(attempt.token, 1.0) == []


def test_process_that_mirrors_the_run_outlives_it(attempt: Attempt) -> None:
    mark = attempt.folder.parent / "mirrored"
    attempt.shell(f"setsid sh -c 'sleep 1; echo yes > {mark}' dlpipe.bridge.follow &")
    assert attempt.end().exit_code == 0
    assert not mark.exists()
    wait_until(mark.exists)


def test_time_limit_is_kept_while_no_scheduler_lives(attempt: Attempt) -> None:
    script = SCHEDULER.replace("time_limit=0", "time_limit=0.5")
    words = [sys.executable, "-c", script, str(attempt.folder), attempt.token, *SLEEPER]
    assert subprocess.run(words).returncode == 0
    done = attempt.end()
    assert (done.timed_out, done.exit_code) == (True, -signal.SIGINT)


def test_process_that_ignores_ctrl_c_is_killed(attempt: Attempt) -> None:
    attempt.shell("trap '' INT; sleep 60; sleep 60")
    wait_until(lambda: len(find_processes(attempt.token)) == 2)
    assert end_all(attempt.token, 0.3) == []
    assert attempt.end().exit_code == -signal.SIGKILL


def test_only_own_processes_are_ended(attempt: Attempt, tmp_path: Path) -> None:
    other = Attempt(tmp_path / "1", str(uuid.uuid4()))
    attempt.start()
    other.start()
    end_all(attempt.token, 1.0)
    assert attempt.end().exit_code is not None
    assert is_alive(other.folder, other.token)
    end_all(other.token, 0.0)
    other.end()


def test_signals_of_a_terminal_or_a_service_manager_do_not_end_the_keeper(attempt: Attempt) -> None:
    attempt.shell("sleep 0.5; exit 5")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(attempt.keeper, number)
    assert attempt.end().exit_code == 5


def test_keeper_is_small_and_soon_there(attempt: Attempt) -> None:
    began = time.monotonic()
    attempt.start()
    assert time.monotonic() - began < 0.5  # 0.03 on a quiet machine
    status = Path(f"/proc/{attempt.keeper}/status").read_text()
    (resident,) = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")]
    assert resident < 12 * 1024


def test_environment_of_an_attempt_is_for_nobody_else_to_read(attempt: Attempt) -> None:
    attempt.start("true", SECRET="x")
    assert (attempt.folder / "attempt.json").stat().st_mode & 0o077 == 0
    assert attempt.folder.stat().st_mode & 0o077 == 0
    attempt.end()


def test_kills_at_random_moments_never_begin_an_attempt_twice_and_never_lose_it(attempt: Attempt) -> None:
    """The scheduler and the keeper are killed while they start it; whoever comes next begins it."""
    words = [sys.executable, "-c", SCHEDULER, str(attempt.folder)]
    for number in range(12):
        one = Attempt(attempt.folder.parent / f"run{number}", str(uuid.uuid4()))
        counter = one.folder.parent / f"count{number}"
        command = ["/bin/sh", "-c", f"echo begun >> {counter}"]
        twin = subprocess.Popen([*words[:3], str(one.folder), one.token, *command], start_new_session=True)
        time.sleep(0.05 + 0.01 * number)
        for pid in [twin.pid, *keepers_of(one.token)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        twin.wait()
        while not has_begun(one.folder):
            one.start(*command)
        wait_until(lambda one=one: conclude_attempt(one.folder, one.token) is not None)
        assert read_end(one.folder) is not None
        times = counter.read_text().count("begun") if counter.exists() else 0
        assert times == 1 or (times == 0 and read_end(one.folder).exit_code is None)


def keepers_of(token: str) -> list[int]:
    mark = f"{keeper.KEEPER}={token}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found
