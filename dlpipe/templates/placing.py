"""Files put where a person wants them: all of them or none, and nothing that is there is changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dlpipe.errors import ProjectExists, ProjectUnusable

LISTED = 8


def put_files(made: Path, folder: Path) -> None:
    """Put the files of ``made`` into ``folder``: all of them, or none where one is there already."""
    paths = sorted(file.relative_to(made) for file in made.rglob("*") if file.is_file())
    if there := [str(path) for path in paths if os.path.lexists(folder / path)]:
        listed = ", ".join(there[:LISTED]) + (f" and {len(there) - LISTED} more" if len(there) > LISTED else "")
        raise ProjectExists(
            f"{str(folder)!r} has {listed} already, and nothing is overwritten. Name another folder, or bring the "
            f"project in it up to date: dlpipe init {folder} --update."
        )
    with _all_or_none(folder) as put:
        for path in paths:
            put(made / path, path)


@contextmanager
def _all_or_none(folder: Path) -> Iterator[Callable[[Path, Path], None]]:
    """Give a function that copies a file to a path below ``folder``; what it wrote goes if anything fails."""
    written: list[Path] = []

    def put(source: Path, path: Path) -> None:
        for place in reversed([folder / path, *(folder / path).parents]):
            if not place.exists() and place != folder / path:
                place.mkdir()
                written.append(place)
        written.append(folder / path)
        shutil.copy(source, folder / path)

    try:
        yield put
    except OSError as error:
        _remove(written)
        raise ProjectUnusable(
            f"The project cannot be written to {str(folder)!r}: {error.strerror}. Name another folder."
        ) from None
    except BaseException:
        _remove(written)
        raise


def _remove(written: Iterable[Path]) -> None:
    for path in reversed([*written]):
        with suppress(OSError):
            path.rmdir() if path.is_dir() else path.unlink()
