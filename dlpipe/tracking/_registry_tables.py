"""MLflow's registry in a SQLite file, read without MLflow: importing that takes more than a second of a core.

Only a database is read so whose tables are those of the SQL that is kept here, under the MLflow that made it, and
answers are those of MLflow's client. Of anything else there are none, and that client is to be asked.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from dlpipe.tracking._databases import find_sqlite_path, is_current

PROMPT = "mlflow.prompt.is_prompt"
"""The tag of what MLflow keeps among the models and does not count as one."""
WORKSPACE = "workspace = 'default'"
PROMPTS = f"SELECT name FROM model_version_tags WHERE {WORKSPACE} AND key = '{PROMPT}' AND value = 'true'"


@dataclass(frozen=True)
class ModelRow:
    """A registered model, with those attributes of MLflow's entity that are read.

    Attributes
    ----------
    name : str
    tags : mapping of str to str
    aliases : mapping of str to int
    """

    name: str
    tags: Mapping[str, str]
    aliases: Mapping[str, int]


@dataclass(frozen=True)
class VersionRow:
    """A version of a model, with those attributes of MLflow's entity that are read.

    Attributes
    ----------
    name : str
    version : int
    creation_timestamp : int
        In milliseconds since 1970.
    run_id : str or None
    tags : mapping of str to str
    aliases : tuple of str
    """

    name: str
    version: int
    creation_timestamp: int
    run_id: str | None
    tags: Mapping[str, str]
    aliases: tuple[str, ...] = ()


class RegistryTables:
    """Reads the registry in a database.

    Parameters
    ----------
    database : sqlite3.Connection
        Of a complete store; nothing is written there.
    descriptor : int, optional
        Of its file; without it nobody knows whether it has changed.

    Raises
    ------
    sqlite3.Error
        From each method, when the database cannot be read.
    """

    def __init__(self, database: sqlite3.Connection, descriptor: int | None = None) -> None:
        self._database, self._descriptor = database, descriptor

    def find_model(self, name: str) -> ModelRow | None:
        """Return a registered model; ``None`` where there is none of this name."""
        found = f"SELECT name FROM registered_models WHERE {WORKSPACE} AND name = ?"
        if not _is_text(name) or self._database.execute(found, (name,)).fetchone() is None:
            return None
        tags = self._read("SELECT key, value FROM registered_model_tags", name)
        return None if PROMPT in tags else ModelRow(name, tags, self._read_aliases(name))

    def find_version(self, name: str, number: int) -> VersionRow | None:
        """Return a version of a model with its aliases; ``None`` where there is none."""
        found = self._read_version(name, number)
        if found is None or PROMPT in found.tags:
            return None
        aliases = (alias for alias, at in self._read_aliases(name).items() if at == number)
        return replace(found, aliases=tuple(aliases))

    def read_stamp(self) -> list[int] | None:
        """Return what changes with each transaction on the database; ``None`` where nothing tells."""
        with self._hold():
            return self._read_stamp()

    def read_tags(self, names: Sequence[str]) -> tuple[list[int] | None, list[tuple[str, int, str, str]]]:
        """Return the tags of these names that versions have, and the stamp of when they were so.

        Each is the name of the model, the version, and name and value of the tag.
        """
        with self._hold():
            rows = self._database.execute(
                f"SELECT name, version, key, value FROM model_version_tags WHERE {WORKSPACE} "
                f"AND value IS NOT NULL AND key IN ({', '.join('?' * len(names))})",
                tuple(names),
            ).fetchall()
            return self._read_stamp(), rows

    @contextmanager
    def _hold(self) -> Iterator[None]:
        """Keep the database as it is: nobody writes while somebody reads."""
        self._database.execute("BEGIN")
        try:
            self._database.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
            yield
        finally:
            if self._database.in_transaction:  # an error may have ended it
                self._database.execute("ROLLBACK")

    def _read_stamp(self) -> list[int] | None:
        if self._descriptor is None:
            return None
        found, header = os.fstat(self._descriptor), os.pread(self._descriptor, 28, 0)
        # a journal of the other kind (WAL) leaves the counter as it is
        if header[:16] != b"SQLite format 3\0" or header[18:20] != b"\1\1":
            return None
        changes = int.from_bytes(header[24:28], "big")
        return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, changes]

    def find_tagged(self, tag: str, value: str, *, prefix: bool = False) -> Iterator[VersionRow]:
        """Yield the versions with a tag of this value, or of one that begins so; in no order, without aliases."""
        if not _is_text(value):
            return
        there = "substr(value, 1, length(:value))" if prefix else "value"
        tagged = self._database.execute(
            f"SELECT name, version FROM model_version_tags WHERE {WORKSPACE} AND key = :tag AND {there} = :value "
            f"AND name NOT IN ({PROMPTS})",
            {"tag": tag, "value": value},
        )
        found = (self._read_version(name, number) for name, number in tagged.fetchall())
        yield from (version for version in found if version is not None)

    def _read_version(self, name: str, number: int) -> VersionRow | None:
        if not _is_text(name):
            return None
        row = self._database.execute(
            f"SELECT creation_time, run_id FROM model_versions WHERE {WORKSPACE} AND name = ? AND version = ? "
            "AND current_stage != 'Deleted_Internal'",
            (name, number),
        ).fetchone()
        if row is None:
            return None
        tags = self._read("SELECT key, value FROM model_version_tags", name, f"AND version = {number:d}")
        return VersionRow(name, number, row[0], row[1], tags)

    def _read_aliases(self, name: str) -> dict[str, int]:
        return self._read("SELECT alias, version FROM registered_model_aliases", name)

    def _read(self, select: str, name: str, more: str = "") -> dict[str, Any]:
        return dict(self._database.execute(f"{select} WHERE {WORKSPACE} AND name = ? {more}", (name,)).fetchall())


def _is_text(value: str) -> bool:
    """Return whether a database can have this value; a word of a command line may have bytes that are no text."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def open_registry_tables(uri: str) -> RegistryTables | None:
    """Return the registry at an address, if it is a database that can be read without MLflow.

    Parameters
    ----------
    uri : str
        As ``open_store`` returns it.
    """
    if not uri.startswith("sqlite:///") or os.environ.get("MLFLOW_ENABLE_WORKSPACES"):
        return None
    file = find_sqlite_path(uri)
    if entry_points(group="mlflow.model_registry_store", name="sqlite") or not is_current(file):
        return None
    descriptor = _open_file(file)
    # not opened for reading only: SQLite rolls back what a killed process left half written
    database = sqlite3.connect(file, timeout=30, isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA query_only = ON")
    others = "SELECT 1 FROM registered_models WHERE workspace != 'default' LIMIT 1"
    if database.execute(others).fetchone():  # which MLflow refuses
        database.close()
        return None
    same = os.path.samestat(os.fstat(descriptor), file.stat())  # else another file took its place just now
    return RegistryTables(database, descriptor if same else None)


DESCRIPTORS: list[int] = []
"""Of databases, open as long as the process: closing one takes away the locks that SQLite holds on the file."""


def _open_file(file: Path) -> int:
    known = (one for one in DESCRIPTORS if os.path.samestat(os.fstat(one), file.stat()))
    if (descriptor := next(known, None)) is None:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        DESCRIPTORS.append(descriptor)
    return descriptor
