"""Where MLflow is, and its safe first touch.

``MLFLOW_TRACKING_URI`` decides, as everywhere in MLflow; without it the store is ``mlflow.db`` in the working
directory, with the artifacts in ``mlartifacts`` beside it, or where ``DLPIPE_ARTIFACTS`` says. Three things go
wrong with MLflow as it comes, and are put right here: a fresh SQLite database touched by several processes at
once is destroyed, a server that is down blocks each call for minutes, and experiments in a database get their
artifacts wherever the process that made them happened to stand.
"""

from __future__ import annotations

import errno
import getpass
import hashlib
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from dlpipe.buckets import check_bucket, is_s3, plain_words
from dlpipe.errors import DlpipeError, StorageFull, StorageUnavailable, TrackingUnavailable

if TYPE_CHECKING:
    from mlflow import MlflowClient

ARTIFACTS = "mlartifacts"
ANSWER_SECONDS = 8.0
S3_ENDPOINT = "MLFLOW_S3_ENDPOINT_URL"
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""So that MLflow's pages open on training runs and not on language-model applications."""
LOCK_SECONDS = 120.0

# what MLflow is told unless the user has said otherwise: no telemetry, no hints, no bars, and an outage that
# shows after a minute instead of MLflow's 247 seconds a call
DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


@dataclass(frozen=True)
class TrackingStore:
    """An MLflow store that is there and answers.

    Attributes
    ----------
    uri : str
        Tracking URI; a SQLite one is absolute, so that it holds in another working directory.
    artifact_location : str or None
        The folder or ``s3://`` address that experiments made here get; ``None`` leaves it to the server.
    registry_uri : str
        Where models are registered; the same as ``uri`` unless ``MLFLOW_REGISTRY_URI`` is set.
    """

    uri: str
    artifact_location: str | None
    registry_uri: str

    @property
    def is_server(self) -> bool:
        """Whether an MLflow server stands between us and the database."""
        return urlsplit(self.uri).scheme in ("http", "https")

    def client(self) -> MlflowClient:
        """Return a client of this store; MLflow's global tracking URI is neither used nor changed."""
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri, registry_uri=self.registry_uri)

    def experiment(self, name: str) -> str:
        """Return the id of the experiment ``name``, made when missing."""
        from mlflow.exceptions import MlflowException

        client = self.client()
        if (found := client.get_experiment_by_name(name)) is None:
            try:
                made = client.create_experiment(
                    name, artifact_location=self.artifact_location, tags=dict(EXPERIMENT_TAGS)
                )
                return str(made)
            except MlflowException:  # another process was first
                if (found := client.get_experiment_by_name(name)) is None:
                    raise
        if found.lifecycle_stage != "active":
            command = f"mlflow experiments restore --experiment-id {found.experiment_id}"
            raise TrackingUnavailable(
                f"The experiment {name!r} is deleted. Restore it with `{command}`, or use another name."
            )
        return str(found.experiment_id)

    @contextmanager
    def lock(self, purpose: str) -> Iterator[None]:
        """Hold the lock for ``purpose`` on this store: one holder at a time on this machine."""
        with held(self._lock_file(purpose), asked=shown(self.registry_uri)):
            yield

    def _lock_file(self, purpose: str) -> Path:
        if urlsplit(self.registry_uri).scheme == "sqlite":
            database = sqlite_path(self.registry_uri)
            return database.with_name(f"{database.name}.{purpose}.lock")
        return _lock_folder() / f"{_digest(self.registry_uri)}.{purpose}.lock"

    @contextmanager
    def as_default(self) -> Iterator[None]:
        """Make this MLflow's own default store for a moment, for the calls that know no other."""
        import mlflow
        from mlflow.tracking._tracking_service import utils

        before, variable = utils._tracking_uri, os.environ.get("MLFLOW_TRACKING_URI")
        mlflow.set_tracking_uri(self.uri)
        try:
            yield
        finally:
            utils._tracking_uri = before
            _set_variable("MLFLOW_TRACKING_URI", variable)


