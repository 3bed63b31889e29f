"""The splits of a data-set table: by a hash of each text, or as they are given."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from dlpipe.errors import BadRows
from dlpipe.tables._index import NONE, RowIndex
from dlpipe.tables._labels import list_labels, name_labels
from dlpipe.tables._settings import SPLITS, TableSettings

if TYPE_CHECKING:
    import numpy as np


def normalise(text: str) -> str:
    """Return what two texts share that are the same to a reader: Unicode form, case and white space levelled.

    Examples
    --------
    >>> normalise("  Ｇreat\\u00a0\\n FILM ")
    'great film'
    """
    # case folding can undo the form
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split())


def text_digest(text: str) -> bytes:
    """Return the SHA-256 of the normalised text."""
    return hashlib.sha256(normalise(text).encode()).digest()


def is_by_hash(source_split: str, given: set[str]) -> bool:
    """Return whether the rows of a source are split here, when ``given`` are the splits that have sources."""
    return source_split not in ("valid", "test") and "valid" not in given


def split_of(source_split: str, digest: bytes, given: set[str], settings: TableSettings) -> str:
    """Return the split of a text: its source's own, or by the hash."""
    if not is_by_hash(source_split, given):
        return source_split
    test_share = 0.0 if "test" in given else settings.test_share
    position = hash_position(digest)
    if position < test_share:
        return "test"
    return "valid" if position < test_share + settings.valid_share else "train"


def hash_position(digest: bytes) -> float:
    """Return where between 0 and 1 a text stands in the split by hash: test comes first, train last."""
    # other bytes than those of row_id, so that sorting by row_id does not sort by split
    return int.from_bytes(digest[8:16], "big") / 2**64


def place_by_hash(rows: RowIndex, given: set[str], settings: TableSettings) -> np.ndarray:
    """Return the number of the split that the hash gives each row; as ``split_of``, for many."""
    import numpy as np

    test_share = 0.0 if "test" in given else settings.test_share
    position = rows.position()
    train, valid, test = range(len(SPLITS))
    later = np.where(position < test_share + settings.valid_share, valid, train)
    return np.where(position < test_share, test, later).astype(np.int8)


def find_leaks(rows: RowIndex) -> np.ndarray:
    """Return which rows of train stand in valid or test too, and which of valid stand in test."""
    import numpy as np

    train, valid, test = range(len(SPLITS))
    stands_in = np.zeros((len(SPLITS), len(rows)), bool)
    for split in (valid, test):
        stands_in[split, rows.text[rows.split == split]] = True
    in_valid, in_test = stands_in[valid, rows.text], stands_in[test, rows.text]
    return ((rows.split == train) & (in_valid | in_test)) | ((rows.split == valid) & in_test)


def find_conflicts(rows: RowIndex) -> np.ndarray:
    """Return which rows have a text that stands in the rows with another label too."""
    import numpy as np

    lowest, highest = np.full(len(rows), len(rows.classes)), np.full(len(rows), NONE)
    np.minimum.at(lowest, rows.text, rows.label)
    np.maximum.at(highest, rows.text, rows.label)
    return (lowest != highest)[rows.text]


def keep_in_train(rows: RowIndex, *, there: Iterable[str] = ()) -> tuple[RowIndex, dict[str, int]]:
    """Return the rows with at least one text of each class in train, and how many of each class were moved for it.

    Where the hash puts all texts of a class into valid and test, the one that stands nearest to train goes there.
    All other rows stay.

    Parameters
    ----------
    there : iterable of str
        Classes that train has anyway.
    """
    import numpy as np

    train = SPLITS.index("train")
    in_train = {*there, *rows.count("train")}
    split, moved = rows.split.copy(), {}
    for number, label in enumerate(rows.classes):
        if label in in_train:
            continue
        of_class = rows.by_hash & (rows.label == number)
        candidates = np.flatnonzero(of_class & (rows.split != NONE))
        if not len(candidates):
            continue
        nearest = candidates[rows.position()[candidates].argmax()]
        moving = of_class & (rows.text == rows.text[nearest])
        split[moving] = train
        moved[label] = int(moving.sum())
    return replace(rows, split=split), moved


def describe_moves(moved: Mapping[str, int]) -> list[str]:
    """Return a line on the classes that were moved to train."""
    if not moved:
        return []
    return [
        "Rare classes go to train first: the hash had put all their rows into valid or test, and moved were "
        f"{name_labels(moved)}."
    ]


def describe_splits(rows: RowIndex, moved: Mapping[str, int]) -> list[str]:
    """Return lines on the classes that were moved to train, and on those that valid or test has no row of."""
    notes = describe_moves(moved)
    labels = {split: rows.count(split) for split in SPLITS}
    # a split without any row is refused elsewhere
    measured = [split for split in ("valid", "test") if labels[split]]
    every = sorted(set().union(*labels.values()))
    lacking = {label: [split for split in measured if label not in labels[split]] for label in every}
    listed = [f"{label[:40]!r} ({' and '.join(names)})" for label, names in lacking.items() if names]
    if listed:
        shown = ", ".join(listed[:8]) + (", ..." if len(listed) > 8 else "")
        notes.append(
            f"Classes that a split has no row of, so that nothing measures them there: {shown}. Add rows."
        )
    return notes


def check_splits(rows: RowIndex, settings: TableSettings) -> None:
    """Raise ``BadRows`` unless the rows are a data set: two classes, rows in each split, no class only in test."""
    labels = {split: set(rows.count(split)) for split in SPLITS}
    placed = int((rows.split != NONE).sum())
    every = sorted(set().union(*labels.values()))
    if len(every) < 2:
        raise BadRows(
            f"All {placed} good rows have the label {list_labels(every)}: there is nothing to tell apart. "
            "Add rows of another class, or set label_column to the right column."
        )
    for split in SPLITS:
        if not labels[split]:
            shares = f"valid_share={settings.valid_share:g}, test_share={settings.test_share:g}"
            raise BadRows(
                f"{placed} good rows leave none for the split {split!r} ({shares}; what also stands in a "
                f"later split is dropped). Add rows, raise the share, or pass --{split}-data with other texts."
            )
    for split in ("test", "valid"):
        unseen = labels[split] - labels["train"]
        if unseen:
            raise BadRows(
                f"The split {split!r} has labels that train lacks: {list_labels(unseen)}; train has "
                f"{list_labels(labels['train'])}. "
                "Correct the labels, add such rows to train, or take them out."
            )
