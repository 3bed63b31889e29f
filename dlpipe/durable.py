"""Files that survive a power cut: the content is synced first, then the name is given, then the folder is synced.

A rename alone promises nothing: the disk may have the new name and not the content. Whatever a process reports as
done (a commit, a state, a download) goes through here before it is reported.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

# network file systems that cannot sync a folder say so in one of these ways, and promise what they promise
NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
MAX_SYNCS = 16
"""How many files are synced at once: a disk writes many in about the time of one. 1,700 in turn took 7 s."""


def write_file(path: str | Path, content: bytes | str, *, mode: int = 0o666) -> None:
    """Write a file so that whoever reads it, whatever happens, finds the old content or the new one, whole.

    Parameters
    ----------
    path : str or Path
        In a folder that exists.
    content : bytes or str
        Text is written as UTF-8.
    mode : int
        Permissions of the file, less the umask.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_file(Path(folder, "state.json"), '{"done": 3}')
    ...     Path(folder, "state.json").read_text(), os.listdir(folder)
    ('{"done": 3}', ['state.json'])
    """
    path = Path(path)
    # in the same folder, because a rename cannot cross file systems; with a name of this thread's own, so that two
    # writers of the same file do not mix
    beside = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        with open(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        move(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


@contextlib.contextmanager
def write_beside(path: str | Path) -> Iterator[Path]:
    """Yield where to write a file that takes long: it gets the name ``path`` at the end, or never after an error.

    A kill leaves what was written under a hidden name, which the next call for the same ``path`` writes over.

    Raises
    ------
    BlockingIOError
        When another process is writing the same file.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with write_beside(Path(folder, "rows.csv")) as beside:
    ...         _ = beside.write_text("text,label\\n")
    ...         during = os.listdir(folder)
    ...     during, os.listdir(folder)
    (['.rows.csv.part'], ['rows.csv'])
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.part")
    with contextlib.ExitStack() as stack:
        while True:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            stack.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise
            except OSError:  # a file system without locks
                break
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(beside)):
                    break  # else another process gave it its name meanwhile
        try:
            yield beside
            move(beside, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise


def move(source: str | Path, target: str | Path) -> None:
    """Rename a file once its content is on the disk; a file that has the name is replaced."""
    sync_file(source)
    os.replace(source, target)
    sync_folder(Path(target).parent)


def move_folder(source: str | Path, target: str | Path) -> None:
    """Rename a folder once all that is in it is on the disk."""
    sync_tree(source)
    os.rename(source, target)
    sync_folder(Path(target).parent)


def link(source: str | Path, target: str | Path) -> None:
    """Give a file a second name once its content is on the disk; ``FileExistsError`` where the name is taken."""
    sync_file(source)
    os.link(source, target)
    sync_folder(Path(target).parent)


def make_folder(path: str | Path, *, mode: int = 0o777) -> None:
    """Make a folder, and those above it that are missing, with its name on the disk.

    Parameters
    ----------
    mode : int
        Permissions of the folder itself, less the umask.
    """
    path = Path(path)
    missing = [folder for folder in (path, *path.parents) if not folder.is_dir()]
    for folder in reversed(missing):  # from the top, each with its name synced: a lost parent loses all below it
        folder.mkdir(mode=mode if folder == path else 0o777, exist_ok=True)
        sync_folder(folder.parent)


def sync_file(path: str | Path) -> None:
    """Return when the content of a file is on the disk, whoever wrote it."""
    with _open_for_sync(path) as descriptor:
        os.fsync(descriptor)


def sync_folder(path: str | Path) -> None:
    """Return when the names in a folder are on the disk."""
    with _open_for_sync(path) as descriptor:
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in NO_FOLDER_SYNC:
                raise


def sync_tree(folder: str | Path) -> None:
    """Return when all that is in a folder is on the disk, its own name not."""
    from concurrent.futures import ThreadPoolExecutor

    files, folders = [], []
    for at, _, names in os.walk(folder):
        folders.append(at)
        paths = (os.path.join(at, name) for name in names)
        files += [path for path in paths if not os.path.islink(path)]
    with ThreadPoolExecutor(MAX_SYNCS) as threads:
        for _ in threads.map(sync_file, files):
            pass
        for _ in threads.map(sync_folder, folders):
            pass


@contextlib.contextmanager
def _open_for_sync(path: str | Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
