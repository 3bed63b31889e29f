"""The small process beside each attempt: ``python -I -S keeper.py FOLDER``.

It holds the folder's lock, starts the launcher that ``attempt.json`` describes, stops it at its time limit, ends
what the launcher leaves behind, and writes ``ended.json``. It needs no scheduler, knows nothing of dlpipe and
Metaflow, and takes 10 MB: what happens to the scheduler does not happen to the runs.

===============  ===========================================================================================
attempt.json     the command, its folder and log, the token, the time limit; its environment until it has begun
lock             locked while the keeper lives
begun            a keeper has come so far that there may be a launcher; no second one may be started
log              what the launcher and its tasks printed
ended.json       exit code, time and whether the time limit was reached; the last thing written
===============  ===========================================================================================
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

TOKEN = "_DLPIPE_ATTEMPT"
"""The environment variable by which the processes of an attempt are found."""
KEEPER = "_DLPIPE_KEEPER"
"""The same for its keeper, which is none of them."""
OUTLIVES = b"dlpipe.bridge.follow"
"""In the command of the process that mirrors a run: it outlives the launcher to write how the run ended."""
GRACE = 8.0  # seconds after SIGINT; Metaflow itself gives its tasks five
LEFT_BEHIND = 3.0  # seconds for what outlives its launcher
STUBBORN = 30.0  # seconds of SIGKILL, after which a process hangs in the kernel
NOT_STARTED = 127
SPENT = ("command", "cwd", "variables")
"""What of ``attempt.json`` is of no use once the attempt has ended."""
TICK = 0.02


# -- processes -------------------------------------------------------------------------------------------------


def find_processes(token: str) -> list[int]:
    """The living processes of an attempt: those that carry its token, and the children of those."""
    mark = f"{TOKEN}={token}".encode()
    parents: dict[int, int] = {}
    found: set[int] = set()
    mirrors: set[int] = set()
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        try:
            state, parent = _read(pid, "stat").rpartition(b")")[2].split()[:2]
            marked = mark in _read(pid, "environ").split(b"\0")
            mirror = marked and OUTLIVES in _read(pid, "cmdline")
        except (OSError, ValueError):  # it has just ended, or is somebody else's
            continue
        if state in b"ZX":
            continue
        parents[pid] = int(parent)
        if marked:
            (mirrors if mirror else found).add(pid)
    # some programs write over their environment: they are known by their parents
    ours = _add_children(found, parents) - _add_children(mirrors, parents)
    return sorted(ours - {os.getpid()})


def find_launcher(token: str, command: list[str]) -> int | None:
    """The living launcher of an attempt; its tasks carry the token too, but have other commands."""
    for pid in find_processes(token):
        with contextlib.suppress(OSError):
            words = _read(pid, "cmdline").decode(errors="surrogateescape").split("\0")[:-1]
            if words[1:] == command[1:] and os.getsid(pid) == pid:
                return pid
    return None


def _read(pid: int, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read()


def _add_children(of: set[int], parents: dict[int, int]) -> set[int]:
    known = set(of)
    while more := {pid for pid, parent in parents.items() if parent in known and pid not in known}:
        known |= more
    return known


def end_all(token: str, grace: float = GRACE) -> list[int]:
    """End the processes of an attempt: SIGINT to their groups, and after ``grace`` seconds SIGKILL.

    Returns
    -------
    list of int
        What lives still, because the kernel does not let go of it; empty but in rare cases.
    """
    for group in _find_groups(find_processes(token)):
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGINT)
    if not wait_until_gone(token, grace):
        _kill(token)
    return find_processes(token)


def wait_until_gone(token: str, seconds: float) -> bool:
    """Whether no process of the attempt is left, after waiting for that."""
    deadline = time.monotonic() + seconds
    calm = 0
    while calm < 2:  # a scan can miss a process whose parent ends meanwhile
        if not find_processes(token):
            calm += 1
            continue
        calm = 0
        if time.monotonic() > deadline:
            return False
        time.sleep(TICK)
    return True


def _find_groups(pids: list[int]) -> set[int]:
    groups = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            groups.add(os.getpgid(pid))
    return groups - {os.getpgrp()}


def _kill(token: str) -> None:
    deadline = time.monotonic() + STUBBORN
    while time.monotonic() < deadline:
        for pid in find_processes(token):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if wait_until_gone(token, TICK):
            return


# -- the folder ------------------------------------------------------------------------------------------------


def take_lock(folder: str | Path, seconds: float = 0.0) -> int | None:
    """A descriptor that holds the folder's lock; ``None`` when another process has it for so long."""
    descriptor = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                return None
            time.sleep(TICK)
        else:
            return descriptor


