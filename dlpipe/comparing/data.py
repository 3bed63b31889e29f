"""How versions of a table differ: rows that were added, that are gone, and that changed split or label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dlpipe.errors import DlpipeError

if TYPE_CHECKING:
    from dlpipe.comparing.sides import Side, TableRef

ID, SPLIT, LABEL = "row_id", "split", "label"


@dataclass(frozen=True)
class RowChanges:
    """From one version of a table to another, by ``row_id``; ``problem`` says why it is not known.

    Attributes
    ----------
    added, gone : int
    added_by_split, gone_by_split : mapping of str to int
    moved : int
        Rows that both have, in another split.
    relabelled : int
        Rows that both have, with another label.
    """

    added: int = 0
    gone: int = 0
    added_by_split: Mapping[str, int] = field(default_factory=dict)
    gone_by_split: Mapping[str, int] = field(default_factory=dict)
    moved: int = 0
    relabelled: int = 0
    problem: str = ""


@dataclass(frozen=True)
class TableComparison:
    """A table that a side worked on.

    Attributes
    ----------
    versions, rows : tuple of int or None
        Of each side, ``None`` where it did not have the table.
    splits : tuple of mapping
        Rows by split, of each side; empty where they are not known.
    changes : tuple of RowChanges or None
        Of each side, from the first one that has the table; ``None`` where there is nothing to compare.
    """

    path: str
    versions: tuple[int | None, ...]
    rows: tuple[int | None, ...]
    splits: tuple[Mapping[str, int], ...]
    changes: tuple[RowChanges | None, ...]


def compare_tables(sides: Sequence[Side]) -> tuple[TableComparison, ...]:
    """Return each table that a side worked on, with the version that each had."""
    return tuple(compare_table(path, sides) for path in dict.fromkeys(ref.path for s in sides for ref in s.tables))


def compare_table(path: str, sides: Sequence[Side]) -> TableComparison:
    """Return the versions of the table at ``path`` that the sides had; of several versions, the latest counts."""
    refs = [max((ref for ref in side.tables if ref.path == path), key=get_version, default=None) for side in sides]
    contents = {ref.version: read_rows(ref) for ref in refs if ref}
    first = next(ref for ref in refs if ref)
    changes = [
        compare_contents(contents[first.version], contents[ref.version])
        if ref and ref.version != first.version
        else None
        for ref in refs
    ]
    return TableComparison(
        path=path,
        versions=tuple(ref.version if ref else None for ref in refs),
        rows=tuple(count_rows(ref, contents) for ref in refs),
        splits=tuple(count_splits(contents[ref.version]) if ref else {} for ref in refs),
        changes=tuple(changes),
    )


def get_version(ref: TableRef) -> int:
    """Return the number of a version."""
    return ref.version


def count_rows(ref: TableRef | None, contents: Mapping[int, Any]) -> int | None:
    """Return the rows of a version; ``None`` where they are not known."""
    if ref is None:
        return None
    found = contents[ref.version]
    return len(found) if not isinstance(found, str) else ref.rows if ref.rows >= 0 else None


def read_rows(ref: TableRef) -> dict[str, tuple[str, str]] | str:
    """Return split and label of each row by its id; a text that says why they cannot be read."""
    from dlpipe.tables import read_table, table_at

    try:
        version = table_at(ref.path, version=ref.version)
        names = [name for name, _ in version.columns]
        if ID not in names:
            return f"{version} has no column {ID!r}"
        found = read_table(version, columns=[name for name in (ID, SPLIT, LABEL) if name in names])
    except DlpipeError as error:
        return str(error).rstrip(".")
    empty = [None] * len(found)
    columns = (found[name].to_pylist() if name in names else empty for name in (ID, SPLIT, LABEL))
    return {str(row): (str(split or ""), repr(label)) for row, split, label in zip(*columns, strict=True)}


def count_splits(content: dict[str, tuple[str, str]] | str) -> dict[str, int]:
    """Return how many rows each split has."""
    return {} if isinstance(content, str) else order_splits(Counter(split for split, _ in content.values()))


def order_splits(counts: Mapping[str, int]) -> dict[str, int]:
    """Return counts by split in the order in which splits are used, rows of no split last.

    Examples
    --------
    >>> order_splits({"": 1, "test": 2, "train": 3})
    {'train': 3, 'test': 2, 'no split': 1}
    """
    order = ["train", "valid", "test", ""]
    names = sorted(counts, key=lambda name: order.index(name) if name in order else len(order))
    return {name or "no split": counts[name] for name in names}


def compare_contents(
    before: dict[str, tuple[str, str]] | str, after: dict[str, tuple[str, str]] | str
) -> RowChanges:
    """Return what changed between two contents, as ``read_rows`` returns them.

    Examples
    --------
    >>> old, new = {"a": ("train", "'x'"), "b": ("test", "'y'")}, {"b": ("train", "'z'"), "c": ("test", "'y'")}
    >>> found = compare_contents(old, new)
    >>> found.added_by_split, found.gone_by_split, found.moved, found.relabelled
    ({'test': 1}, {'train': 1}, 1, 1)
    """
    if isinstance(before, str) or isinstance(after, str):
        return RowChanges(problem=before if isinstance(before, str) else str(after))
    added, gone = [row for row in after if row not in before], [row for row in before if row not in after]
    both = [(before[row], after[row]) for row in after if row in before]
    return RowChanges(
        added=len(added),
        gone=len(gone),
        added_by_split=order_splits(Counter(after[row][0] for row in added)),
        gone_by_split=order_splits(Counter(before[row][0] for row in gone)),
        moved=sum(old[0] != new[0] for old, new in both),
        relabelled=sum(old[1] != new[1] for old, new in both),
    )