def open_store(
    environ: Mapping[str, str] | None = None, *, answer_seconds: float = ANSWER_SECONDS
) -> TrackingStore:
    """Return the MLflow store that the environment names, seen to be there and ready.

    Parameters
    ----------
    environ : mapping, optional
        Where ``MLFLOW_TRACKING_URI``, ``MLFLOW_REGISTRY_URI`` and ``DLPIPE_ARTIFACTS`` are looked up; by default
        ``os.environ``.
    answer_seconds : float, optional
        How long a server has to answer.

    Raises
    ------
    TrackingUnavailable
        When a server does not answer within 10 seconds, a database cannot be written, or the address is
        of a kind that MLflow no longer takes (a folder).
    StorageUnavailable
        When ``DLPIPE_ARTIFACTS`` is on S3 and its bucket cannot be used.
    """
    environ = os.environ if environ is None else environ
    quieten_mlflow()
    uri = environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"
    root = artifact_root(environ)
    uri, location = ready_uri(uri, "MLFLOW_TRACKING_URI", answer_seconds, root)
    registry_uri = uri
    if environ.get("MLFLOW_REGISTRY_URI"):
        registry_uri, _ = ready_uri(environ["MLFLOW_REGISTRY_URI"], "MLFLOW_REGISTRY_URI", answer_seconds)
    return TrackingStore(uri, location, registry_uri)


def artifact_root(environ: Mapping[str, str]) -> str | None:
    """Return where ``DLPIPE_ARTIFACTS`` wants the artifacts of new experiments, after seeing that it works.

    Examples
    --------
    >>> artifact_root({"DLPIPE_ARTIFACTS": "/srv/mlartifacts/"}), artifact_root({})
    ('/srv/mlartifacts', None)
    """
    asked = environ.get("DLPIPE_ARTIFACTS", "").rstrip("/")
    if not asked:
        return None
    if is_s3(asked):
        check_bucket(asked, what="MLflow's artifacts (DLPIPE_ARTIFACTS)", endpoint=environ.get(S3_ENDPOINT))
    return asked if "://" in asked else str(Path(asked).absolute())


def ready_uri(
    uri: str, variable: str, answer_seconds: float = ANSWER_SECONDS, root: str | None = None
) -> tuple[str, str | None]:
    """Return ``uri`` made absolute and the artifact folder that goes with it, after seeing that it works.

    ``root`` is where artifacts go if the user said so.
    """
    kind = urlsplit(uri).scheme.partition("+")[0]
    if kind in ("", "file"):
        raise TrackingUnavailable(
            f"{variable}={uri!r} is a folder, which MLflow no longer takes as a store. "
            "Unset it to use sqlite:///mlflow.db, or name a database or a server."
        )
    if kind in ("http", "https"):
        check_answers(uri, answer_seconds)
    elif kind not in (known := store_kinds()):
        raise TrackingUnavailable(
            f"{variable}={uri!r} begins with {kind}:, which MLflow does not know; it knows {', '.join(known)}."
        )
    if kind in ("postgresql", "mysql", "mssql"):
        check_connects(uri, answer_seconds)
    if kind != "sqlite":
        return uri, root
    database = sqlite_path(uri)
    location = root or str(database.parent / ARTIFACTS)
    touch_database(database, location)
    return f"sqlite:///{database}", location


def store_kinds() -> list[str]:
    """Return how the address of an MLflow store may begin: what MLflow knows itself, and what plug-ins add."""
    from importlib.metadata import entry_points

    own = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks", "uc")
    return sorted({*own, *(one.name for one in entry_points(group="mlflow.tracking_store"))})


