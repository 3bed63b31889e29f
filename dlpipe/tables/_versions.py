"""Find versions of a table: by number, by time, by the key of a commit."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlpipe.delta import check_readable, find_missing_features, make_not_read_error
from dlpipe.errors import DlpipeError, SettingError, TableNotFound, TableVersionNotFound
from dlpipe.tables._storage import (
    explain_storage_errors,
    filesystem,
    is_remote,
    locate,
    show_path,
    storage_options,
    to_one_line,
)
from dlpipe.time_formats import read_iso

if TYPE_CHECKING:
    from deltalake import DeltaTable

KEYS = "dlpipe:"
"""How the Delta transaction identifiers of keys begin."""
LOG_FILE = re.compile(r"(\d{20})\.json")
LATEST = 253_402_300_799_000
"""The last second of the year 9999, in milliseconds: Python's times end there."""


@dataclass(frozen=True)
class TableVersion:
    """One version of a Delta table: what a run, a model or a prediction is pinned to."""

    path: str
    """Absolute folder, or ``s3://`` URI."""
    version: int
    rows: int
    digest: str
    """32 hex characters of the content's SHA-256."""
    timestamp: int
    """Milliseconds since the epoch at which it was committed."""
    columns: tuple[tuple[str, str], ...] = field(default=(), compare=False, repr=False)
    """Name and type of each column, as Delta has them."""

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rsplit("/", 1)[-1]

    def __str__(self) -> str:
        return f"{self.name}@v{self.version}"


def table_at(
    path: str | Path, *, version: int | None = None, timestamp: datetime | str | None = None
) -> TableVersion:
    """Return the version of the table at ``path`` that has this number or was the latest at this time.

    Parameters
    ----------
    path : str or Path
        A relative name is taken under ``tables_root()``.
    version : int, optional
        Without it (and without a timestamp), the latest.
    timestamp : datetime or ISO 8601 string, optional
        Without a time zone it is UTC.

    Raises
    ------
    TableNotFound, TableVersionNotFound
        The message says which tables or versions there are.
    """
    location = locate(path)
    if version is not None and timestamp is not None:
        raise SettingError("Both a version and a timestamp were given. Pass one of them.")
    if timestamp is not None:
        version = _find_version_at(location, _to_milliseconds(timestamp))
    return to_version(open_table(location, version=version), location)


def history(path: str | Path) -> list[dict[str, Any]]:
    """Return what is known of each version of the table at ``path``, the latest first.

    Each has ``version``, ``timestamp`` (ms since the epoch), ``time`` (ISO 8601, UTC), ``operation``, and whatever
    its commit carries of ``mode`` (``Append`` or ``Overwrite``), ``rows``, ``digest``, ``key``, ``sources``,
    ``settings``, ``form``, ``task``, ``ingested`` (how many rows come from sources: the first ones), ``appended``
    (how many it adds: the last ones), ``made_by`` (the attempt of a Metaflow task, ``TrainFlow/17/start/1/0``) and
    ``forgotten`` (the record of the forgetting that took rows out).
    """
    location = locate(path)
    latest = open_table(location).version()
    return [
        make_history_row(version, read_commit_info(location, version))
        for version in list_versions(location, latest)
    ]


def find_commit(path: str | Path, key: Mapping[str, str]) -> TableVersion | None:
    """Return the version of the table at ``path`` whose commit carries ``key``, or None.

    The key is a Delta transaction identifier, which checkpoints keep: the search costs one opening of
    the table, however many commits there are.
    """
    location = locate(path)
    table = try_open(location)
    version = None if table is None else table.transaction_version(to_transaction_id(key))
    return None if version is None else to_version(open_table(location, version=version), location)


def find_first_commit(path: str | Path, keys: Iterable[Mapping[str, str]]) -> Mapping[str, str] | None:
    """Return the first of ``keys`` that a commit of the table at ``path`` carries; the table is opened once."""
    table = try_open(locate(path))
    if table is None:
        return None
    return next((key for key in keys if table.transaction_version(to_transaction_id(key)) is not None), None)


def read_mark(path: str | Path, name: str) -> int | None:
    """Return where the mark ``name`` of the table at ``path`` is; None where no commit has moved it."""
    table = try_open(locate(path))
    return None if table is None else table.transaction_version(to_mark_id(name))


def read_mark_at(version: TableVersion, name: str) -> int | None:
    """Return where the mark ``name`` was in this version of a table."""
    return open_table(version.path, version=version.version).transaction_version(to_mark_id(name))  # type: ignore[no-any-return]


def read_table_id(path: str | Path) -> str:
    """Return what Delta calls the table at ``path`` by: a table made anew in the same place has another."""
    return str(open_table(locate(path)).metadata().id)


