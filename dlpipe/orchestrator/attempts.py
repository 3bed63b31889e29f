"""What an attempt of a run is started with: its command, its environment, and the Metaflow run that it resumes."""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlpipe.orchestrator.deployments import Version
from dlpipe.orchestrator.runs import Run, RunAttempt
from dlpipe.orchestrator.state import State
from dlpipe.orchestrator.values import build_words

SCHEDULER_USER = "local-scheduler"
NOT_INHERITED = re.compile(r"METAFLOW_|_DLPIPE_|PYTHON(PATH|HOME|STARTUP|SAFEPATH|NOUSERSITE)$|VIRTUAL_ENV$")


def build_hook_command(version: Version, run: Run, functions: Sequence[str]) -> list[str]:
    """The command that calls a flow's exit hooks with the newest Metaflow run.

    Parameters
    ----------
    version : Version
        What the run ran; its interpreter and frozen code call the functions.
    run : Run
        One that has ended; its newest Metaflow run is what the functions get.
    functions : sequence of str
        Functions of ``@exit_hook``, by name or import path.
    """
    from dlpipe.orchestrator import hook_calls

    script = str(Path(version.code, version.script))
    known = [attempt.metaflow_run for attempt in run.attempts if attempt.metaflow_run] or [""]
    return [version.python, "-P", hook_calls.__file__, script, f"{version.flow}/{known[-1]}", *functions]


def build_command(version: Version, run: Run, attempt: RunAttempt) -> list[str]:
    """The launcher's command: ``launch`` for a run from its beginning, ``relaunch`` for one that resumes.

    Parameters
    ----------
    version : Version
        Interpreter, frozen code, options and tags.
    run : Run
        Its parameters come after those of the version, so they win.
    attempt : RunAttempt
        With an origin it is resumed from there.
    """
    options = [*version.options, "local-scheduler"]
    tags = [word for tag in version.tags for word in ("--tag", tag)]
    words = ["--run-id", attempt.metaflow_run, *version.run_options, *tags]
    if attempt.origin:
        words = ["relaunch", "--origin-run-id", attempt.origin, *words]
    else:
        words = ["launch", *words, *build_words(version, {**version.parameters, **run.parameters})]
    return [version.python, str(Path(version.code, version.script)), *options, *words]


def build_environment(version: Version, run: Run, attempt: RunAttempt) -> dict[str, str]:
    """The launcher's whole environment: the scheduler's, without what would lead a flow elsewhere, and its own.

    Parameters
    ----------
    version : Version
        Its own variables win over all others.
    run : Run
        Its events become ``current.trigger``.
    attempt : RunAttempt
        Which of the run's attempts it is for.
    """
    kept = {name: value for name, value in os.environ.items() if not NOT_INHERITED.match(name)}
    code = Path(version.code)
    path = os.pathsep.join([str(Path(version.python).parent), kept.get("PATH", os.defpath)])
    ours = {
        "PATH": path,
        "PYTHONPATH": os.pathsep.join([str(code), str(code / ".mf_code")]),
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "METAFLOW_EXTRACTED_ROOT": version.code,
        "METAFLOW_USER": SCHEDULER_USER,
        "METAFLOW_OWNER": version.author,
        "METAFLOW_RUNTIME_NAME": SCHEDULER_USER,
        "METAFLOW_PRODUCTION_TOKEN": version.token,
        "METAFLOW_LOCAL_SCHEDULER_TRIGGERS": json.dumps(describe_triggers(version, run)),
    }
    return {**kept, **{name: value for name, value in ours.items() if value}, **version.variables}


def describe_triggers(version: Version, run: Run) -> list[dict[str, Any]]:
    """What triggered a run, in the form of Metaflow's ``current.trigger``."""
    needed = version.trigger.needed if version.trigger else ()
    ends = {end.name for end in needed if end.kind == "run"}
    return [
        {
            "timestamp": int(event.at),
            "id": event.payload.get("pathspec", event.id) if event.name in ends else event.id,
            "name": event.name,
            "type": "run" if event.name in ends else "event",
        }
        for event in run.events
    ]


def find_origin(run: Run) -> str:
    """The Metaflow run that the next attempt resumes: the newest in which a task of its own began.

    One that was killed before that holds nothing, not even all of the tasks that it took over. Empty if there is
    none: then the run begins anew.
    """
    return next(
        (
            attempt.metaflow_run
            for attempt in reversed(run.attempts)
            if attempt.metaflow_run and attempt.ended and attempt.began
        ),
        "",
    )


def make_attempt(state: State, run: Run, now: float) -> RunAttempt:
    """The next attempt of a queued or waiting run.

    Parameters
    ----------
    state : State
        Its folder is where the attempt's folder goes.
    run : Run
        With all of its attempts so far.
    now : float
        Seconds since 1970.
    """
    token = str(uuid.uuid4())
    number = len(run.attempts)
    return RunAttempt(
        number=number,
        token=token,
        folder=str(state.folder / "runs" / str(run.number) / str(number)),
        origin=find_origin(run),
        metaflow_run=f"ls-{run.number}-{token[:8]}",
        started=now,
    )
