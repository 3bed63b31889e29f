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
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)
PART = ".dlpipe-part"
"""How the names of files end that are being written; they begin with a dot."""
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
    with _open_part(Path(path), mode, shared=True) as (beside, descriptor):
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content.encode() if isinstance(content, str) else content)
        move(beside, path)


@contextlib.contextmanager
def write_beside(path: str | Path) -> Iterator[Path]:
    """Yield where to write a file that takes long: it gets the name ``path`` at the end, or never after an error.

    A kill leaves what was written under a hidden name, which the next call for the same ``path`` removes.

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
    (['.rows.csv.dlpipe-part'], ['rows.csv'])
    """
    with _open_part(Path(path), 0o666, shared=False) as (beside, _):
        yield beside
        move(beside, path)


def find_parts(folder: str | Path) -> list[Path]:
    """Return the files in a folder, not those below, that killed processes were writing.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Path(folder, ".rows.csv.dlpipe-part").touch()
    ...     [path.name for path in find_parts(folder)]
    ['.rows.csv.dlpipe-part']
    """
    return [path for path in sorted(Path(folder).glob(f".*{PART}")) if _is_left(path)]


def remove_part(path: Path) -> bool:
    """Remove what a killed process was writing; return whether that was done: not where another writes it now."""
    return _is_left(path, remove=True)


def _is_left(path: Path, *, remove: bool = False) -> bool:
    with contextlib.suppress(OSError), _open_descriptor(path) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody's, or an error
        if remove:
            os.unlink(path)
        return True
    return False


@contextlib.contextmanager
def _open_part(path: Path, mode: int, *, shared: bool) -> Iterator[tuple[Path, int]]:
    """Yield a new file beside ``path`` and its descriptor; it is gone afterwards unless it was renamed.

    Its name is the same each time, so that the next writer takes away what a killed one left. With ``shared``, a
    writer that finds another at work takes a name of its own, so that the two do not mix.

    Raises
    ------
    BlockingIOError
        When another process is at work, and not ``shared``.
    """
    # in the same folder, because a rename cannot cross file systems
    beside = path.with_name(f".{path.name}{PART}")
    try:
        descriptor = _make_locked(beside, mode, without_locks=not shared)
    except (BlockingIOError, PermissionError):  # of another writer, or what another user's left
        if not shared:
            raise
        beside = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}{PART}")
        descriptor = _make_locked(beside, mode, without_locks=True)
    try:
        yield beside, descriptor
    except BaseException:
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), os.lstat(beside)):  # else it was renamed: that is another's
                os.unlink(beside)
        raise
    finally:
        os.close(descriptor)


def _make_locked(path: Path, mode: int, *, without_locks: bool) -> int:
    """Return the descriptor of a new, locked file; one of that name that nobody has locked is removed.

    Parameters
    ----------
    without_locks : bool
        Whether one is removed on a file system that has no locks, too.

    Raises
    ------
    BlockingIOError
        When another process, or thread, has locked it, or may be at work on it.
    """
    while True:
        if (descriptor := _create_locked(path, mode)) is not None:
            return descriptor
        with contextlib.suppress(FileNotFoundError), _open_descriptor(path, os.O_WRONLY | os.O_NOFOLLOW) as left:
            if not _lock(left) and not without_locks:
                raise BlockingIOError(errno.EWOULDBLOCK, "nothing says whether a process is writing it", str(path))
            if os.path.samestat(os.fstat(left), os.lstat(path)):  # else another process removed it, or renamed it
                os.unlink(path)


def _create_locked(path: Path, mode: int) -> int | None:
    """Return the descriptor of a new, locked file; ``None`` where there is one of that name."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        return None
    # not yet locked, another process may take it for one that was left
    with contextlib.suppress(BlockingIOError, FileNotFoundError):
        _lock(descriptor)
        if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
            return descriptor
    os.close(descriptor)
    return None


def _lock(descriptor: int) -> bool:
    """Lock a file; return whether its file system has locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    return True


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
    with _open_descriptor(path) as descriptor:
        os.fsync(descriptor)


def sync_folder(path: str | Path) -> None:
    """Return when the names in a folder are on the disk."""
    with _open_descriptor(path) as descriptor:
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
def _open_descriptor(path: str | Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
