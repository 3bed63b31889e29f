"""What is known of each row of a table but its inputs, column by column: some thirty bytes a row.

Conflicts, leaks and rare classes are found among all rows of an ingest, whose texts need not fit into memory.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dlpipe.tables._form import RowForm, Values
from dlpipe.tables._settings import SPLITS

if TYPE_CHECKING:
    import numpy as np

NONE = -1
"""The number of a label or a split that a row does not have."""
ARRAYS = ("label", "split", "by_hash", "digest", "words", "characters")


@dataclass(frozen=True)
class RowIndex:
    """Rows in their order, without their inputs.

    Attributes
    ----------
    form : RowForm
    classes : tuple of str
        The different labels as ``Label`` writes them (of labels that are numbers an empty one); ``label`` has
        numbers of them.
    label, split : array of int
        ``NONE`` where a row has none; splits are numbers of ``SPLITS``.
    value : array of float
        The label of each row that is a number, else NaN; without any row where labels are no numbers.
    by_hash : array of bool
        Whether the hash chose the split, and not who gave the sources.
    digest : array of int of shape (n_rows, 2)
        The first 16 bytes of the SHA-256 of what makes two rows the same, in two halves.
    words, characters : array of int
        Words in the texts of the row, and the length of its content.
    """

    form: RowForm
    classes: tuple[str, ...]
    label: np.ndarray
    value: np.ndarray
    split: np.ndarray
    by_hash: np.ndarray
    digest: np.ndarray
    words: np.ndarray
    characters: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    @cached_property
    def content(self) -> np.ndarray:
        """For each row, the number of its content; rows that are the same have the same number."""
        import numpy as np

        order = np.lexsort((self.digest[:, 1], self.digest[:, 0]))
        ranked = self.digest[order]
        new = np.ones(len(self), bool)
        new[1:] = (ranked[1:] != ranked[:-1]).any(axis=1)
        numbers = np.empty(len(self), np.int64)
        numbers[order] = np.cumsum(new) - 1
        return numbers

    def count_repeats(self) -> np.ndarray:
        """Return, for each row, how many rows before it are the same."""
        import numpy as np

        order = np.argsort(self.content, kind="stable")
        ranked = self.content[order]
        starts = np.flatnonzero(np.diff(ranked, prepend=-1))
        counted = np.arange(len(self)) - np.repeat(starts, np.diff(starts, append=len(self)))
        repeats = np.empty(len(self), np.int64)
        repeats[order] = counted
        return repeats

    def to_positions(self) -> np.ndarray:
        """Return where between 0 and 1 each row stands in the split by hash; see ``to_hash_position``."""
        return self.digest[:, 1].astype(float) / 2**64

    def take(self, rows: np.ndarray) -> RowIndex:
        """Return some of the rows."""
        taken = {name: getattr(self, name)[rows] for name in ARRAYS}
        return replace(self, value=self.value[rows] if self.has_numbers else self.value, **taken)

    def spell(self, spelling: Callable[[str], str]) -> RowIndex:
        """Return the rows with their labels spelled as classes are."""
        made = [self.form.label.spell(label, spelling) for label in self.classes]
        classes = tuple(sorted(set(made)))
        return replace(self, classes=classes, label=_renumber(self.label, made, classes))

    def concat(self, other: RowIndex) -> RowIndex:
        """Return these rows and after them those of ``other``."""
        import numpy as np

        classes = tuple(sorted({*self.classes, *other.classes}))
        labels = np.concatenate([_renumber(rows.label, rows.classes, classes) for rows in (self, other)])
        names = (*(name for name in ARRAYS if name != "label"), "value")
        joined = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in names}
        return RowIndex(form=self.form, classes=classes, label=labels, **joined)

    @property
    def has_numbers(self) -> bool:
        """Whether labels are numbers."""
        return self.form.label.kind == "number"

    def has_label(self, split: str | None = None) -> np.ndarray:
        """Return which rows have a label, of all or of a split."""
        there: np.ndarray = self.label != NONE
        return there if split is None else there & (self.split == SPLITS.index(split))

    def has_stratum(self, stratum: str) -> np.ndarray:
        """Return which rows have this class, or this label among others."""
        import numpy as np

        strata = self.form.label.list_strata
        numbers = [number for number, label in enumerate(self.classes) if stratum in strata(label)]
        return self.label == numbers[0] if len(numbers) == 1 else np.isin(self.label, numbers)

    def count(self, split: str | None = None) -> dict[str, int]:
        """Return classes, or labels, with their rows in all or in a split, sorted; nothing for numbers."""
        import numpy as np

        chosen = self.label if split is None else self.label[self.split == SPLITS.index(split)]
        counts = np.bincount(chosen[chosen != NONE], minlength=len(self.classes)).tolist()
        found: Counter[str] = Counter()
        for label, rows in zip(self.classes, counts, strict=True):
            if rows:
                found.update(dict.fromkeys(self.form.label.list_strata(label), rows))
        return dict(sorted(found.items()))

    def make_label_reader(self) -> Callable[[slice], list[Any]]:
        """Return a function from a slice of the rows to their labels as a table holds them."""
        if self.has_numbers:
            return lambda part: [None if value != value else value for value in self.value[part].tolist()]
        # NONE is the last of them
        read = [*map(self.form.label.from_string, self.classes), None]
        return lambda part: [read[number] for number in self.label[part].tolist()]


class Indexer:
    """Takes rows one by one; ``build`` returns what is known of them.

    Examples
    --------
    >>> from dlpipe.tables._form import TEXT_FORM
    >>> rows = Indexer(TEXT_FORM)
    >>> for text, label in (("good", "a"), ("bad", "b"), ("Good", "a")):
    ...     rows.add((text,), label, None, TEXT_FORM.identify((text,)))
    >>> rows.build().count_repeats().tolist(), rows.build().count()
    ([0, 0, 1], {'a': 2, 'b': 1})
    """

    def __init__(self, form: RowForm) -> None:
        self._form, self._has_numbers = form, form.label.kind == "number"
        self._labels: dict[str, int] = {}
        self._splits = {name: number for number, name in enumerate(SPLITS)}
        self._digests = bytearray()
        # arrays, in which an entry takes its bytes and no object: an index may have millions of rows
        self._label, self._split, self._value = array("i"), array("b"), array("d")
        self._words, self._characters = array("i"), array("i")

    def __len__(self) -> int:
        return len(self._label)

    def add(self, values: Values, label: str | None, split: str | None, digest: bytes) -> None:
        """Take a row.

        Parameters
        ----------
        values : tuple
            Its inputs.
        label : str or None
            As ``Label.to_string`` writes it.
        split : str or None
        digest : bytes
            What ``RowForm.identify`` returned for ``values``: a caller that needs it too makes it once.
        """
        self._digests += digest[:16]
        if self._has_numbers:
            self._value.append(math.nan if label is None else float(label))
            # numbers are no classes: one empty class stands for all of them, and ``value`` has the numbers
            label = None if label is None else ""
        self._label.append(NONE if label is None else self._labels.setdefault(label, len(self._labels)))
        self._split.append(self._splits.get(split or "", NONE))
        self._words.append(self._form.count_words(values))
        self._characters.append(self._form.count_characters(values))

    def build(self, *, by_hash: bool = True) -> RowIndex:
        """Return the rows taken so far."""
        import numpy as np

        return RowIndex(
            form=self._form,
            classes=tuple(self._labels),
            label=np.array(self._label, np.int32),
            value=np.array(self._value, np.float64),
            split=np.array(self._split, np.int8),
            by_hash=np.full(len(self), by_hash),
            # big-endian: the first half in hex digits is the row id
            digest=np.frombuffer(bytes(self._digests), ">u8").astype(np.uint64).reshape(-1, 2),
            words=np.array(self._words, np.int32),
            characters=np.array(self._characters, np.int32),
        )


def _renumber(label: np.ndarray, old: Sequence[str], new: Sequence[str]) -> np.ndarray:
    import numpy as np

    at = {name: number for number, name in enumerate(new)}
    # the last one is what NONE finds
    return np.array([*(at[name] for name in old), NONE], np.int32)[label]