def write_file(folder: str | Path, name: str, content: object) -> None:
    """Write a file of the folder: after a power loss it is there whole or not at all.

    Parameters
    ----------
    folder : str or Path
        The attempt's.
    name : str
        One of those in the table above.
    content : object
        What JSON can say.
    """
    path = os.path.join(folder, name)
    beside = f"{path}.{os.getpid()}"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        _sync(folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


def _sync(folder: str | Path) -> None:
    """Return when the names in the folder are on the disk; as ``dlpipe.durable``, which a keeper does not know."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_file(folder: str | Path, name: str) -> dict[str, Any] | None:
    """The content of a file of the folder; ``None`` when it is not there or was torn by a power loss."""
    try:
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def forget_keys(folder: str | Path, *names: str) -> None:
    """Take out of ``attempt.json`` what nobody needs any more: it may hold secrets."""
    attempt = read_file(folder, "attempt.json") or {}
    kept = {name: value for name, value in attempt.items() if name not in names}
    if len(kept) < len(attempt):
        with contextlib.suppress(OSError):  # no space for the moment; done when the end is noted
            write_file(folder, "attempt.json", kept)


def has_file(folder: str | Path, name: str) -> bool:
    """Whether the folder has this file."""
    return os.path.exists(os.path.join(folder, name))


# -- the keeper ------------------------------------------------------------------------------------------------


def main(folder: str) -> None:
    """Keep the attempt of ``folder``; print in one line whether it has begun."""
    _ignore_signals()
    lock = take_lock(folder, 1.0)
    if lock is None:
        return _say("another keeper has begun it")
    attempt = read_file(folder, "attempt.json")
    if attempt is None or attempt["token"] != os.environ.get(KEEPER):
        return _say("it is another attempt's folder")
    if has_file(folder, "begun") or has_file(folder, "ended.json"):
        return _say("it was begun before")
    # before the launch: a keeper that is killed in between leaves an attempt that counts as begun, and is noted as
    # lost; the other way round, a second keeper could begin it again
    write_file(folder, "begun", {"keeper": os.getpid(), "monotonic": time.monotonic()})
    forget_keys(folder, "variables")  # from now on no other process can need them
    try:
        launcher = _launch(folder, attempt)
    except (OSError, ValueError) as error:  # ValueError: a word that no program can be given
        _note_end(folder, exit_code=NOT_STARTED, reason=str(error))
        return _say("begun")
    _say("begun")
    _keep(folder, launcher, attempt)


def _ignore_signals() -> None:
    # a handler, other than "ignore", is not inherited: the launcher gets the signals as they are by default
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # the scheduler may have been killed meanwhile
        os.write(1, line.encode() + b"\n")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)


def _launch(folder: str, attempt: dict[str, Any]) -> int:
    command = attempt["command"]
    os.chdir(attempt["cwd"])
    log = (attempt.get("log") or os.path.join(folder, "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:  # the new process holds the lock until it carries the token: there is no moment in which it is not seen
        return os.posix_spawnp(
            command[0],
            command,
            {**attempt["variables"], TOKEN: attempt["token"], "_DLPIPE_ATTEMPT_FOLDER": folder},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, *log),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE],
        )
    finally:
        os.chdir("/")


def _keep(folder: str, launcher: int, attempt: dict[str, Any]) -> None:
    token, limit = attempt["token"], attempt["time_limit"]
    code = _wait(launcher, limit or None)
    timed_out = code is None
    if code is None:
        end_all(token)
        code = _wait(launcher, None)
    elif not wait_until_gone(token, LEFT_BEHIND if code == 0 else 0.0):
        end_all(token, LEFT_BEHIND)
    _note_end(folder, exit_code=code, timed_out=timed_out)


def _wait(pid: int, seconds: float | None) -> int | None:
    """The exit code of a child; ``None`` if it still runs after so many seconds."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        left = 3600.0 if deadline is None else deadline - time.monotonic()
        if left <= 0:
            return None
        signal.sigtimedwait([signal.SIGCHLD], min(left, 3600.0))


def _note_end(folder: str, *, exit_code: int | None, timed_out: bool = False, reason: str = "") -> None:
    ended = {"exit_code": exit_code, "ended": time.time(), "timed_out": timed_out, "reason": reason}
    for _ in range(60):
        try:
            write_file(folder, "ended.json", ended)
            return forget_keys(folder, *SPENT)
        except OSError:  # no space for the moment; without the file, Metaflow is asked how the run ended
            time.sleep(1.0)


if __name__ == "__main__":
    main(sys.argv[1])
