"""Which versions of models have a tag, by the index: of a registry in a file, which says whether it has changed.

A server does not, and is asked itself.
"""

from __future__ import annotations

import json
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping

from dlpipe.lineage.index import Index, NewUnit, to_number
from dlpipe.registry import MADE_FROM, ModelLookup

TRAINED_BY, REGISTERED_BY = "metaflow.pathspec", "metaflow.task"
TAGS = ("delta.table", "delta.version", MADE_FROM, TRAINED_BY, REGISTERED_BY)
Version = tuple[str, int]


class ModelIndex:
    """Keeps the index up to date with the tags of versions, and asks it.

    Parameters
    ----------
    index : Index
    """

    def __init__(self, index: Index) -> None:
        self.index = index
        self._mark: str | None = None
        """Of the registry as it was when it was first asked; empty where it does not say whether it changes."""

    def find(self, lookup: ModelLookup, tag: str, value: str, *, prefix: bool = False) -> list[Version] | None:
        """Return the versions that may have a tag of this value, or of one that begins so.

        ``None`` where the index does not know.

        Parameters
        ----------
        lookup : ModelLookup
            What the registry is asked by.
        tag, value : str
        prefix : bool, optional
            Whether the value may go on, for one that ends with a slash.
        """
        if tag not in TAGS or (prefix and not value.endswith("/")):
            return None
        return self._find(lookup, make_word(tag, value, prefix=prefix))

    def find_trained(self, lookup: ModelLookup, table: str, number: int) -> list[Version] | None:
        """Return the versions that may name a version of a table; ``None`` where the index does not know."""
        return self._find(lookup, f"trained on {table}@{number}")

    def _find(self, lookup: ModelLookup, word: str) -> list[Version] | None:
        source = f"tags of {lookup.address}"
        if self._mark is None:
            self._mark = self._update(lookup, source)
        if not self._mark:
            return None

        def look() -> list[Version] | None:
            if self.index.read_mark(source) != self._mark:  # another process has seen the next change
                return None
            names = {unit.name for unit in self.index.find(word) if unit.source == source}
            return [(name.partition(" ")[2], int(name.partition(" ")[0])) for name in sorted(names)]

        return self.index.attempt(look)

    def _update(self, lookup: ModelLookup, source: str) -> str:
        """Bring the index up to date with the registry, and return its mark."""
        stamp = lookup.read_stamp()
        if stamp is None:
            return ""
        before = self.index.attempt(lambda: self.index.read_mark(source))
        if before == json.dumps(stamp):
            return before
        # read before the index is touched: what goes wrong here is no damage of the index
        stamp, rows = lookup.read_tags(TAGS)
        tags: dict[str, dict[str, str]] = defaultdict(dict)
        for name, number, tag, value in rows:
            tags[f"{number} {name}"][tag] = value
        words = {name: [*map(to_number, list_words(some))] for name, some in tags.items()}
        mark = json.dumps(stamp)

        def add() -> None:
            known = self.index.read_contents(source)
            units = [unit for unit in _make_units(words) if unit[1] not in known.get(unit[0], ())]
            self.index.add([(source, self.index.read_mark(source), mark, units)])

        self.index.attempt(add)
        return mark


def _make_units(words: dict[str, list[int]]) -> Iterator[NewUnit]:
    """Yield a unit a version; its content are its words, by which it is seen whether they have changed."""
    for name, some in words.items():
        numbers = sorted(some)
        yield name, array("I", numbers).tobytes(), numbers


def make_word(tag: str, value: str, *, prefix: bool = False) -> str:
    """Return by what a version with a tag is found.

    Examples
    --------
    >>> make_word("delta.table", "/films"), make_word("metaflow.task", "F/1/end/2/", prefix=True)
    ('delta.table is /films', 'metaflow.task begins with F/1/end/2/')
    """
    return f"{tag} begins with {value}" if prefix else f"{tag} is {value}"


def list_words(tags: Mapping[str, str]) -> Iterator[str]:
    """Yield all words by which a version with these tags is found.

    Examples
    --------
    >>> list(list_words({"metaflow.task": "F/1"}))
    ['metaflow.task is F/1', 'metaflow.task begins with F/']
    >>> list(list_words({"delta.table": "/films/", "delta.version": "3"}))[-1]
    'trained on /films@3'
    """
    for tag, value in tags.items():
        yield make_word(tag, value)
        if tag in (MADE_FROM, REGISTERED_BY):
            slashes = (at for at, sign in enumerate(value) if sign == "/")
            yield from (make_word(tag, value[: at + 1], prefix=True) for at in slashes)
    if "delta.table" in tags:
        yield f"trained on {tags['delta.table'].rstrip('/')}@{tags.get('delta.version')}"
