"""Read a version of a table, whole or in batches, in the order in which it was written.

The order is that of the names of files, which begin with the version of their commit: a training can be repeated
row by row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from dlpipe.delta import RowFilter, TableFiles, find_files
from dlpipe.errors import NoRows, SchemaMismatch, SettingError, TableVersionNotFound, UnsupportedFeature
from dlpipe.settings import check_name
from dlpipe.tables._batches import rebatch
from dlpipe.tables._settings import SPLITS
from dlpipe.tables._storage import explain_storage_errors, filesystem, show_path, to_one_line
from dlpipe.tables._versions import TableVersion, open_table, read_commit_info
from dlpipe.tables._where import parse_condition

if TYPE_CHECKING:
    import pyarrow as pa

FEWEST = 4096
"""Rows that are looked through at a time, however few are asked for."""


def read_table(
    version: TableVersion, *, split: str | None = None, columns: Sequence[str] | None = None
) -> pa.Table:
    """Return the rows of a table version, in the order in which they were written.

    Parameters
    ----------
    version : TableVersion
    split : 'train', 'valid' or 'test', optional
        Without it, the rows of all splits.
    columns : sequence of str, optional
        Without it, all.

    Examples
    --------
    >>> import pyarrow as pa, tempfile
    >>> from dlpipe.tables import write_table
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     version = write_table(f"{folder}/reviews", pa.table({"text": ["a", "b"], "split": ["train", "test"]}))
    ...     read_table(version, split="test")["text"].to_pylist()
    ['b']
    """
    import pyarrow as pa

    files, names = open_columns(version, columns=columns, split=split)
    schema = pa.schema([files.schema.field(name) for name in names])
    batches = [batch for batch in _scan(files, version, split, names, rows=65536) if batch.num_rows]
    return pa.Table.from_batches(batches, schema=schema)


def read_added(version: TableVersion, *, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows that the commit of this version appended; of one that wrote all anew, all.

    Examples
    --------
    >>> import pyarrow as pa, tempfile
    >>> from dlpipe.tables import write_table
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for text in ("a", "b"):
    ...         version = write_table(f"{folder}/reviews", pa.table({"text": [text]}))
    ...     read_added(version)["text"].to_pylist()
    ['b']
    """
    import pyarrow as pa

    files, names = open_columns(version, columns=columns)
    schema = pa.schema([files.schema.field(name) for name in names])
    before = _list_files_before(version)
    batches: list[pa.RecordBatch] = []
    with explain_missing_files(version):
        for fragment in files.fragments:
            if fragment.path not in before:
                batches.extend(files.scan(fragment, columns=names, rows=65536))
    return pa.Table.from_batches(batches, schema=schema)


def _list_files_before(version: TableVersion) -> frozenset[str]:
    """Return the paths of the files of the version before this one."""
    if version.version == 0:
        return frozenset()
    earlier = open_files(replace(version, version=version.version - 1))
    return frozenset(fragment.path for fragment in earlier.fragments)


def stream_table(
    version: TableVersion,
    *,
    split: str | None = None,
    columns: Sequence[str] | None = None,
    where: str | None = None,
    batch_rows: int = 4096,
    files: TableFiles | None = None,
) -> Iterator[pa.RecordBatch]:
    """Return an iterator over the rows of a table version that holds a few batches at a time.

    The order is that of ``read_table``.

    Parameters
    ----------
    version : TableVersion
    split, columns
        As for ``read_table``.
    where : str, optional
        Only the rows of which this is true, such as ``"label = 'positive'"``; see ``parse_condition``.
    batch_rows : int
        Rows of every batch but the last, which may have fewer.
    files : TableFiles, optional
        What ``open_files`` returned for this version, from who reads it again and again; by default it is opened.
    """
    files, names = open_columns(version, columns=columns, split=split, files=files)
    if where is None:
        return rebatch(_scan(files, version, split, names, rows=batch_rows), batch_rows)
    condition = parse_condition(where, files.schema)
    if condition.prunes:
        wanted = join_filters(to_filter(split), make_filter(where, files.schema))
        return rebatch(_scan_where(files, version, wanted, names, rows=max(batch_rows, FEWEST)), batch_rows)
    read = list(dict.fromkeys([*names, *condition.columns]))
    batches = _scan(files, version, split, read, rows=max(batch_rows, FEWEST))
    return rebatch((batch.filter(condition.expression).select(names) for batch in batches), batch_rows)


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


