"""The attempts of a task, from what its metadata says: when they began and ended, and how."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dlpipe.bridge.artifacts import read_artifact_value
from dlpipe.bridge.datastore import has_file
from dlpipe.bridge.opening import read_fields
from dlpipe.bridge.records import Status

LAUNCHER_SECONDS = 60.0
"""How long after a task's end a living launcher's logs are waited for: it writes them last, after the cards."""
LONGEST_ERROR = 300
LOG_SECONDS = {"local": 5.0, "": 30.0}
"""The same where no launcher is known to live, locally and elsewhere; without one, none come."""


@dataclass(frozen=True)
class TaskAttempt:
    """One attempt of a task; times in milliseconds since 1970.

    Attributes
    ----------
    status : str
        How it ended, ``RUNNING`` while it has not.
    complete : bool
        Whether everything that belongs to it is written: artifacts, cards and logs.
    origin : str or None
        Pathspec of the task that ``resume`` took the results from.
    place : str
        Where it stands in its foreaches, such as ``[2]`` or ``[2][0]``; empty outside.
    uses_mlflow : bool
        Whether the step logged to MLflow itself.
    has_cards : bool
        Whether it made cards.
    cards_of_others : frozenset of str
        Ids of the cards that other attempts of its task made: Metaflow has one folder for all of a task's.
    caught : str
        The exception that ``@catch`` took, in a line: Metaflow says that the attempt is ok, and that its task was
        not successful.
    error : str
        The exception that failed it, in a line; empty where there is none, as after ``sys.exit``.
    """

    pathspec: str
    number: int
    start: int
    end: int | None
    status: Status
    complete: bool = True
    origin: str | None = None
    place: str = ""
    uses_mlflow: bool = False
    has_cards: bool = False
    cards_of_others: frozenset[str] = frozenset()
    caught: str = ""
    error: str = ""

    @property
    def key(self) -> str:
        """Key of its record."""
        return f"{self.pathspec}/{self.number}"

    @property
    def step(self) -> str:
        """Name of its step."""
        return self.pathspec.split("/")[2]

    @property
    def task(self) -> str:
        """Id of its task."""
        return self.pathspec.split("/")[3]


@dataclass(frozen=True)
class TaskMetadata:
    """What the metadata of a task says: ``entries`` as the provider has them, the oldest first."""

    path: str
    created: int
    entries: tuple[Mapping[str, Any], ...]

    def attempts(self, *, alive: bool, closed: str, launcher: str = "") -> list[TaskAttempt]:
        """Return its attempts; none while it is being started, when the time that counts is not known yet.

        Parameters
        ----------
        alive : bool
            Whether somebody still works on the run, as far as this machine can tell.
        closed : str
            Key of an attempt that is known to have ended, logs with it.
        launcher : str, optional
            What is known of the launcher: ``lives``, ``is gone`` or ``unknown``.
        """
        starts = self._starts or ({} if alive else {0: self.created})
        ends = {_read_number(entry): entry for entry in self.entries if entry["field_name"] == "attempt_ok"}
        made = []
        for number, start in sorted(starts.items()):
            following = min((at for other, at in starts.items() if other > number), default=None)
            end, status = _find_end(ends.get(number), start, following, self.last_sign, alive=alive)
            # Metaflow calls an attempt ok before its cards and logs are written, and never says that they are. So
            # one that has ended counts as running until nothing more can come: it was only taken over, the next
            # one has begun, nobody works on the run, its own process says so, or its logs are there
            complete = status != "RUNNING" and (
                self.origin is not None
                or following is not None
                or not alive
                or closed == f"{self.path}/{number}"
                or self._has_logs(number, end, launcher)
            )
            made.append(
                TaskAttempt(
                    pathspec=self.path,
                    number=number,
                    start=start,
                    end=end if complete else None,
                    status=status if complete else "RUNNING",
                    complete=complete,
                    origin=self.origin,
                    place=self._find_place(complete),
                    uses_mlflow=number in self._with_own_logs,
                    has_cards=number in self._cards.values(),
                    cards_of_others=frozenset(card for card, maker in self._cards.items() if maker != number),
                )
            )
        return made

    @cached_property
    def _with_own_logs(self) -> frozenset[int]:
        """Attempts that log to MLflow themselves, of runs from before there was a mark for it; their logs stay."""
        return frozenset(
            _read_number(entry) for entry in self.entries if entry.get("type") == "mlflow-run-id uses"
        )

    @cached_property
    def _cards(self) -> dict[str, int]:
        """Id of each card that its task made, and the attempt that made it."""
        return {
            str(entry["field_name"]): _read_number(entry)
            for entry in self.entries
            if entry.get("type") == "card-info"
        }

    @cached_property
    def _fields(self) -> dict[str, Any]:
        return {entry["field_name"]: entry["value"] for entry in self.entries}

    @property
    def last_sign(self) -> int:
        """The time of the latest entry, in milliseconds since 1970."""
        return max([int(entry["ts_epoch"]) for entry in self.entries], default=self.created)

    @property
    def origin(self) -> str | None:
        """The task that ``resume`` took the results from."""
        if "origin-task-id" not in self._fields:
            return None
        flow, _, step, _ = self.path.split("/")
        return f"{flow}/{self._fields['origin-run-id']}/{step}/{self._fields['origin-task-id']}"

    @property
    def _starts(self) -> dict[int, int]:
        starts: dict[int, int] = {}
        for entry in self.entries:
            if entry["field_name"] == "attempt":
                starts.setdefault(int(entry["value"]), int(entry["ts_epoch"]))
        return starts

    def _find_place(self, complete: bool) -> str:
        """Return the places in the foreaches; a clone says them only in an artifact."""
        if path := str(self._fields.get("foreach-execution-path") or ""):
            return "".join(f"[{part.rpartition(':')[2]}]" for part in path.split(","))
        stack = read_artifact_value(f"{self.path}/_foreach_stack") if self.origin and complete else None
        frames = stack if isinstance(stack, list | tuple) else ()
        places = [frame[3] for frame in frames if isinstance(frame, tuple) and len(frame) > 3]
        return "".join(f"[{part}]" for part in places if isinstance(part, int))

    def _has_logs(self, number: int, end: int | None, launcher: str) -> bool:
        """Return whether the launcher has written the logs of an attempt, which it does last."""
        kind, root = str(self._fields.get("ds-type")), str(self._fields.get("ds-root", ""))
        if root and has_file(kind, root, f"{self.path}/{number}.runtime_stderr.log"):
            return True
        patience = LAUNCHER_SECONDS if launcher == "lives" else LOG_SECONDS.get(kind, LOG_SECONDS[""])
        return end is not None and time.time() - end / 1000 > patience


def find_caught(pathspec: str, number: int) -> str:
    """Return the exception that ``@catch`` took in an attempt, in a line; empty when it took none.

    Tasks inherit the exception of the one before them, and not whether it was successful.
    """
    if read_artifact_value(f"{pathspec}/_success", number) is not False:
        return ""
    return _read_exception(f"{pathspec}/_catch_exception", number) or "an exception"


def find_error(pathspec: str, number: int) -> str:
    """Return the exception that failed an attempt, in a line; empty where there is none."""
    name, separator, text = _read_exception(f"{pathspec}/_exception", number).partition(": ")
    return f"{name.rpartition('.')[2]}{separator}{text}"


def _read_exception(artifact: str, number: int) -> str:
    fields = read_fields(read_artifact_value(artifact, number))
    if not fields:
        return ""
    lines = str(fields.get("exception") or "").strip().splitlines()
    name = str(fields.get("type") or "an exception").removeprefix("builtins.")
    return (f"{name}: {lines[0]}" if lines else name)[:LONGEST_ERROR]


def has_process(run_id: str) -> bool:
    """Return whether a process of this machine works on a task of the run: its command names it.

    A card is made by a process of its own, which outlives a task that is killed.
    """
    marks = [
        text.encode() for text in (f"\0--run-id\0{run_id}\0", f"\0--run-id={run_id}\0", f"\0create\0{run_id}/")
    ]
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes()
        except OSError:  # it has ended
            continue
        if int(entry.parent.name) != os.getpid() and any(mark in command for mark in marks):
            return True
    return False


def _read_number(entry: Mapping[str, Any]) -> int:
    tagged = (tag.partition(":")[2] for tag in entry.get("tags", []) if tag.startswith("attempt_id:"))
    return int(next(tagged, 0))


def _find_end(
    entry: Mapping[str, Any] | None, start: int, following: int | None, last_sign: int, *, alive: bool
) -> tuple[int | None, Status]:
    if entry is not None:
        finished: Status = "FINISHED" if following is None else "KILLED"  # a next one: killed after it had said so
        return max(start, int(entry["ts_epoch"])), finished if entry["value"] == "True" else "FAILED"
    if following is None and alive:
        return None, "RUNNING"
    return max(start, following or last_sign), "KILLED"
