"""The rows that wait for one version, by their turns; adding or taking one costs the logarithm of how many wait.

Rows stand in classes by what they cost, each a heap by turn: a batch is made of the row whose turn it is and of
rows of its own class and of the two beside it.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dlpipe.serving.served import Record

SLACK = 8
"""Tokens that make no difference: rows of a batch cost less than twice what others do, and some tokens more."""
CLASSES = 2
"""Of costs between one and twice as much."""


@dataclass(eq=False, slots=True)
class Asked:
    """The rows of one request, and what has been answered of them."""

    rows: Sequence[Any]
    future: asyncio.Future[list[Record]]
    deadline: float
    records: list[Any]
    left: int
    waiting: list[Waiting] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Waiting:
    """One row that waits.

    Attributes
    ----------
    asked : Asked
        The request that it is of.
    number : int
        Its place there.
    cost : int
        About how many tokens it has.
    turn : float
        When it is to be computed, on the clock of ``time.monotonic``.
    due : bool
        Whether its turn has been seen to come.
    out : bool
        Whether it waits no more: it was taken, or nobody wants its answer.
    """

    asked: Asked
    number: int
    cost: int
    turn: float
    due: bool = False
    out: bool = False


Heap = list[tuple[float, int, Waiting]]


class Queue:
    """The rows that wait for one version.

    Attributes
    ----------
    count, cost : int
        How many wait, and what they cost.
    """

    def __init__(self) -> None:
        self.count = self.cost = self._due = 0
        self._classes: dict[int, Heap] = {}
        self._coming: Heap = []
        self._numbers = itertools.count()

    def add(self, row: Waiting) -> None:
        """Have a row wait."""
        entry = row.turn, next(self._numbers), row
        heapq.heappush(self._classes.setdefault(find_class(row.cost), []), entry)
        heapq.heappush(self._coming, entry)
        self.count += 1
        self.cost += row.cost

    def measure_due(self, now: float) -> int:
        """Return what the rows cost whose turn has come."""
        while self._coming and (self._coming[0][0] <= now or self._coming[0][2].out):
            row = heapq.heappop(self._coming)[2]
            if not row.out:
                row.due = True
                self._due += row.cost
        return self._due

    def find_first(self, now: float) -> Waiting | None:
        """Return the row whose turn it is; those whose deadline has passed leave."""
        heads = [row for kind in list(self._classes) if (row := self._find_head(kind, now)) is not None]
        return min(heads, key=lambda row: row.turn, default=None)

    def take_batch(self, first: Waiting, now: float, *, free: int, budget: int) -> list[Waiting]:
        """Take out ``first`` and those rows that are computed with it, and return them.

        Parameters
        ----------
        first : Waiting
            As ``find_first`` returned it.
        now : float
        free : int
            Lanes that are free: each is to get its share of what waits.
        budget : int
            Tokens of a padded batch at most; a row that has more is a batch alone.
        """
        budget = min(budget, max(-(-self.cost // free), first.cost))
        self.drop([first])
        batch, longest = [first], first.cost
        for row in self._list_alike(find_class(first.cost), now):
            longest = max(longest, row.cost)
            if longest * (len(batch) + 1) > budget:
                break
            self.drop([row])
            batch.append(row)
        return batch

    def drop(self, rows: Sequence[Waiting]) -> None:
        """Have rows wait no more."""
        for row in rows:
            if not row.out:
                row.out = True
                self.count -= 1
                self.cost -= row.cost
                self._due -= row.cost * row.due

    def _list_alike(self, kind: int, now: float) -> Iterator[Waiting]:
        """Yield the next row of a class and of those beside it; whoever goes on has taken it out."""
        while True:
            heads = [self._find_head(kind + beside, now) for beside in (-1, 0, 1)]
            row = min((row for row in heads if row is not None), key=lambda row: row.turn, default=None)
            if row is None:
                return
            yield row

    def _find_head(self, kind: int, now: float) -> Waiting | None:
        """Return the first row of a class that waits still."""
        heap = self._classes.get(kind)
        while heap:
            row = heap[0][2]
            if not row.out and row.asked.deadline > now:
                return row
            self.drop([row])
            heapq.heappop(heap)
        self._classes.pop(kind, None)
        return None


def find_class(cost: int) -> int:
    """Return the class of a row that costs so much.

    Examples
    --------
    >>> [find_class(cost) for cost in (1, 5, 10, 30, 60, 260)]
    [6, 7, 8, 10, 12, 16]
    """
    return int(CLASSES * math.log2(cost + SLACK))
