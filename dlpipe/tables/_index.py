"""What is known of each row of a table but its text, column by column: some thirty bytes a row."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from dlpipe.tables._settings import SPLITS

if TYPE_CHECKING:
    import numpy as np

NONE = -1
"""The number of a label or a split that a row does not have."""


@dataclass(frozen=True)
class RowIndex:
    """Rows in their order, without their texts.

    Attributes
    ----------
    classes : tuple of str
        The labels; ``label`` has numbers of them.
    label, split : array of int
        ``NONE`` where a row has none; splits are numbers of ``SPLITS``.
    by_hash : array of bool
        Whether the hash chose the split, and not who gave the sources.
    digest : array of int of shape (n_rows, 2)
        The first 16 bytes of the SHA-256 of the normalised text, in two halves.
    words, characters : array of int
        Lengths of the text.
    """

    classes: tuple[str, ...]
    label: np.ndarray
    split: np.ndarray
    by_hash: np.ndarray
    digest: np.ndarray
    words: np.ndarray
    characters: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    @cached_property
    def text(self) -> np.ndarray:
        """For each row, the number of its text; the same text has the same number."""
        import numpy as np

        order = np.lexsort((self.digest[:, 1], self.digest[:, 0]))
        ranked = self.digest[order]
        new = np.ones(len(self), bool)
        new[1:] = (ranked[1:] != ranked[:-1]).any(axis=1)
        numbers = np.empty(len(self), np.int64)
        numbers[order] = np.cumsum(new) - 1
        return numbers

    def repeat(self) -> np.ndarray:
        """Return, for each row, how many rows before it have the same text."""
        import numpy as np

        order = np.argsort(self.text, kind="stable")
        ranked = self.text[order]
        starts = np.flatnonzero(np.diff(ranked, prepend=-1))
        counted = np.arange(len(self)) - np.repeat(starts, np.diff(starts, append=len(self)))
        repeats = np.empty(len(self), np.int64)
        repeats[order] = counted
        return repeats

    def position(self) -> np.ndarray:
        """Return where between 0 and 1 each text stands in the split by hash; see ``hash_position``."""
        return self.digest[:, 1].astype(float) / 2**64

    def take(self, rows: np.ndarray) -> RowIndex:
        """Return some of the rows."""
        names = ("label", "split", "by_hash", "digest", "words", "characters")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def spell(self, spelling: Callable[[str], str]) -> RowIndex:
        """Return the rows with their labels spelled as classes are."""
        made = [spelling(label) for label in self.classes]
        classes = tuple(sorted(set(made)))
        return replace(self, classes=classes, label=_renumber(self.label, made, classes))

    def add(self, other: RowIndex) -> RowIndex:
        """Return these rows and after them those of ``other``."""
        import numpy as np

        classes = tuple(sorted({*self.classes, *other.classes}))
        labels = [_renumber(one.label, one.classes, classes) for one in (self, other)]
        names = ("split", "by_hash", "digest", "words", "characters")
        joined = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in names}
        return RowIndex(classes=classes, label=np.concatenate(labels), **joined)

    def count(self, split: str | None = None) -> dict[str, int]:
        """Return the labels that rows have, or those of a split, sorted, with their numbers of rows."""
        import numpy as np

        chosen = self.label if split is None else self.label[self.split == SPLITS.index(split)]
        counts = np.bincount(chosen[chosen != NONE], minlength=len(self.classes))
        return {label: int(n) for label, n in sorted(zip(self.classes, counts, strict=True)) if n}


class Indexer:
    """Takes rows one by one; ``index`` returns what is known of them.

    Examples
    --------
    >>> from dlpipe.tables._splits import text_digest
    >>> rows = Indexer()
    >>> for text, label in (("good", "a"), ("bad", "b"), ("Good", "a")):
    ...     rows.add(text, label, None, text_digest(text))
    >>> rows.index().repeat().tolist(), rows.index().count()
    ([0, 0, 1], {'a': 2, 'b': 1})
    """

    def __init__(self) -> None:
        self._labels: dict[str, int] = {}
        self._splits = {name: number for number, name in enumerate(SPLITS)}
        self._digests = bytearray()
        self._label, self._split = array("i"), array("b")
        self._words, self._characters = array("i"), array("i")

    def __len__(self) -> int:
        return len(self._label)

    def add(self, text: str, label: str | None, split: str | None, digest: bytes) -> None:
        """Take a row."""
        self._digests += digest[:16]
        self._label.append(NONE if label is None else self._labels.setdefault(label, len(self._labels)))
        self._split.append(self._splits.get(split or "", NONE))
        self._words.append(len(text.split()))
        self._characters.append(len(text))

    def index(self, *, by_hash: bool = True) -> RowIndex:
        """Return the rows taken so far."""
        import numpy as np

        return RowIndex(
            classes=tuple(self._labels),
            label=np.array(self._label, np.int32),
            split=np.array(self._split, np.int8),
            by_hash=np.full(len(self), by_hash),
            digest=np.frombuffer(bytes(self._digests), ">u8").astype(np.uint64).reshape(-1, 2),
            words=np.array(self._words, np.int32),
            characters=np.array(self._characters, np.int32),
        )


def _renumber(label: np.ndarray, old: Sequence[str], new: Sequence[str]) -> np.ndarray:
    import numpy as np

    at = {name: number for number, name in enumerate(new)}
    # the last one is what NONE finds
    return np.array([*(at[name] for name in old), NONE], np.int32)[label]
