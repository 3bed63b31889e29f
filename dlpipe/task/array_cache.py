"""Arrays that can be made again, kept beside a table: for ``X/reviews`` under ``X/_features/reviews``.

An entry is a folder named after its key: arrays as ``.npy`` files named after their content, and a manifest with
their digests, written last and in one piece. So an entry is whole or not there, two writers of the same one do not
disturb each other, and damage is noticed when it is opened. Removing ``_features`` costs only time.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dlpipe.durable import make_folder, move
from dlpipe.scratch import open_scratch

FORMAT = 1
MANIFEST, HALF = "manifest.json", ".half-"
Arrays = dict[str, np.ndarray]


def cache_arrays(
    table: str, key: Mapping[str, Any], make: Callable[[], Arrays], *, say: Callable[[str], None]
) -> Arrays:
    """Return the arrays of ``key``, read-only and mapped from disk; made and kept if they are not there whole.

    Where they cannot be kept (no space, no permission), they are returned as made, and a line says so.

    Parameters
    ----------
    table : str
        Absolute path or ``s3://`` URI of the table that they belong to.
    key : mapping
        All that their values depend on, as JSON can hold it; ``kind``, ``split`` and ``table`` (with ``version``)
        name the entry's folder.
    make : callable
        Returns the arrays by their names, each of any shape and dtype but objects.
    say : callable
        Gets the line.
    """
    from deltalake.exceptions import DeltaError

    full_key = {"format": FORMAT, **key}
    place = _find_place(locate_entry(table, full_key))
    try:
        if (found := _open_entry(place, full_key)) is not None:
            return found
    except (OSError, DeltaError):
        pass  # unreadable is as good as not there
    made = make()
    try:
        _store_entry(place, full_key, made)
        # mapped from disk rather than as made: processes share the pages, and Ray stores them without a copy
        return _open_entry(place, full_key) or made
    except (OSError, DeltaError) as error:
        say(f"features cannot be kept in {place.location}: {' '.join(str(error).split())[:200]}")
        return made


def locate_entry(table: str, key: Mapping[str, Any]) -> str:
    """Return the folder or URI of the entry of ``key``.

    Examples
    --------
    >>> locate_entry("/data/tables/reviews", {"kind": "tokens", "split": "train", "table": {"version": 3}})
    '/data/tables/_features/reviews/v3-train-tokens-601b7a5089da161b538b4317'
    """
    from dlpipe.tables import locate_features

    seen = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    return f"{locate_features(table)}/v{key['table']['version']}-{key['split']}-{key['kind']}-{seen}"


class Place(Protocol):
    """Where the files of an entry are."""

    location: str

    def fetch(self, name: str, into: Path) -> Path:
        """Return a local file with the content of ``name``; it may be put into the folder ``into``."""

    def put(self, file: Path) -> None:
        """Store a file under its name, in one piece."""

    def make_scratch_folder(self) -> AbstractContextManager[str | Path]:
        """Return a context manager of a local folder for files that are to be put."""


class FolderPlace:
    """An entry in a local folder."""

    def __init__(self, location: str) -> None:
        self.location, self._folder = location, Path(location)

    def fetch(self, name: str, into: Path) -> Path:
        """Return the file itself."""
        return self._folder / name

    def put(self, file: Path) -> None:
        """Move the file there, durably."""
        move(file, self._folder / file.name)

    def make_scratch_folder(self) -> AbstractContextManager[str]:
        """Return a new folder on the same device; those that killed processes left are removed after an hour."""
        make_folder(self._folder)
        # an hour, since those of writers that are at work lie beside them
        for left in self._folder.glob(f"{HALF}*"):
            if time.time() - left.stat().st_mtime > 3600:
                shutil.rmtree(left, ignore_errors=True)
        return tempfile.TemporaryDirectory(prefix=HALF, dir=self._folder)


class ObjectPlace:
    """An entry in an object store; each object is written in one piece or not at all."""

    def __init__(self, location: str) -> None:
        from dlpipe.tables import filesystem

        self.location, self._files = location, filesystem(location)

    def fetch(self, name: str, into: Path) -> Path:
        """Download the file."""
        with self._files.open_input_stream(name) as source, (into / name).open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        return into / name

    def put(self, file: Path) -> None:
        """Upload the file."""
        # delta-rs takes what pyarrow buffers, and nothing else
        with file.open("rb") as source, self._files.open_output_stream(file.name, buffer_size=1 << 20) as target:
            shutil.copyfileobj(source, target, 1 << 20)

    def make_scratch_folder(self) -> AbstractContextManager[Path]:
        """Return a temporary folder."""
        return open_scratch()


def _find_place(location: str) -> Place:
    return ObjectPlace(location) if "://" in location else FolderPlace(location)


def _open_entry(place: Place, key: Mapping[str, Any]) -> Arrays | None:
    """Return the arrays of an entry, mapped into memory; ``None`` unless it is whole."""
    # a downloaded file may go as soon as it is mapped: its content stays until the map does
    with open_scratch() as folder:
        try:
            manifest = json.loads(place.fetch(MANIFEST, folder).read_bytes())
            if manifest["key"] != key:
                return None
            files = {place.fetch(entry["file"], folder): entry for entry in manifest["arrays"]}
            if not all(_is_whole(file, entry) for file, entry in files.items()):
                return None
            return {entry["name"]: _map_array(file) for file, entry in files.items()}
        except (FileNotFoundError, ValueError, LookupError, TypeError):
            return None


def _is_whole(file: Path, entry: Mapping[str, Any]) -> bool:
    return file.stat().st_size == entry["bytes"] and _compute_digest(file) == entry["blake2b"]


def _map_array(file: Path) -> np.ndarray:
    # as a plain array: Ray and pickle copy a memmap, but not an array
    return np.asarray(np.load(file, mmap_mode="r"))


def _store_entry(place: Place, key: Mapping[str, Any], arrays: Arrays) -> None:
    written = []
    with place.make_scratch_folder() as scratch:
        for name, array in arrays.items():
            file = Path(scratch) / "array.npy"
            np.save(file, array)
            digest = _compute_digest(file)
            file = file.rename(file.with_name(f"{name}-{digest[:16]}.npy"))
            written.append({"name": name, "file": file.name, "bytes": file.stat().st_size, "blake2b": digest})
            place.put(file)
        # last: a kill before this leaves files that nobody reads, and whoever makes the entry next puts them again
        manifest = Path(scratch) / MANIFEST
        manifest.write_text(json.dumps({"key": key, "arrays": written}, indent=1))
        place.put(manifest)


def _compute_digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()
