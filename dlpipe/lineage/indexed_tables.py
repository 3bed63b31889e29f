"""Which commits name a thing, and which row groups have a row, by the index: brought up to date when first asked.

Of each table the index has all commits up to one, whose digest it knows. Whether there is a next one is asked each
time, and whether that one is still the same: so a table that was deleted, restored or made anew is read again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dlpipe.errors import DlpipeError
from dlpipe.lineage.catalog import LOGS, Catalog, classify_columns
from dlpipe.lineage.index import Addition, Index, NewUnit, to_number

ROW = "row "
BATCH = 2_000_000
"""Words that are added at once: some 16 MB."""
Place = tuple[str, int]
"""Location of a table and number of a commit."""


class TableIndex:
    """Keeps the index up to date with the tables of a catalog, and asks it.

    Parameters
    ----------
    catalog : Catalog
    index : Index
    """

    def __init__(self, catalog: Catalog, index: Index) -> None:
        self.catalog, self.index = catalog, index
        self._kinds: dict[str, str] = {}
        """What the index has of the tables with which it is up to date."""
        self._made = 0

    def find_commits(self, *words: str) -> list[Place]:
        """Return the commits that may name one of these, as ``list_words`` writes them; in no order."""

        def look() -> list[Place]:
            self._update_all(self.catalog.list_locations())
            units = self.index.find(*words)
            return [(unit.source, int(unit.name.removeprefix("commit "))) for unit in units if unit.name[0] == "c"]

        there = set(self.catalog.list_locations())
        return sorted({place for place in self.index.attempt(look) if place[0] in there})

    def find_groups(self, location: str, row_id: str) -> Mapping[str, set[int]] | None:
        """Return the row groups in which a row of a table may be, by their file; ``None`` where nobody knows."""

        def look() -> Mapping[str, set[int]] | None:
            if self._update(location) != "rows":
                return None
            found: dict[str, set[int]] = {}
            for unit in self.index.find(ROW + row_id):
                if unit.source == location and unit.name[0] == "g":
                    _, group, file = unit.name.split(" ", 2)
                    found.setdefault(file, set()).add(int(group))
            # files that could not be read when they were to be indexed: looking into them says why
            unread = {unit.name.partition(" ")[2] for unit in self.index.find(f"unread in {location}")}
            return {**found, **{file: set() for file in unread}}

        return self.index.attempt(look)

    def find_tables(self, row_id: str) -> list[str]:
        """Return the tables that may have, or have had, a row with this id, or of which nobody knows."""

        def look() -> list[str]:
            self._update_all(self.catalog.list_locations())
            with_row = {unit.source for unit in self.index.find(ROW + row_id)}
            return [
                location
                for location in self.catalog.list_locations()
                if location in with_row or self._kinds[location] not in ("rows", "log")
            ]

        return self.index.attempt(look)

    def list_logs(self) -> list[str]:
        """Return the tables that are logs of a server."""

        def look() -> list[str]:
            self._update_all(self.catalog.list_locations())
            return [location for location in self.catalog.list_locations() if self._kinds[location] == "log"]

        return self.index.attempt(look)

    def _update(self, location: str) -> str:
        """Bring the index up to date with a table, and return what it has of it: rows, or why none."""
        self._update_all([location])
        return self._kinds[location]

    def _update_all(self, locations: Sequence[str]) -> None:
        """Bring the index up to date with tables."""
        if self._made != self.index.made:
            self._kinds, self._made = {}, self.index.made
        waiting = [location for location in locations if location not in self._kinds]
        for _ in range(3):  # another process may be first
            additions: list[Addition] = []
            words = 0
            for location in waiting:
                for addition in self._read_new(location):
                    additions.append(addition)
                    words += count_words(addition[3])
                    if words > BATCH:
                        self.index.add(additions)
                        additions, words = [], 0
            if additions:
                self.index.add(additions)
            waiting = [location for location in waiting if location not in self._kinds]
        self._kinds |= dict.fromkeys(waiting, "busy")

    def _read_new(self, location: str) -> Iterator[Addition]:
        """Yield what the index lacks of a table; where it lacks nothing, note what it has of it."""
        try:
            mark = self._check_mark(location)
            if mark and not self._has_next(location, mark):
                self._kinds[location] = str(mark["kind"])
            else:
                yield from self._read_commits(location, self.index.read_mark(location))
        except (DlpipeError, ValueError) as error:  # one that is damaged hides no other
            self.catalog.problems.setdefault(location, str(error))
            self._kinds[location] = "damaged"

    def _check_mark(self, location: str) -> Mapping[str, Any]:
        """Return the mark of a table; empty where it is not in the index, or no more the table that is there."""
        from dlpipe.tables import read_commit

        mark = _read_mark(self.index.read_mark(location))
        if not mark:
            return {}
        commit = read_commit(location, mark["version"])
        if commit is not None and commit.digest == mark["digest"]:
            return mark
        self.index.take_out(location)
        return {}

    def _has_next(self, location: str, mark: Mapping[str, Any]) -> bool:
        from dlpipe.tables import has_commit

        return mark["kind"] != "log" and has_commit(location, mark["version"] + 1)

    def _read_commits(self, location: str, before: str) -> Iterator[Addition]:
        from dlpipe.tables import list_commits, list_files, read_commit, table_at

        mark, numbers = _read_mark(before), list_commits(location)
        kind = "log" if classify_columns(dict(table_at(location).columns)) in LOGS else "rows"
        if kind == "rows" and list_files(location) is None:
            kind = "mapped"
        new = [number for number in numbers if number > mark.get("version", -1)]
        units: list[NewUnit] = []
        for number in new[-1:] if kind == "log" else new:
            if (commit := read_commit(location, number)) is None:
                break
            if kind != "log":
                files = list(commit.added)
                if number == numbers[0] > 0:  # commits before it are gone from the log
                    files = [*(list_files(location, number) or ())]
                units.append((f"commit {number}", b"", [*map(to_number, list_words(location, commit.facts))]))
                units += self._read_rows(location, files) if kind == "rows" else ()
            if number == new[-1] or count_words(units) > BATCH:
                after = json.dumps({"version": number, "digest": commit.digest, "kind": kind})
                yield location, before, after, units
                before, units = after, []

    def _read_rows(self, location: str, files: list[str]) -> Iterator[NewUnit]:
        from dlpipe.tables import read_groups

        start = to_number(ROW)
        for file in files:
            try:
                for group, ids in enumerate(read_groups(location, file, "row_id")):
                    # of rows that are the same, the second one is ``ab12-2``: it is found by ``ab12``, too
                    again = {row_id.partition("-")[0] for row_id in ids if "-" in row_id}
                    yield f"group {group} {file}", b"", [to_number(row_id, start) for row_id in (*ids, *again)]
            except (OSError, ValueError):
                yield f"unread {file}", b"", [to_number(f"unread in {location}")]


def count_words(units: Sequence[NewUnit]) -> int:
    """Return how many words are to be added."""
    return sum(len(words) for _, _, words in units)


def _read_mark(mark: str) -> dict[str, Any]:
    return dict(json.loads(mark)) if mark else {}


def list_words(location: str, commit: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a commit names, and so is found by.

    Examples
    --------
    >>> commit = {"sources": [{"name": "data/films.csv"}], "made_by": "TrainFlow/17/start/1/0"}
    >>> list(list_words("/films/reviews", commit))
    ['file films.csv', 'file data/films.csv', 'run TrainFlow/17', 'task TrainFlow/17/start/1']
    >>> list(list_words("/p", {"key": {"source": "/r", "source_version": "3", "model": "models:/r/1"}}))
    ['table /r', 'version /r@v3', 'model models:/r/1']
    """
    for source in commit.get("sources") or ():
        yield from list_file_words(str(source["name"]))
        table, at, number = str(source["name"]).rpartition("@v")
        if at and number.isdecimal():
            yield f"source {table}"
    if made_by := commit.get("made_by"):
        yield f"run {'/'.join(str(made_by).split('/')[:2])}"
        yield f"task {str(made_by).rpartition('/')[0]}"
    key = commit.get("key") or {}
    if "source" in key:
        yield f"table {key['source']}"
        yield f"version {key['source']}@v{key.get('source_version')}"
    if "monitored" in key:
        yield f"table {key['monitored']}"
        yield f"version {key['monitored']}@v{key.get('version')}"
    if "model" in key:
        yield f"model {key['model']}"


def list_file_words(name: str) -> Iterator[str]:
    """Yield how a source may be called: by the end of its path, from each of its folders on.

    Examples
    --------
    >>> list(list_file_words("/srv/films.csv"))
    ['file films.csv', 'file srv/films.csv', 'file /srv/films.csv']
    """
    parts = name.split("/")
    yield from (f"file {'/'.join(parts[at:])}" for at in range(len(parts) - 1, -1, -1))
