"""What a receiver was told, by the keys of events: lines of a file, which may be thrown away at will.

Without it everything is told again, with the same ids. A process that is killed between telling and noting tells
one event twice.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dlpipe.durable import make_folder
from dlpipe.orchestrator.state import state_folder


class Sent:
    """The keys of what a receiver was told, for the one process that holds it.

    Parameters
    ----------
    descriptor : int
        Of the file, open for reading and appending.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):  # torn by a kill
            os.ftruncate(descriptor, len(whole))
        self._keys = set(whole.decode(errors="replace").splitlines())

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def note(self, key: str) -> None:
        """Note that the receiver was told."""
        self._keys.add(key)
        os.write(self._descriptor, f"{key}\n".encode())


@contextmanager
def hold_sent(receiver: str) -> Iterator[Sent]:
    """Yield what a receiver was told, to which no other process of this user tells anything meanwhile.

    Parameters
    ----------
    receiver : str
        Its address, without credentials.
    """
    folder = state_folder() / "openlineage"
    make_folder(folder)
    descriptor = os.open(find_file(folder, receiver), os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield Sent(descriptor)
    finally:
        os.close(descriptor)


def find_file(folder: Path, receiver: str) -> Path:
    """Return the file for a receiver."""
    return folder / f"{hashlib.sha256(receiver.encode()).hexdigest()[:16]}.sent"
