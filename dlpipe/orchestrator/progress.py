"""How far a run has come, and what it says it reached: both as its tasks print them into the log."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Literal

from dlpipe.redaction import redact

READ_BYTES = 4 * 1024 * 1024
LONGEST_OUTCOME = 300
LINE = re.compile(
    r"^(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+) "
    r"\[[^\s/\]]+/(?P<step>\w+)/(?P<task>\w+) \(pid \d+\)\] (?P<said>.*)$"
)
ENDS = {"Task finished successfully.": True, "Task failed.": False}
OUTCOME = re.compile(r"outcome\s{2,}(.+)")
"""As ``print_summary(outcome=...)`` of ``dlpipe.flows`` prints it."""


@dataclass(frozen=True)
class StepProgress:
    """A step of a run.

    Attributes
    ----------
    begun, ended, failed : int
        How many of its tasks have begun, and how many of these have ended well and not; cloned ones are not among
        them.
    state : {"running", "done", "failed"}
        ``failed`` while no other attempt of a task that failed goes on.
    since : float
        When its first task began, in seconds since 1970.
    seconds : float
        From then to its last one's end; of a running step to the last line of the log.
    """

    step: str
    begun: int
    ended: int
    failed: int
    state: Literal["running", "done", "failed"]
    since: float
    seconds: float


@dataclass(frozen=True)
class Progress:
    """The steps in the order in which they began, and the outcome in words; empty if the run says none."""

    steps: tuple[StepProgress, ...] = ()
    outcome: str = ""

    @property
    def current(self) -> str:
        """The steps that run, in words."""
        return ", ".join(
            step.step + (f" ({step.ended} of {step.begun} tasks done)" if step.begun > 1 else "")
            for step in self.steps
            if step.state == "running"
        )


def read_progress(log: Path) -> Progress:
    """Return what an attempt's log says; nothing where it has none. Of a very long one, the end is read."""
    try:
        found = log.stat()
        return _read(str(log), found.st_size, found.st_mtime_ns)
    except OSError:
        return Progress()


@lru_cache(maxsize=256)
def _read(log: str, size: int, _changed: int) -> Progress:
    with open(log, "rb") as file:
        file.seek(max(0, size - READ_BYTES))
        return parse_progress(file.read(READ_BYTES).decode(errors="replace").splitlines())


def parse_progress(lines: Iterable[str]) -> Progress:
    """Return what the lines of a log say.

    Examples
    --------
    >>> log = '''2026-11-28 16:00:00.000 [7/start/1 (pid 5)] Task is starting.
    ... 2026-11-28 16:00:02.000 [7/start/1 (pid 5)] Task finished successfully.
    ... 2026-11-28 16:00:03.000 [7/end/2 (pid 6)] Task is starting.
    ... 2026-11-28 16:00:04.500 [7/end/2 (pid 6)] outcome      3 rows scored'''
    >>> found = parse_progress(log.splitlines())
    >>> [(step.step, step.state, step.seconds) for step in found.steps], found.current, found.outcome
    ([('start', 'done', 2.0), ('end', 'running', 1.5)], 'end', '3 rows scored')
    """
    seen: dict[str, dict[str, list[tuple[datetime, bool | None]]]] = {}
    outcome, last = "", None
    for line in lines:
        if (found := LINE.match(line)) is None:
            continue
        last, said = datetime.fromisoformat(found["time"]), found["said"]
        tasks = seen.setdefault(found["step"], {})
        if said.startswith("Task is starting") or said in ENDS:
            tasks.setdefault(found["task"], []).append((last, ENDS.get(said)))
        elif told := OUTCOME.fullmatch(said.strip()):
            outcome = cut(redact(told[1]))
    steps = [_make_step(step, list(tasks.values()), last) for step, tasks in seen.items() if last and tasks]
    return Progress(tuple(steps), outcome)


def cut(outcome: str) -> str:
    """Return the beginning of a long outcome, up to the end of a word.

    Examples
    --------
    >>> cut("3 rows scored"), len(cut("so many words " * 99)) <= LONGEST_OUTCOME + 3
    ('3 rows scored', True)
    """
    return outcome if len(outcome) <= LONGEST_OUTCOME else f"{outcome[:LONGEST_OUTCOME].rpartition(' ')[0]}..."


def _make_step(step: str, tasks: Sequence[Sequence[tuple[datetime, bool | None]]], last: datetime) -> StepProgress:
    ends = [marks[-1][1] for marks in tasks]
    state: Literal["running", "done", "failed"] = "done"
    if None in ends:
        state = "running"
    elif False in ends:
        state = "failed"
    until = last if state == "running" else max(marks[-1][0] for marks in tasks)
    begun = min(marks[0][0] for marks in tasks)
    seconds = (until - begun).total_seconds()
    return StepProgress(step, len(tasks), ends.count(True), ends.count(False), state, begun.timestamp(), seconds)
