"""Find Parquet files in folders as Spark and others write them: partitioned by ``name=value``, or not."""

from __future__ import annotations

import os
from pathlib import Path, PurePath
from urllib.parse import unquote

from dlpipe.errors import BadSource

PARQUET = (".parquet", ".pq")
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
OTHER_DATA = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".orc", ".avro")
# in these, not every file belongs to the rows of today
TABLE_FORMATS = {"_delta_log": "a Delta table", ".hoodie": "a Hudi table", "metadata": "an Iceberg table"}


def find_parquet_files(folder: str) -> list[str]:
    """Return the Parquet files under a folder that have rows, sorted; none for something else.

    Raises
    ------
    BadSource
        When the folder belongs to a table, or holds data files of other kinds too.
    """
    if not os.path.isdir(folder) or _has_log(folder):
        return []
    found, others = [], []
    for path in _find_data_files(folder):
        if path.lower().endswith(PARQUET):
            found.append(path)
        elif path.lower().endswith(OTHER_DATA):
            others.append(path)
    if found:
        check_is_plain(found[0])  # the metadata of a table are files of other kinds
    if found and others:
        raise BadSource(
            f"{folder!r} holds Parquet files and others, such as {others[0]!r}. Pass a glob of those to read: "
            f"'{folder.rstrip('/')}/**/*.parquet'."
        )
    # Spark writes a file for each of its tasks, also for those that had no row
    return [file for file in found if _has_rows(file)] or found


def _has_rows(file: str) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return bool(pq.read_metadata(file).num_rows)
    except (pa.ArrowException, OSError):  # it is refused by name when it is read
        return True


def read_folder_columns(path: str) -> tuple[tuple[str, str | None], ...]:
    """Return the columns that stand in the names of a file's folders, and their values.

    Examples
    --------
    >>> read_folder_columns("reviews/sentiment=very%20good/year=2026/part-0.parquet")
    (('sentiment', 'very good'), ('year', '2026'))
    """
    pairs = (part.partition("=") for part in PurePath(path).parts[:-1])
    return tuple((unquote(name), _read_value(value)) for name, equals, value in pairs if name and equals)


def _read_value(written: str) -> str | None:
    return None if written == NO_VALUE else unquote(written)


def _find_data_files(folder: str) -> list[str]:
    """Return the files under a folder, without those that begin with ``.`` or ``_``: they hold no rows."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "_")) or "=" in name]
        found += [os.path.join(place, name) for name in files if not name.startswith((".", "_"))]
    return sorted(found)


def check_is_plain(file: str) -> None:
    """Raise ``BadSource`` for a file of a table, since some of its files are no longer its rows."""
    for place in Path(file).absolute().parents:
        for mark, what in TABLE_FORMATS.items():
            if _is_marked(place, mark):
                raise BadSource(
                    f"{file!r} belongs to {what}, {str(place)!r}, not all files of which are its rows of today. "
                    "Pass the folder of a Delta table; from another format, export the rows."
                )


def _is_marked(place: Path, mark: str) -> bool:
    if mark == "metadata":
        return any((place / mark).glob("*.metadata.json"))
    return (place / mark).is_dir()


def _has_log(folder: str) -> bool:
    return os.path.isdir(os.path.join(folder, "_delta_log"))
