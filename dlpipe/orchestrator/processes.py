"""An attempt's processes: started once, found again by whoever comes next, ended with all that they started."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlpipe.durable import make_folder
from dlpipe.orchestrator import keeper
from dlpipe.orchestrator.keeper import (
    LEFT_BEHIND,
    SPENT,
    end_all,
    find_launcher,
    forget_keys,
    has_file,
    read_file,
    take_lock,
    write_file,
)

SUSPENDED = "suspended"
ANSWER_SECONDS = 20.0  # a keeper answers after 0.03 on a quiet machine
_KEEPERS: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class LauncherEnd:
    """How an attempt's launcher ended.

    Attributes
    ----------
    exit_code : int or None
        Negative for a signal; ``None`` if nobody saw it: its keeper was killed too, or the machine lost power.
    ended : float
        Seconds since 1970.
    timed_out : bool
        Whether it was stopped at its time limit.
    reason : str
        Why it could not be started; empty if it was.
    """

    exit_code: int | None
    ended: float
    timed_out: bool = False
    reason: str = ""


def start_attempt(
    folder: Path,
    command: Sequence[str],
    *,
    cwd: str,
    variables: Mapping[str, str],
    token: str,
    time_limit: float,
    log: Path | None = None,
) -> None:
    """Start the attempt of ``folder`` with a keeper beside it, unless it was begun before.

    It is begun once, however often and by whomever this is called, and whatever is killed meanwhile. What it says
    goes to the end of ``log``, by default one in the folder.

    Parameters
    ----------
    folder : Path
        The attempt's own; made when missing.
    command : sequence of str
        The launcher with its words; the keeper runs it without a shell.
    cwd : str
        Where it runs.
    variables : mapping
        Its whole environment, but for those by which its processes are found.
    token : str
        A UUID, in the environment of all processes of the attempt.
    time_limit : float
        Seconds after which the keeper stops it; 0 for no limit.
    log : Path, optional
        Where to; by default ``log`` in the folder.

    Raises
    ------
    OSError
        When nothing could be started, for want of space or of memory.
    """
    make_folder(folder, mode=0o700)
    known = read_file(folder, "attempt.json") or {}
    attempt = {
        "token": token,
        "command": list(command),
        "cwd": cwd,
        "variables": dict(variables),
        "time_limit": time_limit,
        "log": str(log or folder / "log"),
        "starts": known.get("starts", 0) + 1,
    }
    write_file(folder, "attempt.json", attempt)
    answer = _read_answer(_start_keeper(folder, token))
    if not answer:
        raise OSError(f"the keeper of {folder} did not begin: {_read_last_line(folder / 'keeper.log')}")


def _start_keeper(folder: Path, token: str) -> subprocess.Popen[bytes]:
    reap()
    with (folder / "keeper.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", keeper.__file__, str(folder)],
            cwd="/",
            env={keeper.KEEPER: token, "PATH": os.environ.get("PATH", os.defpath)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    _KEEPERS.append(process)
    return process


def _read_answer(process: subprocess.Popen[bytes]) -> str:
    """What a keeper prints when it has begun or leaves; empty if it died, or prints nothing for long."""
    assert process.stdout is not None
    with process.stdout as output:
        ready, _, _ = select.select([output], [], [], ANSWER_SECONDS)
        return os.read(output.fileno(), 1000).decode() if ready else ""


def reap() -> None:
    """Let go of the keepers that have ended, which the kernel holds for their parent, this process."""
    _KEEPERS[:] = [keeper for keeper in _KEEPERS if keeper.poll() is None]


def hold_steps(folder: Path, hold: bool) -> None:
    """Let the launcher of ``folder`` begin no further step, or take that back; it looks for this file."""
    if (folder / SUSPENDED).exists() == hold:
        return
    with contextlib.suppress(OSError):  # never begun, or no space: the scheduler sees to it again
        if hold:
            (folder / SUSPENDED).touch(mode=0o600)
        else:
            (folder / SUSPENDED).unlink()


def read_end(folder: Path) -> LauncherEnd | None:
    """How the attempt of ``folder`` ended; ``None`` while it runs, or if nobody noted it."""
    noted = read_file(folder, "ended.json")
    if noted is None:
        return None
    return LauncherEnd(noted["exit_code"], noted["ended"], noted["timed_out"], noted["reason"])


def has_begun(folder: Path) -> bool:
    """Whether a launcher may have been started."""
    return has_file(folder, "begun") or has_file(folder, "ended.json")


def count_starts(folder: Path) -> int:
    """How often the attempt was to be started."""
    return int((read_file(folder, "attempt.json") or {}).get("starts", 0))


def is_alive(folder: Path, token: str) -> bool:
    """Whether the attempt's keeper or launcher lives; tasks that outlive both do not count."""
    return read_end(folder) is None and (has_keeper(folder) or _launcher_lives(folder, token))


def has_keeper(folder: Path) -> bool:
    """Whether the attempt's keeper lives."""
    if not (folder / "lock").exists():
        return False
    lock = take_lock(folder)
    if lock is None:
        return True
    os.close(lock)
    return False


def _launcher_lives(folder: Path, token: str) -> bool:
    attempt = read_file(folder, "attempt.json")
    return attempt is not None and has_begun(folder) and find_launcher(token, attempt["command"]) is not None


def conclude_attempt(folder: Path, token: str) -> LauncherEnd | None:
    """How an attempt ended, after ending what is left of it; ``None`` while its keeper or launcher lives.

    When nobody saw its end, it is noted now as lost: a keeper that comes late, started by a scheduler that was
    killed meanwhile, finds the note and leaves.
    """
    if noted := read_end(folder):
        return noted
    make_folder(folder, mode=0o700)
    # the keeper holds this lock from before the launcher begins until its end is noted: who gets it knows that
    # there is no keeper, and that none begins meanwhile
    lock = take_lock(folder)
    if lock is None:
        return None
    try:
        if noted := read_end(folder):  # the keeper noted it just before it let go of the lock
            return noted
        if _launcher_lives(folder, token) or end_all(token, LEFT_BEHIND):
            return None
        # last, when nothing of it is left: who reads this note may begin the next attempt at once
        write_file(
            folder, "ended.json", {"exit_code": None, "ended": time.time(), "timed_out": False, "reason": ""}
        )
        forget_keys(folder, *SPENT)
        return read_end(folder)
    finally:
        os.close(lock)


def _read_last_line(path: Path) -> str:
    with contextlib.suppress(OSError):
        lines = path.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it was killed"
    return "it was killed"
