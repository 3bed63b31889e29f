"""Texts in the SQLite databases of MLflow and of the scheduler: notes, tags, payloads of events.

Single words are not looked for: a value that is one may be a name, a user or a parameter.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from dlpipe.errors import DlpipeError
from dlpipe.forgetting.words import Needles

BUSY_SECONDS = 30.0


def find_databases(state: Path) -> list[Path]:
    """Return the databases of this project that are files of this machine.

    Parameters
    ----------
    state : Path
        The folder of the scheduler's state.
    """
    from dlpipe.tracking import find_sqlite_path, open_store

    found = sorted(state.glob("*.db")) + sorted(state.glob("*.sqlite"))
    with suppress(DlpipeError):
        store = open_store()
        for uri in dict.fromkeys([store.uri, store.registry_uri]):
            path = find_sqlite_path(uri)
            if path:
                found.append(Path(path))
    return [path for path in dict.fromkeys(found) if path.is_file()]


def count_cells(database: Path, needles: Needles) -> int:
    """Return how many values of a database have something that is looked for."""
    needles = needles.without_words()
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=BUSY_SECONDS)) as connection:
        return sum(1 for _ in _find_cells(connection, needles))


def clean_database(database: Path, needles: Needles) -> int:
    """Blank what is looked for in all values of a database, and rewrite its file; return how many there were."""
    needles = needles.without_words()
    with closing(sqlite3.connect(database, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("BEGIN IMMEDIATE")
        found = list(_find_cells(connection, needles))
        for table, column, row, value in found:
            update, blank = f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?', needles.blank(value)
            try:
                connection.execute(update, (blank, row))
            except sqlite3.IntegrityError:  # no two may be the same
                connection.execute(update, (f"{blank} {row}", row))
        connection.execute("COMMIT")
        if found:  # free pages and the write-ahead log still have it
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return len(found)


def _find_cells(connection: sqlite3.Connection, needles: Needles) -> Iterator[tuple[str, str, int, str]]:
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for table in tables:
        columns = [
            row[1] for row in connection.execute(f'PRAGMA table_info("{table}")') if not _is_number(str(row[2]))
        ]
        for column in columns:
            try:
                cells = connection.execute(
                    f'SELECT rowid, "{column}" FROM "{table}" WHERE typeof("{column}") = \'text\''
                ).fetchall()
            except sqlite3.OperationalError:  # a table without row ids
                continue
            for row, value in cells:
                if needles.may_be_in(value.encode("utf-8", "replace")) and needles.find_spans(value):
                    yield table, column, row, value


def _is_number(kind: str) -> bool:
    return kind.upper().startswith(("INT", "BIGINT", "FLOAT", "BOOL", "DATETIME", "DOUBLE"))
