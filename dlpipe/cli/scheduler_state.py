"""The state of this machine's scheduler, as the commands open it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from dlpipe.cli.printing import say

if TYPE_CHECKING:
    from dlpipe.orchestrator.state import State


def open_state() -> closing[State]:
    """The state of this machine's scheduler, to be closed."""
    from dlpipe.orchestrator.state import State

    return closing(State.open())


def describe_state() -> str:
    """Return where the state is looked for, and what to do where that is the wrong place."""
    from dlpipe.orchestrator.state import state_folder

    looked = f"(looked in {str(state_folder())!r})"
    return f"{looked}. Stand in the folder of the project, or name its state in DLPIPE_STATE."


def warn_without_scheduler() -> None:
    """Say on stderr that no scheduler is there to do it, if so."""
    from dlpipe.orchestrator.presence import find_scheduler
    from dlpipe.orchestrator.state import state_folder

    if find_scheduler(state_folder()) is None:
        say("No scheduler is running; it is done when `dlpipe scheduler` is.", err=True)
