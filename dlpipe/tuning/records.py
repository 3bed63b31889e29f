"""What is known of trials that ended, kept so that a search that starts again does not run them again."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlpipe.task import TrainingSettings
from dlpipe.training import Checkpoints, EpochScore

if TYPE_CHECKING:
    from dlpipe.tables import TableVersion

TRIALS = "trials.json"


@dataclass(frozen=True)
class Record:
    """How a trial went."""

    scores: tuple[EpochScore, ...]
    error: str | None
    stopped: bool
    """ASHA ended it: its training had more epochs to go."""


class Records:
    """The records of the trials of a table version, found by all settings of their training."""

    def __init__(self, table: TableVersion, training: TrainingSettings) -> None:
        self._table, self._training = table, training
        self._entries: dict[str, dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def take_up(self, checkpoints: Checkpoints) -> None:
        """Read what the newest checkpoint has."""
        if folder := checkpoints.latest():
            self._entries = {_name(entry): entry for entry in json.loads((folder / TRIALS).read_text())}

    def save(self, checkpoints: Checkpoints) -> None:
        """Leave all records as the newest checkpoint."""
        with tempfile.TemporaryDirectory(prefix="dlpipe-trials-") as folder:
            (Path(folder) / TRIALS).write_text(json.dumps(list(self._entries.values()), indent=1))
            checkpoints.save(Path(folder))

    def find(self, values: Mapping[str, Any]) -> Record | None:
        """Return the record of the trial of these values."""
        entry = self._entries.get(_name(self._what(values)))
        if entry is None:
            return None
        scores = tuple(EpochScore.from_record(score) for score in entry["scores"])
        return Record(scores, entry["error"], entry["stopped"])

    def add(self, number: int, values: Mapping[str, Any], record: Record) -> bool:
        """Write down how a trial went and return whether that is news."""
        news = self.find(values) != record
        entry = {
            "number": number,
            "values": dict(values),
            **self._what(values),
            "scores": [score.to_record() for score in record.scores],
            "error": record.error,
            "stopped": record.stopped,
        }
        self._entries[_name(entry)] = entry
        return news

    def _what(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return all that the scores of a trial depend on: its number is not among it."""
        table = {"path": self._table.path, "version": self._table.version, "digest": self._table.digest}
        return {"settings": asdict(dataclasses.replace(self._training, **values)), "table": table}


def _name(entry: Mapping[str, Any]) -> str:
    return json.dumps([entry["settings"], entry["table"]], sort_keys=True)
