"""Write rows to a file that people and other programs read: CSV, JSON Lines or Parquet, by its ending.

The file gets its name when it is whole. Rows are written batch by batch: memory does not grow with the file.
"""

from __future__ import annotations

import base64
import csv
import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from dlpipe.durable import write_beside
from dlpipe.errors import SettingError, StorageFull
from dlpipe.tables._storage import is_full, to_one_line
from dlpipe.tables._text_files import to_readable

if TYPE_CHECKING:
    import pyarrow as pa

Record = Mapping[str, Any]
FORMATS = (".csv", ".jsonl", ".parquet")


class RowWriter(ABC):
    """Writes batches of rows, all with the columns of ``schema``."""

    def __init__(self, file: Path, schema: pa.Schema) -> None:
        self.file, self.schema, self.rows = file, schema, 0

    @abstractmethod
    def write(self, batch: pa.RecordBatch) -> None:
        """Write the rows of a batch."""

    @abstractmethod
    def write_records(self, records: Sequence[Record]) -> None:
        """Write rows, a mapping of column to value each; in JSON Lines they may have other columns."""

    @abstractmethod
    def close(self) -> None:
        """End the file."""


class _TextWriter(RowWriter):
    def __init__(self, file: Path, schema: pa.Schema) -> None:
        super().__init__(file, schema)
        self.stream = open(file, "w", encoding="utf-8", newline="")  # noqa: SIM115 - `close` does it

    def write(self, batch: pa.RecordBatch) -> None:
        self.write_records(to_records(batch))

    def close(self) -> None:
        self.stream.close()


