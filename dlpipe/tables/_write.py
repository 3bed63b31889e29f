"""Write rows to a table as one atomic commit.

The data files are written here and not by ``write_deltalake``, which deals rows out to its threads: what it
writes from a stream comes back in another order, and training could not be repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dlpipe.settings import check_name
from dlpipe.tables._attempt import DataFiles
from dlpipe.tables._batches import rebatch
from dlpipe.tables._commit import CommitTerms, write_and_commit
from dlpipe.tables._digest import ContentDigest
from dlpipe.tables._storage import filesystem, locate, make_table_folder
from dlpipe.tables._targets import Mode, to_delta_schema
from dlpipe.tables._versions import TableVersion, find_commit

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP_ROWS = 8192
"""``list_parts`` cuts between row groups."""
FILE_BYTES = 128 * 2**20


def write_table(
    path: str | Path,
    rows: pa.Table | pa.RecordBatchReader,
    *,
    mode: Mode = "append",
    key: Mapping[str, str] | None = None,
) -> TableVersion:
    """Commit ``rows`` to the Delta table at ``path`` and return the new version.

    Parameters
    ----------
    path : str or Path
        A relative name is taken under ``tables_root()``. The table is made where there is none.
    rows : pyarrow.Table or RecordBatchReader of shape (n_rows, n_columns)
        A reader is streamed. Column names and types must match the table's unless ``mode="overwrite"``.
    mode : 'append' or 'overwrite'
        Earlier versions stay readable either way.
    key : mapping of str to str, optional
        What makes this commit once only: where a commit of the table carries this key already, nothing
        is written and that version comes back. ``find_commit`` finds it.

    Raises
    ------
    SchemaMismatch
        When a column is missing or has another type; nothing is written.
    StorageFull
        When the device has no space left; nothing is committed.

    Examples
    --------
    >>> import pyarrow as pa, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rows = pa.table({"text": ["good"], "label": ["positive"]})
    ...     str(write_table(f"{folder}/reviews", rows)), str(write_table(f"{folder}/reviews", rows))
    ('reviews@v0', 'reviews@v1')
    """
    check_name(mode, ["append", "overwrite"], what="mode", where="write_table")
    location = locate(path)
    done = find_commit(location, key) if key else None
    return done or _write_rows(location, rows, CommitTerms(mode=mode, key=key))[0]


def replace_rows(
    path: str | Path, rows: pa.RecordBatchReader, *, metadata: Mapping[str, str], at: int | None = None
) -> tuple[TableVersion, bool]:
    """Make ``rows`` the content of the table; return its version, and whether it is a new one.

    The same content again makes no new version.

    Parameters
    ----------
    path : str or Path
    rows : pyarrow.RecordBatchReader
    metadata : mapping of str to str
        What the commit records beside; see ``CommitTerms``.
    at : int, optional
        The number that a new version must have.

    Raises
    ------
    MarkMoved
        When another program made the version ``at``.
    """
    return _write_rows(locate(path), rows, CommitTerms(mode="overwrite", metadata=metadata, once=True, at=at))


def append_rows(path: str | Path, rows: pa.Table, *, metadata: Mapping[str, str], at: int) -> TableVersion:
    """Append ``rows`` and return the version.

    Parameters
    ----------
    path, rows, metadata, at
        As for ``replace_rows``.

    Raises
    ------
    MarkMoved
        When another program made the version ``at``.
    """
    return _write_rows(locate(path), rows, CommitTerms(metadata=metadata, at=at))[0]


def content_digest(rows: Iterable[pa.RecordBatch]) -> str:
    """Return the content digest of rows of a table."""
    digest = ContentDigest()
    for batch in rows:
        digest.add(batch)
    return digest.hexdigest()


def _write_rows(
    location: str, rows: pa.Table | pa.RecordBatchReader, terms: CommitTerms
) -> tuple[TableVersion, bool]:
    import pyarrow as pa

    reader = rows.to_reader() if isinstance(rows, pa.Table) else rows
    return write_and_commit(location, reader.schema, lambda prefix: _write_files(location, reader, prefix), terms)


def _write_files(location: str, reader: pa.RecordBatchReader, prefix: str) -> DataFiles:
    """Write the batches of ``reader``, in their order, to one or more Parquet files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    storage = filesystem(location)
    make_table_folder(location)
    schema, digest = to_delta_schema(reader.schema), ContentDigest()
    names: list[str] = []
    sizes: list[int] = []
    counts: list[int] = []
    # even row groups, in whatever batches the rows come: parts are cut between them
    batches = rebatch(reader, ROW_GROUP_ROWS)
    batch = next(batches, None)
    while batch is not None:
        names.append(f"{prefix}-{len(names):05}.parquet")
        counts.append(0)
        with storage.open_output_stream(names[-1]) as sink:
            with pq.ParquetWriter(sink, schema, store_schema=False) as writer:
                while batch is not None and sink.tell() < FILE_BYTES:
                    digest.add(batch := batch.cast(schema))
                    writer.write_batch(batch, row_group_size=ROW_GROUP_ROWS)
                    counts[-1] += batch.num_rows
                    # Arrow would keep what the batches before took, and memory would grow with the table
                    pa.default_memory_pool().release_unused()
                    batch = next(batches, None)
            sizes.append(sink.tell())
    return DataFiles(prefix, tuple(names), tuple(sizes), tuple(counts), schema, digest.hexdigest())
