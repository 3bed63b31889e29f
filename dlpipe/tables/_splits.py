"""Place the rows of a data-set table in splits: by a hash of each row, or as they are given.

The hash is that of what makes rows the same. So a row has the same split whenever and from wherever it comes, and
rows that are the same never stand in two splits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from dlpipe.errors import BadRows
from dlpipe.tables._form import RowForm
from dlpipe.tables._index import NONE, RowIndex
from dlpipe.tables._labels import list_labels, name_labels
from dlpipe.tables._settings import SPLITS, TableSettings

if TYPE_CHECKING:
    import numpy as np

NOUNS = {"class": "Classes", "labels": "Labels", "number": "Numbers"}
OTHERS = {"class": "of another class", "labels": "with other labels", "number": "with other numbers"}


def is_by_hash(source_split: str, given: set[str]) -> bool:
    """Return whether the rows of a source are split here, when ``given`` are the splits that have sources."""
    return source_split not in ("valid", "test") and "valid" not in given


def choose_split(source_split: str, digest: bytes, given: set[str], settings: TableSettings) -> str:
    """Return the split of a row: its source's own, or by the hash.

    Parameters
    ----------
    source_split : str
        ``data``, ``train``, ``valid`` or ``test``: what its source was given as.
    digest : bytes
        What ``RowForm.identify`` returned.
    given : set of str
        All of these that have sources.
    settings : TableSettings
        The shares of valid and test; test has none where it has sources.
    """
    if not is_by_hash(source_split, given):
        return source_split
    test_share = 0.0 if "test" in given else settings.test_share
    position = to_hash_position(digest)
    if position < test_share:
        return "test"
    return "valid" if position < test_share + settings.valid_share else "train"


def to_hash_position(digest: bytes) -> float:
    """Return where between 0 and 1 a row stands in the split by hash: test comes first, train last."""
    # other bytes than those of row_id, so that sorting by row_id does not sort by split
    return int.from_bytes(digest[8:16], "big") / 2**64


def place_by_hash(rows: RowIndex, given: set[str], settings: TableSettings) -> np.ndarray:
    """Return the number of the split that the hash gives each row; ``choose_split`` for many.

    Parameters
    ----------
    rows : RowIndex
    given : set of str
        The splits that have sources.
    settings : TableSettings
    """
    import numpy as np

    test_share = 0.0 if "test" in given else settings.test_share
    position = rows.to_positions()
    train, valid, test = range(len(SPLITS))
    later = np.where(position < test_share + settings.valid_share, valid, train)
    return np.where(position < test_share, test, later).astype(np.int8)


def find_leaks(rows: RowIndex) -> np.ndarray:
    """Return which rows of train stand in valid or test too, and which of valid stand in test."""
    import numpy as np

    if rows.form.repeats:
        return np.zeros(len(rows), bool)
    train, valid, test = range(len(SPLITS))
    stands_in = np.zeros((len(SPLITS), len(rows)), bool)
    for split in (valid, test):
        stands_in[split, rows.content[rows.split == split]] = True
    # a row stays where it measures and leaves where it is learnt from
    in_valid, in_test = stands_in[valid, rows.content], stands_in[test, rows.content]
    return ((rows.split == train) & (in_valid | in_test)) | ((rows.split == valid) & in_test)


def find_conflicts(rows: RowIndex) -> np.ndarray:
    """Return which rows stand in the rows with another label too."""
    import numpy as np

    if rows.form.repeats:
        return np.zeros(len(rows), bool)
    label = rows.value if rows.has_numbers else rows.label
    order = np.lexsort((label, rows.content))
    content, ranked = rows.content[order], label[order]
    differs = (content[1:] == content[:-1]) & (ranked[1:] != ranked[:-1])
    found = np.zeros(len(rows), bool)
    found[content[1:][differs]] = True
    return found[rows.content]


def keep_in_train(rows: RowIndex, *, there: Iterable[str] = ()) -> tuple[RowIndex, dict[str, int]]:
    """Return the rows with at least one of each class in train, and how many of each class were moved for it.

    Where the hash puts all rows of a class into valid and test, the one that stands nearest to train goes there,
    with those that are the same. All other rows stay. Of rows with several labels, each label is looked at.

    Parameters
    ----------
    there : iterable of str
        Classes that train has anyway.
    """
    import numpy as np

    train = SPLITS.index("train")
    in_train = {*there, *rows.count("train")}
    split, moved = rows.split.copy(), {}
    for label in rows.count():
        if label in in_train:
            continue
        of_class = rows.by_hash & rows.has_stratum(label)
        candidates = np.flatnonzero(of_class & (split != NONE))
        # a row that was moved for another of its labels is in train already
        if not len(candidates) or (split[candidates] == train).any():
            continue
        nearest = candidates[rows.to_positions()[candidates].argmax()]
        # whatever their labels: the same inputs never stand on both sides of a split
        moving = rows.by_hash & (split != NONE) & (rows.content == rows.content[nearest])
        split[moving] = train
        moved[label] = int((of_class & moving).sum())
    return replace(rows, split=split), moved


def describe_moves(moved: Mapping[str, int], form: RowForm) -> list[str]:
    """Return a line on the classes that were moved to train."""
    if not moved:
        return []
    return [
        f"Rare {NOUNS[form.label.kind].lower()} go to train first: the hash had put all their rows into valid or "
        f"test, and moved were {name_labels(moved)}."
    ]


def describe_splits(rows: RowIndex, moved: Mapping[str, int]) -> list[str]:
    """Return lines on the classes that were moved to train, and on those that valid or test has no row of."""
    notes = describe_moves(moved, rows.form)
    labels = {split: rows.count(split) for split in SPLITS}
    # a split without any row is refused elsewhere
    measured = [split for split in ("valid", "test") if rows.has_label(split).any()]
    every = sorted(set().union(*labels.values()))
    lacking = {label: [split for split in measured if label not in labels[split]] for label in every}
    listed = [f"{label[:40]!r} ({' and '.join(names)})" for label, names in lacking.items() if names]
    if listed:
        shown = ", ".join(listed[:8]) + (", ..." if len(listed) > 8 else "")
        notes.append(
            f"{NOUNS[rows.form.label.kind]} that a split has no row of, so that nothing measures them there: "
            f"{shown}. Add rows."
        )
    return notes


def check_splits(rows: RowIndex, settings: TableSettings) -> None:
    """Raise ``BadRows`` unless rows are a data set: labels differ, each split has rows, train has all classes."""
    labels = {split: set(rows.count(split)) for split in SPLITS}
    placed = rows.take(rows.split != NONE)
    if same := _describe_only_label(placed):
        raise BadRows(
            f"All {len(placed)} good rows have {same}. "
            f"Add rows {OTHERS[rows.form.label.kind]}, or set {rows.form.label.setting} to the right column."
        )
    for split in SPLITS:
        if not rows.has_label(split).any():
            shares = f"valid_share={settings.valid_share:g}, test_share={settings.test_share:g}"
            what = "texts" if rows.form.is_text else "rows"
            share = f"raise {split}_share (--set data.{split}_share=...)"
            share = "lower the shares of the others" if split == "train" else share
            raise BadRows(
                f"{len(placed)} good rows leave none for the split {split!r} ({shares}; what also stands in a "
                f"later split is dropped). Add rows, {share}, or pass --{split}-data with other {what}."
            )
    if rows.has_label("train").sum() == 1:
        raise BadRows("The split 'train' has 1 row: nothing can be learnt from that. Add rows.")
    for split in ("test", "valid"):
        unseen = labels[split] - labels["train"]
        if unseen:
            raise BadRows(
                f"The split {split!r} has labels that train lacks: {list_labels(unseen)}; train has "
                f"{list_labels(labels['train'])}. "
                "Correct the labels, add such rows to train, or take them out."
            )


def _describe_only_label(rows: RowIndex) -> str:
    """Return the label that all rows have, as an error names it; empty where they differ."""
    kind, there = rows.form.label.kind, rows.has_label()
    if not there.any():
        return "no label"
    labels = rows.value[there] if rows.has_numbers else rows.label[there]
    if (labels != labels[0]).any():
        return ""
    if rows.has_numbers:
        return f"the number {labels[0]:g} as label: there is nothing to learn"
    named = list_labels(rows.count()) or "'[]'"
    return f"the label{'s' if kind == 'labels' else ''} {named}: there is nothing to tell apart"
