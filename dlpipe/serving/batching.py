"""Rows of requests that wait, computed together: no window, an idle server computes at once.

A *lane* is a thread that computes a batch. When one is free it takes what has come in meanwhile: the row whose
turn it is and those that cost about the same, so that little is padding and a short text does not wait for a long
one beside it. A row's turn comes at its arrival plus what its own request has before it, so that a request of a
thousand rows lets small ones pass.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dlpipe.errors import DeadlinePassed, Overloaded
from dlpipe.machine import count_usable_cores
from dlpipe.serving.served import Record, Served, measure_costs

FIRST_RATE = 5_000.0
"""Tokens a second that one lane is taken to compute until it has been measured."""
ALIKE, SLACK = 2.0, 8
"""Rows of a batch cost at most this many times what the first one costs, and some tokens more."""


@dataclass(eq=False, slots=True)
class Asked:
    """The rows of one request, and what has been answered of them."""

    served: Served
    rows: Sequence[Any]
    future: asyncio.Future[list[Record]]
    deadline: float
    records: list[Any]
    left: int
    gone: bool = False
    """Nobody waits for it any more."""


@dataclass(eq=False, slots=True)
class Waiting:
    """One row that waits."""

    asked: Asked
    number: int
    cost: int
    turn: float
    """When it is to be computed, on the clock of ``time.monotonic``."""


@dataclass(eq=False, slots=True)
class Line:
    """The rows that wait for one version."""

    served: Served
    waiting: list[Waiting] = field(default_factory=list)
    busy: int = 0
    """Lanes that compute."""
    rate: float = FIRST_RATE
    """Tokens a second of one lane."""


class Batcher:
    """Computes what requests ask for, on the lanes of this process.

    Parameters
    ----------
    max_wait : float
        Seconds that a request may be expected to wait before it begins; one that would wait longer is refused.
    threads : int, optional
        Lanes of all models together; by default one for each core that this process may use.
    """

    def __init__(self, *, max_wait: float = 0.5, threads: int | None = None) -> None:
        self.max_wait = max_wait
        self._lines: dict[Served, Line] = {}
        self._rates: dict[str, float] = {}
        self._ready = threading.Condition()
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._threads = [
            threading.Thread(target=self._work, name=f"dlpipe-lane-{number}", daemon=True)
            for number in range(threads or count_usable_cores())
        ]
        for thread in self._threads:
            thread.start()

    async def compute(self, served: Served, rows: Sequence[Any], *, timeout: float | None = None) -> list[Record]:
        """Return the record of each of ``rows``, in their order.

        Parameters
        ----------
        served : Served
        rows : sequence of rows
            As ``served.read_request`` returned them.
        timeout : float, optional
            Seconds until the answer is of no use; rows that wait then are not computed.

        Raises
        ------
        Overloaded
            At once, when the rows would have to wait longer than ``max_wait``.
        DeadlinePassed
            After ``timeout`` seconds.
        """
        if not rows:
            return []
        asked = self._enter(served, rows, timeout)
        try:
            return await asyncio.wait_for(asked.future, timeout)
        except TimeoutError:
            raise DeadlinePassed(
                f"No answer within {timeout:g} s: the server has too much to do. Try again."
            ) from None
        finally:
            asked.gone = True

    def count_waiting(self) -> int:
        """Return how many rows wait."""
        with self._ready:
            return sum(len(line.waiting) for line in self._lines.values())

    def close(self) -> None:
        """End the lanes after the batches that they compute; whoever waits still gets no answer."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()
        for thread in self._threads:
            thread.join()

    # in the event loop -------------------------------------------------------------------------------------

    def _enter(self, served: Served, rows: Sequence[Any], timeout: float | None) -> Asked:
        """Put rows into the line of their version, or refuse them."""
        now = time.monotonic()
        costs = measure_costs(rows)
        with self._ready:
            line = self._lines.get(served)
            if line is None:
                line = self._lines[served] = Line(served, rate=self._rates.get(served.engine, FIRST_RATE))
            rate = line.rate * served.lanes
            wait = sum(one.cost for one in line.waiting if one.turn <= now) / rate
            if wait > self.max_wait:
                raise Overloaded(
                    f"Too much waits for {served.version.uri}: about {wait:.1f} s. Try again.", retry_after=wait
                )
            deadline = float("inf") if timeout is None else now + timeout
            asked = Asked(served, rows, self._loop.create_future(), deadline, [None] * len(rows), len(rows))
            before = 0
            for number, cost in enumerate(costs):
                before += cost
                line.waiting.append(Waiting(asked, number, cost, now + before / rate))
            self._ready.notify(min(len(rows), served.lanes))
        return asked

    def _deliver(self, batch: Sequence[Waiting], records: Sequence[Any]) -> None:
        """Hand out what a lane has computed."""
        for one, record in zip(batch, records, strict=True):
            asked = one.asked
            if isinstance(record, BaseException):
                if not asked.future.done():
                    asked.future.set_exception(record)
                continue
            asked.records[one.number] = record
            asked.left -= 1
            if not asked.left and not asked.future.done():
                asked.future.set_result(asked.records)

    # in a lane ---------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._ready:
                while not self._closed and (taken := self._take()) is None:
                    self._ready.wait()
                if self._closed:
                    return
                assert taken is not None
                line, batch = taken
            started = time.monotonic()
            records = compute_batch(line.served, batch)
            seconds = time.monotonic() - started
            with self._ready:
                line.busy -= 1
                line.rate += 0.2 * (sum(one.cost for one in batch) / max(seconds, 1e-6) - line.rate)
                self._rates[line.served.engine] = line.rate
                if not line.waiting and not line.busy:
                    # or a version that is not served any more would stay in memory
                    self._lines.pop(line.served, None)
            self._hand_over(batch, records)
            del line, batch, records, taken

    def _hand_over(self, batch: Sequence[Waiting], records: Sequence[Any]) -> None:
        try:
            self._loop.call_soon_threadsafe(self._deliver, batch, records)
        except RuntimeError:  # the loop is closed: nobody waits
            if not self._loop.is_closed():
                raise

    def _take(self) -> tuple[Line, list[Waiting]] | None:
        """Return the next batch of the line whose turn it is, taken out of it."""
        now = time.monotonic()
        found: tuple[Line, Waiting] | None = None
        for line in list(self._lines.values()):
            line.waiting = [one for one in line.waiting if not one.asked.gone and one.asked.deadline > now]
            if line.waiting and line.busy < line.served.lanes:
                first = min(line.waiting, key=lambda one: one.turn)
                if found is None or first.turn < found[1].turn:
                    found = line, first
            elif not line.waiting and not line.busy:
                del self._lines[line.served]
        if found is None:
            return None
        line, first = found
        batch = choose_batch(
            line.waiting, first, free=line.served.lanes - line.busy, budget=line.served.batch_tokens
        )
        taken = set(map(id, batch))
        line.waiting = [one for one in line.waiting if id(one) not in taken]
        line.busy += 1
        return line, batch


