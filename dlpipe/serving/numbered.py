"""Versions that were asked for by their number, and stay loaded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

from dlpipe.serving.served import Served

BY_NUMBER = 2
"""Versions that nobody named at the start stay loaded so many, of all models together."""


class Numbered:
    """Versions by their number: all that were named, and of the others the last.

    Parameters
    ----------
    named : collection of (str, int)
        Those that a server was started with.
    """

    def __init__(self, named: Collection[tuple[str, int]] = ()) -> None:
        self._named = frozenset(named)
        self._kept: OrderedDict[tuple[str, int], Served] = OrderedDict()

    def find(self, name: str, number: int) -> Served | None:
        """Return a version that is loaded, and keep it longer than those that are asked for less."""
        served = self._kept.get((name, number))
        if served is not None:
            self._kept.move_to_end((name, number))
        return served

    def list_all(self) -> list[Served]:
        """Return those that are loaded."""
        return list(self._kept.values())

    def keep(self, served: Served) -> None:
        """Keep a version; of those that nobody named, let go what was not asked for longest, if they are too many."""
        self._kept[served.version.name, served.version.version] = served
        others = [key for key in self._kept if key not in self._named]
        for key in others[: max(0, len(others) - BY_NUMBER)]:
            del self._kept[key]

    def drop(self, served: Served) -> bool:
        """Let a version go; return whether it was one that a server was started with."""
        key = served.version.name, served.version.version
        if self._kept.get(key) is served:
            del self._kept[key]
        return key in self._named
