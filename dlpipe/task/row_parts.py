"""The parts of a row that an explanation gives numbers to, and the tree over which they share credit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dlpipe.task.predictor import Row

if TYPE_CHECKING:
    import numpy as np

Span = tuple[int, int]


@dataclass(frozen=True)
class PartTree:
    """A binary tree over the parts of a row, in their order.

    Attributes
    ----------
    spans : sequence of (start, stop)
        The parts under each node. The leaves come first, in the order of the parts; the root is last.
    children : sequence of (left, right)
        The two nodes under each inner node, the first inner node's first.
    """

    spans: Sequence[Span]
    children: Sequence[tuple[int, int]]

    @property
    def leaves(self) -> int:
        """The number of parts."""
        return len(self.spans) - len(self.children)

    def get_children(self, node: int) -> tuple[int, int] | None:
        """Return the left and the right child of ``node``; a leaf has none."""
        at = node - self.leaves
        return None if at < 0 else self.children[at]

    def count_leaves(self, node: int) -> int:
        """Return the number of parts under ``node``."""
        start, stop = self.spans[node]
        return stop - start


def build_tree(leaves: int, children: Sequence[tuple[int, int]]) -> PartTree:
    """Return the tree over so many parts whose inner nodes have these children.

    Examples
    --------
    >>> build_tree(3, [(1, 2), (0, 3)]).spans
    [(0, 1), (1, 2), (2, 3), (1, 3), (0, 3)]
    """
    spans: list[Span] = [(at, at + 1) for at in range(leaves)]
    for left, right in children:
        spans.append((spans[left][0], spans[right][1]))
    return PartTree(spans, children)


def balance_tree(leaves: int) -> PartTree:
    """Return the tree that halves neighbours again and again, for parts that nothing binds.

    Examples
    --------
    >>> balance_tree(5).children
    [(0, 1), (3, 4), (2, 6), (5, 7)]
    """
    children: list[tuple[int, int]] = []
    _join(list(range(leaves)), leaves, children)
    return build_tree(leaves, children)


def join_trees(trees: Sequence[PartTree]) -> PartTree:
    """Return the tree whose top branches are ``trees``, over the parts of all, one after another.

    Examples
    --------
    >>> join_trees([balance_tree(2), balance_tree(3)]).children
    [(0, 1), (3, 4), (2, 6), (5, 7)]
    """
    leaves = sum(tree.leaves for tree in trees)
    children: list[tuple[int, int]] = []
    roots, first = [], 0
    for tree in (tree for tree in trees if tree.leaves):
        # leaves are numbered before all inner nodes, so both kinds move, by different steps
        inner = leaves + len(children) - tree.leaves
        moved = [node + (first if node < tree.leaves else inner) for node in range(len(tree.spans))]
        children += [(moved[left], moved[right]) for left, right in tree.children]
        roots.append(moved[-1])
        first += tree.leaves
    _join(roots, leaves, children)
    return build_tree(leaves, children)


def _join(nodes: Sequence[int], leaves: int, children: list[tuple[int, int]]) -> int:
    """Add inner nodes over ``nodes`` to ``children`` until one is left, and return it."""
    if len(nodes) < 2:
        return nodes[0] if nodes else -1
    half = len(nodes) // 2
    pair = _join(nodes[:half], leaves, children), _join(nodes[half:], leaves, children)
    children.append(pair)
    return leaves + len(children) - 1


class RowParts(ABC):
    """The parts of one row.

    Attributes
    ----------
    shown : tuple of str
        Each as it stands in the row: a word with the white space after it, the value of a column.
    names : tuple of str
        By which equal parts of rows are counted together: a word without case and punctuation, a column's name.
    columns : tuple of str
        The column of the table in which each stands.
    texts : tuple of str
        The columns whose parts are the words of a text, in their order.
    whole : bool
        Whether these are all of the row; ``False`` where the model reads only its beginning.
    """

    shown: tuple[str, ...]
    names: tuple[str, ...]
    columns: tuple[str, ...]
    texts: tuple[str, ...] = ()
    whole: bool = True

    @property
    def tree(self) -> PartTree:
        """The tree over the parts: those under one node share what they do together."""
        return balance_tree(len(self.shown))

    @abstractmethod
    def keep(self, kept: Sequence[bool]) -> Row:
        """Return the row with the parts that are ``kept``, and without the others or with usual values for them.

        With all of them it is what the model reads of the row.
        """


class JoinedParts(RowParts):
    """The parts of a row that has several pieces, such as two texts, or columns and a text.

    Parameters
    ----------
    pieces : sequence of RowParts
        Each has a branch of its own at the top of the tree.
    make : callable
        Takes what the pieces keep, in their order, and returns the row.

    Examples
    --------
    >>> age = ColumnParts({"age": 71}, {"age": 30})
    >>> city = ColumnParts({"city": "Bonn", "rooms": 3.5}, {"city": "Berlin", "rooms": 2.0})
    >>> both = JoinedParts([age, city], lambda rows: rows[0] | rows[1])
    >>> both.shown, both.keep([True, False, True])
    (('71', 'Bonn', '3.5'), {'age': 71, 'city': 'Berlin', 'rooms': 3.5})
    """

    def __init__(self, pieces: Sequence[RowParts], make: Callable[[list[Row]], Row]) -> None:
        self._pieces, self._make = pieces, make
        self.shown = tuple(shown for piece in pieces for shown in piece.shown)
        self.names = tuple(name for piece in pieces for name in piece.names)
        self.columns = tuple(column for piece in pieces for column in piece.columns)
        self.texts = tuple(text for piece in pieces for text in piece.texts)
        self.whole = all(piece.whole for piece in pieces)

    @cached_property
    def tree(self) -> PartTree:
        """The trees of the pieces, each a branch at the top."""
        return join_trees([piece.tree for piece in self._pieces])

    def keep(self, kept: Sequence[bool]) -> Row:
        """Return the row of what each piece keeps."""
        rows, start = [], 0
        for piece in self._pieces:
            stop = start + len(piece.shown)
            rows.append(piece.keep(kept[start:stop]))
            start = stop
        return self._make(rows)


class ColumnParts(RowParts):
    """The columns of a row that is a mapping; one that is left out takes its usual value.

    Parameters
    ----------
    row : mapping of column to value
    usual : mapping of column to value
        Such as the median or the most frequent value of the train split, from the model's card.
    """

    def __init__(self, row: Mapping[str, Any], usual: Mapping[str, Any]) -> None:
        self._row, self._usual = row, usual
        self.names = self.columns = tuple(row)
        self.shown = tuple(map(format_value, row.values()))

    def keep(self, kept: Sequence[bool]) -> dict[str, Any]:
        """Return the values of the kept columns, and the usual ones of the others."""
        here = zip(self._row.items(), kept, strict=True)
        return {column: value if keep else self._usual[column] for (column, value), keep in here}


def format_value(value: Any) -> str:
    """Return a value of a column as people read it, with four digits.

    Examples
    --------
    >>> [format_value(value) for value in (17.98765, 3, True, "Bonn", None)]
    ['17.99', '3', 'True', 'Bonn', 'missing']
    """
    if value is None or value != value:
        return "missing"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class PartAttributions:
    """What each part of a row adds to each output, by gradients.

    Attributes
    ----------
    values : array of shape (n_parts, n_outputs)
    base, output : array of shape (n_outputs,)
        The outputs with none of the parts and with all. ``base + values.sum(0)`` comes near ``output``.
    """

    values: np.ndarray
    base: np.ndarray
    output: np.ndarray
