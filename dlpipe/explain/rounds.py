"""Call the model once for what many explanations ask in a round, and for no row twice.

A copy that is asked for again, by the same explanation or another, is answered from memory.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from dlpipe.task import Predictor, Row

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.floating[Any]]

T = TypeVar("T")

OPEN_ROWS = 64  # explanations at a time
OPEN_CHARACTERS = 500_000  # of their rows together, since each is copied up to ``batch_rows`` times in a round
REMEMBERED = 100_000  # rows; some tens of MB


@dataclass(frozen=True)
class Work(Generic[T]):
    """Something that asks for the outputs of rows, round by round, until it returns its result.

    Attributes
    ----------
    characters : int
        Length of the rows that it asks for, at most, as people read them.
    rounds : generator
        Yields rows and is sent their outputs, shape (n_rows, n_outputs).
    """

    characters: int
    rounds: Generator[list[Row], Floats, T]


@dataclass
class OpenWork(Generic[T]):
    """A work with the rows that it waits for."""

    work: Work[T]
    asked: list[Row]


def run_in_rounds(works: Iterable[Work[T]], score: Callable[[Sequence[Row]], Floats]) -> Iterator[T]:
    """Yield the results of ``works`` in their order; the rows of a round are scored in one call.

    A bounded number of them is open at once, so that ``works`` can be endless.

    Parameters
    ----------
    works : iterable of Work
    score : callable
        Returns the outputs of rows, shape (n_rows, n_outputs); called with those of all open works.
    """
    numbered = enumerate(works)
    opened: dict[int, OpenWork[T]] = {}
    done: dict[int, T] = {}
    due = 0
    waiting = next(numbered, None)
    while waiting is not None or opened:
        while waiting is not None and has_room(opened.values(), waiting[1]):
            advance(*waiting, None, opened, done)
            waiting = next(numbered, None)
        for number, answers in answer_requests(opened, score):
            advance(number, opened[number].work, answers, opened, done)
        while due in done:
            yield done.pop(due)
            due += 1


def has_room(opened: Iterable[OpenWork[T]], work: Work[T]) -> bool:
    """Return whether ``work`` may be opened beside the ones that are; it may where there is none."""
    sizes = [open_work.work.characters for open_work in opened]
    return not sizes or (len(sizes) < OPEN_ROWS and sum(sizes) + work.characters <= OPEN_CHARACTERS)


def advance(
    number: int, work: Work[T], answers: Floats | None, opened: dict[int, OpenWork[T]], done: dict[int, T]
) -> None:
    """Take ``work`` to its next request, or to its end.

    Parameters
    ----------
    number : int
        Its place, in which its result is yielded.
    work : Work
    answers : array of shape (n_rows, n_outputs), optional
        For the rows that it asked for; None starts it.
    opened : dict of number to OpenWork
        Gets its next request, or loses it at its end.
    done : dict of number to result
        Gets its result.
    """
    try:
        opened[number] = OpenWork(work, work.rounds.send(answers))  # type: ignore[arg-type]
    except StopIteration as end:
        opened.pop(number, None)
        done[number] = end.value


def answer_requests(
    opened: dict[int, OpenWork[T]], score: Callable[[Sequence[Row]], Floats]
) -> list[tuple[int, Floats]]:
    """Return each open work's number and the outputs that it waits for."""
    if not opened:
        return []
    answers = score([row for waiting in opened.values() for row in waiting.asked])
    ends = np.cumsum([len(waiting.asked) for waiting in opened.values()])
    return list(zip(opened, np.split(answers, ends[:-1]), strict=True))


class OutputCache:
    """``predict_outputs`` in float64 that scores no row twice, as far as a bounded memory goes."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._known: dict[bytes, Floats] = {}

    def __call__(self, rows: Sequence[Row]) -> Floats:
        """Return outputs of shape (n_rows, n_outputs)."""
        keys = [digest_row(row) for row in rows]
        new = {key: row for key, row in zip(keys, rows, strict=True) if key not in self._known}
        if new:
            made = self._predictor.predict_outputs(list(new.values()))
            self._known.update(zip(new, np.asarray(made, dtype=np.float64), strict=True))
        answers = np.stack([self._known[key] for key in keys])
        # after the answers are made: a request may be larger than the memory, and its own rows must not fall out
        for key in list(islice(self._known, max(0, len(self._known) - REMEMBERED))):
            del self._known[key]
        return answers


def digest_row(row: Row) -> bytes:
    """Return a digest of what ``row`` holds: equal ones are equal rows, and a long one takes no more room.

    Two rows that are equal may have two digests; they are then scored twice.
    """
    content = row.encode("utf-8", "surrogatepass") if isinstance(row, str) else pickle.dumps(row)
    return blake2b(content, digest_size=16).digest()
