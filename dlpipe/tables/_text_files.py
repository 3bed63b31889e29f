"""Open text files as people have them: compressed or not, in some encoding, with some separator."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from dlpipe.errors import BadSource, SettingError
from dlpipe.tables._encodings import ENCODINGS, describe_encodings
from dlpipe.tables._settings import TableSettings
from dlpipe.tables._storage import to_one_line

COMPRESSED = (".gz", ".zst", ".xz", ".bz2")
"""Endings behind that of the kind of file. What a file begins with decides, not its ending."""
LONGEST_FIELD = 2**27
SEPARATORS = (",", ";", "\t", "|")
SEPARATOR_WORDS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}
HEAD = 2**16
"""Bytes of a file by which its format is found."""
MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\x00": "xz", b"BZh": "bz2"}
# UTF-32 first: its mark begins with that of UTF-16
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
OTHER_FORMATS = {
    b"PAR1": "a Parquet file. Give it the ending .parquet",
    b"PK\x03\x04": "a zip archive or an Excel workbook. Unpack it, or save it as CSV",
    b"SQLite format 3": "a SQLite database. Export the rows as CSV",
}
EXCEL_SEPARATOR = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)


@dataclass(frozen=True)
class TextFormat:
    """How a text file is read."""

    encoding: str
    separator: str = ""
    """Of a CSV."""
    skipped: int = 0
    """Lines before the header: Excel may write ``sep=;`` there."""
    marked: bool = False
    """Whether the file begins with a byte order mark, which names its encoding."""


def check_text_settings(settings: TableSettings) -> None:
    """Raise ``SettingError`` for an encoding or a separator that nothing can be read with."""
    if settings.encoding:
        check_encoding(settings.encoding)
    separator = parse_separator(settings.separator)
    if settings.separator and (len(separator) != 1 or separator in '"\r\n'):
        raise SettingError(
            f"separator (--separator) = {settings.separator!r} is refused: a separator is one character, "
            f"such as ';' or '|', or one of the words {', '.join(sorted(SEPARATOR_WORDS))}."
        )


def check_encoding(encoding: str) -> None:
    """Raise ``SettingError`` unless Python can read text in ``encoding``."""
    try:
        b"text".decode(encoding, "replace")
    except (LookupError, UnicodeError, ValueError):
        raise SettingError(
            f"There is no encoding {encoding!r} (encoding, --encoding). "
            f"Common ones: utf-8, utf-16, {', '.join(ENCODINGS)}."
        ) from None


def parse_separator(given: str) -> str:
    r"""Return the separator that a word or ``\t``, as shells pass it, stands for.

    Examples
    --------
    >>> parse_separator("tab"), parse_separator("\\t"), parse_separator(";")
    ('\t', '\t', ';')
    """
    return SEPARATOR_WORDS.get(given.lower(), given)


@contextmanager
def explain_undecodable(path: str) -> Iterator[None]:
    """Turn what a decompressor or a codec says of a damaged file into ``BadSource``."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        cause = to_one_line(error)
        raise BadSource(f"{path!r} cannot be decompressed: {cause}. It may be cut off; get it anew.") from None
    except UnicodeError as error:
        raise BadSource(
            f"{path!r} is not the text that it seems to be: {to_one_line(error)}. Name its encoding (--encoding)."
        ) from None


def open_bytes(path: str) -> IO[bytes]:
    """Return the bytes of a file as a stream, decompressed where it begins as a compressed file does."""
    with open(path, "rb") as stream:
        head = stream.read(8)
    kind = next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), None)
    if kind == "bz2" and not head[3:4].isdigit():  # "BZh" can begin a word, "BZh9" does not
        kind = None
    if kind == "zstd":
        import pyarrow as pa

        return pa.input_stream(path, compression="zstd")  # type: ignore[no-any-return]
    openers: dict[str | None, Any] = {"gzip": gzip.open, "xz": lzma.open, "bz2": bz2.open, None: open}
    return openers[kind](path, "rb")  # type: ignore[no-any-return]


def open_text(path: str, found: TextFormat) -> io.TextIOWrapper:
    """Return a file as text; bytes that do not fit the encoding stand in it as lone surrogates."""
    stream = open_bytes(path)
    return io.TextIOWrapper(stream, encoding=found.encoding, errors="surrogateescape", newline="")


def find_format(
    path: str, kind: str, settings: TableSettings, columns: Collection[str] | None = None
) -> TextFormat:
    """Return the encoding of a text file and, for a CSV, its separator.

    A byte order mark decides, then ``settings``; without both it is UTF-8. The separator is the one that makes the
    columns of the form stand in the header.

    Parameters
    ----------
    path : str
    kind : str
        ``csv``, ``tsv`` or ``jsonl``.
    settings : TableSettings
    columns : collection of str, optional
        The names to look for in the header where the form is not known yet.

    Raises
    ------
    BadSource
        When the file is of another kind, or holds zero bytes.
    """
    with open_bytes(path) as stream:
        head = stream.read(HEAD)
    for magic, what in OTHER_FORMATS.items():
        if head.startswith(magic):
            raise BadSource(f"{path!r} is {what}.")
    marked = next((encoding for mark, encoding in MARKS.items() if head.startswith(mark)), "")
    encoding = marked or settings.encoding or "utf-8"
    if b"\0" in head and not _is_wide(encoding):
        raise BadSource(
            f"{path!r} holds zero bytes: as {encoding} it is no text. "
            f"{_describe_wide_encoding(_guess_wide_encoding(head), settings)}"
        )
    if kind not in ("csv", "tsv"):
        return TextFormat(encoding, marked=bool(marked))
    # a character may be cut at the end of what was read
    text = codecs.getincrementaldecoder(encoding)("surrogateescape").decode(head)
    excel = EXCEL_SEPARATOR.match(text)
    separator = parse_separator(settings.separator) or (
        excel[1] if excel else _find_separator(text, kind, settings.form.sources if columns is None else columns)
    )
    return TextFormat(encoding, separator, 1 if excel else 0, bool(marked))


