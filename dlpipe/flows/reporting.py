"""Numbers of a step while it runs: a line in a file beside the run, which the bridge brings to MLflow."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import numbers
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlpipe.errors import SettingError

if TYPE_CHECKING:
    from dlpipe.bridge.marks import RunMarks

INDEXES = ("epoch", "step", "iteration", "fold")
"""Names that say which point of a series a record is; ``dlpipe.bridge.series`` has the same."""
ALL = 1_000
"""So many records of a series are written, then every second one of as many, then every fourth, and so on."""

_counts: Counter[tuple[str, str]] = Counter()
_known: dict[str, RunMarks | None] = {}


def report_point(name: str, record: Mapping[str, Any] | Any) -> None:
    """Put numbers of the running step into MLflow within seconds, as points of series called ``name/KEY``.

    The step imports no MLflow for it: a line is appended to a file beside the run, and the bridge reads it. Give
    the name of the artifact that will hold all of these records in the end, if there is one: the two are one
    series. Of a number that was reported twice for the same epoch, the first counts.

    The first 1,000 records of a series are written, then fewer and fewer: of a million, some 6,000. Nothing
    happens outside a step, and where the file cannot be written.

    Parameters
    ----------
    name : str
        Of the series.
    record : mapping or dataclass
        One of ``epoch``, ``step``, ``iteration`` and ``fold``, a whole number from 0, and numbers by name, also in
        mappings inside of it. What is no number is left out.

    Raises
    ------
    SettingError
        When the record has none of the four.

    Examples
    --------
    >>> report_point("epochs", {"epoch": 1, "loss": 0.5})
    """
    found = dict(_find_numbers(record))
    if not any(_is_count(found.get(index)) for index in INDEXES):
        raise SettingError(
            f"report_point({name!r}, ...) needs one of {', '.join(INDEXES)} in the record, a whole number from 0; "
            f"it has {', '.join(map(str, found)) or 'no number'}. Add one of them."
        )
    place = _find_place()
    if place is None or not _is_due(place[1], name):
        return
    from dlpipe.bridge.reported import make_line
    from dlpipe.errors import DlpipeError

    marks, key = place
    with contextlib.suppress(OSError, DlpipeError):  # a full disk, say: the training goes on
        marks.note_points(key, make_line(name, found))


def _find_numbers(record: Any) -> Iterator[tuple[str, Any]]:
    """Yield the numbers of a record by name, and what stands in mappings of it."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        record = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    for key, value in record.items() if isinstance(record, Mapping) else ():
        if isinstance(value, Mapping) or dataclasses.is_dataclass(value):
            yield str(key), dict(_find_numbers(value))
        elif getattr(value, "shape", None) == () and hasattr(value, "item"):  # of NumPy or torch
            yield from _find_numbers({key: value.item()})
        elif isinstance(value, numbers.Integral) and not isinstance(value, bool):
            yield str(key), int(value)
        elif isinstance(value, numbers.Real) and not isinstance(value, bool):
            yield str(key), float(value)  # of one that is not finite the bridge makes a note


def _is_count(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0 and value == int(value)


def _is_due(key: str, name: str) -> bool:
    """Return whether this record is written: beyond the first ones, one in a growing number is."""
    count = _counts[key, name]
    _counts[key, name] += 1
    return count % (1 << (count // ALL).bit_length()) == 0


def _find_place() -> tuple[RunMarks, str] | None:
    """Return the marks of the run and the key of the attempt that this process works on; ``None`` outside."""
    key = _find_task()
    if key not in _known:
        _known[key] = _find_marks(key) if key else None
    marks = _known[key]
    return None if marks is None else (marks, key)


def _find_task() -> str:
    """Return the key of the attempt: Metaflow knows it in the task's process, the environment in its children."""
    if "metaflow" in sys.modules:
        from metaflow import current

        if current.get("task_id") is not None:
            return f"{current.pathspec}/{current.retry_count}"
    return os.environ.get("_DLPIPE_BRIDGE_TASK", "")


def _find_marks(key: str) -> RunMarks | None:
    """Return the marks of the attempt's run, if the run has a folder on this machine."""
    from dlpipe.bridge.marks import RunMarks, find_marks

    pathspec = "/".join(key.split("/")[:2])
    folder = os.environ.get("_DLPIPE_BRIDGE_FOLDER", "")
    # the launcher names it, since a step may have another working directory; without a bridge nobody does
    named = folder and os.environ.get("_DLPIPE_BRIDGE_TASK") == key
    marks = RunMarks(pathspec, Path(folder)) if named else find_marks(pathspec)
    return marks if marks.folder.parent.is_dir() else None