def quieten_mlflow() -> None:
    """Turn off telemetry, hints, bars and chatter of MLflow, and shorten its retries, unless the user chose."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    # MLflow reads the level only when it is first imported
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(os.environ["MLFLOW_LOGGING_LEVEL"])


def shown(uri: str) -> str:
    """Return ``uri`` as it may be printed: without a password.

    Examples
    --------
    >>> shown("postgresql://ana:secret@db.example/mlflow")
    'postgresql://ana@db.example/mlflow'
    """
    parts = urlsplit(uri)
    if not parts.password:
        return uri
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username}@{host}"))


# -- servers ---------------------------------------------------------------------------------------------------


def check_answers(uri: str, seconds: float = ANSWER_SECONDS) -> None:
    """Raise ``TrackingUnavailable`` within 10 seconds unless the MLflow server at ``uri`` says it is well."""
    if problem := _asked(_health, uri, seconds):
        raise TrackingUnavailable(
            f"The MLflow server at {shown(uri)} does not answer ({problem}). "
            "Start it, correct MLFLOW_TRACKING_URI, or unset it to use sqlite:///mlflow.db."
        )


def check_connects(uri: str, seconds: float = ANSWER_SECONDS) -> None:
    """Raise ``TrackingUnavailable`` within 10 seconds unless the database server at ``uri`` takes a connection.

    MLflow itself would try for 100 seconds.
    """
    if problem := _asked(_connection, uri, seconds):
        raise TrackingUnavailable(
            f"The database at {shown(uri)} takes no connection ({problem}). "
            "Start it, correct MLFLOW_TRACKING_URI, or unset it to use sqlite:///mlflow.db."
        )


def _asked(question: Callable[[str], str], uri: str, seconds: float) -> str:
    """Return the answer to a question about ``uri``; looking up a host, or a server that drips, knows no limit."""
    said: list[str] = []
    asking = threading.Thread(target=lambda: said.append(question(uri)), daemon=True)  # it can be left behind
    asking.start()
    asking.join(seconds)
    return said[0] if said else f"no answer in {seconds:.0f} seconds"


def _connection(uri: str) -> str:
    """Return what is wrong with the database server at ``uri`` in a line, or an empty string."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    try:
        create_engine(uri, poolclass=NullPool).connect().close()
    except ImportError as error:
        return f"{error}; install the driver"
    except Exception as error:  # a driver's own classes
        said = str(getattr(error, "orig", None) or error)
        password = urlsplit(uri).password
        said = said.replace(password, "***") if password else said
        return next((line.strip() for line in said.splitlines() if line.strip()), type(error).__name__)
    return ""


def _health(uri: str) -> str:
    """Return what is wrong with the server at ``uri`` in a few words, or an empty string."""
    import requests

    address = f"{uri.rstrip('/')}/health"
    try:
        with requests.get(address, timeout=(3, 5), stream=True, allow_redirects=False) as answer:
            return f"it says {answer.status_code} {answer.reason}" if answer.status_code >= 500 else ""
    except requests.exceptions.ConnectTimeout:
        return "no connection in 3 seconds"
    except requests.exceptions.Timeout:
        return "connected, but no answer in 5 seconds"
    except requests.exceptions.ConnectionError as error:
        return "connection refused" if "refused" in str(error) else "no connection"
    except (requests.exceptions.RequestException, ValueError) as error:
        return str(error).splitlines()[0]


# -- databases in a file -----------------------------------------------------------------------------------------


def sqlite_path(uri: str) -> Path:
    """Return the absolute path of the file of a SQLite URI.

    Examples
    --------
    >>> sqlite_path("sqlite:////srv/team/mlflow.db").name
    'mlflow.db'
    """
    path = uri.partition(":///")[2].partition("?")[0]
    if path in ("", ":memory:"):
        raise TrackingUnavailable(f"{uri!r} is lost at the end of each process. Name a file: sqlite:///mlflow.db.")
    return Path(path).absolute()


def touch_database(database: Path, location: str) -> None:
    """Make sure that ``database`` is a complete MLflow store, made by one process at a time.

    A new one is made under another name and put in place whole, so that a process killed on the way leaves
    nothing and nobody sees a half-made one. An older one is migrated by MLflow, under the same lock.
    """
    asked = f"sqlite:///{database}"
    with _said_of_database(asked):
        check_writable(database)
        # imported before the lock is taken: it takes two seconds
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        with held(database.with_name(f"{database.name}.lock"), asked=asked):
            if not database.exists() or database.stat().st_size == 0:
                make_database(database, location)
            SqlAlchemyStore(asked, location)


def database_store(store_uri: str, artifact_uri: str | None = None) -> object:
    """Return MLflow's own store for a database, after a first touch that no other process can disturb.

    MLflow calls this by the entry points ``mlflow.tracking_store`` in every process of an environment with dlpipe.
    """
    from mlflow.tracking._tracking_service import utils

    if urlsplit(store_uri).scheme.partition("+")[0] != "sqlite":
        with touch_lock(store_uri):
            return utils._get_sqlalchemy_store(store_uri, artifact_uri)
    database = sqlite_path(store_uri)
    if not database.exists() or database.stat().st_size == 0:
        touch_database(database, artifact_root(os.environ) or str(database.parent / ARTIFACTS))
    return utils._get_sqlalchemy_store(store_uri, artifact_uri)


