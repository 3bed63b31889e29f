"""A version of a table under another folder, for a program that keeps things beside the tables that it reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from dlpipe.errors import TableVersionNotFound
from dlpipe.tables._read import explain_missing_files, open_files
from dlpipe.tables._storage import filesystem, is_remote
from dlpipe.tables._versions import TableVersion

CHUNK = 1 << 20


def mirror_version(version: TableVersion, folder: Path) -> TableVersion:
    """Return ``version`` as a table of the same name in ``folder``, where what is kept beside it goes.

    A table on a disk is linked; of one in an object store, the log and the files of the version are copied.

    Parameters
    ----------
    version : TableVersion
    folder : Path
        Exists, and has no table of that name.

    Raises
    ------
    TableVersionNotFound
        When another program has removed files of the version.
    """
    mirror = folder / version.name
    _check_files(version)
    if not is_remote(version.path):
        mirror.symlink_to(version.path, target_is_directory=True)
        return replace(version, path=str(mirror))
    for name in _list_files(version):
        target = mirror / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as copy:
            for chunk in _read_chunks(version, name):
                copy.write(chunk)  # a disk that is full here is not the table's
    return replace(version, path=str(mirror))


def has_files(version: TableVersion) -> bool:
    """Return whether all files of a version of a table are there: none was removed by a vacuum."""
    try:
        _check_files(version)
    except TableVersionNotFound:
        return False
    return True


def _check_files(version: TableVersion) -> None:
    """Raise ``TableVersionNotFound`` where a file of a version is gone."""
    from pyarrow.fs import FileType

    with explain_missing_files(version):
        paths = [fragment.path for fragment in open_files(version).fragments]
        found = filesystem(version.path).get_file_info(paths) if paths else []
        if gone := [file.path for file in found if file.type == FileType.NotFound]:
            raise FileNotFoundError(gone[0])


def _list_files(version: TableVersion) -> Iterator[str]:
    """Yield the paths, within the table, of its log and of the files of a version."""
    from pyarrow.fs import FileSelector, FileType

    found = filesystem(version.path).get_file_info(FileSelector("_delta_log", recursive=True))
    yield from (file.path for file in found if file.type == FileType.File)
    yield from (fragment.path for fragment in open_files(version).fragments)


def _read_chunks(version: TableVersion, name: str) -> Iterator[bytes]:
    with explain_missing_files(version):
        source = filesystem(version.path).open_input_stream(name)
    with source:
        while True:
            with explain_missing_files(version):
                chunk = source.read(CHUNK)
            if not chunk:
                return
            yield chunk
