"""What the launcher of a bridged run leaves beside it: that it lives, and that MLflow may be behind.

The marks of a run are files in ``.metaflow/FLOW/RUN/_bridge`` and need no more than the file system. A launcher
holds a lock on its mark as long as it lives; the kernel lets go of it however the launcher dies. That is the only
sure sign there is: Metaflow's local metadata looks alike for a run that still runs, failed, or was killed.

Two kinds of them tell what no record of Metaflow's does, and stay as long as the run: what a step has reported
while it ran, and what its attempts took.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal
from urllib.parse import quote, unquote

from dlpipe.bridge.plain_files import open_plain_file
from dlpipe.bridge.resuming import is_plain
from dlpipe.durable import make_folder, write_file
from dlpipe.errors import MirrorIncomplete

Launcher = Literal["lives", "is gone", "unknown"]
DIFF_BYTES = 4 * 2**20
LARGEST = 16 * 2**20
STARTED = "the run has just started"


@dataclass(frozen=True)
class RunMarks:
    """The marks of one run.

    Attributes
    ----------
    pathspec : str
        ``Flow/run``.
    folder : Path
        Where its files are; made by ``hold``.
    """

    pathspec: str
    folder: Path

    def hold(self) -> IO[str]:
        """Say that this process launches the run, and that MLflow is behind until somebody says otherwise.

        The file that is returned must stay open: closing it says that the launcher is gone.
        """
        place = self._prepare_file("launcher")
        self.set_behind(STARTED)  # first: one killed on the way has not left a mark as if MLflow had all
        held = open(place, "w", opener=open_plain_file)  # noqa: SIM115
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held.write(f"{os.getpid()}\n")
        held.flush()
        return held

    def launcher(self) -> Launcher:
        """Return what is known of the launcher."""
        try:
            with open(self.folder / "launcher", opener=open_plain_file) as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return "lives"
        except OSError:
            return "unknown"
        return "is gone"

    @property
    def _behind(self) -> Path:
        return self.folder / "behind.json"

    def set_behind(self, reason: str) -> None:
        """Say that MLflow may lack something of the run, and why."""
        if not self.folder.is_dir() or self._find_link():
            return
        since = (self.behind() or {}).get("since") or int(time.time() * 1000)
        write_file(self._behind, json.dumps({"run": self.pathspec, "since": since, "reason": reason}).encode())

    def set_complete(self) -> None:
        """Say that MLflow has all of the run."""
        if not self._find_link():
            self._behind.unlink(missing_ok=True)

    def behind(self) -> dict[str, str | int] | None:
        """Return since when (milliseconds since 1970) and why MLflow may be behind; ``None`` when it is not."""
        try:
            return dict(json.loads(self._read(self._behind)))
        except (OSError, ValueError, RecursionError):
            return {"run": self.pathspec, "since": 0, "reason": "unknown"} if self._behind.exists() else None

    def problem(self) -> str:
        """Return what went wrong when MLflow was last written to; nothing if nothing did."""
        reason = str((self.behind() or {}).get("reason", ""))
        return "" if reason == STARTED else reason

    @property
    def _diff(self) -> Path:
        return self.folder / "uncommitted.diff"

    def keep_diff(self, diff: bytes) -> None:
        """Keep what was not committed when the run started; the first 4 MB of it."""
        if diff and not self._diff.exists() and self.folder.is_dir() and not self._find_link():
            cut = b"" if len(diff) <= DIFF_BYTES else b"\n(cut here)\n"
            write_file(self._diff, diff[:DIFF_BYTES] + cut)

    def diff(self) -> bytes:
        """Return what was not committed when the run started; nothing if that is not known."""
        try:
            return self._read(self._diff)
        except OSError:
            return b""

    @property
    def _script(self) -> Path:
        return self.folder / "script"

    def keep_script(self, script: str) -> None:
        """Keep where the flow's file is, as seen from the folder that the run was started in."""
        if self.folder.is_dir() and not self._find_link():
            write_file(self._script, script.encode(errors="replace"))

    def script(self) -> str:
        """Return the same; nothing where it is not known. Metaflow has the name of the file alone."""
        try:
            script = self._read(self._script).decode(errors="replace")
        except OSError:
            return ""
        return script if is_plain(script) else ""

    def note_uses(self, key: str) -> None:
        """Say that the step of this attempt logs to MLflow itself."""
        place = self._prepare_file("uses")
        make_folder(place)
        with open(place / quote(key, safe=""), "a", opener=open_plain_file):
            pass

    def uses(self) -> frozenset[str]:
        """Return the keys of the attempts whose steps log to MLflow themselves."""
        return self._list_keys("uses")

    def _list_keys(self, folder: str) -> frozenset[str]:
        try:
            if self._find_link(folder):
                return frozenset()
            return frozenset(unquote(name) for name in os.listdir(self.folder / folder))
        except OSError:
            return frozenset()

    def note_points(self, key: str, lines: bytes) -> None:
        """Append lines to what the step of this attempt reports while it runs."""
        place = self._prepare_file("points")
        make_folder(place)
        with open(place / quote(key, safe=""), "ab", buffering=0, opener=open_plain_file) as file:
            file.write(lines)

    def list_reporting(self) -> frozenset[str]:
        """Return the keys of the attempts whose steps have reported something."""
        return self._list_keys("points")

    def read_points(self, key: str, begin: int = 0) -> bytes:
        """Return the whole lines that an attempt has reported, from the byte ``begin`` on."""
        return self._read_lines("points", key, begin)

    def read_resources(self, key: str) -> bytes:
        """Return the lines in which an attempt that came to its end has left what it took."""
        return self._read_lines("resources", key)

    def _read_lines(self, folder: str, key: str, begin: int = 0) -> bytes:
        if self._find_link(folder):
            return b""
        try:
            with open(self.folder / folder / quote(key, safe=""), "rb", opener=open_plain_file) as file:
                file.seek(begin)
                found = file.read(LARGEST)
        except OSError:
            return b""
        return found[: found.rfind(b"\n") + 1]  # the last line may be on its way, or torn by a kill

    @property
    def _where(self) -> Path:
        return self.folder / "mlflow.json"

    def note_where(self, place: Mapping[str, Any]) -> None:
        """Say where the run and its attempts stand in MLflow; nothing is written unless it has changed."""
        if place != self.where():
            write_file(self._prepare_file("mlflow.json"), json.dumps(place, indent=1).encode())

    def where(self) -> dict[str, Any]:
        """Return where the run and its attempts stand in MLflow; nothing while it is not there."""
        try:
            place = json.loads(self._read(self._where))
        except (OSError, ValueError, RecursionError):
            return {}
        return place if isinstance(place, dict) else {}

    @property
    def _receiver(self) -> Path:
        return self.folder / "openlineage"

    def note_receiver(self, problem: str) -> None:
        """Say why a receiver of OpenLineage's events was not told all of the run; nothing if it was, so far."""
        if not self.folder.is_dir() or self._find_link():
            return
        if problem:
            write_file(self._receiver, problem.encode(errors="replace"))
        else:
            self._receiver.unlink(missing_ok=True)

    def receiver_problem(self) -> str:
        """Return the same; nothing where no receiver is behind."""
        try:
            return self._read(self._receiver).decode(errors="replace")
        except OSError:
            return ""

    @contextmanager
    def mirror_lock(self) -> Iterator[None]:
        """Hold the run for one mirror at a time on this machine: two would make a run each for one record."""
        from dlpipe.tracking import hold_lock

        with hold_lock(self._prepare_file("mirror.lock"), asked=f"the bridge of {self.pathspec}"):
            yield

    def take_over(self, writer: str) -> bool:
        """Say that ``writer`` mirrors the run now, and return whether somebody else did in between.

        Only for one who holds the mirror's lock.
        """
        file = self._prepare_file("writer")
        with contextlib.suppress(OSError):
            if self._read(file) == writer.encode():
                return False
        write_file(file, writer.encode())
        return True

    def _find_link(self, name: str = "") -> Path | None:
        """Return the link on the way to a file, if there is one: whoever may write runs could lead us anywhere."""
        way = (
            *(self.folder.parents[place] for place in (1, 0)),
            self.folder,
            *([self.folder / name] if name else []),
        )
        return next((place for place in way if place.is_symlink()), None)

    def _prepare_file(self, name: str) -> Path:
        """Return where a file is, of which the folder is made.

        Raises
        ------
        MirrorIncomplete
            When a link stands in the way.
        """
        if link := self._find_link(name):
            raise MirrorIncomplete(
                f"{link} is a link, and the bridge writes through none. Remove it and sync again"
            )
        make_folder(self.folder)
        return self.folder / name

    def _read(self, file: Path) -> bytes:
        if link := self._find_link(file.name):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(link))
        with open(file, "rb", opener=open_plain_file) as opened:
            return opened.read(LARGEST)


