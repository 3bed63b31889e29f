"""The systemd unit that keeps the scheduler going."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import pwd
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dlpipe.orchestrator.state import PROJECT_STATE, find_project_state, state_folder

NAME = "dlpipe-scheduler"
SYSTEM_FOLDER = Path("/etc/systemd/system")
VARIABLES = "scheduler.env"


@dataclass(frozen=True)
class SystemdUnit:
    """A unit's file, and the commands that make systemd use it."""

    path: Path
    text: str
    commands: tuple[str, ...]


def make_unit(
    *,
    system: bool,
    max_runs: int,
    port: int,
    keep_days: int,
    no_token: bool = False,
    environ: Mapping[str, str] = os.environ,
    python: str = sys.executable,
) -> SystemdUnit:
    """The unit of a scheduler that runs as this user: one of the user's own, or one of the system's.

    Parameters
    ----------
    system : bool
        Whether it is the system's: it starts with the machine, and its file needs root's rights. Under ``sudo`` it
        works as the user who called it.
    max_runs, port, keep_days, no_token : int, bool
        Options of ``dlpipe scheduler``.
    environ : mapping
        Where ``PATH`` and the folder of the state are from.
    python : str
        The interpreter that has dlpipe.
    """
    user = environ.get("SUDO_USER") if system else None
    folder = find_state_folder(user, environ)
    options = {"--max-runs": max_runs, "--port": port, "--keep-days": keep_days}
    given = [word for name, value in options.items() for word in (name, str(value))]
    given += ["--no-token"] if no_token else []
    words = [python, "-P", "-m", "dlpipe.cli", "scheduler", *given]
    lines = [
        "[Unit]",
        "Description=dlpipe scheduler: runs deployed Metaflow flows when they are due",
        "",
        "[Service]",
        "Type=exec",
        *([f"User={user or find_user_name()}"] if system else []),
        f"ExecStart={' '.join(quote_word(word, command=True) for word in words)}",
        f"WorkingDirectory={escape_text(str(folder))}",
        f"Environment={quote_word(f'DLPIPE_STATE={folder}')}",
        f"Environment={quote_word('PATH=' + environ.get('PATH', os.defpath))}",
        "# more variables for runs, such as MLFLOW_TRACKING_URI=..., one a line",
        f"EnvironmentFile=-{escape_text(str(folder / VARIABLES))}",
        "# runs go on when the scheduler is stopped or started again, and when one of them takes too much memory",
        "KillMode=process",
        "OOMPolicy=continue",
        "Restart=on-failure",
        "RestartSec=10",
        "",
        "[Install]",
        f"WantedBy={'multi-user' if system else 'default'}.target",
        "",
    ]
    name = name_unit(folder)
    return SystemdUnit(
        find_unit_folder(system, environ) / f"{name}.service",
        "\n".join(lines),
        build_commands(system, environ, name),
    )


def name_unit(folder: Path) -> str:
    """Return the name of the unit for a state folder; each project of ``dlpipe init`` has one of its own.

    Examples
    --------
    >>> name_unit(Path("/home/ana/.local/state/dlpipe")), name_unit(Path("/home/ana/films/.dlpipe/state"))
    ('dlpipe-scheduler', 'dlpipe-scheduler-films-0cdcfa')
    """
    if not folder.as_posix().endswith(f"/{PROJECT_STATE}"):
        return NAME
    project = folder.parent.parent
    digest = hashlib.sha256(os.fsencode(project)).hexdigest()[:6]  # projects of one name in two folders
    return f"{NAME}-{re.sub(r'[^A-Za-z0-9_-]', '-', project.name)}-{digest}"


def find_state_folder(user: str | None, environ: Mapping[str, str]) -> Path:
    """The folder of the state: of this user, or of the one who called ``sudo``."""
    if user and not environ.get("DLPIPE_STATE") and not find_project_state():
        with contextlib.suppress(KeyError):  # no such user on this machine
            return Path(pwd.getpwnam(user).pw_dir, ".local/state/dlpipe")
    return state_folder()


def find_user_name() -> str:
    """Who is here; the number of a user whom the machine gives no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def find_unit_folder(system: bool, environ: Mapping[str, str]) -> Path:
    """Where systemd looks for units."""
    if system:
        return SYSTEM_FOLDER
    return Path(environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"), "systemd/user")


def build_commands(system: bool, environ: Mapping[str, str], name: str = NAME) -> tuple[str, ...]:
    """What is to be typed to start the unit now and from now on."""
    systemctl = "sudo systemctl" if system else "systemctl --user"
    start = (f"{systemctl} daemon-reload", f"{systemctl} enable --now {name}")
    # a user's units end with the last login, unless they linger
    return start if system else (*start, f"loginctl enable-linger {environ.get('USER') or find_user_name()}")


def quote_word(word: str, *, command: bool = False) -> str:
    r"""A word as systemd reads it back.

    Examples
    --------
    >>> quote_word("/opt/my flows"), quote_word("100%"), quote_word("a$b", command=True)
    ('"/opt/my flows"', '100%%', 'a$$b')
    """
    text = escape_text(word)
    if command:
        text = text.replace("$", "$$")
    plain = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{plain}"' if plain != text or any(sign in text for sign in " \t'") else text


def escape_text(text: str) -> str:
    """``text`` without what systemd would replace."""
    return text.replace("%", "%%")
