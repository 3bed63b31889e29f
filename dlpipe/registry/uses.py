"""What the page of a version in MLflow says of where its rows came from and what it was used for.

A tag of the version keeps it, so that the description stays a text that is made of tags alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from dlpipe.registry.names import USES
from dlpipe.time_formats import format_moment

MOST = 12
"""So many files and uses stand in a description; of more, their number."""


@dataclass(frozen=True)
class Use:
    """What a version was used for.

    Attributes
    ----------
    what : str
        ``predictions``, ``explained rows``, ``looks at drift``, ``answers to requests``; a version made from it.
    where : str
        The table; empty for a version made from it.
    count : int
    last : int
        When it was last, in milliseconds since 1970.
    """

    what: str
    where: str
    count: int
    last: int

    def __str__(self) -> str:
        if not self.where:
            return self.what
        what = self.what if self.count != 1 else spell_one(self.what)
        return f"{self.count:,} {what} in {self.where}"


@dataclass(frozen=True)
class VersionUses:
    """Files that taught a version, and what it was used for.

    Attributes
    ----------
    sources : tuple of str
        Names of files with the beginning of their SHA-256.
    uses : tuple of Use
    """

    sources: tuple[str, ...] = ()
    uses: tuple[Use, ...] = ()


def spell_one(what: str) -> str:
    """Return the word for one of what several are called.

    Examples
    --------
    >>> [spell_one(what) for what in ("predictions", "explained rows", "answers to requests", "looks at drift")]
    ['prediction', 'explained row', 'answer to requests', 'look at drift']
    """
    first, *rest = what.split(" ")
    if first.endswith("s"):
        return " ".join([first.removesuffix("s"), *rest])
    return what.removesuffix("s")


def make_uses_tag(uses: VersionUses) -> tuple[str, str]:
    """Return the name and the value of the tag that keeps it."""
    return USES, json.dumps({"sources": uses.sources, "uses": [asdict(use) for use in uses.uses]})


def read_uses(tags: Mapping[str, str]) -> VersionUses:
    """Return what the tags of a version keep; nothing where they keep nothing.

    Examples
    --------
    >>> name, value = make_uses_tag(VersionUses(("films.csv",), (Use("predictions", "films_predictions", 3, 0),)))
    >>> read_uses({name: value}).uses[0]
    Use(what='predictions', where='films_predictions', count=3, last=0)
    """
    try:
        kept = json.loads(tags.get(USES, "{}"))
        return VersionUses(tuple(map(str, kept["sources"])), tuple(map(_read_use, kept["uses"])))
    except (ValueError, TypeError, LookupError, AttributeError):  # none, or one that somebody has changed
        return VersionUses()


def _read_use(kept: Mapping[str, Any]) -> Use:
    return Use(str(kept["what"]), str(kept["where"]), int(kept["count"]), int(kept["last"]))


def describe_uses(tags: Mapping[str, str]) -> Iterator[str]:
    """Yield a paragraph of the files that taught a version, and one of what it was used for; none for nothing.

    Examples
    --------
    >>> name, value = make_uses_tag(VersionUses(("films.csv",), (Use("predictions", "films_predictions", 3, 0),)))
    >>> list(describe_uses({name: value}))
    ['Its rows came from films.csv.', 'Used for 3 predictions in films_predictions; last 1970-01-01 00:00 UTC.']
    """
    kept = read_uses(tags)
    if kept.sources:
        yield f"Its rows came from {', '.join(cut_list(kept.sources))}."
    if kept.uses:
        last = datetime.fromtimestamp(max(use.last for use in kept.uses) / 1000, UTC)
        yield f"Used for {', '.join(cut_list(tuple(map(str, kept.uses))))}; last {format_moment(last)}."


def cut_list(names: tuple[str, ...]) -> list[str]:
    """Return at most so many of the names as a description has room for, and how many more there are.

    Examples
    --------
    >>> cut_list(tuple("abcdefghijklmn"))[-2:]
    ['l', '2 more']
    """
    return [*names[:MOST], *([f"{len(names) - MOST} more"] if len(names) > MOST else [])]
