"""Files of the journal -> commits to the tables of the log, each once; those of dead processes too."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from dlpipe.errors import MarkMoved
from dlpipe.serving.journal import JournalFile, adopt
from dlpipe.serving.log_rows import make_rows
from dlpipe.tables import Mark, append_by_day, locate, read_mark

COMMIT_BYTES = 32 * 2**20
"""Of journals in one commit at most."""
GENTLE_BYTES, BREAK_SECONDS, GENTLE_SECONDS = 16_384, 0.002, 2.0
"""A break after so many bytes of lines, a third of a millisecond of work; for so long at most in one commit."""


def group_by_table(files: Iterable[JournalFile]) -> list[list[JournalFile]]:
    """Return files in lists of one table each, by number."""
    groups: dict[str, list[JournalFile]] = defaultdict(list)
    for file in files:
        groups[file.table].append(file)
    return [sorted(group, key=lambda file: file.number) for group in groups.values()]


def read_gently(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines with breaks between some: a thread that keeps Python busy delays each step of the event loop.

    The breaks end after a while, so that a log which grows fast does not pile up.
    """
    read, until = 0, time.monotonic() + GENTLE_SECONDS
    for line in lines:
        yield line
        read += len(line)
        if read >= GENTLE_BYTES and time.monotonic() < until:
            read = 0
            time.sleep(BREAK_SECONDS)


def commit_files(files: Sequence[JournalFile], *, gently: bool = False) -> None:
    """Commit files of one writer for one table, unless they are, and remove them.

    Parameters
    ----------
    files : sequence of JournalFile
        By number. Nobody may write to them any more.
    gently : bool
        Whether others in this process are to go first.
    """
    table, mark = locate(files[0].table), files[0].mark
    there = read_mark(table, mark)
    waiting = list(files)
    while waiting:
        taken: list[JournalFile] = []
        size = 0
        while waiting and (not taken or size < COMMIT_BYTES):
            taken.append(waiting.pop(0))
            size += taken[-1].path.stat().st_size if taken[-1].path.exists() else 0
        lines = [line for file in taken if there is None or file.number > there for line in file.read()]
        if lines:
            try:
                rows = make_rows(files[0].table, read_gently(lines) if gently else lines)
                append_by_day(table, rows, marks=[Mark(mark, there, taken[-1].number)])
                there = taken[-1].number
            except MarkMoved:
                # a process that was taken for dead has committed them after all
                there, waiting = read_mark(table, mark), [*taken, *waiting]
                continue
        for file in taken:
            with contextlib.suppress(FileNotFoundError):
                file.path.unlink()


def adopt_journals(root: Path) -> int:
    """Commit what dead processes left under ``root``, and return of how many processes.

    Parameters
    ----------
    root : Path

    Raises
    ------
    Exception
        Mostly a ``DlpipeError``, when some cannot be committed, after all others have been; they stay.
    """
    count, errors = 0, list[Exception]()
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        if folder.name.startswith("."):
            continue
        with adopt(folder) as files:
            if files is None:
                continue
            count += bool(files)
            for group in group_by_table(files):
                try:
                    commit_files(group)
                except Exception as error:  # one table's trouble is not that of others
                    errors.append(error)
    if errors:
        raise errors[0]
    return count
