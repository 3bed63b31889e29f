"""Read the first rows of a source with all their columns, before settings say which of them are read."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlpipe.errors import BadSource
from dlpipe.tables._parquet_folders import read_folder_columns
from dlpipe.tables._read import stream_table
from dlpipe.tables._readers import make_width_error, read_records
from dlpipe.tables._settings import TableSettings
from dlpipe.tables._sources import expand_pattern, explain_unreadable, find_kind, is_table
from dlpipe.tables._storage import is_remote, locate, to_one_line
from dlpipe.tables._text_files import (
    LONGEST_FIELD,
    TextFormat,
    check_text_settings,
    explain_undecodable,
    find_format,
    open_text,
    propose_encoding,
    to_readable,
)
from dlpipe.tables._versions import table_at

ROWS = 50_000
CHARACTERS = 20_000_000
"""About half a second of reading: whichever comes first."""


@dataclass(frozen=True)
class Preview:
    """The first rows of a source.

    Attributes
    ----------
    path : str
        As it was given.
    columns : mapping of str to list
        Values by column, in the order of the rows; text, numbers, truth values or ``None``.
    rows : int
    whole : bool
        Whether these are all rows.
    separator : str
        Of a CSV; empty for other kinds.
    repeated : tuple of str
        Names that several columns of a file have: an ingest reads none of them, and ``columns`` has none.
    """

    path: str
    columns: Mapping[str, list[Any]]
    rows: int
    whole: bool
    separator: str = ""
    repeated: tuple[str, ...] = ()


def preview(
    path: str, *, settings: TableSettings | None = None, columns: Collection[str] = (), rows: int = ROWS
) -> Preview:
    """Return the first rows of a file, a glob, a folder of Parquet or a Delta table, with all columns.

    Of several files, each gives its share of ``rows``: a file may hold one class. What an ingest would refuse of
    these rows, such as a line with too many fields, is refused here.

    Parameters
    ----------
    path : str
    settings : TableSettings, optional
        Its separator and encoding.
    columns : collection of str
        Those that are known, by which a separator is found.
    rows : int
        At most so many.

    Raises
    ------
    SourceNotFound, BadSource, SettingError
        As ``ingest`` would.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "films.csv").write_text("text;stars\\nlovely;5\\ndull;1\\n")
    ...     found = preview(f"{folder}/films.csv")
    >>> dict(found.columns), found.separator, found.whole
    ({'text': ['lovely', 'dull'], 'stars': ['5', '1']}, ';', True)
    """
    settings = settings or TableSettings()
    check_text_settings(settings)
    files = expand_pattern(path)
    share = max(rows // len(files), 1)
    found: list[dict[str, Any]] = []
    whole, separator, repeated = True, "", dict[str, None]()
    for file in files:
        with explain_unreadable(file), explain_undecodable(file):
            separator, header, records = _open_records(file, settings, columns)
            first, ended = _take_rows(records, share)
        repeated |= dict.fromkeys(to_readable(name) for name, count in Counter(header).items() if count > 1)
        _check_decoded(first, file, settings)
        whole = whole and ended
        found += [{**dict(read_folder_columns(file)), **record} for record in first]
    if not found:
        raise BadSource(f"{path!r} has no rows. Pass a file with rows.")
    names = dict.fromkeys(name for record in found for name in record)
    values = {to_readable(name): [_to_shown(record.get(name)) for record in found] for name in names}
    once = {name: column for name, column in values.items() if name not in repeated}
    return Preview(path, once, len(found), whole, separator, tuple(repeated))


def _take_rows(records: Iterable[dict[str, Any]], rows: int) -> tuple[list[dict[str, Any]], bool]:
    """Return the first records, fewer than ``rows`` where they are long, and whether those are all."""
    found: list[dict[str, Any]] = []
    characters = 0
    for record in records:
        if len(found) == rows or characters > CHARACTERS:
            return found, False
        found.append(record)
        characters += sum(len(value) for value in record.values() if isinstance(value, str))
    return found, True


def _check_decoded(records: Sequence[Mapping[str, Any]], path: str, settings: TableSettings) -> None:
    """Raise ``BadSource`` where more rows are in another encoding than an ingest takes."""
    odd = sum(not all(map(_is_decoded, record.values())) for record in records)
    if odd > settings.max_bad_share * len(records):
        raise BadSource(
            f"{path!r} has {odd:,} of {len(records):,} rows with bytes that are no "
            f"{settings.encoding or 'UTF-8'}. {propose_encoding(path, settings)}"
        )


def _is_decoded(value: Any) -> bool:
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
    return True


def _to_shown(value: Any) -> Any:
    return to_readable(value) if isinstance(value, str) else value


Opened = tuple[str, Sequence[str], Iterator[dict[str, Any]]]
"""The separator of a source and the names of its columns, both empty where it has none, and its rows."""


def _open_records(path: str, settings: TableSettings, columns: Collection[str]) -> Opened:
    if is_remote(path) or is_table(path):
        version = table_at(locate(path if is_remote(path) else str(Path(path).absolute())))
        return "", (), _to_records(stream_table(version))
    kind = find_kind(path)
    if kind == "parquet":
        return "", _read_parquet_names(path), _read_parquet(path)
    if not Path(path).stat().st_size:
        raise BadSource(f"{path!r} is empty. Pass a file with a header and rows.")
    found = find_format(path, kind, settings, columns)
    if kind == "jsonl":
        return found.separator, (), _read_json_lines(path, found)
    records = _read_csv(path, found)
    _, header = next(records, (1, []))
    return found.separator, header, (dict(zip(header, record, strict=True)) for _, record in records)


def _read_csv(path: str, found: TextFormat) -> Iterator[tuple[int, list[str]]]:
    """Yield the records of a CSV with the line of each, first the header."""
    csv.field_size_limit(LONGEST_FIELD)
    with open_text(path, found) as stream:
        for _ in range(found.skipped):
            stream.readline()
        reader = csv.reader(stream, strict=True, delimiter=found.separator)
        header: Sequence[str] = ()
        for line, record in read_records(reader, path, after=found.skipped):
            header = header or record
            if len(record) != len(header):
                raise make_width_error(record, header, path, line, found)
            yield line, record


def _read_json_lines(path: str, found: TextFormat) -> Iterator[dict[str, Any]]:
    with open_text(path, found) as stream:
        for line, written in enumerate(stream, start=1):
            if written.strip():
                try:
                    record = json.loads(written)
                except (ValueError, RecursionError) as error:
                    raise BadSource(f"{path!r} line {line} is not JSON: {to_one_line(error)}.") from None
                if not isinstance(record, dict):
                    raise BadSource(f"{path!r} line {line} holds no object. Write one object on each line.")
                yield record


def _read_parquet_names(path: str) -> Sequence[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowException, UnicodeDecodeError):
        return ()  # the rows cannot be read either, which is explained there


def _read_parquet(path: str) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield from _to_records(file.iter_batches(4096))
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise BadSource(f"{path!r} is not a readable Parquet file: {to_one_line(error)}. Write it anew.") from None


def _to_records(batches: Iterable[Any]) -> Iterator[dict[str, Any]]:
    for batch in batches:
        for record in batch.to_pylist():
            yield {
                name: value.decode("utf-8", "replace") if isinstance(value, bytes) else value
                for name, value in record.items()
            }
