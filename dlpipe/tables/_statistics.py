"""What the files of a version say of themselves, without a row being read: number, size, missing values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlpipe.tables._read import explain_missing_files, open_files

if TYPE_CHECKING:
    from pyarrow.parquet import FileMetaData

    from dlpipe.tables._versions import TableVersion


@dataclass(frozen=True)
class TableStatistics:
    """What the files of a version of a table hold.

    Attributes
    ----------
    rows, files, size : int
        Size in bytes.
    nulls : mapping of str to int
        Missing values by column; a column of lists, and one of which a file does not say it, are left out.
    """

    rows: int
    files: int
    size: int
    nulls: Mapping[str, int]


def read_statistics(version: TableVersion) -> TableStatistics:
    """Return what the footers of the files of a version say.

    Raises
    ------
    TableVersionNotFound
        When another program has removed files of it.
    """
    files = open_files(version)
    names = dict(zip(files.stored.names, files.schema.names, strict=True))
    nulls: Counter[str] = Counter(dict.fromkeys(names.values(), 0))
    unknown: set[str] = set()
    rows = size = 0
    with explain_missing_files(version):
        for fragment in files.fragments:
            size += fragment.filesystem.get_file_info(fragment.path).size or 0
            rows += fragment.metadata.num_rows
            found = _count_nulls(fragment.metadata)
            nulls.update({names[stored]: count for stored, count in found.items() if stored in names})
            unknown |= {name for stored, name in names.items() if stored not in found}
    kept = {name: count for name, count in nulls.items() if name not in unknown}
    return TableStatistics(rows, len(files.fragments), size, kept)


def _count_nulls(footer: FileMetaData) -> dict[str, int]:
    """Return the missing values of a file by column, as the file calls it, where all its row groups say them."""
    found: Counter[str] = Counter()
    unknown = set()
    for group in range(footer.num_row_groups):
        for place in range(footer.num_columns):
            column = footer.row_group(group).column(place)
            statistics = column.statistics
            if statistics is None or not statistics.has_null_count:
                unknown.add(column.path_in_schema)
            else:
                found[column.path_in_schema] += statistics.null_count
    return {name: count for name, count in found.items() if name not in unknown}
