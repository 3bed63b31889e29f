"""Real schedulers for tests, with deployments whose launcher is a small program instead of a flow."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dlpipe.orchestrator.deployments import Version
from dlpipe.orchestrator.keeper import end_all
from dlpipe.orchestrator.runs import Run
from dlpipe.orchestrator.state import State

PATIENCE = 30.0
SUCCEEDS = """
    import os, sys
    from pathlib import Path
    run = sys.argv[sys.argv.index("--run-id") + 1]
    print("hello from", run, flush=True)
    {doing}
    Path(os.environ["_DLPIPE_ATTEMPT_FOLDER"], "end").write_text(f"Flow/{run}/end/2")
"""
FAILS = "raise SystemExit('ValueError: no such column: stars')"


def succeeds(doing: str = "pass") -> str:
    """A launcher that does something and ends as a flow does that succeeds."""
    return textwrap.dedent(SUCCEEDS).replace("{doing}", doing)


def deployed(state: State, name: str, program: str, *, now: float | None = None, **more: Any) -> Version:
    """A deployment of a program."""
    code = state.folder / "code" / name
    code.mkdir(parents=True, exist_ok=True)
    (code / "flow.py").write_text(program)
    version = Version(name, 0, name, str(code), "flow.py", "0" * 64, str(code), sys.executable, {}, **more)
    return state.deploy(version, now=time.time() if now is None else now)


def triggered(state: State, name: str, key: str = "manual:1") -> int:
    """The number of a run by hand."""
    return state.add_run(name, cause="by hand", key=key, due=time.time())[0].number


@contextlib.contextmanager
def scheduling(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A scheduler's process; it and all that it started are gone afterwards."""
    process = started(folder, *words)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        with contextlib.closing(State.open(folder)) as state:
            for run in state.list_runs(status=["running"]):
                end_all(run.attempts[-1].token, 0.0)


def started(folder: Path, *words: str) -> subprocess.Popen[str]:
    """A scheduler's process without a page, once it works."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dlpipe.cli", "scheduler", "--max-runs", "4", *(words or ("--port", "0"))],
        env={**os.environ, "DLPIPE_STATE": str(folder)},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: process.poll() is not None or (folder / "scheduler.json").exists())
    return process


def ended(process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> str:
    """What a scheduler said, after a signal has ended it."""
    process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE)
    return said


def run_when(state: State, number: int, *status: str) -> Run:
    """The run once it stands so."""
    wait_until(lambda: state.get_run(number).status in status)
    return state.get_run(number)


def wait_until(condition: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.02)