class _LineFeeds:
    """Takes lines that end with CRLF, and writes them with a line feed."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream

    def write(self, line: str) -> int:
        return self.stream.write(line.removesuffix("\r\n") + "\n")


class _CsvWriter(_TextWriter):
    def __init__(self, file: Path, schema: pa.Schema, separator: str = ",") -> None:
        super().__init__(file, schema)
        # csv quotes what stands in its line ends: both of these, of which the stream gets one
        self.writer = csv.writer(_LineFeeds(self.stream), delimiter=separator, lineterminator="\r\n")
        self.writer.writerow(schema.names)

    def write_records(self, records: Sequence[Record]) -> None:
        check_csv_records(records)
        names = self.schema.names
        self.writer.writerows([to_cell(record.get(name)) for name in names] for record in records)
        self.rows += len(records)


class _JsonLinesWriter(_TextWriter):
    def write_records(self, records: Sequence[Record]) -> None:
        self.stream.writelines(f"{to_json(record)}\n" for record in records)
        self.rows += len(records)


class _ParquetWriter(RowWriter):
    def __init__(self, file: Path, schema: pa.Schema) -> None:
        import pyarrow.parquet as pq

        super().__init__(file, schema)
        self.writer = pq.ParquetWriter(file, schema)

    def write(self, batch: pa.RecordBatch) -> None:
        import pyarrow as pa

        self.writer.write_batch(batch.cast(self.schema))
        self.rows += batch.num_rows
        # Arrow would keep what the batches before took
        pa.default_memory_pool().release_unused()

    def write_records(self, records: Sequence[Record]) -> None:
        import pyarrow as pa

        self.write(pa.RecordBatch.from_pylist([dict(record) for record in records], schema=self.schema))

    def close(self) -> None:
        self.writer.close()


@contextmanager
def write_row_file(
    path: str | Path, schema: pa.Schema, *, overwrite: bool = False, separator: str = ","
) -> Iterator[RowWriter]:
    """Yield what writes rows to the file at ``path``, which is there when the block ends without an error.

    Parameters
    ----------
    path : str or Path
        Its ending says what it is: ``.csv``, ``.jsonl`` or ``.parquet``.
    schema : pyarrow.Schema
        Columns of the rows.
    overwrite : bool
        Whether a file that is there is replaced.
    separator : str
        Of a CSV.

    Raises
    ------
    SettingError
        When the file has another ending, is there already or cannot be written.
    StorageFull
        When no space is left on its device.

    Examples
    --------
    >>> import pyarrow as pa, tempfile
    >>> rows = pa.record_batch({"text": ["good, really", None], "stars": [4.5, 1.0]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with write_row_file(f"{folder}/rows.csv", rows.schema) as writer:
    ...         writer.write(rows)
    ...     print(Path(folder, "rows.csv").read_text())
    text,stars
    "good, really",4.5
    ,1.0
    <BLANKLINE>
    """
    path = check_row_file(path, overwrite=overwrite)
    try:
        with write_beside(path) as beside:
            writer = _open_writer(path.suffix.lower(), beside, schema, separator)
            try:
                yield writer
            finally:
                writer.close()
            check_row_file(path, overwrite=overwrite)  # somebody may have made it meanwhile
    except BlockingIOError:
        raise SettingError(f"{str(path)!r} is being written by another process. Name another file.") from None
    except OSError as error:
        if isinstance(error, StorageFull):
            raise
        if not is_full(error):
            raise SettingError(
                f"{str(path)!r} cannot be written: {to_one_line(error)}. Name another file."
            ) from None
        raise StorageFull(
            f"No space is left on the device of {str(path)!r}; nothing was written there. Free some space, or "
            "name a file elsewhere."
        ) from None


def check_row_file(path: str | Path, *, overwrite: bool = False) -> Path:
    """Return where a file of rows is to be written; ``SettingError`` where it cannot be, or must not."""
    path = Path(path).expanduser()
    if path.suffix.lower() not in FORMATS:
        raise SettingError(f"{str(path)!r} has no known format. Name a file that ends with {', '.join(FORMATS)}.")
    try:
        there = path.exists()
        if there and not path.is_file():
            raise SettingError(f"{str(path)!r} is no file. Name another one.")
        if not path.parent.is_dir():
            raise SettingError(f"There is no folder {str(path.parent)!r}. Make it, or name a file elsewhere.")
        if not os.access(path.parent, os.W_OK):
            raise SettingError(f"You may not write in the folder {str(path.parent)!r}. Name a file elsewhere.")
    except OSError as error:
        raise SettingError(f"{str(path)!r} cannot be written: {to_one_line(error)}. Name another file.") from None
    if there and not overwrite:
        raise SettingError(f"{str(path)!r} is there already. Replace it with --overwrite, or name another file.")
    return Path(os.path.realpath(path))


def _open_writer(ending: str, file: Path, schema: pa.Schema, separator: str) -> RowWriter:
    if ending == ".csv":
        return _CsvWriter(file, schema, separator)
    return _JsonLinesWriter(file, schema) if ending == ".jsonl" else _ParquetWriter(file, schema)


# -- values ------------------------------------------------------------------------------------------------------


def to_records(batch: pa.RecordBatch | pa.Table) -> list[dict[str, Any]]:
    """Return rows as mappings; numbers of 32 bits with the digits that they have, and not those of 64.

    Examples
    --------
    >>> import pyarrow as pa
    >>> to_records(pa.record_batch({"probability": pa.array([0.998012], pa.float32())}))
    [{'probability': 0.998012}]
    """
    columns = [_to_values(column) for column in batch.columns]
    return [dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]


def _to_values(column: pa.Array) -> list[Any]:
    import pyarrow as pa

    if pa.types.is_float32(column.type):
        return [None if text is None else float(text) for text in column.cast(pa.string()).to_pylist()]
    if pa.types.is_list(column.type) and pa.types.is_float32(column.type.value_type):
        rows = column.cast(pa.list_(pa.string())).to_pylist()
        return [None if row is None else [None if text is None else float(text) for text in row] for row in rows]
    return column.to_pylist()  # type: ignore[no-any-return]


def to_cell(value: Any) -> str:
    """Return a value as a cell of a CSV: nothing for a missing one, lists and objects as JSON.

    Examples
    --------
    >>> to_cell(None), to_cell(0.5), to_cell(True), to_cell(["a", "b"]), to_cell(b"ab")
    ('', '0.5', 'true', '["a", "b"]', 'YWI=')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value if value.isascii() else to_readable(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    plain = to_plain(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


def check_csv_records(records: Iterable[Record]) -> None:
    """Raise ``SettingError`` where a text has the character U+0000, with which no CSV is read again."""
    for record in records:
        for name, value in record.items():
            if isinstance(value, str) and "\0" in value:
                raise SettingError(
                    f"The column {name!r} has a text with a zero byte (U+0000), which a CSV cannot hold: "
                    f"{to_readable(value)[:40]!r}. Write a file that ends with .jsonl or .parquet."
                )


def to_json(record: Record) -> str:
    """Return a row as JSON on one line."""
    try:
        written = json.dumps(record, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        written = json.dumps(to_plain(record), ensure_ascii=False)
    try:
        written.encode()
    except UnicodeEncodeError:  # half a pair of surrogates has no UTF-8, and an escape in JSON
        return json.dumps(to_plain(record))
    return written


def to_plain(value: Any) -> Any:
    """Return what JSON can hold: bytes as base64, times as ISO 8601, null for what is no number."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {str(name): to_plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(part) for part in value]
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