def find_marks(pathspec: str) -> RunMarks:
    """Return the marks of the run ``Flow/run`` in the ``.metaflow`` that Metaflow itself would use here."""
    return RunMarks(pathspec, find_state_root().joinpath(*pathspec.split("/"), "_bridge"))


def list_behind() -> list[RunMarks]:
    """Return the runs that MLflow may lack something of, the oldest first."""
    found = find_state_root().glob("*/*/_bridge/behind.json")
    marks = [RunMarks("/".join(path.parts[-4:-2]), path.parent) for path in found]
    return sorted(marks, key=lambda mark: (str((mark.behind() or {}).get("since", 0)).zfill(15), mark.pathspec))


def explain_elsewhere() -> str:
    """Return the line that runs of this folder are kept above it, with those of others; empty if not."""
    from metaflow.metaflow_config import DATASTORE_SYSROOT_LOCAL

    root = find_state_root().resolve()
    if DATASTORE_SYSROOT_LOCAL or root.parent == Path.cwd().resolve() or not root.is_dir():
        return ""
    return (
        f"Runs are kept in {root}, above this folder, with those of all other folders there. Make .metaflow here "
        "to keep this folder's apart."
    )


def find_state_root() -> Path:
    """Return the local ``.metaflow`` folder."""
    from metaflow.metaflow_config import DATASTORE_LOCAL_DIR
    from metaflow.plugins.datastores.local_storage import LocalStorage

    root = LocalStorage.datastore_root or LocalStorage.get_datastore_root_from_config(
        lambda *_, **__: None, create_on_absent=False
    )
    return Path(root) if root else Path.cwd() / DATASTORE_LOCAL_DIR
