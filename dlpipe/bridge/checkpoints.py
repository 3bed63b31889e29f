"""Checkpoints that tasks have saved with metaflow-checkpoint, by the files in which it notes them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dlpipe.bridge.metadata import read_metadata

FOLDER = "mf.checkpoints/checkpoints/metadata"


@dataclass(frozen=True)
class SavedCheckpoint:
    """A checkpoint of a task.

    Attributes
    ----------
    task : str
        ``Flow/run/step/task``.
    attempt, number : int
        The attempt that saved it, and which one of those of this attempt it was, from 0.
    at : int
        In milliseconds since 1970.
    is_there : bool
        Whether its files are still there.
    """

    task: str
    attempt: int
    number: int
    at: int
    is_there: bool


def list_checkpoints(task: str) -> Iterator[SavedCheckpoint]:
    """Yield the checkpoints of the task ``Flow/run/step/task``, the oldest first; those on a disk.

    Of a datastore elsewhere nothing is read: nothing comes of it.
    """
    fields = {entry["field_name"]: str(entry["value"]) for entry in read_metadata(task)}
    if fields.get("ds-type") != "local" or "ds-root" not in fields:
        return
    found = []
    for file in Path(fields["ds-root"], FOLDER, task).glob("*.metadata"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # one that is half written
            note = json.loads(file.read_bytes())
            at = datetime.fromisoformat(note["created_on"]).replace(tzinfo=UTC)
            found.append(
                SavedCheckpoint(
                    task,
                    int(note["attempt"]),
                    int(note["version_id"]),
                    round(at.timestamp() * 1000),
                    Path(note["url"]).exists(),
                )
            )
    yield from sorted(found, key=lambda checkpoint: (checkpoint.attempt, checkpoint.number))
