"""Files of lines that survive the kill of whoever wrote them, one process's own in a folder of its own.

    FOLDER/<writer>/lock                      held with flock by the process while it lives
    FOLDER/<writer>/<table>.<number>.journal  lines for a table; the highest number is being written

A line begins with its CRC-32: one that a kill or a power cut has torn is dropped when it is read. A file whose
process lives is committed by it; the files of a dead one are committed by whoever takes its lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import threading
import time
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dlpipe.durable import make_folder, move_folder, sync_folder
from dlpipe.tables import tables_root

LOCK, ENDING, HIDDEN = "lock", ".journal", ".new-"
FOLDER = "_serving"
"""Under the root of tables: neither is of use without the other."""
ABANDONED_AFTER = 3600.0
"""Seconds after which a folder without a lock belongs to nobody."""


@dataclass(frozen=True)
class JournalFile:
    """A file of a journal.

    Attributes
    ----------
    path : Path
    writer : str
        The process that wrote it, by an id of its own.
    table : str
        The table that its lines are for.
    number : int
        Its place among the files of this writer for this table.
    """

    path: Path
    writer: str
    table: str
    number: int

    @property
    def mark(self) -> str:
        """The mark of the table that a commit of this file moves to its number."""
        return f"journal of {self.writer}"

    def read(self) -> list[bytes]:
        """Return its whole lines; those that are torn are left out, and all where it has been committed."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        lines = (line for line in content.split(b"\n") if is_whole(line))
        return [line[9:] for line in lines]


class Appender:
    """A file of a journal that is being written."""

    def __init__(self, file: JournalFile) -> None:
        self.file, self.size, self.began, self._synced = file, 0, time.monotonic(), 0
        self._closing = threading.Lock()
        self._descriptor = os.open(
            file.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600
        )

    def append(self, lines: bytes) -> None:
        """Write lines; they survive a kill of this process when it returns.

        Raises
        ------
        OSError
            When they cannot be written; nothing of them is left then.
        """
        try:
            written = os.write(self._descriptor, lines)
            if written < len(lines):
                # the disk is full: the next call has the number of the error
                written += os.write(self._descriptor, lines[written:])
            if written < len(lines):
                raise OSError(28, "No space left on device")
        except OSError:
            with contextlib.suppress(OSError):  # else a torn line stays, which readers drop
                os.ftruncate(self._descriptor, self.size)
            raise
        self.size += len(lines)

    def sync(self) -> None:
        """Return when what was written is on the disk; another thread may write meanwhile."""
        with self._closing:
            if self._descriptor >= 0 and self._synced < self.size:
                size = self.size
                os.fdatasync(self._descriptor)
                if not self._synced:
                    sync_folder(self.file.path.parent)
                self._synced = size

    def close(self) -> None:
        """Sync and close the file, to which nobody writes any more."""
        try:
            self.sync()
        finally:
            with self._closing:
                if self._descriptor >= 0:
                    os.close(self._descriptor)
                self._descriptor = -1


class Writer:
    """This process's own folder of journals; the lock is held until it is closed or the process ends."""

    def __init__(self, root: Path) -> None:
        make_folder(root, mode=0o700)
        remove_abandoned(root)
        self.id = uuid.uuid4().hex
        hidden = root / f"{HIDDEN}{self.id}"
        hidden.mkdir(mode=0o700)
        self._lock = os.open(hidden / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        # under its name only when it is locked: whoever finds it unlocked takes it for that of a dead process
        self.folder = root / self.id
        move_folder(hidden, self.folder)
        self._numbers: dict[str, int] = {}

    def begin(self, table: str) -> Appender:
        """Return the next file for a table."""
        number = self._numbers.get(table, -1) + 1
        file = JournalFile(self.folder / f"{table}.{number:08}{ENDING}", self.id, table, number)
        made = Appender(file)
        self._numbers[table] = number
        return made

    def close(self) -> None:
        """Let the folder go; it is removed where nothing is left in it."""
        with contextlib.suppress(OSError):
            if not list_files(self.folder):
                shutil.rmtree(self.folder)
        os.close(self._lock)


def make_line(content: bytes) -> bytes:
    """Return ``content``, which has no line break, as a line.

    Examples
    --------
    >>> make_line(b"[1]")
    b'4c2f32b8 [1]\\n'
    """
    return b"%08x %b\n" % (zlib.crc32(content), content)


def is_whole(line: bytes) -> bool:
    """Return whether a line is as it was written.

    Examples
    --------
    >>> is_whole(b"4c2f32b8 [1]"), is_whole(b"4c2f32b8 [1"), is_whole(b"")
    (True, False, False)
    """
    return line[:8] == b"%08x" % zlib.crc32(line[9:])


def find_journals() -> Path:
    """Return the folder of journals: under the root of tables, or, where that is no folder, with the state."""
    root = tables_root()
    if "://" not in root:
        return Path(root, FOLDER)
    from dlpipe.orchestrator.state import state_folder

    return state_folder() / "serving" / f"{zlib.crc32(root.encode()):08x}"


def list_files(folder: Path) -> list[JournalFile]:
    """Return the files of one writer, by table and number."""
    found = []
    for path in sorted(folder.glob(f"*{ENDING}")):
        table, _, number = path.name.removesuffix(ENDING).rpartition(".")
        if table and number.isdigit():
            found.append(JournalFile(path, folder.name, table, int(number)))
    return found


def list_all_files(root: Path) -> list[JournalFile]:
    """Return the files of all writers, living or dead."""
    folders = sorted(root.iterdir()) if root.is_dir() else []
    return [file for folder in folders if folder.is_dir() for file in list_files(folder)]


@contextlib.contextmanager
def adopt(folder: Path) -> Iterator[list[JournalFile] | None]:
    """Yield the files of a dead writer, or ``None`` where it lives or another process has adopted them.

    Its folder is removed at the end if no file is left in it.
    """
    try:
        # made where a power cut has taken it; a process that lives had it before the folder had its name
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield None
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield None
            return
        yield list_files(folder)
        if not list_files(folder):
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def remove_abandoned(root: Path) -> None:
    """Remove folders of processes that were killed before their folder had its name."""
    for folder in root.glob(f"{HIDDEN}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > ABANDONED_AFTER:
                shutil.rmtree(folder)