@contextmanager
def touch_lock(uri: str) -> Iterator[None]:
    """Hold the lock of a database server: processes that touch a fresh one at once get errors from MLflow."""
    with held(_lock_folder() / f"{_digest(uri)}.touch.lock", asked=shown(uri)):
        yield


def _lock_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"dlpipe-{getpass.getuser()}"
    folder.mkdir(exist_ok=True)
    return folder


def _digest(uri: str) -> str:
    return hashlib.sha256(uri.encode()).hexdigest()[:16]


def check_writable(database: Path) -> None:
    """Raise ``OSError`` or ``sqlite3.Error`` when ``database`` cannot be made or written.

    MLflow itself would try for 100 seconds, with a stack trace for each try.
    """
    import sqlite3

    database.parent.mkdir(parents=True, exist_ok=True)
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

    unfinished = database.with_name(f"{database.name}.new")
    for stale in (unfinished, unfinished.with_name(f"{unfinished.name}-journal")):
        stale.unlink(missing_ok=True)
    SqlAlchemyStore(f"sqlite:///{unfinished}", location).engine.dispose()
    # MLflow keeps one engine for each address, and this address is about to vanish
    SqlAlchemyStore._engine_map.pop(f"sqlite:///{unfinished}", None)
    os.replace(unfinished, database)


@contextmanager
def held(lock: Path, *, asked: str) -> Iterator[None]:
    """Hold the lock file ``lock``; ``TrackingUnavailable`` when another process holds it for minutes."""
    import filelock

    try:
        with filelock.FileLock(lock, timeout=LOCK_SECONDS):
            yield
    except filelock.Timeout:
        raise TrackingUnavailable(
            f"{asked}: another process has held {lock.name} for {LOCK_SECONDS:.0f} seconds. "
            "Wait for it, or end it, and try again."
        ) from None


# -- what MLflow says when it fails ----------------------------------------------------------------------------


@contextmanager
def tracking_errors(store: TrackingStore) -> Iterator[None]:
    """Turn what MLflow raises inside into one clear line.

    Raises
    ------
    TrackingUnavailable, StorageFull
    StorageUnavailable
        When it is S3 that refuses the artifacts.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except DlpipeError:
        raise
    except Exception as error:
        if words := plain_words(str(error)) if _is_of_s3(error) else "":
            raise StorageUnavailable(f"The artifacts of MLflow at {shown(store.uri)}: {words}.") from error
        if not isinstance(error, MlflowException | OSError):
            raise
        raise clear_error(error, asked=f"MLflow at {shown(store.uri)}") from error


def _is_of_s3(error: BaseException | None) -> bool:
    """Whether S3's client raised ``error``, or what it came from: MLflow wraps some of them."""
    if error is None:
        return False
    package = type(error).__module__.partition(".")[0]
    return package in ("boto3", "botocore", "s3transfer") or _is_of_s3(error.__cause__ or error.__context__)


@contextmanager
def _said_of_database(asked: str) -> Iterator[None]:
    import sqlite3

    try:
        yield
    except DlpipeError:
        raise
    except (OSError, sqlite3.Error) as error:
        raise clear_error(error, asked=asked) from error
    except Exception as error:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        if not isinstance(error, SQLAlchemyError | MlflowException):
            raise
        raise clear_error(error, asked=asked) from error


def clear_error(error: Exception, *, asked: str) -> DlpipeError:
    """Return the error to show for one of MLflow's, of its database or of the file system.

    Examples
    --------
    >>> clear_error(OSError(28, "No space left on device"), asked="MLflow at sqlite:///mlflow.db")
    StorageFull('MLflow at sqlite:///mlflow.db: no space left on the device. Free some and run again.')
    """
    said = " ".join(str(getattr(error, "orig", None) or getattr(error, "strerror", None) or error).split())
    if getattr(error, "errno", None) == errno.ENOSPC or "disk is full" in said:
        return StorageFull(f"{asked}: no space left on the device. Free some and run again.")
    short = said if len(said) <= 300 else f"{said[:300]}..."
    return TrackingUnavailable(f"{asked} cannot be used: {short.rstrip('.')}. Check MLFLOW_TRACKING_URI.")


def _set_variable(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
