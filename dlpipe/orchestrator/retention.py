"""What ended long ago is forgotten: its rows in the state, its attempts' folders and code that nothing needs."""

from __future__ import annotations

import logging
import shutil

from dlpipe.orchestrator.freezing import prune
from dlpipe.orchestrator.state import State

DAY = 86400.0

log = logging.getLogger(__name__)


class Retention:
    """Once a day, forgets runs that ended more than ``days`` ago (with 0, none), and code that no run needs.

    The Metaflow runs themselves, and their mirrors in MLflow, stay as they are.
    """

    def __init__(self, state: State, *, days: int) -> None:
        self._state = state
        self._days = days
        self._next: float | None = None

    def look(self, now: float) -> None:
        """Forget what is old enough, unless that was done within a day."""
        if self._next is not None and self._next - DAY <= now < self._next:
            return
        self._next = now + DAY
        if self._days:
            self._forget(now)
        for name in self._state.list_ever_deployed():
            prune(self._state, name)

    def _forget(self, now: float) -> None:
        # rows before folders: a folder that a kill leaves is unknown to the state, and goes with the next look
        if forgotten := self._state.forget(now - self._days * DAY):
            log.info("%d runs that ended more than %d days ago are forgotten", forgotten, self._days)
        remove_unknown(self._state)

    def look_after(self, deployment: str) -> None:
        """Remove the code that was kept for a run which has ended, if it was the last that needed it."""
        if not self._state.is_deployed(deployment):
            prune(self._state, deployment)


def remove_unknown(state: State) -> None:
    """Remove folders of attempts whose run the state no longer knows, also those that a kill left behind."""
    known = set(map(str, state.list_run_numbers()))
    home = state.folder / "runs"
    for folder in home.iterdir() if home.is_dir() else ():
        if folder.name.isdecimal() and folder.name not in known:
            shutil.rmtree(folder, ignore_errors=True)
