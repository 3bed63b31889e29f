"""Features that are kept of tables, tokens of texts among them: all of them can be made again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dlpipe.errors import DlpipeError

if TYPE_CHECKING:
    from dlpipe.lineage import Records

ENTRY = re.compile(r"v(\d{1,18})-")


def find_features(records: Records, reached: Sequence[str]) -> Iterator[str]:
    """Yield the folders of features that may be made of the rows.

    Of a table that was deleted, and of a version whose files were removed, nobody can tell which rows it had: they
    are among them.

    Parameters
    ----------
    records : Records
    reached : sequence of str
        The locations of the tables that have the rows.
    """
    from dlpipe.tables import locate_features, tables_root

    known = {record.location: record.kind for record in records.catalog.list_records()}
    roots = {location.rpartition("/")[0] for location in known} | {tables_root()}
    for root in sorted(roots):
        for name in _list_folders(locate_features(f"{root}/").rstrip("/")):
            location = f"{root}/{name}"
            for entry in _list_folders(locate_features(location)):
                if location in reached or location not in known or not _has_files(location, entry):
                    yield f"{locate_features(location)}/{entry}"


def _has_files(location: str, entry: str) -> bool:
    """Return whether the version that an entry was made of can be read: then it was looked through."""
    from dlpipe.tables import has_files, table_at

    if not (version := ENTRY.match(entry)):
        return False
    try:
        return has_files(table_at(location, version=int(version[1])))
    except DlpipeError:
        return False


def _list_folders(place: str) -> list[str]:
    if "://" not in place:
        return sorted(entry.name for entry in Path(place).glob("*") if entry.is_dir())
    from pyarrow.fs import FileSelector

    from dlpipe.tables import explain_storage_errors, filesystem

    with explain_storage_errors(place):
        # all of them: an object store has no folders
        found = filesystem(place).get_file_info(FileSelector("", recursive=True, allow_not_found=True))
    return sorted({entry.path.split("/")[0] for entry in found if "/" in entry.path})
