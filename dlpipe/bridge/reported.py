"""What a step reports while it runs: points in a file beside the run, which MLflow has at once and for good.

The file only grows, line by line, and stays as long as the run, so the same points are found in it at any time:
while the step runs, after it was killed, and years later. What an artifact of the same name says in the end is
the same series; of a point that both have, time and value are those reported, since MLflow takes no point back.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dlpipe.bridge.points import MOST_NAMES, choose_name
from dlpipe.bridge.records import Metric, parse_object
from dlpipe.bridge.series import Path, split_record
from dlpipe.redaction import looks_secret, redact

MOST_POINTS = 20_000
"""So many points of one attempt; ``dlpipe.flows.report_point`` writes fewer and fewer long before."""
MOST_NOT_FINITE = 5
"""So many series are named that have points which are not finite."""


def make_line(name: str, record: Mapping[str, Any], at: int | None = None) -> bytes:
    """Return the line for a record of a series.

    Parameters
    ----------
    name : str
        Of the series.
    record : mapping of str to object
        Numbers, and mappings of numbers, by name.
    at : int, optional
        When it was, in milliseconds since 1970; by default now.
    """
    line = {"name": name, "time": int(time.time() * 1000) if at is None else at, "record": record}
    return json.dumps(line).encode() + b"\n"


@dataclass
class Reported:
    """What one attempt has reported so far.

    Attributes
    ----------
    read : int
        Bytes of its file that are in here.
    names : dict of tuple to str
        The name of each series in MLflow, by the keys on the way to it.
    points : dict of (str, int) to Metric
        By name and step; the first that was reported counts.
    """

    read: int = 0
    names: dict[Path, str] = field(default_factory=dict)
    points: dict[tuple[str, int], Metric] = field(default_factory=dict)
    _is_full: bool = False
    _taken: set[tuple[str, str]] = field(default_factory=set)
    _not_finite: dict[Path, set[int]] = field(default_factory=dict)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The points in the order in which they were reported."""
        return tuple(self.points.values())

    @property
    def taken(self) -> Collection[tuple[str, str]]:
        """Names that no other number of the attempt may have."""
        return frozenset(self._taken)

    def add(self, lines: bytes) -> None:
        """Take further lines of the file; what is no point is left out."""
        self.read += len(lines)
        self.add_aside(lines)

    def add_aside(self, lines: bytes) -> None:
        """Take lines that stand in another file."""
        for line in lines.splitlines():
            for path, value, step, at in _read_line(line):
                if not math.isfinite(value):
                    self._not_finite.setdefault(path, set()).add(step)
                    continue
                # each by itself: what is left out must not depend on where a reading of the file has stopped
                if len(self.points) >= MOST_POINTS or (path not in self.names and len(self.names) >= MOST_NAMES):
                    self._is_full = True
                    continue
                if path not in self.names:
                    self.names[path] = choose_name(path, "metric", self._taken)
                name = self.names[path]
                self.points.setdefault((name, step), Metric(name, value, at, step))

    def merge(self, metrics: Collection[Metric], begin: int) -> tuple[list[Metric], list[str]]:
        """Return the points of artifacts together with those reported, and what is to be noted.

        Parameters
        ----------
        metrics : collection of Metric
            Of the artifacts; those of a series that was reported have its name.
        begin : int
            When the attempt began. Points before the first one reported are older: of a checkpoint, say.
        """
        first: dict[str, int] = {}
        for name, step in self.points:
            first[name] = min(step, first.get(name, step))
        merged, other = list(self.metrics), set()
        for metric in metrics:
            known = self.points.get((metric.key, metric.step))
            if known is None:
                older = metric.step < first.get(metric.key, 0)
                merged.append(Metric(metric.key, metric.value, begin, metric.step) if older else metric)
            elif known.value != metric.value:
                other.add(metric.key)
        notes = [f"{name}: other numbers were reported than the artifact holds" for name in sorted(other)]
        notes += [
            f"{'/'.join(path)}: {len(steps)} of the reported points are not finite"
            for path, steps in list(self._not_finite.items())[:MOST_NOT_FINITE]
        ]
        full = f"more than {MOST_POINTS:,} points or {MOST_NAMES} series were reported: the rest is left out"
        return merged, [*notes, full] if self._is_full else notes


def _read_line(line: bytes) -> Iterator[tuple[Path, float, int, int]]:
    """Yield path, value, step and time of each number in a line."""
    try:
        read = parse_object(line.decode())
    except (ValueError, RecursionError):
        return
    name, at, record = read.get("name"), read.get("time"), read.get("record")
    if not (isinstance(name, str) and isinstance(at, int) and isinstance(record, dict)):
        return
    if not name or name.startswith("_") or looks_secret(name) or not 0 <= at < 2**53:
        return
    step, numbers = split_record(redact(name), record, finite=False)
    for path, value in numbers.items():
        yield path, value, step or 0, at
