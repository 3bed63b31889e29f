"""Commits that a power cut leaves whole or not there at all.

delta-rs gives a commit its name in the log before the disk has its content, and a checkpoint likewise: after a
power cut the name can stand over nothing, and then no version of the table can be opened. So delta-rs commits to a
copy of the log (second names of its latest files), and what it made there gets its name in the log when the disk
has it. A log in an object store needs none of this.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dlpipe.durable import link, make_folder, write_file
from dlpipe.tables._storage import STAGED, is_remote, link_or_copy

LOG, HINT = "_delta_log", "_last_checkpoint"
NUMBER = re.compile(r"(\d{20})\.")
COPY = "log-"


@contextlib.contextmanager
def copy_log(location: str, version: int) -> Iterator[str]:
    """Yield where to make the commit of ``version``; at the end, also after an error, put it into the log.

    Killed before the link, the version does not exist and the copy is removed by the next writer; killed after it,
    the version is complete.

    Raises
    ------
    FileExistsError
        When another writer made this version first.
    """
    if is_remote(location):
        yield location
        return
    with _lock_folder(Path(location, STAGED)) as copy:
        _link_log(Path(location, LOG), copy / LOG, version)
        there = set(os.listdir(copy / LOG))
        try:
            yield str(copy)
        finally:
            # also after an error: a checkpoint can fail after its commit was made
            _publish(copy / LOG, Path(location, LOG), version, there)


@contextlib.contextmanager
def _lock_folder(staged: Path) -> Iterator[Path]:
    """Yield a new folder that is gone afterwards; those that killed writers left are removed."""
    make_folder(staged)
    remove_left_copies(staged.parent)
    with contextlib.ExitStack() as stack:
        folder = Path(staged, "none")
        while not folder.is_dir():  # somebody took it for a folder that was left
            folder = Path(tempfile.mkdtemp(prefix=COPY, dir=staged))
            with contextlib.suppress(OSError):  # gone again, or on a file system without locks
                fcntl.flock(stack.enter_context(_open_folder(folder)), fcntl.LOCK_EX)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder


def remove_left_copies(location: Path) -> None:
    """Remove the copies of a table's log that killed writers left."""
    for left in (location / STAGED).glob(f"{COPY}*"):
        with contextlib.suppress(OSError), _open_folder(left) as descriptor:
            # by lock and not by age: the lock of a killed process is gone, and a commit may take any time
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody's, or an error
            shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _open_folder(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _link_log(log: Path, copy: Path, version: int) -> None:
    """Give the files from which the version before can be read a second name each."""
    copy.mkdir()
    if not log.is_dir():
        return
    first = _find_checkpoint(log)  # the commits since then are enough to open the table
    for entry in os.scandir(log):
        number = NUMBER.match(entry.name)
        if entry.name == HINT or (number and first <= int(number[1]) < version and "compacted" not in entry.name):
            with contextlib.suppress(FileNotFoundError):
                # delta-rs writes the hint in place: with a second name, that would be the log's own
                give_name = shutil.copyfile if entry.name == HINT else link_or_copy
                give_name(entry.path, copy / entry.name)


def _find_checkpoint(log: Path) -> int:
    """Return the version of the last checkpoint, which makes those before it needless; 0 where none is named."""
    try:
        return int(json.loads((log / HINT).read_bytes())["version"])
    except (OSError, ValueError, LookupError, TypeError):
        return 0


def _publish(copy: Path, log: Path, version: int, there: set[str]) -> None:
    commit = f"{version:020}.json"
    if not (copy / commit).exists():
        return
    make_folder(log)
    # a link and not a rename: it fails where another writer made this version first
    link(copy / commit, log / commit)
    with contextlib.suppress(OSError):  # the commit is there; without a checkpoint it only takes longer to read
        _publish_checkpoint(copy, log, there)


def _publish_checkpoint(copy: Path, log: Path, there: set[str]) -> None:
    made = [name for name in os.listdir(copy) if name.endswith(".parquet") and name not in there]
    for name in made:
        link(copy / name, log / name)
    # the hint last: it must not name a checkpoint that is not there
    if made:
        write_file(log / HINT, (copy / HINT).read_bytes())
