"""Versions that were asked for by their number, and stay loaded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

from dlpipe.serving.followed import Watch
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
        self._kept: OrderedDict[tuple[str, int], tuple[Served, Watch]] = OrderedDict()

    def find(self, name: str, number: int) -> Served | None:
        """Return a version that is loaded, and keep it longer than those that are asked for less."""
        if (kept := self._kept.get((name, number))) is None:
            return None
        self._kept.move_to_end((name, number))
        return kept[0]

    def list_all(self) -> list[Served]:
        """Return those that are loaded."""
        return [served for served, _ in self._kept.values()]

    def list_watched(self) -> list[tuple[Served, Watch]]:
        """Return the same, each with when it was looked at."""
        return list(self._kept.values())

    def list_names(self) -> set[str]:
        """Return the names of their models."""
        return {name for name, _ in self._kept}

    def keep(self, served: Served) -> None:
        """Keep a version; where those that nobody named are too many, let go what was not asked for longest."""
        self._kept[served.version.name, served.version.version] = served, Watch()
        others = [key for key in self._kept if key not in self._named]
        for key in others[: max(0, len(others) - BY_NUMBER)]:
            del self._kept[key]

    def drop(self, served: Served) -> bool:
        """Let a version go; return whether it was one that a server was started with."""
        key = served.version.name, served.version.version
        if key in self._kept and self._kept[key][0] is served:
            del self._kept[key]
        return key in self._named
