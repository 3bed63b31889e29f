"""What ended long ago is forgotten: its rows in the state and its attempts' folders, once a day."""

from __future__ import annotations

import logging
import shutil

from dlpipe.orchestrator.state import State

DAY = 86400.0

log = logging.getLogger(__name__)


class Retention:
    """Forgets runs that ended more than ``days`` ago; with 0, none.

    The Metaflow runs themselves, and their mirrors in MLflow, stay as they are.
    """

    def __init__(self, state: State, *, days: int) -> None:
        self._state = state
        self._days = days
        self._next: float | None = None

    def look(self, now: float) -> None:
        """Forget what is old enough, unless that was done within a day."""
        if not self._days or (self._next is not None and self._next - DAY <= now < self._next):
            return
        self._next = now + DAY
        forgotten = self._state.forget(now - self._days * DAY)
        if forgotten:
            log.info("%d runs that ended more than %d days ago are forgotten", forgotten, self._days)
        remove_unknown(self._state)


def remove_unknown(state: State) -> None:
    """Remove folders of attempts whose run the state no longer knows, also those that a kill left behind."""
    known = set(map(str, state.run_numbers()))
    home = state.folder / "runs"
    for folder in home.iterdir() if home.is_dir() else ():
        if folder.name.isdecimal() and folder.name not in known:
            shutil.rmtree(folder, ignore_errors=True)
