"""An independent search of all files for pieces of texts: raw bytes, and whatever is packed inside them."""

from __future__ import annotations

import base64
import binascii
import bz2
import contextlib
import gzip
import html
import io
import json
import lzma
import pickletools
import re
import sqlite3
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

DEEPEST = 6
BASE64 = re.compile(rb"[A-Za-z0-9+/]{80,}={0,2}")
ESCAPED = re.compile(rb"\\u00[0-7][0-9a-fA-F]")


def search_files(folder: Path, pieces: Collection[str], skip: Collection[str] = ()) -> dict[str, set[str]]:
    """Return the files under ``folder`` that have a piece anywhere: name -> the pieces."""
    wanted = {piece.lower().encode(): piece for piece in pieces}
    found: dict[str, set[str]] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or path.is_symlink() or any(name.startswith(start) for start in skip):
            continue
        for where, content in _open(path.name, path.read_bytes(), path):
            lower = content.lower()
            wide = lower.replace(b"\x00", b"")  # texts of NumPy have four bytes a character, others two
            for piece, text in wanted.items():
                if piece in lower or piece in wide:
                    found.setdefault(name, set()).add(f"{text}{' in ' + where if where else ''}")
    return found


def _open(name: str, content: bytes, path: Path | None = None, depth: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield the bytes of a file and of all that is in it."""
    yield "", content
    if b"&" in content and b"<" in content[:4096]:
        yield "html", html.unescape(content.decode("utf-8", "replace")).encode()
    for packed in BASE64.findall(content):  # the data of Metaflow's cards
        with contextlib.suppress(binascii.Error):
            yield "base64", base64.b64decode(packed, validate=True)
    if ESCAPED.search(content):
        yield "escaped", ESCAPED.sub(lambda code: bytes([int(code[0][4:], 16)]), content)
    if depth == DEEPEST:
        return
    for kind, inside in _unpack(content, path):
        for where, deeper in _open(kind, inside, None, depth + 1):
            yield f"{kind} {where}".strip(), deeper


def _unpack(content: bytes, path: Path | None) -> Iterator[tuple[str, bytes]]:
    head = content[:16]
    try:
        if head.startswith(b"\x1f\x8b"):
            yield "gzip", gzip.decompress(content)
        elif head.startswith(b"BZh"):
            yield "bz2", bz2.decompress(content)
        elif head.startswith(b"\xfd7zXZ"):
            yield "xz", lzma.decompress(content)
        elif head[:1] == b"\x78" and head[1:2] in b"\x01\x5e\x9c\xda":
            yield "zlib", zlib.decompress(content)
        elif head.startswith(b"\x28\xb5\x2f\xfd"):
            yield "zstd", pa.CompressedInputStream(io.BytesIO(content), "zstd").read()
        elif head.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(io.BytesIO(content)) as packed:
                for name in packed.namelist():
                    yield f"zip:{name}", packed.read(name)
        elif head.startswith(b"PAR1"):
            yield "parquet", _read_parquet(content)
        elif head.startswith(b"ARROW1"):
            yield "arrow", repr(pa.ipc.open_file(content).read_all().to_pylist()).encode()
        elif head.startswith(b"SQLite format 3") and path is not None:
            yield "sqlite", _read_sqlite(path)
        elif head[:1] == b"\x80" and content.rstrip()[-1:] == b".":
            yield "pickle", _read_pickle(content)
        elif content[257:262] == b"ustar":
            with tarfile.open(fileobj=io.BytesIO(content)) as packed:
                for member in packed.getmembers():
                    if member.isfile():
                        yield f"tar:{member.name}", packed.extractfile(member).read()
        elif head[:1] in b"[{" and (b"\\" in content):
            yield "json", repr(json.loads(content)).encode()
    except Exception as error:  # a damaged or look-alike file: its raw bytes were searched
        yield f"unreadable ({type(error).__name__})", b""


def _read_parquet(content: bytes) -> bytes:
    file = pq.ParquetFile(io.BytesIO(content))
    rows = "\n".join(repr(batch.to_pylist()) for batch in file.iter_batches())
    stats = repr(file.metadata.to_dict()) + repr(file.schema_arrow.metadata)
    return f"{rows}\n{stats}".encode()


def _read_sqlite(path: Path) -> bytes:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as store:
        store.text_factory = bytes
        tables = [
            name.decode() for (name,) in store.execute("select name from sqlite_master where type = 'table'")
        ]
        cells = (cell for table in tables for row in store.execute(f'select * from "{table}"') for cell in row)
        return b"\n".join(cell if isinstance(cell, bytes) else str(cell).encode() for cell in cells)


def _read_pickle(content: bytes) -> bytes:
    values = (argument for _, argument, _ in pickletools.genops(content))
    return b"\n".join(
        value if isinstance(value, bytes | bytearray) else str(value).encode("utf-8", "replace")
        for value in values
    )
