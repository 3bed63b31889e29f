"""What commands leave that were killed: temporary folders, and files that they were writing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from dlpipe.durable import PART, find_parts, remove_part
from dlpipe.forgetting.files import Roots
from dlpipe.scratch import PREFIX, find_left_scratch, remove_left_scratch


def find_leftovers(roots: Roots) -> Iterator[Path]:
    """Yield the temporary folders of dead processes, and the files and deletions that they had begun.

    A half of a file can often not be read, so nobody looks into them.
    """
    from dlpipe.tables import find_deleted, tables_root

    yield from find_left_scratch()
    yield from find_deleted(tables_root())
    for folder in roots.list_folders():
        yield from find_parts(folder)


def delete_leftovers(left: Sequence[Path]) -> int:
    """Delete what ``find_leftovers`` found, and return how many there were; one that is in use again stays."""
    gone = len(remove_left_scratch())
    for path in left:
        if path.name.endswith(PART):
            gone += remove_part(path)
        elif path.exists() and not path.name.startswith(PREFIX):
            shutil.rmtree(path)
            gone += 1
    return gone
