"""What is printed of exceptions, names, events and logs moves no cursor, sets no title, turns no text around."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from schedulers import deployed

from dlpipe.cli import main
from dlpipe.errors import DlpipeError, TrackingUnavailable
from dlpipe.orchestrator import logfile, service
from dlpipe.orchestrator.deployments import NeededEvent, Trigger
from dlpipe.orchestrator.runs import RunAttempt
from dlpipe.orchestrator.state import State
from dlpipe.terminal import make_log_visible, make_visible
from dlpipe.tracking import _locks

EVIL = "\x1b]0;owned\x07 \x9b2J \u202egnp.exe\u2066 \r\x08 \U000e0041 \ud800"
ROOT = Path(__file__).resolve().parents[1]


def obeyed(text: str) -> set[str]:
    """The characters of ``text`` that a terminal obeys, or that change the order of what it shows."""
    kinds = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return {character for character in text if unicodedata.category(character) in kinds} - set("\n\t")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[State]:
    monkeypatch.setenv("DLPIPE_STATE", str(tmp_path / "state"))
    with contextlib.closing(State.open()) as made:
        yield made


def dlpipe(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def test_nothing_that_a_terminal_obeys_is_left_in_a_text() -> None:
    assert obeyed(EVIL)
    assert obeyed(make_visible(EVIL)) == set()
    harmless = "naïve 日本 👩‍💻\n\tdone"  # the joiner of an emoji is no threat
    assert make_visible(harmless) == harmless


def test_a_log_has_its_colours_and_nothing_else_that_a_terminal_obeys() -> None:
    shown = make_log_visible("\x1b[1;31mred\x1b[0m" + EVIL)
    assert shown.startswith("\x1b[1;31mred\x1b[0m")
    assert obeyed(shown.removeprefix("\x1b[1;31mred\x1b[0m")) == set()


def test_an_expected_failure_that_names_something_foreign_is_safe_to_print() -> None:
    assert obeyed(str(DlpipeError(f"there is no table {EVIL}"))) == set()


@pytest.mark.parametrize("command", ["runs", "deployments", "logs 1", "runs resume 1", "runs --watch --rounds 1"])
def test_what_a_flow_and_its_events_are_called_reaches_no_terminal_raw(command: str, state: State) -> None:
    deployed(state, "Evil", "", now=0.0, trigger=Trigger((NeededEvent(f"drifted{EVIL[:-1]}"),)))
    run, _ = state.add_run("Evil", cause=f"event {EVIL[:-1]}", key="event:1", due=0.0)
    folder = state.folder / "runs/1/0"
    folder.mkdir(parents=True)
    (folder / "log").write_bytes(f"{EVIL}\n".encode(errors="replace"))
    attempt = RunAttempt(
        0, "t", str(folder), ended=1.0, outcome="failed", step="train", reason=f"ValueError: {EVIL[:-1]}"
    )
    state.add_attempt(run.number, attempt)
    state.set_status(run.number, "failed", reason=f"train: {attempt.reason}")
    done = dlpipe(*command.split())
    assert obeyed(done.output) == set(), done.output
    assert done.exit_code == 0


def test_the_scheduler_logs_a_reason_without_what_a_terminal_obeys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with logfile.logging_to(tmp_path):
        logging.getLogger("dlpipe.orchestrator").warning("run 1 failed: %s", EVIL)
    assert obeyed(capsys.readouterr().err + (tmp_path / "scheduler.log").read_text()) == set()


def test_the_commands_print_through_one_place_that_ruff_keeps() -> None:
    line = "import click\n\n\nclick.echo('raw')\n"
    words = [sys.executable, "-m", "ruff", "check", "--stdin-filename", "dlpipe/cli/new.py", "-"]
    done = subprocess.run(words, cwd=ROOT, input=line, capture_output=True, text=True)
    assert "TID251" in done.stdout


def test_locks_are_in_the_users_home_and_else_in_a_folder_that_is_theirs_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert _locks._find_lock_folder().is_relative_to(tmp_path / "home")
    (tmp_path / "no-home").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "no-home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    taken = tmp_path / f"dlpipe-{os.getuid()}"
    taken.symlink_to(tmp_path / "home")  # by another user, who was first
    with pytest.raises(TrackingUnavailable, match="not this user's alone"):
        _locks._find_lock_folder()
    taken.unlink()
    assert _locks._find_lock_folder().stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("name", ["team/anna", ""])
def test_a_user_with_a_slash_in_the_name_or_without_one_can_do_everything(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(variable, name)
    if not name:
        monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])  # as in a container with a number for a user
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _locks._find_lock_folder().is_dir()
    unit = service.make_unit(system=True, max_runs=1, port=0, keep_days=1, environ={})
    assert f"User={name or os.getuid()}" in unit.text


def test_json_for_a_program_says_everything_in_ascii(state: State) -> None:
    deployed(state, "Evil", "", now=0.0)
    state.add_run("Evil", cause=f"event {EVIL[:-1]}", key="event:1", due=0.0)
    (row,) = json.loads(dlpipe("runs", "--json").output)
    assert row["cause"] == f"event {EVIL[:-1]}"
