"""Which line of a file a row stood on, by the index: files are read once, and again when they have changed.

Whether a file has changed is told by what the system says of it (size, times, place on the disk), as long as that
is the same as when its SHA-256 was last seen to be right.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any, TypeVar

from dlpipe.errors import DlpipeError
from dlpipe.lineage.index import Addition, Index, NewUnit, Unit, to_number
from dlpipe.terminal import make_visible

BLOCK = 1024
"""Lines of a unit."""
PARTS = 256
"""Units that are added at once."""
UNSURE = 2_000_000_000
"""Nanoseconds within which a file may have changed again without a sign: its times need not be finer."""
DONE = "done"
Found = TypeVar("Found")


class FileIndex:
    """Keeps the index up to date with the files that are asked for, and asks it.

    Parameters
    ----------
    index : Index
    """

    def __init__(self, index: Index) -> None:
        self.index = index
        self._problems: dict[tuple[str, str], str] = {}

    def find_problem(self, source: Mapping[str, Any]) -> str:
        """Return why a file is not there any more as a commit has read it; empty where it is.

        Parameters
        ----------
        source : mapping
            As the commit names it: ``name``, ``sha256``.
        """
        place = str(source["name"]), str(source.get("sha256", ""))
        if place not in self._problems:
            self._problems[place] = self.index.attempt(lambda: self._look_at(*place))
        return self._problems[place]

    def _look_at(self, name: str, digest: str) -> str:
        from dlpipe.tables import find_source_again

        place = f"file {make_visible(os.path.abspath(name))}"  # SQLite takes no name that is no UTF-8
        before, stamp = self.index.read_mark(place), _read_stamp(name)
        seen = json.dumps([stamp, digest])
        if stamp is not None and seen == before:
            return ""
        try:
            find_source_again({"name": name, "split": "data", "sha256": digest})
        except (DlpipeError, OSError) as error:
            return str(error)
        if stamp is not None and stamp == _read_stamp(name):
            self.index.add([(place, before, seen, ())])
        return ""

    def find_lines(self, source: Mapping[str, Any], commit: Mapping[str, Any], row_id: str) -> list[int] | None:
        """Return the lines of a file that became a row; ``None`` where the file must be read to know.

        Parameters
        ----------
        source, commit : mapping
            As ``dlpipe.tables.read_source_lines`` takes them.
        row_id : str
            Without the ``-2`` of a row that stood there before.
        """

        def find(name: str) -> list[int]:
            units = self._find_units(name, row_id)
            return sorted(line for unit in units for line, found in _unpack(unit) if found == row_id)

        return self._look(source, commit, find)

    def find_row_id(self, source: Mapping[str, Any], commit: Mapping[str, Any], line: int) -> str | None:
        """Return the row of a line, empty for a bad one; ``None`` where none begins on it, or nobody knows."""

        def find(name: str) -> str | None:
            units = self._find_units(name, f"#{line // BLOCK}")
            return next((found for unit in units for number, found in _unpack(unit) if number == line), None)

        return self._look(source, commit, find)

    def _find_units(self, name: str, word: str) -> list[Unit]:
        return [unit for unit in self.index.find(f"{name} {word}") if unit.source == name]

    def _look(
        self, source: Mapping[str, Any], commit: Mapping[str, Any], find: Callable[[str], Found]
    ) -> Found | None:
        if self.find_problem(source):
            return None
        how = json.dumps([commit.get("settings"), commit.get("form")], sort_keys=True)
        name = f"lines of {source['sha256']} read by {hashlib.sha256(how.encode()).hexdigest()[:16]}"

        def look() -> Found | None:
            if self.index.read_mark(name) != DONE:
                self._read(name, source, commit)
            return find(name) if self.index.read_mark(name) == DONE else None

        with suppress(DlpipeError):
            return self.index.attempt(look)
        return None

    def _read(self, name: str, source: Mapping[str, Any], commit: Mapping[str, Any]) -> None:
        if self.index.read_mark(name):  # somebody was killed on the way
            self.index.take_out(name)
        for addition in _list_additions(name, source, commit):
            self.index.add([addition])


def _read_stamp(name: str) -> list[int] | None:
    """Return what the system says of a file and changes with it; ``None`` where it may have just changed."""
    try:
        found = os.stat(os.path.expanduser(name))
    except OSError:
        return None
    if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) < UNSURE:
        return None
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _list_additions(name: str, source: Mapping[str, Any], commit: Mapping[str, Any]) -> Iterator[Addition]:
    """Yield the lines of a file some blocks at a time; the last of them says that it was the last one."""
    from dlpipe.tables import read_source_lines

    start, units, before, part = to_number(f"{name} "), list[NewUnit](), "", 0
    for number, lines in groupby(read_source_lines(source, commit), lambda line: line.number // BLOCK):
        found = [(line.number, line.row_id) for line in lines]
        words = [to_number(f"#{number}", start), *(to_number(row_id, start) for _, row_id in found if row_id)]
        units.append((f"block {number}", _pack(found), words))
        if len(units) == PARTS:
            part += 1
            yield name, before, str(part), units
            before, units = str(part), []
    yield name, before, DONE, units


def _pack(lines: Sequence[tuple[int, str]]) -> bytes:
    """Return lines with their rows as bytes; a bad one has the row 0."""
    values = array("Q", (value for line, row_id in lines for value in (line, int(row_id or "0", 16))))
    return values.tobytes()


def _unpack(unit: Unit) -> Iterator[tuple[int, str]]:
    values = array("Q", unit.content)
    yield from ((line, f"{row:016x}" if row else "") for line, row in zip(values[::2], values[1::2], strict=True))
