"""Make the next item in a thread while the caller uses this one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def prefetch(items: Iterable[Item], make: Callable[[Item], Made]) -> Iterator[Made]:
    """Yield ``make(item)`` for each item; a thread makes the next one while the caller uses this one.

    Examples
    --------
    >>> list(prefetch([1, 2, 3], str))
    ['1', '2', '3']
    """
    from concurrent.futures import ThreadPoolExecutor

    # one item ahead and no more: two parts are in memory, however much faster one side is than the other
    with ThreadPoolExecutor(1) as thread:
        coming = None
        for item in items:
            this, coming = coming, thread.submit(make, item)
            if this is not None:
                yield this.result()
        if coming is not None:
            yield coming.result()