def choose_batch(waiting: Sequence[Waiting], first: Waiting, *, free: int, budget: int) -> list[Waiting]:
    """Return ``first`` and those rows that are computed with it.

    Parameters
    ----------
    waiting : sequence of Waiting
        Among them ``first``.
    first : Waiting
    free : int
        Lanes that are free: each is to get its share of what waits.
    budget : int
        Tokens of a padded batch at most; a row that has more is a batch alone.
    """
    share = -(-sum(one.cost for one in waiting) // free)
    budget = min(budget, max(share, first.cost))
    least, most = first.cost / ALIKE - SLACK, first.cost * ALIKE + SLACK
    batch, longest = [first], first.cost
    for one in sorted(waiting, key=lambda one: one.turn):
        if one is first or not least <= one.cost <= most:
            continue
        longer = max(longest, one.cost)
        if longer * (len(batch) + 1) > budget:
            break
        batch.append(one)
        longest = longer
    return batch


def compute_batch(served: Served, batch: Sequence[Waiting]) -> Sequence[Any]:
    """Return the record of each row, or the error that it raised: one row does not cost others their answers."""
    rows = [one.asked.rows[one.number] for one in batch]
    try:
        return served.predict_batch(rows)
    except Exception as error:
        if len(rows) == 1:
            return [error]
        return [record for one in batch for record in compute_batch(served, [one])]