def to_mark_id(name: str) -> str:
    """Return the Delta transaction identifier of a mark.

    Examples
    --------
    >>> to_mark_id("new rows of /srv/reviews")
    'dlpipe-mark:4197e1667851b6894ed26040c6cdc73a'
    """
    return "dlpipe-mark:" + hashlib.sha256(name.encode()).hexdigest()[:32]


def to_transaction_id(key: Mapping[str, str]) -> str:
    """Return the Delta transaction identifier of a commit's key.

    Examples
    --------
    >>> to_transaction_id({"a": "1", "b": "2"}) == to_transaction_id({"b": "2", "a": "1"})
    True
    """
    return KEYS + hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:32]


def open_table(location: str, *, version: int | None = None) -> DeltaTable:
    """Return the opened table, with errors that say what there is."""
    table = try_open(location)
    if table is None:
        raise make_missing_error(location)
    if version is None or version == table.version():
        return table
    return _open_version(location, version, latest=table.version())


def try_open(location: str) -> DeltaTable | None:
    """Return the opened table, or None where there is none."""
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError, TableNotFoundError

    # delta-rs says the same for a missing folder, a file and a folder of something else
    if not is_remote(location) and not (Path(location) / "_delta_log").is_dir():
        return None
    try:
        with explain_storage_errors(location):
            table = DeltaTable(location, storage_options=storage_options(location))
    except TableNotFoundError:
        return None
    except DeltaError as error:
        raise _make_open_error(location, to_one_line(error)) from None
    check_readable(table, show_path(location))
    return table


def _make_open_error(location: str, error: str) -> DlpipeError:
    """Return why delta-rs does not open a table: a feature that it lacks too, or a damaged log."""
    versions = list_versions(location)
    if missing := find_missing_features(
        (line for number in versions for line in read_log_lines(location, number)), error
    ):
        return make_not_read_error(show_path(location), missing)
    if "nsupported" in error:  # such as a type that came later
        return make_not_read_error(show_path(location), [error.partition(" at line ")[0]])
    return TableNotFound(
        f"{show_path(location)} cannot be opened as a Delta table: {error}. Restore its _delta_log."
    )


def to_version(table: DeltaTable, location: str) -> TableVersion:
    """Return the ``TableVersion`` of an opened table."""
    info = read_commit_info(location, table.version())
    rows, digest = info.get("dlpipe.rows"), info.get("dlpipe.digest")
    if rows is None or digest is None:
        rows, digest = _measure(table)  # another program's commit
    columns = list_columns(table.schema())
    return TableVersion(location, table.version(), int(rows), str(digest), find_commit_time(info), columns)


def list_columns(schema: Any) -> tuple[tuple[str, str], ...]:
    """Return name and Delta type of each column of a Delta or Arrow schema; a nested type is its kind.

    Examples
    --------
    >>> import pyarrow as pa
    >>> list_columns(pa.schema([("text", pa.string()), ("length", pa.int64())]))
    (('text', 'string'), ('length', 'long'))
    """
    from deltalake import Schema

    fields = schema.fields if isinstance(schema, Schema) else Schema.from_arrow(schema).fields
    return tuple((column.name, str(column.type.type)) for column in fields)


def read_commit_info(location: str, version: int) -> dict[str, Any]:
    """Return what the commit of one version says of itself (empty where the log no longer has it).

    Read from the log file and not through delta-rs, whose history is empty for a path with a space in it.
    """
    with explain_storage_errors(location):
        lines = read_log_lines(location, version)
    actions = (json.loads(line) for line in lines if line.strip())
    return next((action["commitInfo"] for action in actions if "commitInfo" in action), {})


def find_commit_time(info: Mapping[str, Any]) -> int:
    """Return when a commit was made, in milliseconds; the feature inCommitTimestamp has its own place for it."""
    at = int(info.get("inCommitTimestamp") or info.get("timestamp") or 0)
    return min(max(at, 0), LATEST)  # another program may count in other units


def read_log_lines(location: str, version: int) -> list[bytes]:
    """Return the actions of one commit, a line each; none where the log does not have it."""
    try:
        with filesystem(location).open_input_stream(f"_delta_log/{version:020}.json") as stream:
            return bytes(stream.read()).splitlines()
    except FileNotFoundError:
        return []


def find_restored(location: str, number: int, info: Mapping[str, Any]) -> int | None:
    """Return the version whose rows a commit brought back; ``None`` where it did not, or does not say which.

    Parameters
    ----------
    location : str
    number : int
        The version of the commit.
    info : mapping
        What it says of itself.
    """
    if info.get("operation") != "RESTORE":
        return None
    terms = info.get("operationParameters") or {}
    version, at = str(terms.get("version") or ""), str(terms.get("datetime") or "")
    if version.isdecimal() and int(version) < number:
        return int(version)
    if at.isdecimal():  # of another program it may be a time without a zone
        earlier = range(number - 1, -1, -1)
        return next((one for one in earlier if _is_made_by(location, one, int(at))), None)
    return None


