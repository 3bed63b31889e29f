"""An inverted index: which records a word stands in. It is a cache, made from the records, thrown away at will.

A *word* is what a record may name (a row, a model, a file), a *unit* is a record that names it, such as the commit
of a table, and a *source* is what units are of, such as the table. Who finds a unit reads the record itself: one
too many costs a look, and only one too few would be wrong. So whatever is read here has a checksum, and where one
does not hold the index is thrown away and made anew.

Words are kept as their CRC-32, with the number of their unit, in buckets by the first bits of it.
"""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np

Found = TypeVar("Found")
FORMAT = 0x646C0006
"""Of the file: one of another format is thrown away."""
BITS = 12
"""Of a word that name its bucket: a million words are 250 in each of them, which is 2 kB to read.

With 10 bits a walk of 835 nodes read 27 MB instead of 10; with 14 the index took twice as long to make.
"""
MOST_LOST = 100_000
"""Units of sources that were taken out: with more the index is begun anew, for it only grows."""
TABLES = """
CREATE TABLE sources (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, mark TEXT NOT NULL, sum INTEGER NOT NULL
);
CREATE UNIQUE INDEX sources_by_name ON sources (name);
CREATE TABLE units (
    id INTEGER PRIMARY KEY, source INTEGER NOT NULL, name TEXT NOT NULL, content BLOB NOT NULL,
    sum INTEGER NOT NULL
);
CREATE INDEX units_by_source ON units (source);
CREATE TABLE buckets (id INTEGER PRIMARY KEY, content BLOB NOT NULL, sum INTEGER NOT NULL);
"""


class IndexDamagedError(Exception):
    """What the index has is not what was put there."""


@dataclass(frozen=True)
class Unit:
    """A record of a source.

    Attributes
    ----------
    source, name : str
    content : bytes
        What is to be known of it without reading the record.
    """

    source: str
    name: str
    content: bytes = b""


NewUnit = tuple[str, bytes, Collection[int]]
"""The name of a unit, its content, and the numbers of the words in it."""
Addition = tuple[str, str, str, Sequence[NewUnit]]
"""A source, its mark as it must be and as it will be, and units of it."""


def to_number(word: str, start: int = 0) -> int:
    """Return the number of a word; ``start`` is that of a word which it goes on from.

    Examples
    --------
    >>> to_number("row ab12") == to_number("ab12", to_number("row "))
    True
    """
    return zlib.crc32(word.encode("utf-8", "surrogatepass"), start)


