"""Rows of the log as they are now: those of a Delta table, and those that wait in journals, each once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from dlpipe.errors import DlpipeError, ModelNotFound, SettingError, TableNotFound
from dlpipe.registry import list_aliases
from dlpipe.serving.journal import JournalFile, find_journals, list_all_files
from dlpipe.serving.log_rows import (
    FEEDBACK,
    FEEDBACK_COLUMNS,
    REQUEST_COLUMNS,
    REQUESTS,
    make_rows,
    make_schema,
    name_table,
)
from dlpipe.tables import TableVersion, filesystem, locate, read_mark_at, stream_table, table_at, tables_root

if TYPE_CHECKING:
    import pyarrow as pa


def read_logged(
    table: str, *, columns: Sequence[str] | None = None, since: str = "", root: Path | None = None
) -> pa.Table:
    """Return the rows of a table of the log, those included that have not been committed yet.

    Parameters
    ----------
    table : str
        Its name, which ``name_table`` gives.
    columns : sequence of str, optional
        By default all.
    since : str
        The first day, such as ``2026-01-31``; by default all days.
    root : Path, optional
        The folder of journals.

    Raises
    ------
    SchemaMismatch
        When there is another table in its place.
    """
    return read_logged_at(table, columns=columns, since=since, root=root)[0]


def read_logged_at(
    table: str, *, columns: Sequence[str] | None = None, since: str = "", root: Path | None = None
) -> tuple[pa.Table, TableVersion | None]:
    """Return the same rows, and the version of the table that has those of them that are committed.

    Parameters
    ----------
    table, columns, since, root
        As for ``read_logged``.
    """
    import pyarrow as pa

    version, parts = open_logged(table, columns=columns, since=since, root=root)
    return pa.concat_tables(parts), version


def stream_logged(
    table: str, *, columns: Sequence[str] | None = None, since: str = "", root: Path | None = None
) -> Iterator[pa.Table]:
    """Yield the same rows, some at a time, so that memory does not grow with the log.

    Parameters
    ----------
    table, columns, since, root
        As for ``read_logged``.
    """
    return open_logged(table, columns=columns, since=since, root=root)[1]


def open_logged(
    table: str, *, columns: Sequence[str] | None, since: str, root: Path | None
) -> tuple[TableVersion | None, Iterator[pa.Table]]:
    """Return the version of a table of the log, and its rows with those that wait for it.

    Parameters
    ----------
    table, columns, since, root
        As for ``read_logged``.
    """
    # files before the table: one that is committed in between is then in both, which the mark tells
    waiting = [(file, file.read()) for file in list_all_files(root or find_journals()) if file.table == table]
    try:
        version = table_at(table)
    except TableNotFound:
        version = None
    schema = make_schema(FEEDBACK_COLUMNS if table.endswith(FEEDBACK) else REQUEST_COLUMNS)
    names = list(columns) if columns is not None else schema.names
    return version, _stream_rows(table, version, waiting, names, since, schema)


def _stream_rows(
    table: str,
    version: TableVersion | None,
    waiting: Sequence[tuple[JournalFile, list[bytes]]],
    names: list[str],
    since: str,
    schema: pa.Schema,
) -> Iterator[pa.Table]:
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = pa.schema([schema.field(name) for name in names])
    yield wanted.empty_table()
    if version is not None:
        where = f"day >= '{since}'" if since else None
        for batch in stream_table(version, columns=names, where=where, batch_rows=65536):
            yield pa.Table.from_batches([batch]).cast(wanted)
    marks: dict[str, int | None] = {}
    for file, lines in waiting:
        if version is not None and file.writer not in marks:
            marks[file.writer] = read_mark_at(version, file.mark)
        committed = marks.get(file.writer)
        if lines and (committed is None or file.number > committed):
            rows = make_rows(table, lines)
            yield (rows.filter(pc.greater_equal(rows["day"], since)) if since else rows).select(names)


def list_tables(ending: str, root: Path | None = None) -> list[str]:
    """Return the names of the tables of the log that end so, those included that are only in journals yet.

    Parameters
    ----------
    ending : str
        Such as ``_requests``.
    root : Path, optional
        The folder of journals.
    """
    from pyarrow.fs import FileSelector

    waiting = {file.table for file in list_all_files(root or find_journals()) if file.table.endswith(ending)}
    entries = filesystem(tables_root()).get_file_info(FileSelector(".", allow_not_found=True))
    names = {entry.base_name for entry in entries if entry.base_name.endswith(ending)}
    return sorted(waiting | {name for name in names if _is_there(name)})


def is_logged(model: str, root: Path | None = None) -> bool:
    """Return whether a model was asked, or has labels, by the log.

    Parameters
    ----------
    model : str
    root : Path, optional
        The folder of journals.
    """
    tables = {name_table(model, ending) for ending in (REQUESTS, FEEDBACK)}
    waiting = any(file.table in tables for file in list_all_files(root or find_journals()))
    return waiting or any(map(_is_there, tables))


def check_model(model: str, root: Path | None = None) -> None:
    """Raise ``ModelNotFound`` where a model is in no log and not registered either: its name is misspelt.

    Parameters
    ----------
    model : str
    root : Path, optional
        The folder of journals.
    """
    logged = {table.removesuffix(ending) for ending in (REQUESTS, FEEDBACK) for table in list_tables(ending, root)}
    if name_table(model, "") in logged:
        return
    registered = list_aliases()
    if model not in registered:
        names = ", ".join(sorted({*registered, *logged})) or "none yet"
        raise ModelNotFound(
            f"Nothing was asked of a model {model!r}, and none is registered. Pass the name of one; there are: "
            f"{names}."
        )


def _is_there(table: str) -> bool:
    """Return whether it is a table of the log, and not one of somebody's with such a name."""
    try:
        version = table_at(locate(table))
    except DlpipeError:
        return False
    columns = FEEDBACK_COLUMNS if table.endswith(FEEDBACK) else REQUEST_COLUMNS
    return [name for name, _ in version.columns] == [name for name, _ in columns]


def check_day(day: str) -> str:
    """Return ``day`` as the log writes days.

    Raises
    ------
    SettingError
        When it is none.

    Examples
    --------
    >>> check_day("2026-01-31")
    '2026-01-31'
    """
    try:
        return date.fromisoformat(day).isoformat()
    except ValueError:
        raise SettingError(f"{day!r} is no day. Pass one such as 2026-01-31, in UTC.") from None
