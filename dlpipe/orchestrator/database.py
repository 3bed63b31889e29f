"""One SQLite file that several threads and processes use, and that a kill at any moment leaves whole."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dlpipe.errors import SettingError, StateUnusable, StorageFull

BUSY_SECONDS = 10.0
LARGEST = 2**63 - 1
"""The largest whole number that SQLite has."""
APPLICATION = 0x646C7069
"""Stands in the file's header, so that another program's database is not taken for ours."""
FULL_BYTES = 256 * 1024

LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class Database:
    """A connection to the SQLite file ``path``, made if there is none, with the schema brought up to date.

    ``migrations`` are the scripts by which the schema came to be; their count is its version.
    """

    def __init__(self, path: Path, migrations: Sequence[str]) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._depth = 0
        with self._clear_errors():
            self._connection = sqlite3.connect(
                path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
        try:
            self._prepare(migrations)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the connection; the last one to leave merges the write-ahead log into the file."""
        with self._lock, self._clear_errors():
            self._connection.close()

    def execute(self, statement: str, *values: Any) -> list[Any]:
        """All rows of ``statement``."""
        with self._lock, self._clear_errors():
            try:
                return self._connection.execute(statement, values).fetchall()
            except (OverflowError, UnicodeEncodeError) as error:
                raise SettingError(f"A value is not one that {self.path.name} can hold: {error}.") from None

    def fetch_one(self, statement: str, *values: Any) -> Any:
        """The first row of ``statement``, ``None`` without one."""
        rows = self.execute(statement, *values)
        return rows[0] if rows else None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what is done inside as one, or none of it; an inner one is a part of the outer one."""
        with self._lock:
            # immediate: one that began by reading could not write if another process had written in between
            name = f"inner{self._depth}"
            self.execute(f"SAVEPOINT {name}" if self._depth else "BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
                self.execute(f"RELEASE {name}" if self._depth > 1 else "COMMIT")
            except BaseException:
                self._roll_back(name)
                raise
            finally:
                self._depth -= 1

    def get_data_version(self) -> int:
        """A number that changes when another connection has committed."""
        return int(self.fetch_one("PRAGMA data_version")[0])

    def check(self) -> None:
        """Raise ``StateUnusable`` unless every page of the file is as it should be."""
        answer = str(self.fetch_one("PRAGMA quick_check(1)")[0])
        if answer != "ok":
            raise make_damage_error(self.path, answer)

    def _roll_back(self, name: str) -> None:
        if not self._connection.in_transaction:
            return  # SQLite has rolled back by itself, as it does when the disk is full
        if self._depth > 1:
            self.execute(f"ROLLBACK TO {name}")
            self.execute(f"RELEASE {name}")
        else:
            self.execute("ROLLBACK")

    def _prepare(self, migrations: Sequence[str]) -> None:
        version = self._check_header(len(migrations))
        if str(self.fetch_one("PRAGMA journal_mode")[0]) != "wal":
            self._begin_log()
        # every commit is on the disk before anything is done about it: a power cut must not forget a started run
        self.execute("PRAGMA synchronous = FULL")
        self.execute("PRAGMA foreign_keys = ON")
        if version < len(migrations):
            self._migrate(migrations)

    def _check_header(self, known: int) -> int:
        # in this order: another process may make it in between, and the last read must not be the oldest
        tables = int(self.fetch_one("SELECT count(*) FROM sqlite_master")[0])
        version = int(self.fetch_one("PRAGMA user_version")[0])
        application = int(self.fetch_one("PRAGMA application_id")[0])
        if application != APPLICATION and (tables or application or version):
            raise StateUnusable(
                f"{self.path} is a database of another program. Name another folder with DLPIPE_STATE."
            )
        if version > known:
            raise StateUnusable(
                f"{self.path} was written by a newer dlpipe (its schema is {version}, this one knows {known}). "
                "Use that dlpipe, or name another folder with DLPIPE_STATE."
            )
        return version

    def _begin_log(self) -> None:
        """Turn the write-ahead log on: SQLite does not wait by itself for others that do the same."""
        until = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL").fetchall()
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in LOCKED or time.monotonic() > until:
                    raise to_state_error(error, self.path) from error
            time.sleep(0.05)

    def _migrate(self, migrations: Sequence[str]) -> None:
        with self.transaction():
            version = self._check_header(len(migrations))  # another process may have been first
            for script in migrations[version:]:
                for statement in script.split(";"):
                    self.execute(statement)
            self.execute(f"PRAGMA user_version = {len(migrations)}")
            self.execute(f"PRAGMA application_id = {APPLICATION}")

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            clear = to_state_error(error, self.path)
            if clear is error:
                raise
            raise clear from error


def to_state_error(error: sqlite3.DatabaseError, path: Path) -> Exception:
    """What is to be raised instead of SQLite's ``error``: ``error`` itself where it is a mistake of ours."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in LOCKED:
        return StateUnusable(
            f"{path} is locked: another process has been writing for {BUSY_SECONDS:.0f} seconds. Try again; "
            f"`fuser {path}` says who has it open."
        )
    if code in DAMAGED:
        return make_damage_error(path, str(error))
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and is_disk_full(path)):
        return StorageFull(f"No space left for {path}; nothing was written. Free some space and try again.")
    if code in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PERM}:
        return StateUnusable(
            f"{path} cannot be read and written: {error}. Give this user the rights to it, or name another folder "
            "with DLPIPE_STATE."
        )
    return error


def make_damage_error(path: Path, problem: str) -> StateUnusable:
    """The error of a damaged file."""
    return StateUnusable(
        f"{path} is damaged ({problem.splitlines()[0]}) and was left as it is. Stop the scheduler and put a copy "
        f"back, or move {path.name} and its -wal and -shm files away and deploy each flow anew."
    )


def is_disk_full(path: Path) -> bool:
    """Whether next to nothing is left on the device of ``path``."""
    return shutil.disk_usage(path.parent).free < FULL_BYTES