def describe_format(path: str, kind: str, found: TextFormat, settings: TableSettings) -> str:
    """Return a line on how a file is read, empty where it is read as its ending says.

    Parameters
    ----------
    path, kind, settings
        As for ``find_format``.
    found : TextFormat
        What that returned.
    """
    words = []
    if found.separator and not settings.separator and found.separator != find_default_separator(kind):
        words.append(f"with the separator {found.separator!r}")
    if found.marked and found.encoding != "utf-8-sig":
        words.append(f"as {found.encoding}, which its first bytes name")
    return f"{path!r} is read {' and '.join(words)}." if words else ""


def find_default_separator(kind: str) -> str:
    """Return the separator that an ending stands for."""
    return "\t" if kind == "tsv" else ","


def decode_lines(content: bytes, encoding: str | None, *, where: str) -> list[str]:
    """Return the lines of text that a program was handed.

    Parameters
    ----------
    content : bytes
    encoding : str, optional
        By default UTF-8; a byte order mark is stronger than both.
    where : str
        What the bytes are, for messages, such as ``"Standard input,"``.

    Raises
    ------
    BadSource
        When the bytes are not in that encoding; the message names the line, and the encoding that is likely.
    """
    if encoding:
        check_encoding(encoding)
    marked = next((encoding for mark, encoding in MARKS.items() if content.startswith(mark)), None)
    codec = marked or encoding or "utf-8"
    if b"\0" in content and not _is_wide(codec):
        raise BadSource(
            f"{where} holds zero bytes: as {codec} it is no text. "
            f"{_suggest_option(_guess_wide_encoding(content[:HEAD]))}"
        )
    try:
        # not splitlines, which also cuts at form feeds and the like
        return [line.rstrip("\n") for line in io.StringIO(content.decode(codec), newline=None)]
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        odd = b"\n".join(line for line in content.split(b"\n") if not _is_utf8(line))
        problem = f"{where} line {line} is no {codec}: {to_one_line(error)}"
        raise BadSource(f"{problem}. {describe_encodings(odd, otherwise=_suggest_option(''))}") from None


def _suggest_option(encoding: str) -> str:
    return f"It is likely {encoding}: pass --encoding {encoding}." if encoding else "Name it with --encoding."


def _is_wide(encoding: str) -> bool:
    """Return whether text in ``encoding`` has zero bytes."""
    return codecs.lookup(encoding).name.startswith(("utf-16", "utf-32"))


def propose_encoding(path: str, settings: TableSettings) -> str:
    """Return a sentence on the encoding that a file with undecodable bytes is likely in."""
    return describe_encodings(
        _read_odd_lines(path),
        how="pass --encoding {} (encoding in [data]), or save it as UTF-8",
        otherwise=_describe_wide_encoding("", settings),
    )


def _read_odd_lines(path: str) -> bytes:
    """Return the lines of a file that are no UTF-8, up to a few thousand of them."""
    odd = bytearray()
    with open_bytes(path) as stream:
        # not line by line: pyarrow's streams have no lines, and a file may have none either
        while len(odd) < HEAD and (block := stream.read(HEAD)):
            odd += b"\n".join(line for line in block.split(b"\n") if not _is_utf8(line))
    return bytes(odd)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeError:
        return False
    return True


def _guess_wide_encoding(head: bytes) -> str:
    """Return which encoding of two or four bytes a character has its zero bytes where ``head`` has them."""
    if head[:3] == b"\0\0\0":
        return "utf-32-be"
    if head[1:4] == b"\0\0\0":
        return "utf-32-le"
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) < len(head) // 8:
        return ""
    return "utf-16-be" if even > odd else "utf-16-le"


def _describe_wide_encoding(encoding: str, settings: TableSettings) -> str:
    if not encoding or encoding == settings.encoding:
        return "Save it as UTF-8, or name its encoding (--encoding)."
    return f"It is likely {encoding}: pass --encoding {encoding} (encoding in [data]), or save it as UTF-8."


def _find_separator(head: str, kind: str, columns: Collection[str]) -> str:
    default = find_default_separator(kind)
    wanted = set(columns)
    headers = {separator: _read_header(head, separator) for separator in (default, *SEPARATORS)}
    found = {separator: len(wanted & set(header)) for separator, header in headers.items()}
    best = max(headers, key=lambda separator: found[separator])  # the first of equals
    # without any of them, the message shows the header as the separator cuts it that occurs most often
    return best if found[best] else max(headers, key=lambda separator: len(headers[separator]))


def _read_header(head: str, separator: str) -> Collection[str]:
    csv.field_size_limit(LONGEST_FIELD)
    try:
        return next(
            (record for record in csv.reader(io.StringIO(head, newline=""), delimiter=separator) if record), []
        )
    except csv.Error:
        return []


def to_readable(text: str) -> str:
    r"""Return text that can be stored as UTF-8: what could not be decoded stands as ``\xff``.

    Examples
    --------
    >>> to_readable(b"caf\xe9".decode("utf-8", "surrogateescape"))
    'caf\\xe9'
    """
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()


def find_ending(path: str) -> str:
    """Return the ending of ``path`` that says what kind of file it is, in front of that of a compression.

    Examples
    --------
    >>> find_ending("Rows.JSONL.gz"), find_ending("rows.gz"), find_ending("rows.csv")
    ('.jsonl', '', '.csv')
    """
    name = Path(path).name.lower()
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    return Path(name).suffix
