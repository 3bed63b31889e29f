"""How an attempt ended and whether the next one may do better: from its folder, its processes and Metaflow."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dlpipe.orchestrator import inspection
from dlpipe.orchestrator.attempts import build_environment
from dlpipe.orchestrator.deployments import Version
from dlpipe.orchestrator.keeper import NOT_STARTED, end_all, read_file
from dlpipe.orchestrator.processes import LauncherEnd, conclude_attempt, has_keeper, read_end
from dlpipe.orchestrator.runs import Outcome, Run, RunAttempt

INSPECTION_SECONDS = 120.0
TIMED_OUT = "stopped at its time limit"
STEP_FAILED = re.compile(r"Step (\S+) \(task-id (\S+)\) failed\.")
"""Metaflow's last word when a task failed."""


@dataclass(frozen=True)
class Finding:
    """How an attempt ended.

    Attributes
    ----------
    outcome : str
        As an attempt has it.
    may_pass : bool
        Whether the next attempt may do better.
    began : bool
        Whether its Metaflow run has a task of its own, from which it can be resumed.
    step, reason : str
        What failed and why, in one line.
    end_pathspec : str
        The last task of a run that succeeded.
    """

    ended: LauncherEnd
    outcome: Outcome
    may_pass: bool = False
    began: bool = True
    step: str = ""
    reason: str = ""
    end_pathspec: str = ""


def examine(version: Version, run: Run, attempt: RunAttempt) -> Finding | None:
    """How the attempt ended, after ending what it left behind; ``None`` while it runs.

    Parameters
    ----------
    version : Version
        What the run runs; Metaflow is asked with its interpreter and code.
    run : Run
        The attempt's run.
    attempt : RunAttempt
        Its folder, its processes and its Metaflow run are looked at.
    """
    folder = Path(attempt.folder)
    done = conclude_attempt(folder, attempt.token)
    if done is None:
        return None
    if done.exit_code == 0 and (end := _read_end_pathspec(folder)):
        return Finding(done, "succeeded", end_pathspec=end)
    if done.exit_code == NOT_STARTED and done.reason:
        return Finding(done, "failed", inspection.may_pass("", done.reason), began=False, reason=done.reason)
    return judge(done, inspect_run(version, run, attempt), folder)


def judge(done: LauncherEnd, seen: Mapping[str, Any], folder: Path) -> Finding:
    """What to make of a launcher's end and of what Metaflow says of the run.

    Parameters
    ----------
    done : LauncherEnd
        How the launcher ended.
    seen : mapping
        What ``inspection.inspect`` returned of the Metaflow run.
    folder : Path
        The attempt's; its log has the last word where Metaflow knows no error.
    """
    code, began, step = done.exit_code, seen["began"], seen["step"]
    if code == 0 or seen["finished"]:
        return Finding(done, "succeeded", end_pathspec=seen["end_pathspec"])
    if done.timed_out:
        return Finding(done, "timed out", True, began, step, TIMED_OUT)
    if code is None:
        return Finding(done, "lost", True, began, step, "its processes were killed, or the machine stopped")
    if code < 0:
        return Finding(done, "killed", True, began, step, f"the launcher was ended by {_name_signal(-code)}")
    if seen["error_type"]:
        return Finding(done, "failed", seen["may_pass"], began, step, seen["reason"])
    line = _read_last_line(folder / "log")
    # a task that is killed as soon as it has recorded its success fails the run all the same
    if task := f"{step}/{seen['task']}" if step else _find_failed_task(line):
        return Finding(done, "killed", True, began, task.partition("/")[0], f"the task {task} was killed")
    return Finding(done, "failed", inspection.may_pass("", line), began, reason=line or f"exit code {code}")


def _find_failed_task(line: str) -> str:
    found = STEP_FAILED.fullmatch(line)
    return "/".join(found.groups()) if found else ""


def _name_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def inspect_run(version: Version, run: Run, attempt: RunAttempt) -> dict[str, Any]:
    """What ``inspection`` returns of the attempt's Metaflow run.

    Parameters
    ----------
    version : Version
        What the run runs; Metaflow is asked with its interpreter and code.
    run : Run
        The attempt's run.
    attempt : RunAttempt
        Its Metaflow run is inspected.

    Raises
    ------
    NotInspected
        When it cannot be asked, as when the frozen code is gone or the machine has no memory left.
    """
    words = [version.python, "-P", inspection.__file__, f"{version.flow}/{attempt.metaflow_run}"]
    try:
        done = subprocess.run(
            words,
            cwd=version.folder,
            env=build_environment(version, run, attempt),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSPECTION_SECONDS,
            check=True,
        )
        return dict(json.loads(done.stdout.strip().splitlines()[-1]))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        lines = str(getattr(error, "stderr", None) or error).strip().splitlines()
        raise NotInspected(lines[-1] if lines else type(error).__name__) from error


class NotInspected(Exception):
    """Metaflow cannot say what became of an attempt."""


def _read_end_pathspec(folder: Path) -> str:
    """The last task's pathspec, which the task itself has noted."""
    try:
        return (folder / "end").read_text().strip()
    except OSError:
        return ""


def _read_last_line(log: Path) -> str:
    """The last line of a launcher's log that is not blank or a rule."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 16_384))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    words = [" ".join(line.split()) for line in lines if line.strip(" \t^~-=")]
    line = re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ ", "", words[-1]) if words else ""
    return line[:300]


def is_overdue(attempt: RunAttempt) -> bool:
    """Whether an attempt whose keeper was killed is over its time limit."""
    folder = Path(attempt.folder)
    limit = (read_file(folder, "attempt.json") or {}).get("time_limit", 0.0)
    begun = read_file(folder, "begun") if limit else None
    if begun is None or has_keeper(folder):
        return False
    return time.monotonic() > begun["monotonic"] + limit  # of this boot: the clock may have jumped


def end_and_examine(version: Version, run: Run, attempt: RunAttempt) -> Finding | None:
    """End an attempt, and return how it ended.

    Parameters
    ----------
    version : Version
        What the run runs; Metaflow is asked with its interpreter and code.
    run : Run
        The attempt's run.
    attempt : RunAttempt
        One that is to stop, or over its time limit.
    """
    overdue = is_overdue(attempt)
    end_all(attempt.token)
    finding = examine(version, run, attempt)
    if finding is None or not overdue or finding.outcome not in ("lost", "killed"):
        return finding
    return replace(finding, outcome="timed out", reason=TIMED_OUT)


def make_unknown(attempt: RunAttempt, error: Exception) -> Finding:
    """The finding for an attempt that Metaflow cannot be asked about: a person has to look."""
    done = read_end(Path(attempt.folder)) or LauncherEnd(None, datetime.now(UTC).timestamp())
    outcome: Outcome = "succeeded" if done.exit_code == 0 else "lost"
    return Finding(done, outcome, reason=f"Metaflow cannot say what became of it ({error})")
