"""Records of trials that ended, so that a search that starts again does not train them again.

Not Ray's own restore: it needs Ray's folder on a disk that the next attempt sees, and starts interrupted trials in
another order, which changes what a searcher proposes. Here the same searcher proposes the same values again, and a
trial that is on record reports its recorded scores.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dlpipe.scratch import open_scratch
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

    def load(self, checkpoints: Checkpoints) -> None:
        """Read the records of the newest checkpoint."""
        if folder := checkpoints.latest():
            self._entries = {_to_key(entry): entry for entry in json.loads((folder / TRIALS).read_text())}

    def save(self, checkpoints: Checkpoints) -> None:
        """Save all records as the newest checkpoint."""
        with open_scratch() as folder:
            (folder / TRIALS).write_text(json.dumps(list(self._entries.values()), indent=1))
            checkpoints.save(folder)

    def find(self, values: Mapping[str, Any]) -> Record | None:
        """Return the record of the trial of these values."""
        entry = self._entries.get(_to_key(self._identify(values)))
        if entry is None:
            return None
        scores = tuple(EpochScore.from_record(score) for score in entry["scores"])
        return Record(scores, entry["error"], entry["stopped"])

    def add(self, number: int, values: Mapping[str, Any], record: Record) -> bool:
        """Record how a trial went, and return whether that was not known yet.

        Parameters
        ----------
        number : int
            Of the trial, from 0; for who reads the file.
        values : mapping
            Of the settings that the search varies.
        record : Record
        """
        is_new = self.find(values) != record
        entry = {
            "number": number,
            "values": dict(values),
            **self._identify(values),
            "scores": [score.to_record() for score in record.scores],
            "error": record.error,
            "stopped": record.stopped,
        }
        self._entries[_to_key(entry)] = entry
        return is_new

    def _identify(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return all that the scores of a trial depend on: its number does not count."""
        table = {"path": self._table.path, "version": self._table.version, "digest": self._table.digest}
        return {"settings": asdict(dataclasses.replace(self._training, **values)), "table": table}


def _to_key(entry: Mapping[str, Any]) -> str:
    return json.dumps([entry["settings"], entry["table"]], sort_keys=True)
