"""Which runs resumed a run or ran some code, by the index: Metaflow says it of a run, not the other way round."""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from typing import Any

from dlpipe.bridge.metadata import find_folder, list_objects, list_run_ids, read_metadata
from dlpipe.bridge.records import parse_object
from dlpipe.lineage.index import Index, NewUnit, to_number
from dlpipe.lineage.nodes import SHORT

DAY = 86_400_000
UNSURE = 2_000_000_000
"""Nanoseconds within which a folder may have changed again without a sign: its times need not be finer."""


class RunIndex:
    """Keeps the index up to date with the runs of flows, and asks it.

    Parameters
    ----------
    index : Index

    Attributes
    ----------
    what : str
        What the index has of runs, beside what others have there.
    """

    what = "runs"

    def __init__(self, index: Index) -> None:
        self.index = index
        self._fresh: dict[str, int] = {}

    def find_resumes(self, flow: str, run: str) -> list[str]:
        """Return the ids of the runs of a flow that may have resumed one of its runs, the oldest first."""
        return self.find(flow, f"resumed {flow}/{run}")

    def find_users(self, flow: str, digest: str) -> list[str]:
        """Return the ids of the runs of a flow that may have run the code with this digest, the oldest first."""
        return self.find(flow, f"ran {digest[:SHORT]}")

    def find(self, flow: str, word: str) -> list[str]:
        """Return the ids of the runs of a flow that may be found by a word, the oldest first."""
        source = f"{self.what} of {flow} in {find_folder(flow)}"

        def look() -> list[str]:
            if self._fresh.get(flow) != self.index.made:
                self._update(flow, source)
                self._fresh[flow] = self.index.made
            units = self.index.find(word)
            return [unit.name for unit in units if unit.source == source]

        return list(dict.fromkeys(self.index.attempt(look)))

    def _update(self, flow: str, source: str) -> None:
        before = self.index.read_mark(source)
        mark = json.loads(before) if before else {"stamp": None, "open": []}
        stamp = _read_stamp(flow)
        if stamp is not None and stamp == mark["stamp"]:
            new: Collection[str] = mark["open"]
        else:
            new = dict.fromkeys([*mark["open"], *(set(list_run_ids(flow)) - self.index.list_names(source))])
        words = {run: self.read_words(flow, run) for run in new}
        units: list[NewUnit] = [
            (run, b"", [*map(to_number, some)]) for run, some in sorted(words.items()) if some is not None
        ]
        after = json.dumps({"stamp": stamp, "open": sorted(run for run, some in words.items() if some is None)})
        if after != before or units:
            self.index.add([(source, before, after, units)])

    def read_words(self, flow: str, run: str) -> list[str] | None:
        """Return what a run is found by; ``None`` while nobody can say."""
        try:
            return _find_words(flow, run)
        except ValueError:  # a file that is no JSON: it may be restored
            return None


def _read_stamp(flow: str) -> list[int] | None:
    """Return what changes when a flow has another run; ``None`` where nothing tells, or it has just changed."""
    folder = find_folder(flow)
    if folder is None or not folder.is_dir():
        return None
    found = folder.stat()
    sure = time.time_ns() - found.st_mtime_ns > UNSURE
    return [found.st_dev, found.st_ino, found.st_mtime_ns] if sure else None


def _find_words(flow: str, run: str) -> list[str] | None:
    """Return what a run is found by: the run that it resumed, its code. ``None`` while nobody can say."""
    tasks: list[dict[str, Any]] = [
        task for task in list_objects("run", "task", flow, run) if task["step_name"][0] != "_"
    ]
    said, words = False, list[str]()
    for task in tasks:
        path = f"{flow}/{run}/{task['step_name']}/{task.get('task_name') or task['task_id']}"
        fields = {entry["field_name"]: entry["value"] for entry in read_metadata(path)}
        if "origin-run-id" in fields and not said:
            said, origin = True, fields["origin-run-id"]
            words += [f"resumed {flow}/{origin}"] if origin not in (None, "None", "") else []
        if package := parse_object(str(fields.get("code-package") or "{}")).get("sha"):
            # a task that began while the code was packed does not name it
            return [*words, f"ran {str(package)[:SHORT]}"] if said else None
        if said and task["step_name"] == "end":
            return words
    # one that was killed before it had a task never says it
    old = run.isdigit() and time.time() * 1000 - int(run) / 1000 > DAY
    return words if old else None
