"""Check that rows can be written to a table: nothing else is in its place, and its columns and rules fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dlpipe.delta import check_writable
from dlpipe.errors import SchemaMismatch
from dlpipe.tables._storage import DATA_FILE, STAGED, is_remote, locate, show_path
from dlpipe.tables._versions import try_open

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

Mode = Literal["append", "overwrite"]
DAY = "day"
"""The column by which a table of days is partitioned: 2026-01-31, in UTC."""


def check_target(path: str | Path, schema: pa.Schema | None = None) -> None:
    """Raise where something else is at ``path``, or a table that rows of ``schema`` cannot be appended to.

    Without ``schema``, where a table is there that cannot be written anew.
    """
    location = locate(path)
    table = open_or_check_empty(location)
    if schema is not None:
        check_schema(table, location, to_delta_schema(schema), mode="append")
    elif table is not None:
        _check_writable(table, location, mode="overwrite")


def to_delta_schema(schema: pa.Schema) -> pa.Schema:
    """Return the Arrow schema with which rows of ``schema`` come back from a Delta table."""
    import pyarrow as pa
    from deltalake import Schema

    _check_names(schema.names)
    return pa.schema(Schema.from_arrow(schema.remove_metadata()).to_arrow())


def open_or_check_empty(location: str) -> DeltaTable | None:
    """Return the opened table, or None where one can be made."""
    folder, table = Path(location), try_open(location)
    if table is not None or is_remote(location) or not folder.exists():
        return table
    # a writer that was killed before its first commit leaves only these behind
    known = folder.is_dir() and all(
        file.name in ("_delta_log", STAGED) or DATA_FILE.fullmatch(file.name) for file in folder.iterdir()
    )
    if not known:
        raise SchemaMismatch(
            f"{show_path(location)} exists and is not a Delta table, so nothing is written there. "
            "Pass another table name, or move it away."
        )
    return None


def check_schema(
    table: DeltaTable | None, location: str, schema: pa.Schema, *, mode: Mode, by_day: bool = False
) -> None:
    """Raise where rows of ``schema``, as Delta gives them back, cannot be written to a table, if there is one.

    ``by_day`` says that it must be a table of days.
    """
    import pyarrow as pa

    if table is None:
        return
    _check_writable(table, location, mode=mode, by_day=by_day)
    has = {field.name: field.type for field in pa.schema(table.schema().to_arrow())}
    given = {field.name: field.type for field in schema}
    if mode == "append" and list(has.items()) != list(given.items()):
        raise SchemaMismatch(
            f"{show_path(location)} has the columns {_format_columns(has)}; the rows have "
            f"{_format_columns(given)}. Give the same columns in the same order, or write to another table."
        )


def _check_names(names: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.setdefault(name.lower(), name)) is not name:
            raise SchemaMismatch(
                f"A Delta table cannot have the columns {other!r} and {name!r}: their names differ by more than "
                "their case. Rename one."
            )


def _check_writable(table: DeltaTable, location: str, *, mode: Mode, by_day: bool = False) -> None:
    check_writable(table, show_path(location), overwrite=mode == "overwrite")
    partitions = list(table.metadata().partition_columns)
    if by_day and partitions != [DAY]:
        raise SchemaMismatch(
            f"{show_path(location)} is not partitioned by {DAY!r}, as a table of what was served is. Move it away."
        )
    if partitions and not by_day:
        raise SchemaMismatch(
            f"{show_path(location)} is partitioned, by what was served or by another program; dlpipe writes your "
            "rows to unpartitioned tables only. Pass another table."
        )


def _format_columns(types: Mapping[str, pa.DataType]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in types.items())