class Index:
    """The index in a file, or in memory where none can be kept.

    Several processes may use one: each addition is one transaction, whole or not there after a kill.

    Parameters
    ----------
    path : Path or None
        Where it is; ``None`` keeps it in memory.

    Attributes
    ----------
    made : int
        How often it was begun anew since it was opened: who remembers that it is up to date remembers this, too.
    """

    def __init__(self, path: Path | None) -> None:
        self._path, self.made = path, 0

    def attempt(self, look: Callable[[], Found]) -> Found:
        """Return what ``look`` returns; where the index turns out to be damaged, both begin anew.

        Parameters
        ----------
        look : callable
            Brings the index up to date, as far as it is not, and looks something up.
        """
        for _ in range(2):
            try:
                return look()
            except (IndexDamagedError, sqlite3.Error, OSError):
                self.throw_away()
        self._path = None  # it cannot be kept there: in memory it is as right, and only slower
        return look()

    @cached_property
    def _database(self) -> sqlite3.Connection:
        if self._path is not None:
            self._path.parent.mkdir(exist_ok=True)
        database = sqlite3.connect(
            self._path or ":memory:", timeout=60, isolation_level=None, check_same_thread=False
        )
        if database.execute("PRAGMA user_version").fetchone()[0] == FORMAT:
            return database
        with _transaction(database):
            if database.execute("PRAGMA user_version").fetchone()[0] == FORMAT:  # another process was first
                return database
            if database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise IndexDamagedError("another format")
            for statement in TABLES.strip().split(";\n"):
                database.execute(statement)
            empty = ((number, b"", _sum(number, b"")) for number in range(1 << BITS))
            database.executemany("INSERT INTO buckets VALUES (?, ?, ?)", empty)
            database.execute(f"PRAGMA user_version = {FORMAT}")
        return database

    def throw_away(self) -> None:
        """Begin anew."""
        self.made += 1
        self.close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                # the file first: SQLite takes a journal for that of whatever file has the name
                self._path.unlink(missing_ok=True)
                self._path.with_name(f"{self._path.name}-journal").unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file."""
        database = self.__dict__.pop("_database", None)
        if database is not None:
            database.close()

    def read_mark(self, source: str) -> str:
        """Return how far a source is in the index, as who added it wrote it; empty where it is not in it."""
        row = self._database.execute("SELECT id, mark, sum FROM sources WHERE name = ?", (source,)).fetchone()
        if row is None:
            return ""
        _check(row[2], row[0], source, row[1])
        return str(row[1])

    def list_names(self, source: str) -> set[str]:
        """Return the names of the units of a source."""
        names = self._database.execute(
            "SELECT units.name FROM units JOIN sources ON sources.id = units.source WHERE sources.name = ?",
            (source,),
        )
        return {str(name) for (name,) in names}

    def read_contents(self, source: str) -> dict[str, set[bytes]]:
        """Return the contents of the units of a source, by their names."""
        found: dict[str, set[bytes]] = {}
        for row in self._database.execute(
            "SELECT units.id, units.source, units.name, content, units.sum FROM units "
            "JOIN sources ON sources.id = units.source WHERE sources.name = ?",
            (source,),
        ):
            _check(row[4], *row[:4])
            found.setdefault(row[2], set()).add(row[3])
        return found

    def find(self, *words: str) -> list[Unit]:
        """Return the units in which one of these words may stand, each once, as they were added.

        A word may share its number with another one: what is found must be read to know.
        """
        found = {unit for word in words for unit in self._find_numbers(to_number(word))}
        units = []
        for number in sorted(found):
            row = self._database.execute(
                "SELECT units.id, units.source, units.name, content, units.sum, sources.name, mark, sources.sum "
                "FROM units LEFT JOIN sources ON sources.id = units.source WHERE units.id = ?",
                (number,),
            ).fetchone()
            if row is None:
                raise IndexDamagedError(f"unit {number} is not there")
            _check(row[4], *row[:4])
            if row[5] is not None:  # else its source was taken out
                _check(row[7], row[1], row[5], row[6])
                units.append(Unit(row[5], row[2], row[3]))
        return units

    def _find_numbers(self, word: int) -> list[int]:
        import numpy as np

        pairs = self._read_bucket(word >> 32 - BITS)
        first, stop = np.searchsorted(pairs, np.array([word << 32, word + 1 << 32], np.uint64))
        return [int(pair) for pair in pairs[first:stop] & np.uint64(0xFFFFFFFF)]

    def _read_bucket(self, number: int) -> np.ndarray:
        import numpy as np

        row = self._database.execute("SELECT content, sum FROM buckets WHERE id = ?", (number,)).fetchone()
        if row is None:
            raise IndexDamagedError(f"bucket {number} is not there")
        _check(row[1], number, row[0])
        return np.frombuffer(row[0], "<u8").astype(np.uint64)

    def add(self, additions: Iterable[Addition]) -> None:
        """Add units of sources in one transaction; of a source where another process was first, nothing."""
        words: dict[int, Collection[int]] = {}
        with _transaction(self._database):
            for source, before, after, units in additions:
                if self.read_mark(source) != before:
                    continue
                number = self._find_source(source)
                self._database.execute(
                    "UPDATE sources SET mark = ?, sum = ? WHERE id = ?",
                    (after, _sum(number, source, after), number),
                )
                words |= {self._add_unit(number, name, content): some for name, content, some in units}
            self._add_words(words)

    def _find_source(self, name: str) -> int:
        """Return the number of a source, which is made where there is none."""
        self._database.execute("INSERT OR IGNORE INTO sources (name, mark, sum) VALUES (?, '', 0)", (name,))
        return int(self._database.execute("SELECT id FROM sources WHERE name = ?", (name,)).fetchone()[0])

    def _add_unit(self, source: int, name: str, content: bytes) -> int:
        made = self._database.execute(
            "INSERT INTO units (source, name, content, sum) VALUES (?, ?, ?, 0)", (source, name, content)
        ).lastrowid
        total = _sum(made, source, name, content)
        self._database.execute("UPDATE units SET sum = ? WHERE id = ?", (total, made))
        return int(made or 0)

    def _add_words(self, words: Mapping[int, Collection[int]]) -> None:
        import numpy as np

        if not words:
            return
        numbers = np.concatenate([np.fromiter(some, np.uint64, len(some)) for some in words.values()])
        units = np.repeat(np.fromiter(words, np.uint64, len(words)), [len(some) for some in words.values()])
        pairs = np.sort(numbers << np.uint64(32) | units)
        # where each bucket begins among them
        ends = np.searchsorted(pairs, np.arange(1, 1 << BITS, dtype=np.uint64) << np.uint64(64 - BITS))
        changed = []
        for number, some in enumerate(np.split(pairs, ends)):
            if len(some):
                content = np.sort(np.concatenate([self._read_bucket(number), some])).astype("<u8").tobytes()
                changed.append((content, _sum(number, content), number))
        self._database.executemany("UPDATE buckets SET content = ?, sum = ? WHERE id = ?", changed)

    def take_out(self, source: str) -> None:
        """Take a source out, of which the index has what is not true any more."""
        with _transaction(self._database):
            # its units stay, of no source: a unit that is missing is damage
            self._database.execute("DELETE FROM sources WHERE name = ?", (source,))
        lost = "SELECT count(*) FROM units WHERE source NOT IN (SELECT id FROM sources)"
        if self._database.execute(lost).fetchone()[0] > MOST_LOST:
            raise IndexDamagedError("most of it is of what is not there any more")


def find_index_path() -> Path | None:
    """Return where the index is, beside the tables; ``None`` where there are none, or not on a disk."""
    from dlpipe.tables import tables_root

    root = tables_root()
    return None if "://" in root or not Path(root).is_dir() else Path(root, "_lineage", "index.db").absolute()


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def _sum(*values: int | str | bytes | None) -> int:
    """Return a checksum of some values."""
    total = 0
    for value in values:
        content = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
        total = zlib.crc32(content, zlib.crc32(b"%d " % len(content), total))
    return total


def _check(expected: int, *values: int | str | bytes | None) -> None:
    if _sum(*values) != expected:
        raise IndexDamagedError("something is not as it was put there")
