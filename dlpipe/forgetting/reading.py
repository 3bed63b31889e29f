"""The content of files and objects, and why some were not searched."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from dlpipe.buckets import StoredObject

LARGEST = 2**30
WEIGHTS = (".safetensors", ".onnx")
"""Numbers, which nobody searches."""
READERS = 8
"""Objects of a bucket that are read at once."""


class NotSearched(Exception):
    """Why a file was not searched; it is never raised out of this package."""


class Misses:
    """Collects the files that were not searched.

    Attributes
    ----------
    places : list of str
        Each with the reason.
    """

    def __init__(self) -> None:
        self.places: list[str] = []

    def add(self, path: Path | StoredObject, reason: object) -> None:
        """Note that a file, or a folder, was not searched."""
        if isinstance(path, Path) and path.is_relative_to(Path.cwd()):
            path = path.relative_to(Path.cwd())
        place = f"{path} ({reason})"
        if place not in self.places:
            self.places.append(place)

    def add_folder(self, error: OSError) -> None:
        """Note a folder that cannot be listed; one that is gone, or was never there, has nothing."""
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            self.add(Path(error.filename), error.strerror)


def read(path: Path | StoredObject) -> bytes | None:
    """Return the content of a file; ``None`` where it is gone meanwhile, or has weights.

    Raises
    ------
    NotSearched
        When it is too large, or cannot be read.
    """
    try:
        size = path.size if isinstance(path, StoredObject) else path.stat().st_size
        if size <= LARGEST:
            return path.read() if isinstance(path, StoredObject) else path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NotSearched(error.strerror or str(error)) from None
    if path.suffix in WEIGHTS:
        return None
    raise NotSearched(f"{size / 2**30:.1f} GiB; files up to {LARGEST // 2**30} GiB are searched")


def read_each(
    kept: Iterable[tuple[str, Path | StoredObject]], misses: Misses
) -> Iterator[tuple[str, Path | StoredObject, bytes]]:
    """Yield each file with its content; some objects of a bucket are read at once."""
    waiting = deque[tuple[str, StoredObject, Future[bytes | None]]]()
    with ThreadPoolExecutor(READERS) as pool:
        for what, path in kept:
            if isinstance(path, Path):
                yield from _take(what, path, partial(read, path), misses)
                continue
            waiting.append((what, path, pool.submit(read, path)))
            if len(waiting) == READERS:
                what, found, content = waiting.popleft()
                yield from _take(what, found, content.result, misses)
        for what, found, content in waiting:
            yield from _take(what, found, content.result, misses)


def _take(
    what: str, path: Path | StoredObject, get: Callable[[], bytes | None], misses: Misses
) -> Iterator[tuple[str, Path | StoredObject, bytes]]:
    try:
        content = get()
    except NotSearched as error:
        misses.add(path, error)
        return
    if content is not None:
        yield what, path, content
