"""What single commits of a table did, read from its log alone: a table is not opened for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from dlpipe.delta import find_mapping_mode
from dlpipe.tables._storage import explain_storage_errors, filesystem
from dlpipe.tables._versions import list_versions, make_history_row, open_table, read_log_lines


@dataclass(frozen=True)
class LoggedCommit:
    """A commit as the log has it.

    Attributes
    ----------
    facts : mapping
        What it says of itself, as an entry of ``history``.
    added : tuple of str
        The data files that it added.
    digest : str
        Of all that the log says of it: that of a table made anew in the same place is another one.
    """

    facts: Mapping[str, Any]
    added: tuple[str, ...]
    digest: str


def list_commits(location: str) -> list[int]:
    """Return the versions whose commits the log of the table at a location has, the first one first.

    Raises
    ------
    StorageUnavailable
        When the storage does not answer.
    """
    return sorted(list_versions(location))


def has_commit(location: str, version: int) -> bool:
    """Return whether the log of the table at a location has the commit of a version."""
    from pyarrow.fs import FileType

    with explain_storage_errors(location):
        (found,) = filesystem(location).get_file_info([f"_delta_log/{version:020}.json"])
    return bool(found.type == FileType.File)


def read_commit(location: str, version: int) -> LoggedCommit | None:
    """Return the commit of a version of the table at a location; ``None`` where its log has none.

    Parameters
    ----------
    location : str
        As ``TableVersion.path``.
    version : int
    """
    with explain_storage_errors(location):
        lines = read_log_lines(location, version)
    if not lines:
        return None
    actions = [json.loads(line) for line in lines if line.strip()]
    info: Mapping[str, Any] = next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
    added = tuple(unquote(action["add"]["path"]) for action in actions if "add" in action)
    return LoggedCommit(make_history_row(version, info), added, hashlib.sha256(b"\n".join(lines)).hexdigest()[:32])


def list_files(location: str, version: int | None = None) -> tuple[str, ...] | None:
    """Return the data files of a version, by default the latest; ``None`` for one with renamed columns.

    Parameters
    ----------
    location : str
    version : int, optional
    """
    import pyarrow as pa

    table = open_table(location, version=version)
    if find_mapping_mode(table) != "none":
        return None
    return tuple(map(unquote, pa.table(table.get_add_actions())["path"].to_pylist()))


def read_groups(location: str, file: str, column: str) -> Iterator[Sequence[str]]:
    """Yield the different values of a column of texts in each row group of a data file, without nulls.

    Nothing comes of a file that lacks the column.

    Parameters
    ----------
    location, file : str
        Of the table, and of the file in it.
    column : str

    Raises
    ------
    OSError
        When another program has removed the file, or it is damaged.
    ValueError
        When the column holds no texts.
    """
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    with ParquetFile(file, filesystem=filesystem(location)) as opened:
        schema = opened.schema_arrow
        # names that differ by case only are the same to Delta
        name = next((name for name in schema.names if name.casefold() == column), "")
        if not name:
            return
        kind = schema.field(name).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
            raise ValueError(f"{column} holds {kind}")
        for group in range(opened.num_row_groups):
            yield opened.read_row_group(group, columns=[name])[name].unique().drop_null().to_pylist()
