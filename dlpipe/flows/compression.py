"""How artifacts are kept: what hardly shrinks, such as weights, is not compressed for seconds."""

from __future__ import annotations

import gzip
import zlib
from io import BytesIO
from typing import Any

from metaflow.datastore.content_addressed_store import ContentAddressedStore

SAMPLE_BYTES = 1 << 18
LEVEL, WORTH = 3, 0.8  # Metaflow's own level; compressed where a sample shrinks to less than this share


def store_quickly() -> None:
    """Have this process keep what hardly shrinks as gzip without compression, which every Metaflow reads."""
    ContentAddressedStore._pack_v1 = pack


def pack(store: Any, blob: bytes) -> BytesIO:
    """Return ``blob`` as gzip, compressed where that is worth it."""
    packed = BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=LEVEL if is_compressible(blob) else 0) as file:
        file.write(blob)
    packed.seek(0)
    return packed


def is_compressible(blob: bytes) -> bool:
    """Return whether compression is worth it, by a sample from the middle; small ones are always compressed.

    Examples
    --------
    >>> import random
    >>> is_compressible(b"good " * 200_000), is_compressible(b"good")
    (True, True)
    >>> is_compressible(random.Random(0).randbytes(2_000_000))
    False
    """
    if len(blob) < 4 * SAMPLE_BYTES:
        return True
    middle = len(blob) // 2
    sample = blob[middle : middle + SAMPLE_BYTES]
    return len(zlib.compress(sample, 1)) < WORTH * len(sample)
