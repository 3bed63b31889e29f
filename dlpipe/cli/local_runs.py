"""The runs of the Metaflow datastore here, whoever made them, with the commands that resume the failed ones."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from dlpipe.cli.printing import say, say_rows, say_runs_elsewhere
from dlpipe.terminal import format_table
from dlpipe.time_formats import to_moment

if TYPE_CHECKING:
    from dlpipe.bridge.snapshots import RunSnapshot


@dataclass(frozen=True)
class LocalRun:
    """A run as Metaflow has it.

    Attributes
    ----------
    run : str
        Its pathspec.
    status : str
        ``running``, ``finished``, ``failed``, ``killed``, or ``resumed`` when a later run went on from it.
    began : datetime
    step, why : str
        Of a failed one the step that failed, and why in one line.
    resume : str
        The command that resumes it, from this folder; empty where the first step failed, for it would fail
        again, with the same options.
    """

    run: str
    status: str
    began: datetime
    step: str = ""
    why: str = ""
    resume: str = ""


def print_local_runs(limit: int, *, json_: bool) -> None:
    """Print the newest runs that Metaflow has here, whoever made them."""
    from dlpipe.bridge.marks import find_state_root

    say_runs_elsewhere()
    rows = [vars(run) for run in list_local_runs(limit)]
    if json_ or not rows:
        nothing = f"Metaflow has no runs in {str(find_state_root())!r}. Stand in the folder of the project."
        say_rows(rows, json_=json_, nothing=nothing)
        return
    head, *lines = format_table([{key: row[key] for key in ("run", "status", "began", "step")} for row in rows])
    say(head)
    for line, row in zip(lines, rows, strict=True):
        say(line)
        for name in ("why", "resume"):
            if row[name]:
                say(f"    {name + ': ' if name == 'resume' else ''}{row[name]}")


def list_local_runs(limit: int) -> list[LocalRun]:
    """The newest runs of the datastore here, the newest first."""
    snapshots = sorted(_read_snapshots(limit), key=lambda snapshot: -snapshot.created)[:limit]
    resumed = {snapshot.origin for snapshot in snapshots}
    return [_describe(snapshot, resumed=snapshot.pathspec in resumed) for snapshot in snapshots]


def _read_snapshots(limit: int) -> Iterator[RunSnapshot]:
    from dlpipe.bridge.metadata import find_runs
    from dlpipe.bridge.runs import MetaflowRun
    from dlpipe.errors import RunNotFound

    by_flow: dict[str, list[str]] = {}
    for pathspec in find_runs():
        by_flow.setdefault(pathspec.partition("/")[0], []).append(pathspec)
    for pathspecs in by_flow.values():
        for pathspec in pathspecs[-limit:]:
            try:
                yield MetaflowRun(pathspec).read()
            except RunNotFound:  # it has only just begun
                continue


def _describe(snapshot: RunSnapshot, *, resumed: bool) -> LocalRun:
    status, began = snapshot.status.lower(), to_moment(snapshot.created)
    if status not in ("failed", "killed"):
        return LocalRun(snapshot.pathspec, status, began)
    step, why = _find_failure(snapshot)
    if resumed:
        return LocalRun(snapshot.pathspec, "resumed", began, step, why)
    return LocalRun(snapshot.pathspec, status, began, step, why, _build_resume(snapshot))


def _find_failure(snapshot: RunSnapshot) -> tuple[str, str]:
    """The step that failed, and why."""
    from dlpipe.orchestrator.inspection import inspect

    found = inspect(snapshot.pathspec)
    last = max(snapshot.attempts, key=lambda attempt: attempt.start, default=None)
    step = found["step"] or (last.step if last else "")
    return step, found["reason"] or ("its processes were killed" if snapshot.status == "KILLED" else "")


def _build_resume(snapshot: RunSnapshot) -> str:
    """The command that resumes the run, if there is something to resume."""
    from dlpipe.bridge.marks import find_marks
    from dlpipe.bridge.resuming import SCHEDULED, build_resume

    if not snapshot.attempts or (
        snapshot.status == "FAILED" and not any(attempt.status == "FINISHED" for attempt in snapshot.attempts)
    ):
        return ""
    run = snapshot.pathspec.partition("/")[2]
    if SCHEDULED in snapshot.system_tags:
        return _find_scheduled_resume(run)
    script = find_marks(snapshot.pathspec).script()
    if not Path(script).is_file():
        script = _find_script(snapshot.code.get("script-name", ""))
    return build_resume(run, script, python=_name_python())


def _find_scheduled_resume(run: str) -> str:
    """The command by which the scheduler resumes the run; empty where it cannot, or has forgotten it."""
    from contextlib import closing

    from dlpipe.errors import RunNotFound
    from dlpipe.orchestrator.overview import view_run
    from dlpipe.orchestrator.state import State

    with closing(State.open()) as state:
        try:
            return view_run(state, state.find_run(run)).resume
        except RunNotFound:
            return ""


def _find_script(name: str) -> str:
    """The flow's file, of which Metaflow keeps the name only, as seen from here."""
    places = (path for pattern in ("", "*/", "*/*/") for path in sorted(Path().glob(f"{pattern}{name}")))
    return str(next(places, name)) if name else "FLOW.py"


def _name_python() -> str:
    """This interpreter, in as few words as a shell needs."""
    python = Path(sys.executable)
    return shlex.quote(str(python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python))
