"""``@exit_hook`` on the local scheduler: each end of a run calls its functions once, whatever was killed."""

from __future__ import annotations

import contextlib
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from schedulers import deployed, run_when, scheduling, succeeds, triggered, wait_until

from dlpipe.orchestrator import interventions
from dlpipe.orchestrator.deployments import Policies
from dlpipe.orchestrator.exit_hooks import ExitHooks
from dlpipe.orchestrator.freezing import prune
from dlpipe.orchestrator.runs import RunAttempt
from dlpipe.orchestrator.state import State

pytestmark = pytest.mark.slow

HOOKS = """
def note(word, run):
    with open("called", "a") as file:
        file.write(word + "\\n")

def ok(run=None): note("success", run)
def bad(run=None): note("error", run)
def broken(): raise ValueError("no mail server")
"""


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with contextlib.closing(State.open(tmp_path / "state")) as made:
        yield made


def hooked(state: State, doing: str, **more: Any) -> Path:
    """A deployment whose launcher does something and that has exit hooks; where these note their calls."""
    program = f"{HOOKS}\nif __name__ == '__main__':\n{textwrap.indent(succeeds(doing), '    ')}"
    more = {"success_hooks": ("broken", "ok"), "error_hooks": ("bad",), **more}
    version = deployed(state, "Hooked", program, **more)
    return Path(version.folder, "called")


def called(file: Path, state: State) -> list[str]:
    """What the hooks noted, once none is to be called any more."""
    wait_until(lambda: not state.list_hooks())
    return file.read_text().splitlines() if file.exists() else []


def test_a_run_that_failed_and_was_resumed_calls_the_hooks_of_its_end_alone(state: State) -> None:
    doing = "Path('again').exists() or (Path('again').touch(), sys.exit('connection refused'))"
    file = hooked(state, doing, policies=Policies(backoff=0.1))
    with scheduling(state.folder):
        run = run_when(state, triggered(state, "Hooked"), "succeeded", "failed")
        assert (run.status, len(run.attempts)) == ("succeeded", 2)
        assert called(file, state) == ["success"]
    log = Path(run.attempts[-1].folder, "log").read_text()
    assert "ValueError: no mail server" in log  # one that fails keeps no other from being called
    assert "[exit_hook] broken failed with 1" in log


def test_the_hooks_of_a_run_whose_processes_were_killed_are_called(state: State) -> None:
    file = hooked(state, "os.kill(os.getpid(), 9)", policies=Policies(resumes=0))
    with scheduling(state.folder):
        run = run_when(state, triggered(state, "Hooked"), "failed")
        assert run.attempts[-1].outcome == "killed"
        assert called(file, state) == ["error"]


def test_hooks_are_called_once_by_whoever_comes_after_a_scheduler_that_was_killed(state: State) -> None:
    file = hooked(state, "pass")
    number = triggered(state, "Hooked")
    state.add_attempt(number, RunAttempt(0, "t", str(state.folder / "runs/1/0"), ended=1.0))
    state.set_status(number, "succeeded")
    Path(state.get_run(number).attempts[0].folder).mkdir(parents=True)
    ExitHooks(state).note(state.get_run(number))
    with contextlib.closing(State.open(state.folder)) as other:
        ExitHooks(other).look()  # begins the calls, and is killed
    for _ in range(3):
        ExitHooks(state).look()
    with scheduling(state.folder):
        assert called(file, state) == ["success"]


def test_the_code_of_hooks_stays_until_they_were_called_and_the_keeper_may_die(state: State) -> None:
    file = hooked(state, "pass", success_hooks=("ok",))
    number = triggered(state, "Hooked")
    state.add_attempt(number, RunAttempt(0, "t", str(state.folder / "runs/1/0"), ended=1.0))
    state.set_status(number, "succeeded")
    hooks = ExitHooks(state)
    hooks.note(state.get_run(number))
    state.delete("Hooked")
    assert prune(state, "Hooked") == []
    Path(state.folder, "runs/1/0").mkdir(parents=True)
    hooks.look()
    wait_until(lambda: hooks.look() == ["Hooked"] or time.sleep(0.1))
    assert file.read_text() == "success\n"
    assert prune(state, "Hooked") == [1]


def test_a_run_that_is_stopped_without_a_scheduler_calls_its_hooks_when_there_is_one(state: State) -> None:
    file = hooked(state, "pass")
    number = triggered(state, "Hooked")
    folder = state.folder / "runs/1/0"
    folder.mkdir(parents=True)
    state.add_attempt(number, RunAttempt(0, "t", str(folder), ended=1.0, outcome="failed"))
    state.set_status(number, "waiting")
    interventions.terminate(state, state.get_run(number))
    assert state.get_run(number).status == "terminated"
    with scheduling(state.folder):
        assert called(file, state) == ["error"]


@pytest.mark.parametrize(("status", "attempts"), [("terminated", 1), ("terminated", 0), ("failed", 0)])
def test_a_run_that_was_stopped_calls_its_error_hooks_and_one_that_never_began_none(
    status: Any, attempts: int, state: State
) -> None:
    hooked(state, "pass")
    number = triggered(state, "Hooked")
    if attempts:
        state.add_attempt(number, RunAttempt(0, "t", str(state.folder / "runs/1/0"), ended=1.0))
    state.set_status(number, status)
    ExitHooks(state).note(state.get_run(number))
    expected = [("bad",)] if attempts or status == "failed" else []
    assert [one.functions for one in state.list_hooks()] == expected
