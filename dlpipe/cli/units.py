"""Units of systemd: shown, and written after a yes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dlpipe.cli.printing import say
from dlpipe.durable import make_folder, write_file
from dlpipe.errors import StateUnusable

if TYPE_CHECKING:
    from dlpipe.systemd import SystemdUnit

add_system = click.option(
    "--system", is_flag=True, help="A unit of the machine that runs as this user; by default a unit of this user."
)
add_yes = click.option("--yes", is_flag=True, help="Write the unit without asking.")


def install_unit(unit: SystemdUnit, *, system: bool, yes: bool) -> bool:
    """Show a unit, write it, say which commands start it, and return whether it was written.

    Raises
    ------
    StateUnusable
        When it cannot be written.
    """
    say(unit.text)
    verb = "Replace" if unit.path.exists() else "Write"
    if not yes and not click.confirm(f"{verb} {unit.path}?", err=True):
        say("Nothing was written.", err=True)
        return False
    try:
        make_folder(unit.path.parent)
        write_file(unit.path, unit.text)
    except OSError as error:
        hint = "Call it with sudo, or without --system." if system else "Make the folder writable."
        raise StateUnusable(f"{unit.path} cannot be written: {error.strerror}. {hint}") from None
    say(f"{unit.path} is written. Start it with:", err=True)
    for command in unit.commands:
        say(f"  {command}", err=True)
    return True
