"""Whether a table version has the rows that somebody asks for."""

from __future__ import annotations

from collections import Counter

from dlpipe.errors import NoRows
from dlpipe.tables._read import read_table
from dlpipe.tables._versions import TableVersion


def check_split(version: TableVersion, split: str | None, *, whole: str) -> None:
    """Raise ``NoRows`` where ``version`` has no row of ``split``, or no row at all.

    Parameters
    ----------
    whole : str
        How to ask for all rows instead, such as ``"--split all"``.

    Raises
    ------
    SchemaMismatch
        When the table has no column ``split``.
    SettingError
        When no split has this name.
    """
    if not version.rows:
        raise NoRows(f"{str(version)!r} has no rows. Name another version or table, or add rows: dlpipe append.")
    if split is None or read_table(version, split=split, columns=["split"]).num_rows:
        return
    counts = Counter(read_table(version, columns=["split"])["split"].to_pylist())
    there = ", ".join(f"{count:,} in {name or 'no split'}" for name, count in counts.items())
    raise NoRows(
        f"{str(version)!r} has no row in its {split!r} split: {there}. Rows without a label are in no split. Name "
        f"another split, or take all rows with {whole}."
    )
