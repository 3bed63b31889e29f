"""Tables and their commits as they were at a moment; each is read once, and not before it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from dlpipe.errors import DlpipeError

if TYPE_CHECKING:
    from dlpipe.tables import TableVersion

TableKind = Literal["data", "predictions", "explanations", "looks", "quarantine", "requests", "feedback"]
COLUMNS: Mapping[TableKind, frozenset[str]] = {
    "explanations": frozenset({"row_id", "attribution", "model_version", "source", "source_version"}),
    "predictions": frozenset({"row_id", "model_version", "source", "source_version", "scored_at"}),
    "looks": frozenset({"at", "model_version", "drifted", "published", "trained_on", "trained_version"}),
    "requests": frozenset({"request_id", "row", "model", "version", "arrived", "day"}),
    "feedback": frozenset({"request_id", "row", "label", "received", "day"}),
    "quarantine": frozenset({"source", "line", "reason"}),
}
"""The columns by which tables that are no data sets are known, whatever they are called."""
LOGS: tuple[TableKind, ...] = ("requests", "feedback")
"""Tables with a commit every few seconds, of which none is asked for what it says of itself."""


class Commits(Mapping[int, Mapping[str, Any]]):
    """What the commits of a table say, by their versions, the first one first; each is read when it is asked for.

    Parameters
    ----------
    location : str
    until : int, optional
        In milliseconds since 1970: commits that came later are none of them.
    """

    def __init__(self, location: str, until: int | None = None) -> None:
        self.location, self.until = location, until
        self._known: dict[int, Mapping[str, Any] | None] = {}

    def __getitem__(self, version: int) -> Mapping[str, Any]:
        if version not in self._known:
            self._known[version] = self._read(version)
        commit = self._known[version]
        if commit is None:
            raise KeyError(version)
        return commit

    def _read(self, version: int) -> Mapping[str, Any] | None:
        from dlpipe.tables import read_commit

        commit = read_commit(self.location, version) if version >= 0 else None
        if commit is None or (self.until is not None and commit.facts["timestamp"] > self.until):
            return None
        return commit.facts

    def __iter__(self) -> Iterator[int]:
        from dlpipe.tables import list_commits

        numbers = list_commits(self.location)
        return (number for number in numbers if self.until is None or number in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def find_last(self) -> int | None:
        """Return the last version; ``None`` where there is none."""
        from dlpipe.tables import list_commits

        return next((number for number in reversed(list_commits(self.location)) if number in self), None)


@dataclass(frozen=True)
class TableRecord:
    """A table as it was at a moment.

    Attributes
    ----------
    name, location : str
    kind : str
        What it holds.
    latest : TableVersion
    commits : mapping of int to mapping
        What each version's commit says, as an entry of ``dlpipe.tables.history``; of a log, nothing.
    """

    name: str
    location: str
    kind: TableKind
    latest: TableVersion
    commits: Mapping[int, Mapping[str, Any]] = field(repr=False)

    def has_version(self, version: int) -> bool:
        """Return whether there was such a version; of a log, whose commits are not read, any up to the latest."""
        return version in self.commits or (self.kind in LOGS and 0 <= version <= self.latest.version)

    def has_column(self, name: str) -> bool:
        """Return whether the latest version has a column."""
        return name in dict(self.latest.columns)

    def list_sources(self, version: int) -> Sequence[Mapping[str, Any]]:
        """Return the files and tables that the commit of a version has read."""
        return self.commits.get(version, {}).get("sources") or ()

    def read_key(self, version: int) -> Mapping[str, str]:
        """Return the key of the commit of a version; empty where it has none."""
        return self.commits.get(version, {}).get("key") or {}


class Catalog:
    """The tables under the tables root, and others that were asked for.

    Parameters
    ----------
    until : int, optional
        In milliseconds since 1970: commits that came later are passed over, and tables that began later.

    Attributes
    ----------
    problems : dict of str to str
        Why a table cannot be read, by its location.
    """

    def __init__(self, until: int | None = None) -> None:
        self.until = until
        self.problems: dict[str, str] = {}
        self._known: dict[str, TableRecord | None] = {}
        self._names: list[tuple[str, str]] | None = None
        self._locations: list[str] | None = None

    def list_names(self) -> list[tuple[str, str]]:
        """Return name and location of each table under the tables root."""
        from dlpipe.tables import list_tables

        if self._names is None:
            self._names = list_tables()
        return self._names

    def list_locations(self) -> Sequence[str]:
        """Return the location of each table: of those under the tables root, and of others that were asked for."""
        if self._locations is None:
            self._locations = list(dict.fromkeys([*(location for _, location in self.list_names()), *self._known]))
        return self._locations

    def list_records(self, *kinds: TableKind) -> Iterator[TableRecord]:
        """Yield the tables of these kinds, by default all; one that cannot be read is left out."""
        for location in self.list_locations():
            record = self.find(location)
            if record is not None and (not kinds or record.kind in kinds):
                yield record

    def find(self, location: str) -> TableRecord | None:
        """Return the table at a location; ``None`` where there was none then, or it cannot be read."""
        if location not in self._known:
            self._known[location] = self._locations = None
            try:
                self._known[location] = self._read(location)
            except DlpipeError as error:  # one that is damaged hides no other
                self.problems[location] = str(error)
        return self._known[location]

    def _read(self, location: str) -> TableRecord | None:
        from dlpipe.tables import table_at

        latest = table_at(location)
        kind = classify_columns(dict(latest.columns))
        if kind in LOGS and self.until is None:
            return TableRecord(latest.name, location, kind, latest, {})
        commits = Commits(location, self.until)
        if self.until is not None and latest.timestamp > self.until:
            if (last := commits.find_last()) is None:
                return None
            latest = table_at(location, version=last)
        return TableRecord(latest.name, location, kind, latest, commits)


def classify_columns(columns: Mapping[str, Any]) -> TableKind:
    """Return what a table with these columns holds.

    Examples
    --------
    >>> classify_columns({"row_id": "string", "text": "string"})
    'data'
    >>> classify_columns({"source": "string", "line": "long", "reason": "string", "text": "string"})
    'quarantine'
    """
    return next((kind for kind, names in COLUMNS.items() if names <= columns.keys()), "data")
