"""Units of systemd that keep a command of dlpipe going."""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SYSTEM_FOLDER = Path("/etc/systemd/system")


@dataclass(frozen=True)
class SystemdUnit:
    """A unit's file, and the commands that make systemd use it."""

    path: Path
    text: str
    commands: tuple[str, ...]


def make_unit(
    name: str,
    *,
    description: str,
    words: Sequence[str],
    folder: Path,
    variables: Mapping[str, str],
    variables_file: Path,
    about_file: str,
    service: Sequence[str] = (),
    after: Sequence[str] = (),
    system: bool = False,
    user: str | None = None,
    environ: Mapping[str, str] = os.environ,
    python: str = sys.executable,
) -> SystemdUnit:
    """Return the unit of a command of dlpipe that runs as this user: one of the user's own, or of the system's.

    Parameters
    ----------
    name : str
        Of the unit.
    description : str
        A line.
    words : sequence of str
        What stands after ``dlpipe``.
    folder : Path
        In which it works.
    variables : mapping
        Of its environment, beside ``PATH``.
    variables_file, about_file : Path and str
        A file of more variables, which need not exist, and what they are for.
    service, after : sequence of str
        More lines of the sections ``[Service]`` and ``[Unit]``.
    system : bool
        Whether it is the system's: it starts with the machine, and its file needs root's rights.
    user : str, optional
        Whose a unit of the system is; by default this one's.
    environ : mapping
        Where ``PATH`` is from.
    python : str
        The interpreter that has dlpipe.
    """
    command = [python, "-P", "-m", "dlpipe.cli", *words]
    given = {**variables, "PATH": environ.get("PATH", os.defpath)}
    lines = [
        "[Unit]",
        f"Description={escape_text(description)}",
        *after,
        "",
        "[Service]",
        "Type=exec",
        *([f"User={user or find_user_name()}"] if system else []),
        f"ExecStart={' '.join(quote_word(word, command=True) for word in command)}",
        f"WorkingDirectory={escape_text(str(folder))}",
        *(f"Environment={quote_word(f'{variable}={value}')}" for variable, value in given.items()),
        f"# more variables{about_file}, one a line",
        f"EnvironmentFile=-{escape_text(str(variables_file))}",
        *service,
        "Restart=on-failure",
        "RestartSec=10",
        "",
        "[Install]",
        f"WantedBy={'multi-user' if system else 'default'}.target",
        "",
    ]
    return SystemdUnit(
        find_unit_folder(system, environ) / f"{name}.service",
        "\n".join(lines),
        build_commands(system, environ, name),
    )


def name_unit(name: str, project: Path | None) -> str:
    """Return the name of a unit; each project of ``dlpipe init`` has one of its own.

    Examples
    --------
    >>> name_unit("dlpipe-scheduler", None), name_unit("dlpipe-scheduler", Path("/home/ana/films"))
    ('dlpipe-scheduler', 'dlpipe-scheduler-films-0cdcfa')
    """
    if project is None:
        return name
    digest = hashlib.sha256(os.fsencode(project)).hexdigest()[:6]  # projects of one name in two folders
    return f"{name}-{re.sub(r'[^A-Za-z0-9_-]', '-', project.name)}-{digest}"


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


def build_commands(system: bool, environ: Mapping[str, str], name: str) -> tuple[str, ...]:
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
