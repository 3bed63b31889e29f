"""Rows of a table version by the value of a column, each with the version whose commit added it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlpipe.delta import RowFilter
from dlpipe.tables._read import explain_missing_files, open_columns
from dlpipe.tables._versions import TableVersion

OWN_FILE = re.compile(r"(?:.*/)?(\d{20})-[0-9a-f]{32}-\d{5}\.parquet")
"""A data file of dlpipe's: its name begins with the version of its commit."""


@dataclass(frozen=True)
class FoundRow:
    """A row that was looked for.

    Attributes
    ----------
    version : int or None
        The version whose commit wrote it; ``None`` in a file of another program, such as one that compacted.
    values : mapping
        Of the columns that were asked for.
    file : str
        Where it stands, under the folder of the table.
    """

    version: int | None
    values: Mapping[str, Any]
    file: str = ""


def find_rows(
    version: TableVersion,
    column: str,
    value: str,
    *,
    columns: Sequence[str],
    prefix: bool = False,
    added_by: int | None = None,
    groups: Mapping[str, Collection[int]] | None = None,
) -> Iterator[FoundRow]:
    """Yield the rows in which ``column`` is ``value``; files and row groups that cannot have any are not read.

    Parameters
    ----------
    version : TableVersion
    column : str
        One of texts.
    value : str
    columns : sequence of str
        Whose values come back.
    prefix : bool, optional
        Whether a text that begins with ``value`` will do.
    added_by : int, optional
        Only rows that the commit of this version wrote, or a file of another program has; by default of any.
    groups : mapping of str to collection of int, optional
        Where to look: in these row groups of these data files, in all of a file where none is named. By default
        everywhere.

    Raises
    ------
    SchemaMismatch
        When the table lacks a column.
    TableVersionNotFound
        When another program has removed data files of the version.

    Examples
    --------
    >>> import pyarrow as pa, tempfile
    >>> from dlpipe.tables import write_table
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for label in ("good", "bad"):
    ...         rows = pa.table({"row_id": [label[:1], "x"], "label": [label] * 2})
    ...         version = write_table(f"{folder}/reviews", rows)
    ...     [(row.version, row.values["label"]) for row in find_rows(version, "row_id", "x", columns=["label"])]
    [(0, 'good'), (1, 'bad')]
    """
    import pyarrow.compute as pc
    from pyarrow.dataset import field

    def build(stored: Mapping[str, str]) -> Any:
        there = field(stored[column])
        return pc.starts_with(there, value) if prefix else there == value

    files, names = open_columns(version, columns=list(dict.fromkeys([*columns, column])), only=groups)
    wanted = RowFilter((column,), build)
    with explain_missing_files(version):
        for fragment in files.find_fragments(wanted):
            name = OWN_FILE.fullmatch(fragment.path)
            if name and added_by is not None and int(name[1]) != added_by:
                continue
            if groups and groups[fragment.path]:
                fragment = fragment.subset(row_group_ids=sorted(groups[fragment.path]))
            for batch in files.scan(fragment, columns=names, rows=65536, where=wanted):
                for values in batch.select(list(columns)).to_pylist():
                    yield FoundRow(int(name[1]) if name else None, values, fragment.path)
