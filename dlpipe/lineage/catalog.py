"""Tables and their commits as they were at a moment; each is read once."""

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
        What each version's commit says, as ``dlpipe.tables.history`` has it, the first first.
    """

    name: str
    location: str
    kind: TableKind
    latest: TableVersion
    commits: Mapping[int, Mapping[str, Any]] = field(repr=False)

    def has_version(self, version: int) -> bool:
        """Return whether there was such a version; of a log, whose commits are not read, any up to the latest."""
        return version in self.commits or (not self.commits and 0 <= version <= self.latest.version)

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

    def list_names(self) -> list[tuple[str, str]]:
        """Return name and location of each table under the tables root."""
        from dlpipe.tables import list_tables

        if self._names is None:
            self._names = list_tables()
        return self._names

    def list_records(self, *kinds: TableKind) -> Iterator[TableRecord]:
        """Yield the tables of these kinds, by default all; one that cannot be read is left out."""
        under_root = [location for _, location in self.list_names()]
        for location in dict.fromkeys([*under_root, *self._known]):
            record = self.find(location)
            if record is not None and (not kinds or record.kind in kinds):
                yield record

    def find(self, location: str) -> TableRecord | None:
        """Return the table at a location; ``None`` where there was none then, or it cannot be read."""
        if location not in self._known:
            self._known[location] = None
            try:
                self._known[location] = self._read(location)
            except DlpipeError as error:  # one that is damaged hides no other
                self.problems[location] = str(error)
        return self._known[location]

    def _read(self, location: str) -> TableRecord | None:
        from dlpipe.tables import history, table_at

        latest = table_at(location)
        kind = classify_columns(dict(latest.columns))
        if kind in LOGS and self.until is None:
            return TableRecord(latest.name, location, kind, latest, {})
        commits = {
            int(commit["version"]): commit
            for commit in reversed(history(location))
            if self.until is None or commit["timestamp"] <= self.until
        }
        if not commits:
            return None
        last = max(commits)
        if last != latest.version:
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
