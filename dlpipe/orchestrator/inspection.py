"""What Metaflow knows of a run, as JSON: ``python -P inspection.py FLOW/RUN``, with a deployment's interpreter.

It runs in the deployment's folder, with its frozen code and variables, and is the one place of supervision that
asks Metaflow. It needs nothing of dlpipe: a deployment made by an older dlpipe is inspected all the same.
"""

from __future__ import annotations

import errno
import importlib
import json
import re
import sys
from collections.abc import Iterator
from typing import Any

STEP_TIMEOUT = "metaflow.plugins.timeout_decorator.TimeoutException"
"""A step's own limit: how often it is tried is for its @retry to say, and a resume would multiply that."""
PASSING_TYPES = (ConnectionError, TimeoutError)
PASSING_NAMES = re.compile(r"(Connect|Timeout|TimedOut|Unavailable|Throttl|TooManyRequests|Interrupted)")
PASSING_NUMBERS = tuple(
    getattr(errno, name)
    for name in (
        "ENOSPC",
        "EDQUOT",
        "EAGAIN",
        "ENOMEM",
        "EMFILE",
        "ENFILE",
        "ENETDOWN",
        "ENETUNREACH",
        "EHOSTUNREACH",
    )
)
PASSING_WORDS = re.compile(
    r"connection (refused|reset|aborted|timed out)|timed out|name resolution|max retries exceeded|"
    r"no space left|database is locked|service unavailable",
    re.IGNORECASE,
)


def inspect(pathspec: str) -> dict[str, Any]:
    """What a run has come to.

    Returns
    -------
    dict
        ``exists``, ``finished`` (its last step has), ``end_pathspec``, ``began`` (a task was started, not only
        taken over from the run that it resumes), and of the task that failed: ``step``, ``task``, ``error_type``,
        ``may_pass`` and ``reason`` in one line. A task that was killed has no ``error_type``.
    """
    from metaflow import Run, namespace
    from metaflow.exception import MetaflowNotFound

    namespace(None)
    try:
        run = Run(pathspec)
        tasks = [task for step in run for task in step]
    except MetaflowNotFound:
        return {"exists": False, "finished": False, "end_pathspec": "", "began": False, **_NO_FAILURE}
    end = run.end_task
    finished = end is not None and _is_finished(end)
    own = [task for task in tasks if "origin-task-id" not in task.metadata_dict]
    return {
        "exists": True,
        "finished": finished,
        "end_pathspec": end.pathspec if finished else "",
        "began": bool(own),
        **(_NO_FAILURE if finished else _find_failure(own)),
    }


_NO_FAILURE = {"step": "", "task": "", "error_type": "", "may_pass": True, "reason": ""}


def _is_finished(task: Any) -> bool:
    return bool(task.finished) and task.metadata_dict.get("attempt_ok") == "True"


def _find_failure(tasks: list[Any]) -> dict[str, Any]:
    """Of the tasks that did not finish the one to be named: one whose code is wrong, else one with an error."""
    open_tasks = [task for task in tasks if not _is_finished(task)]
    found = [_describe_task(task) for task in reversed(open_tasks)]
    return min(found, key=lambda failure: (failure["may_pass"], not failure["error_type"]), default=_NO_FAILURE)


def _describe_task(task: Any) -> dict[str, Any]:
    _, _, step, number = task.path_components
    described = {**_NO_FAILURE, "step": step, "task": number}
    try:
        error = task.exception
    except Exception:  # the artifact was torn by a kill
        error = None
    if error is None:
        return described
    kind, message = error.type or "", " ".join(str(error.exception).split())
    if kind == STEP_TIMEOUT:
        message = message.partition(" Stack when")[0]
    passes = may_pass(kind, message)
    return {**described, "error_type": kind, "may_pass": passes, "reason": _format_error(kind, message)}


def _format_error(kind: str, message: str) -> str:
    name = kind.removeprefix("builtins.").rpartition(".")[2]
    line = f"{name}: {message}" if message else name
    return line if len(line) <= 300 else f"{line[:299]}…"


def may_pass(kind: str, message: str) -> bool:
    """Whether an error, given by its type's full name and what it says, may be gone at the next attempt.

    Examples
    --------
    >>> may_pass("builtins.ConnectionResetError", "[Errno 104] Connection reset by peer")
    True
    >>> may_pass("builtins.OSError", "[Errno 28] No space left on device")
    True
    >>> may_pass("builtins.ValueError", "could not convert string to float: 'x'")
    False
    >>> may_pass(STEP_TIMEOUT, "Step train timed out after 0 hours, 5 minutes, 0 seconds")
    False
    """
    if kind == STEP_TIMEOUT:
        return False
    if PASSING_NAMES.search(kind.rpartition(".")[2]) or any(base in PASSING_TYPES for base in _find_bases(kind)):
        return True
    number = re.match(r"\[Errno (\d+)\]", message)
    if number:
        return int(number[1]) in PASSING_NUMBERS
    return bool(PASSING_WORDS.search(message))


def _find_bases(kind: str) -> Iterator[type]:
    module, _, name = kind.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception:  # of the flow's own file, or of a package that is not there
        return
    yield from getattr(found, "__mro__", ())


if __name__ == "__main__":
    json.dump(inspect(sys.argv[1]), sys.stdout)
