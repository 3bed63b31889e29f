"""Settings that change under a running server: its file is read again on SIGHUP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

from dlpipe.errors import SettingError
from dlpipe.serving.application import Application
from dlpipe.serving.request_log import RequestLog
from dlpipe.serving.settings import ServingSettings


class Reloader:
    """Takes over what has changed in the settings of a server, and says it.

    Bounds of requests and what is logged change at once, for requests that come after. What stands in other
    sections needs a restart.

    Parameters
    ----------
    settings : ServingSettings
        With which the server runs.
    read : callable
        Returns what the file says now.
    app, log : Application and RequestLog
    say : callable
        Gets lines for people.
    """

    def __init__(
        self,
        settings: ServingSettings,
        read: Callable[[], ServingSettings],
        app: Application,
        log: RequestLog,
        *,
        say: Callable[[str], None],
    ) -> None:
        self._settings, self._read, self._app, self._log, self._say = settings, read, app, log, say

    def reload(self) -> None:
        """Read the settings again; those before stay where they cannot be read."""
        try:
            new = self._read()
        except SettingError as error:
            self._say(f"{error} The settings that were read before stay as they were.")
            return
        before = self._settings
        changes = [*list_changes(before.limits, new.limits), *list_changes(before.log, new.log)]
        self._app.limits, self._log.settings = new.limits, new.log
        self._app.batcher.max_wait = new.limits.max_wait
        later = [name for name in ("keys", "ray") if getattr(before, name) != getattr(new, name)]
        self._settings = ServingSettings(new.limits, new.log, before.keys, before.ray)
        told = ", ".join(changes) or "nothing has changed"
        self._say(f"The settings were read again: {told}.")
        if later:
            self._say(f"{' and '.join(f'[serving.{name}]' for name in later)} changed, which needs a restart.")


def list_changes(before: Any, after: Any) -> Iterator[str]:
    """Yield what is different in two of the same dataclass.

    Examples
    --------
    >>> from dlpipe.serving.settings import LogSettings
    >>> list(list_changes(LogSettings(), LogSettings(texts=True)))
    ['texts is True (was False)']
    """
    for one in fields(before):
        was, now = getattr(before, one.name), getattr(after, one.name)
        if was != now:
            yield f"{one.name} is {now} (was {was})"
