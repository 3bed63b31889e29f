"""Which tables there are under the tables root, on a disk or in a bucket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dlpipe.tables._storage import explain_storage_errors, filesystem, is_remote, tables_root

LOG = "_delta_log"


def list_tables() -> list[tuple[str, str]]:
    """Return name and location of each table under ``tables_root()``, sorted, up to two folders deep.

    In a bucket that is a request for each folder.

    Raises
    ------
    StorageUnavailable
        When the storage does not answer.

    Examples
    --------
    >>> import os, pyarrow as pa, tempfile
    >>> from dlpipe.tables import write_table
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name in ("reviews", "old/films"):
    ...         _ = write_table(f"{root}/{name}", pa.table({"n": [1]}))
    ...     os.environ["DLPIPE_TABLES"] = root
    ...     [name for name, _ in list_tables()]
    ['old/films', 'reviews']
    >>> del os.environ["DLPIPE_TABLES"]
    """
    root = tables_root()
    if is_remote(root):
        return [(name, f"{root}/{name}") for name in sorted(_list_remote(root))]
    found = sorted(log.parent for depth in ("[!.]*", "[!.]*/[!.]*") for log in Path(root).glob(f"{depth}/{LOG}"))
    return [(str(folder.relative_to(root)), str(folder)) for folder in found]


def _list_remote(root: str) -> Iterator[str]:
    for name in _list_folders(root):
        inside = _list_folders(f"{root}/{name}")
        if LOG in inside:
            yield name
            continue
        yield from (f"{name}/{inner}" for inner in inside if LOG in _list_folders(f"{root}/{name}/{inner}"))


def _list_folders(location: str) -> list[str]:
    """Return the names of the folders in a place of an object store, without hidden ones."""
    from pyarrow.fs import FileSelector, FileType

    with explain_storage_errors(location):
        found = filesystem(location).get_file_info(FileSelector("", allow_not_found=True))
    return [entry.base_name for entry in found if entry.type == FileType.Directory and entry.base_name[0] != "."]
