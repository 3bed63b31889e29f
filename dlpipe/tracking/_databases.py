"""MLflow's database in a file: made whole, by one process at a time."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from dlpipe.durable import move
from dlpipe.errors import TrackingUnavailable
from dlpipe.redaction import show_address
from dlpipe.tracking._artifacts import ARTIFACTS, find_artifact_root
from dlpipe.tracking._errors import explain_database_errors
from dlpipe.tracking._locks import hold_lock, hold_touch_lock

TOUCHED: set[tuple[str, int, int]] = set()
"""Databases that this process has seen to be complete."""


def find_sqlite_path(uri: str) -> Path:
    """Return the absolute path of the file of a SQLite URI.

    Examples
    --------
    >>> find_sqlite_path("sqlite:////srv/team/mlflow.db").name
    'mlflow.db'
    """
    path = uri.partition(":///")[2].partition("?")[0]
    if path in ("", ":memory:"):
        raise TrackingUnavailable(
            f"{show_address(uri)!r} is lost at the end of each process. Name a file: sqlite:///mlflow.db."
        )
    return Path(path).absolute()


def check_folder(folder: Path) -> Path:
    """Return ``folder`` if a database in it can be named: SQLite would read its escapes, and end it at a ``?``.

    Raises
    ------
    TrackingUnavailable
        When it cannot; the database would be made in another folder, or not at all.
    """
    if sign := next((sign for sign in "%?" if sign in str(folder)), ""):
        raise TrackingUnavailable(
            f"MLflow's database cannot be in {str(folder)!r}: its address takes no {sign!r}. Rename the folder, "
            "or name a database elsewhere, or a server, in MLFLOW_TRACKING_URI."
        )
    return folder


def touch_database(database: Path, location: str) -> None:
    """Make sure that ``database`` is a complete MLflow store, made by one process at a time.

    A new one is made under another name and put in place whole, so that a process killed on the way leaves
    nothing and nobody sees a half-made one. An older one is migrated by MLflow, under the same lock.
    """
    asked = f"sqlite:///{database}"
    check_folder(database.parent)
    with explain_database_errors(asked):
        check_writable(database)
        if _identify(database) in TOUCHED:
            return
        if is_current(database):
            TOUCHED.add(_identify(database))
            return
        # imported before the lock is taken: it takes two seconds
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        with hold_lock(database.with_name(f"{database.name}.lock"), asked=asked):
            if not database.exists() or database.stat().st_size == 0:
                make_database(database, location)
            SqlAlchemyStore(asked, location)  # migrates one of an older MLflow
        TOUCHED.add(_identify(database))


def is_current(database: Path) -> bool:
    """Return whether a database is a complete store of the installed MLflow, by the SQL that is kept here.

    Of a version of MLflow without such SQL nobody can say without importing it.
    """
    schema = find_schema_file()
    if not schema.exists() or not database.exists() or database.stat().st_size == 0:
        return False
    made = re.search(r"INSERT INTO \"alembic_version\" VALUES\('(\w+)'\)", schema.read_text())
    connection = sqlite3.connect(database, timeout=30)
    try:
        # migrations name their version last, and the first experiment comes after them
        found = connection.execute("SELECT version_num FROM alembic_version, experiments LIMIT 1").fetchone()
    except sqlite3.OperationalError:  # no such table, or locked for half a minute: MLflow's words are better
        return False
    finally:
        connection.close()
    return made is not None and found == (made[1],)


def _identify(database: Path) -> tuple[str, int, int]:
    """Return what another file under the same name has not; nothing of the kind for a file that is empty."""
    try:
        found = database.stat()
    except FileNotFoundError:
        return str(database), 0, 0
    return str(database), found.st_dev, found.st_ino if found.st_size else 0


def database_store(store_uri: str, artifact_uri: str | None = None) -> object:
    """Return MLflow's own store for a database, after a first touch that no other process can disturb.

    MLflow calls this by the entry points ``mlflow.tracking_store`` in every process of an environment with dlpipe.
    """
    from mlflow.tracking._tracking_service import utils

    if urlsplit(store_uri).scheme.partition("+")[0] != "sqlite":
        with hold_touch_lock(store_uri):
            return utils._get_sqlalchemy_store(store_uri, artifact_uri)
    database = find_sqlite_path(store_uri)
    if not database.exists() or database.stat().st_size == 0:
        touch_database(database, find_artifact_root(os.environ) or str(database.parent / ARTIFACTS))
    return utils._get_sqlalchemy_store(store_uri, artifact_uri)


def check_writable(database: Path) -> None:
    """Raise ``OSError`` or ``sqlite3.Error`` when ``database`` cannot be made or written.

    MLflow itself would try for 100 seconds, with a stack trace for each try.
    """
    if not database.parent.exists():  # a mistyped address makes none
        raise FileNotFoundError(errno.ENOENT, f"there is no folder {str(database.parent)!r}")
    if database.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(database))
    if not os.access(database if database.exists() else database.parent, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(database))
    if database.exists():
        connection = sqlite3.connect(database, timeout=30)
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        finally:
            connection.close()


def make_database(database: Path, location: str) -> None:
    """Make a complete, empty MLflow store at ``database`` in one move."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    # one name for all: the caller holds the lock, so what stands there is of a process that was killed
    unfinished = database.with_name(f"{database.name}.new")
    for stale in (unfinished, unfinished.with_name(f"{unfinished.name}-journal")):
        stale.unlink(missing_ok=True)
    if (schema := find_schema_file()).exists():
        _execute(unfinished, schema.read_text())
    # which makes the tables where there are none, by all its migrations, and the first experiment
    SqlAlchemyStore(f"sqlite:///{unfinished}", location).engine.dispose()
    # MLflow keeps one engine for each address, and this address is about to vanish
    SqlAlchemyStore._engine_map.pop(f"sqlite:///{unfinished}", None)
    move(unfinished, database)


def find_schema_file() -> Path:
    """Return where the tables of the installed MLflow's store are as SQL: its migrations take a second or two.

    For a version that has none there, MLflow's migrations do it.
    """
    return Path(__file__).with_name(f"mlflow-{version('mlflow')}.sql")


def _execute(database: Path, script: str) -> None:
    connection = sqlite3.connect(database)
    try:
        connection.executescript(script)
    finally:
        connection.close()
