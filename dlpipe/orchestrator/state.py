"""Everything that the orchestrator knows, in one SQLite file: deployments, runs, attempts and events."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Mapping
from pathlib import Path

from dlpipe.durable import make_folder
from dlpipe.errors import StateUnusable
from dlpipe.orchestrator.database import Database
from dlpipe.orchestrator.kept_hooks import KeptHooks
from dlpipe.orchestrator.rows import MIGRATIONS

FILE = "state.db"


PROJECT = ".dlpipe/answers.json"
"""What `dlpipe init` leaves in each project that it makes."""
PROJECT_STATE = ".dlpipe/state"


def state_folder() -> Path:
    """Return ``DLPIPE_STATE``, or a project's own folder, or ``dlpipe`` where XDG has the state of programs."""
    named = os.environ.get("DLPIPE_STATE")
    if named:
        return Path(os.path.expanduser(named)).absolute()
    if own := find_project_state():
        return own
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    if home.startswith("~"):
        raise StateUnusable("This user has no home folder for the state. Name a folder with DLPIPE_STATE.")
    return Path(home, "dlpipe")


def has_state() -> bool:
    """Return whether anything was deployed here: looking makes no folder."""
    return (state_folder() / FILE).exists()


def find_project_state() -> Path | None:
    """Return the state's folder in a project of ``dlpipe init``; ``None`` where the working folder is none.

    The flows of two projects have the same names, and so have the events that start them: in one state the second
    ``create`` of a ``TrainFlow`` would replace the first.
    """
    return Path(PROJECT_STATE).absolute() if Path(PROJECT).is_file() else None


def find_state_folder(user: str | None, environ: Mapping[str, str]) -> Path:
    """Return the folder of the state of this user, or of the one who called ``sudo``."""
    if user and not environ.get("DLPIPE_STATE") and not find_project_state():
        with contextlib.suppress(KeyError):  # no such user on this machine
            return Path(pwd.getpwnam(user).pw_dir, ".local/state/dlpipe")
    return state_folder()


def find_project(folder: Path) -> Path | None:
    """Return the project whose state is in ``folder``; ``None`` for the state of a user.

    Examples
    --------
    >>> find_project(Path("/home/ana/.local/state/dlpipe")), find_project(Path("/films/.dlpipe/state")).name
    (None, 'films')
    """
    return folder.parent.parent if folder.as_posix().endswith(f"/{PROJECT_STATE}") else None


class State(KeptHooks):
    """The state in a folder; several threads may use one, and several processes have one each.

    Every call is one transaction: a kill at any moment leaves all of it or nothing.

    Attributes
    ----------
    folder : Path
        Where it is, with the code of deployments and the folders of attempts beside it.
    """

    def __init__(self, folder: Path, database: Database) -> None:
        super().__init__(database)
        self.folder = folder

    @classmethod
    def open(cls, folder: Path | None = None, *, check: bool = False) -> State:
        """The state in ``folder``, by default :func:`state_folder`, made if there is none.

        Parameters
        ----------
        folder : Path, optional
            Where it is.
        check : bool
            Whether the whole file is checked for damage (about a second for a million runs); damage that a call
            comes upon is always noticed.

        Raises
        ------
        StateUnusable
            When the file is locked for more than ten seconds, damaged, of another program or of a newer dlpipe.
        StorageFull
            When there is no space for it.
        """
        folder = (folder or state_folder()).absolute()
        try:
            make_folder(folder, mode=0o700)
        except OSError as error:
            raise StateUnusable(
                f"The state cannot be kept in {folder}: {error.strerror}. Name another folder with DLPIPE_STATE."
            ) from error
        state = cls(folder, Database(folder / FILE, MIGRATIONS))
        if check:
            state._database.check()
        return state

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def get_data_version(self) -> int:
        """A number that changes when another process, or another ``State``, has changed something."""
        return self._database.get_data_version()
