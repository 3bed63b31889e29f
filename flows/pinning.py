"""What a flow works on, pinned and checked before it works."""

from __future__ import annotations

from dlpipe.errors import SchemaMismatch
from dlpipe.registry import ModelVersion, resolve
from dlpipe.settings import check_name
from dlpipe.tables import SPLITS, TableVersion, table_at

COLUMNS = ("row_id", "text")


def pinned(model: str, table: str, version: int | None) -> tuple[ModelVersion, TableVersion]:
    """Return the model version and the table version that are meant, seen to be there and to fit.

    Raises
    ------
    ModelNotFound, TableNotFound, TableVersionNotFound
        The message says which there are.
    SchemaMismatch
        When the table has no ``row_id`` or no ``text``.
    """
    found, rows = resolve(model), table_at(table, version=version)
    names = [name for name, _ in rows.columns]
    if missing := [name for name in COLUMNS if name not in names]:
        raise SchemaMismatch(
            f"{str(rows)!r} has no column {' and no column '.join(map(repr, missing))}; its columns are: "
            f"{', '.join(names)}. Name a table that flows/train_flow.py or dlpipe.tables.ingest made."
        )
    return found, rows


def split_named(split: str | None) -> str:
    """Return the words for what ``--split`` of the explain flow asks for.

    Raises
    ------
    SettingError
        When there is no such split.
    """
    if split is None:
        return "test"
    check_name(split, [*SPLITS, "all"], what="split", where="The table")
    return "all splits" if split == "all" else split


def table_named(target: str | None, rows: TableVersion, kind: str) -> str:
    """Return ``target``, or the name of the table of this kind that belongs to the data table."""
    return target or f"{rows.path}_{kind}"
