"""The versions of the packages beside this one, for a project that is to have the same elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution

PACKAGE = "dlpipe"
TOOLS = ("pytest",)
"""What a project needs to be worked on, besides what dlpipe asks for."""


def list_pins() -> list[str]:
    """Return a line ``name==version`` for each package that dlpipe or the tools ask for and that is installed.

    Of a local version, such as ``2.13.0+cpu``, the part behind the plus is left out: it is of one index.
    """
    found: dict[str, str] = {}
    asked: list[tuple[str, frozenset[str]]] = [(PACKAGE, frozenset()), *((tool, frozenset()) for tool in TOOLS)]
    seen = set()
    while asked:
        name, extras = asked.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            package = distribution(name)
        except PackageNotFoundError:  # of another platform, or a tool that is not here yet
            continue
        found[name] = f"{package.metadata['Name']}=={package.version.partition('+')[0]}"
        asked += _list_requirements(package, extras)
    found.pop(PACKAGE, None)
    return sorted(found.values(), key=str.casefold)


def _list_requirements(package: Distribution, extras: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield the packages, and the extras of them, that a package with these extras asks for here."""
    from packaging.requirements import Requirement

    for line in package.requires or ():
        asked = Requirement(line)
        marker = asked.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield re.sub(r"[-_.]+", "-", asked.name).lower(), frozenset(asked.extras)
