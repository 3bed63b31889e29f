"""A project's environment: a thin one over that of the command, in which all that it needs is installed already.

A link to that environment would do, but Metaflow does not find the packages of a wheel behind it.
"""

from __future__ import annotations

import sys
import venv
from pathlib import Path

INSTALLED = ".dlpipe/installed"
"""Whose time says when a project's environment was last made to fit."""
BELOW = "below.pth"
COMMANDS = ("dlpipe", "metaflow")


def make_environment(folder: Path) -> str:
    """Make ``.venv`` in a project, unless it is there, and return the environment below it, or nothing.

    What is installed there is seen, in the versions of the project's ``constraints.txt``; what the project
    installs goes into its own.
    """
    place = folder / ".venv"
    if place.exists():
        return ""
    venv.create(place, symlinks=True, with_pip=False)
    (packages,) = place.glob("lib/python3*/site-packages")
    lines = [f"import site; site.addsitedir({path!r})" for path in list_site_folders()]
    (packages / BELOW).write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name in COMMANDS:
        command = Path(sys.executable).with_name(name)
        if command.exists():
            (place / "bin" / name).symlink_to(command)
    (folder / INSTALLED).touch()
    return sys.prefix


def list_site_folders() -> list[str]:
    """Return the folders in which this Python's packages are installed."""
    return [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
