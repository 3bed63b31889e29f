"""The splits of a data-set table: by a hash of each text, or as they are given."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from dlpipe.errors import BadRows
from dlpipe.tables._labels import list_labels, name_labels
from dlpipe.tables._settings import SPLITS, TableSettings


@dataclass(frozen=True)
class Placed:
    """A good row on its way into a split."""

    text: str
    label: str | None
    split: str | None
    """None for an appended row without a label."""
    digest: bytes
    """SHA-256 of the normalised text."""
    row_id: str = ""
    """Of an appended row; empty for one that has none yet."""
    by_hash: bool = False
    """Whether the hash chose the split, and not who gave the sources."""


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


def drop_leaks(placed: Sequence[Placed]) -> tuple[list[Placed], int]:
    """Return the rows without those of train that stand in valid or test, and of valid that stand in test."""
    test = {row.digest for row in placed if row.split == "test"}
    valid = {row.digest for row in placed if row.split == "valid"}
    later = {"train": test | valid, "valid": test, "test": set()}
    kept = [row for row in placed if row.digest not in later[row.split or "train"]]
    return kept, len(placed) - len(kept)


def keep_in_train(placed: Sequence[Placed], *, there: Iterable[str] = ()) -> tuple[list[Placed], dict[str, int]]:
    """Return the rows with at least one text of each class in train, and how many of each class were moved for it.

    Where the hash puts all texts of a class into valid and test, the one that stands nearest to train goes there.
    All other rows stay.

    Parameters
    ----------
    there : iterable of str
        Classes that train has anyway.
    """
    in_train = {*there, *(row.label for row in placed if row.split == "train")}
    nearest: dict[str, bytes] = {}
    for row in placed:
        if row.by_hash and row.label and row.split and row.label not in in_train:
            other = nearest.get(row.label, row.digest)
            nearest[row.label] = max(row.digest, other, key=hash_position)
    moving = {digest: label for label, digest in nearest.items()}
    moved = Counter(row.label for row in placed if row.by_hash and moving.get(row.digest) == row.label)
    kept = [replace(row, split="train") if _moves(row, moving) else row for row in placed]
    return kept, {label: count for label, count in moved.items() if label}


def _moves(row: Placed, moving: Mapping[bytes, str]) -> bool:
    return row.by_hash and row.label is not None and moving.get(row.digest) == row.label


def describe_moves(moved: Mapping[str, int]) -> list[str]:
    """Return a line on the classes that were moved to train."""
    if not moved:
        return []
    return [
        "Rare classes go to train first: the hash had put all their rows into valid or test, and moved were "
        f"{name_labels(moved)}."
    ]


def describe_splits(placed: Sequence[Placed], moved: Mapping[str, int]) -> list[str]:
    """Return lines on the classes that were moved to train, and on those that valid or test has no row of."""
    notes = describe_moves(moved)
    splits: dict[str, set[str]] = {}
    for row in placed:
        if row.label and row.split:
            splits.setdefault(row.label, set()).add(row.split)
    # a split without any row is refused elsewhere
    measured = [split for split in ("valid", "test") if any(split in there for there in splits.values())]
    lacking = {label: [split for split in measured if split not in there] for label, there in splits.items()}
    listed = [f"{label[:40]!r} ({' and '.join(names)})" for label, names in sorted(lacking.items()) if names]
    if listed:
        shown = ", ".join(listed[:8]) + (", ..." if len(listed) > 8 else "")
        notes.append(
            f"Classes that a split has no row of, so that nothing measures them there: {shown}. Add rows."
        )
    return notes


def check_splits(placed: Sequence[Placed], settings: TableSettings) -> None:
    """Raise ``BadRows`` unless the rows are a data set: two classes, rows in each split, no class only in test."""
    labels = {split: {row.label or "" for row in placed if row.split == split} for split in SPLITS}
    every = sorted(set().union(*labels.values()))
    if len(every) < 2:
        raise BadRows(
            f"All {len(placed)} good rows have the label {list_labels(every)}: there is nothing to tell apart. "
            "Add rows of another class, or set label_column to the right column."
        )
    for split in SPLITS:
        if not labels[split]:
            shares = f"valid_share={settings.valid_share:g}, test_share={settings.test_share:g}"
            raise BadRows(
                f"{len(placed)} good rows leave none for the split {split!r} ({shares}; what also stands in a "
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