def open_files(version: TableVersion, *, only: Collection[str] | None = None) -> TableFiles:
    """Return the Parquet files of a table version, by default all of them."""
    from deltalake.exceptions import DeltaError

    table = open_table(version.path, version=version.version)
    try:
        with explain_storage_errors(version.path):
            return find_files(table, filesystem(version.path), show_path(version.path), only=only)
    except DeltaError as error:
        raise UnsupportedFeature(
            f"{show_path(version.path)} cannot be read: {to_one_line(error)}. Rewrite it without this feature."
        ) from None


def read_table_schema(version: TableVersion, *, columns: Sequence[str] | None = None) -> pa.Schema:
    """Return the columns of a table version with Arrow's types, in the order that is asked for."""
    import pyarrow as pa

    files, names = open_columns(version, columns=columns)
    return pa.schema([files.schema.field(name) for name in names])


def open_columns(
    version: TableVersion,
    *,
    columns: Sequence[str] | None = None,
    split: str | None = None,
    only: Collection[str] | None = None,
    files: TableFiles | None = None,
) -> tuple[TableFiles, list[str]]:
    """Return the files of a table version, and the names of the columns to read.

    Parameters
    ----------
    version, columns, split
        As for ``read_table``.
    only : collection of str, optional
        The paths of the files that are wanted; by default all.
    files : TableFiles, optional
        Those that were opened before.

    Raises
    ------
    SchemaMismatch
        When the table lacks a column, or has no splits and one is asked for.
    SettingError
        When no split has this name.
    """
    files = open_files(version, only=only) if files is None else files
    there = list(files.schema.names)
    wanted = list(columns) if columns is not None else there
    for name in [*wanted, *([] if split is None else ["split"])]:
        if name not in there:
            raise SchemaMismatch(f"{str(version)!r} has no column {name!r}; its columns are: {', '.join(there)}.")
        if wanted.count(name) > 1:
            raise SettingError(f"The column {name!r} is named twice. Name each column once.")
    if split is not None:
        check_name(split, list(SPLITS), what="split", where=str(version))
    return files, wanted


def _scan(
    files: TableFiles, version: TableVersion, split: str | None, columns: list[str], *, rows: int
) -> Iterator[pa.RecordBatch]:
    return _scan_where(files, version, to_filter(split), columns, rows=rows)


def _scan_where(
    files: TableFiles, version: TableVersion, where: RowFilter | None, columns: list[str], *, rows: int
) -> Iterator[pa.RecordBatch]:
    with explain_missing_files(version):
        for fragment in files.find_fragments(where):
            yield from files.scan(fragment, columns=columns, rows=rows, where=where)


def to_filter(split: str | None) -> RowFilter | None:
    """Return the rows of a split as ``TableFiles.scan`` is told of them."""
    from pyarrow.dataset import field

    return None if split is None else RowFilter(("split",), lambda stored: field(stored["split"]) == split)


def make_filter(where: str, schema: pa.Schema) -> RowFilter:
    """Return the rows of which a condition is true as ``TableFiles.scan`` is told of them."""
    columns = parse_condition(where, schema).columns
    return RowFilter(columns, lambda stored: parse_condition(where, schema, stored=stored).expression)


def join_filters(first: RowFilter | None, second: RowFilter) -> RowFilter:
    """Return the rows of which both are true."""
    if first is None:
        return second
    return RowFilter((*first.columns, *second.columns), lambda stored: first.build(stored) & second.build(stored))


@contextmanager
def explain_missing_files(version: TableVersion) -> Iterator[None]:
    """Say it where a data file of ``version`` is gone: another program has compacted and vacuumed the table."""
    with explain_storage_errors(version.path):
        try:
            yield
        except FileNotFoundError:
            latest = open_table(version.path).version()
            if record := find_forgetting(version, latest):
                raise TableVersionNotFound(
                    f"{str(version)!r} can no longer be read: rows of it were forgotten on request (record "
                    f"{record}), and its data files deleted with --purge. The other rows are in the latest "
                    f"version of {show_path(version.path)}, {latest}; read that one."
                ) from None
            raise TableVersionNotFound(
                f"{str(version)!r} can no longer be read: its data files were removed by another program, by a "
                f"vacuum. The latest version of {show_path(version.path)} is {latest}; read that one."
            ) from None


def find_forgetting(version: TableVersion, latest: int) -> str:
    """Return the record of the first forgetting of rows after a version of a table; empty where there was none."""
    infos = (read_commit_info(version.path, number) for number in range(version.version + 1, latest + 1))
    return next((str(info["dlpipe.forgotten"]) for info in infos if "dlpipe.forgotten" in info), "")