def _is_made_by(location: str, number: int, milliseconds: int) -> bool:
    info = read_commit_info(location, number)
    return bool(info) and find_commit_time(info) <= milliseconds


def _open_version(location: str, version: int, *, latest: int) -> DeltaTable:
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    if 0 <= version <= latest:
        try:
            with explain_storage_errors(location):
                table = DeltaTable(location, version=version, storage_options=storage_options(location))
        except DeltaError as error:
            raise TableVersionNotFound(
                f"Version {version} of {show_path(location)} can no longer be read: {to_one_line(error)}. "
                f"Its latest is {latest}."
            ) from None
        check_readable(table, show_path(location))
        return table
    raise TableVersionNotFound(
        f"{show_path(location)} has no version {version}; its latest is {latest}. "
        f"Pass a version from 0 to {latest}, or write a new one."
    )


def make_missing_error(location: str) -> TableNotFound:
    """Return the error for a place that has no table; it says what is there."""
    path = Path(location)
    if is_remote(location):
        return TableNotFound(
            f"{show_path(location)} is not a Delta table. Ingest one there, or pass another path."
        )
    if path.is_file():
        return TableNotFound(f"{show_path(location)} is a file, not a Delta table. Pass the table's folder.")
    if path.is_dir():
        return TableNotFound(
            f"{show_path(location)} is a folder but not a Delta table (it has no _delta_log with a commit). "
            "Pass a table's folder, or ingest one."
        )
    there = sorted(log.parent.name for log in path.parent.glob("[!.]*/_delta_log"))
    beside = (
        f"{show_path(str(path.parent))} has the tables: {', '.join(there)}" if there else "no table is beside it"
    )
    return TableNotFound(
        f"There is no table at {show_path(location)}; {beside}. Pass another name, or ingest one."
    )


def _measure(table: DeltaTable) -> tuple[int, str]:
    """Return rows and a digest of a version that another program wrote, from the names of its files.

    Delta never changes a file under its name, so the same names are the same rows; to hash the rows themselves
    would be to read the table at each opening.
    """
    import pyarrow as pa

    files = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    counted = all(file.get("num_records") is not None for file in files)
    rows = sum(file["num_records"] for file in files) if counted else table.count()
    names = sorted(f"{file['path']} {file['size_bytes']}" for file in files)
    return rows, hashlib.sha256("\n".join([table.schema().to_json(), *names]).encode()).hexdigest()[:32]


def list_versions(location: str, latest: int | None = None) -> list[int]:
    """Return the versions whose commits the log has, the latest first."""
    from pyarrow.fs import FileSelector

    with explain_storage_errors(location):
        files = filesystem(location).get_file_info(FileSelector("_delta_log"))
    found = [int(name[1]) for file in files if (name := LOG_FILE.fullmatch(file.base_name))]
    return sorted((version for version in found if latest is None or version <= latest), reverse=True)


def make_history_row(version: int, info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry of ``history`` for a commit."""
    milliseconds = find_commit_time(info)
    row: dict[str, Any] = {
        "version": version,
        "timestamp": milliseconds,
        "time": _to_iso(milliseconds),
        "operation": info.get("operation", ""),
    }
    if "dlpipe.rows" in info:
        row |= {"rows": int(info["dlpipe.rows"]), "digest": info["dlpipe.digest"]}
    for name in ("key", "sources", "settings", "form"):
        if f"dlpipe.{name}" in info:
            row[name] = json.loads(info[f"dlpipe.{name}"])
    if info.get("operation") == "WRITE":
        row["mode"] = str(info.get("operationParameters", {}).get("mode", ""))
    row |= {name: int(info[f"dlpipe.{name}"]) for name in ("ingested", "appended") if f"dlpipe.{name}" in info}
    row |= {name: info[f"dlpipe.{name}"] for name in ("task", "made_by", "forgotten") if f"dlpipe.{name}" in info}
    return row


def _find_version_at(location: str, milliseconds: float) -> int:
    rows = history(location)
    at = [row["version"] for row in rows if row["timestamp"] <= milliseconds]
    if at:
        return max(at)
    first = rows[-1]
    raise TableVersionNotFound(
        f"{show_path(location)} has no version at {_to_iso(milliseconds)}; its first, {first['version']}, was "
        f"made at {first['time']}. Pass that time or a later one."
    )


def _to_milliseconds(given: datetime | str) -> float:
    """Return milliseconds since the epoch, to the end of the millisecond that ``history`` shows."""
    try:
        time = read_iso(given) if isinstance(given, str) else given
    except ValueError:
        raise SettingError(
            f"{given!r} is not a time. Pass ISO 8601, such as 2026-01-31 or 2026-01-31T12:00:00+00:00."
        ) from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000 + 0.5


def _to_iso(milliseconds: float) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
