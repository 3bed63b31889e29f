"""Rows of requests that wait, computed together: no window, an idle server computes at once.

A *lane* is a thread that computes a batch. When one is free it takes what has come in meanwhile: the row whose
turn it is and those that cost about the same, so that little is padding and a short text does not wait for a long
one beside it. A row's turn comes at its arrival plus twice what its own request has before it, so that one of a
thousand rows lets small ones pass.

What would wait too long is refused. A burst may wait for ``max_wait``; a queue that stays gives nobody more
answers and costs everybody time, so that it may have what the next batch takes, a few rows, or a twentieth of
``max_wait``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from dlpipe.errors import DeadlinePassed, Overloaded
from dlpipe.machine import count_usable_cores
from dlpipe.serving.queues import Asked, Queue, Waiting
from dlpipe.serving.served import Record, Served, measure_costs

FIRST_RATE = 5_000.0
"""Tokens a second that one lane is taken to compute until it has been measured."""
LEAST_TOKENS, BATCH_SECONDS = 256, 0.05
"""A batch of more tokens is made only where it takes no longer, for whoever comes next waits for all of it.

In torch on two cores, a snippet of 27 tokens took 14.0 ms alone, 7.8 in batches of 8, 7.5 of 16 and 7.8 of 32.
With five times as many requests as there are answers for, the slowest percent waited 2.0 to 2.6 times as long as
with 32 clients in batches of 512 tokens, and 1.4 to 1.9 times in batches of 256.
"""
SPREAD = 2.0
"""How many times slower than they are computed the rows of one request come to their turns. An idle lane does not
wait for turns; a request of many rows leaves room for others, also where it is computed slower than expected."""
STEADY, STEADY_ROWS = 0.05, 24
"""How long a queue may be that stays: so much of ``max_wait``, and so many rows in any case.

With 16 or 20 rows some of 32 clients were refused that each wait for their answers; with 32 rows, five times as
many requests as there are answers for, and batches of 512 tokens the slowest percent waited 3 times as long as
with 32 clients, and with 24 rows twice as long.
"""
BURST_SECONDS, CALM_SECONDS = 0.05, 5.0
"""For how long a queue may grow beyond that, which it may again after so many seconds in which it has not."""
NICE = 5
"""How far lanes give way to the event loop, which reads requests and refuses them."""


@dataclass(slots=True)
class Pace:
    """How fast a version computes, and whether its queue stays long."""

    rate: float
    """Tokens a second of one lane."""
    burst_at: float = float("-inf")
    """When the last burst began."""
    long_at: float = float("-inf")
    """When its queue was longer last than one that stays may be."""


@dataclass(eq=False, slots=True)
class Line:
    """The rows that wait for one version, and the lanes that compute for it."""

    served: Served
    pace: Pace
    queue: Queue = field(default_factory=Queue)
    busy: int = 0
    """Lanes that compute."""

    @property
    def batch_tokens(self) -> int:
        """What a padded batch costs at most."""
        return min(self.served.batch_tokens, max(LEAST_TOKENS, int(self.pace.rate * BATCH_SECONDS)))


class Batcher:
    """Computes what requests ask for, on the lanes of this process.

    Parameters
    ----------
    max_wait : float
        Seconds that a request of a burst may be expected to wait before it begins; one that would wait longer is
        refused. After the first moments of a burst, a twentieth of it.
    threads : int, optional
        Lanes of all models together; by default one for each core that this process may use.
    """

    def __init__(self, *, max_wait: float = 0.5, threads: int | None = None) -> None:
        self.max_wait = max_wait
        self._lines: dict[Served, Line] = {}
        self._paces: WeakKeyDictionary[Served, Pace] = WeakKeyDictionary()
        """Known also while nothing waits, when there is no line."""
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
            At once, when the rows would have to wait too long.
        DeadlinePassed
            After ``timeout`` seconds.
        """
        if not rows:
            return []
        line, asked = self._enter(served, rows, timeout)
        try:
            return await asyncio.wait_for(asked.future, timeout)
        except TimeoutError:
            raise DeadlinePassed(
                f"No answer within {timeout:g} s: the server has too much to do. Try again."
            ) from None
        finally:
            if asked.left:
                self._leave(line, asked)

    def check_room(self, served: Served) -> None:
        """Raise ``Overloaded`` where rows that came now would have to wait too long, before they are read."""
        line = self._lines.get(served)
        if line is not None and line.queue.count >= STEADY_ROWS:
            with self._ready:
                self._check_wait(line, line.pace.rate * served.lanes, time.monotonic())

    def count_waiting(self) -> int:
        """Return how many rows wait."""
        with self._ready:
            return sum(line.queue.count for line in self._lines.values())

    def close(self) -> None:
        """End the lanes after the batches that they compute; whoever waits still gets no answer."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()
        for thread in self._threads:
            thread.join()

    # in the event loop -------------------------------------------------------------------------------------

    def _enter(self, served: Served, rows: Sequence[Any], timeout: float | None) -> tuple[Line, Asked]:
        """Put rows into the line of their version, or refuse them."""
        now = time.monotonic()
        costs = measure_costs(rows)
        with self._ready:
            line = self._lines.get(served)
            if line is None:
                line = self._lines[served] = Line(served, self._find_pace(served))
            rate = line.pace.rate * served.lanes
            self._check_wait(line, rate, now)
            deadline = float("inf") if timeout is None else now + timeout
            asked = Asked(rows, self._loop.create_future(), deadline, [None] * len(rows), len(rows))
            before = 0
            for number, cost in enumerate(costs):
                before += cost
                turn = now + (SPREAD * (before - cost) + cost) / rate
                asked.waiting.append(Waiting(asked, number, cost, turn))
                line.queue.add(asked.waiting[-1])
            self._ready.notify(min(len(rows), served.lanes))
        return line, asked

    def _find_pace(self, served: Served) -> Pace:
        """Return the pace of a version; that of a new one begins with what others of its engine have."""
        pace = self._paces.get(served)
        if pace is None:
            pace = self._paces[served] = Pace(self._rates.get(served.engine, FIRST_RATE))
        return pace

    def _check_wait(self, line: Line, rate: float, now: float) -> None:
        """Raise ``Overloaded`` where a request would wait for too many seconds, at so many tokens a second."""
        pace, wait = line.pace, line.queue.measure_due(now) / rate
        most = min(self.max_wait, max(self.max_wait * STEADY, line.batch_tokens / rate))
        if wait <= most or (wait <= self.max_wait and line.queue.count < STEADY_ROWS):
            return
        if now - pace.long_at > CALM_SECONDS:
            pace.burst_at = now
        pace.long_at = now
        if wait > self.max_wait or now - pace.burst_at > BURST_SECONDS:
            raise Overloaded(
                f"Too much waits for {line.served.version.uri}: about {wait:.2g} s. Try again.", retry_after=wait
            )

    def _leave(self, line: Line, asked: Asked) -> None:
        """Take out rows that nobody waits for any more."""
        with self._ready:
            line.queue.drop(asked.waiting)
            self._forget_idle(line)

    def _forget_idle(self, line: Line) -> None:
        """Let a line go that nothing waits in, or a version that is not served any more would stay in memory."""
        if not line.queue.count and not line.busy and self._lines.get(line.served) is line:
            del self._lines[line.served]

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
        give_way()
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
                pace = line.pace
                pace.rate += 0.2 * (sum(one.cost for one in batch) / max(seconds, 1e-6) - pace.rate)
                self._rates[line.served.engine] = pace.rate
                self._forget_idle(line)
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
            if line.busy == line.served.lanes:
                continue
            first = line.queue.find_first(now)
            if first is None:
                self._forget_idle(line)
            elif found is None or first.turn < found[1].turn:
                found = line, first
        if found is None:
            return None
        line, first = found
        free = line.served.lanes - line.busy
        batch = line.queue.take_batch(first, now, free=free, budget=line.batch_tokens)
        line.busy += 1
        return line, batch


def give_way() -> None:
    """Let other threads go before this one where both want a core."""
    if sys.platform == "linux":  # elsewhere it would be the whole process
        with contextlib.suppress(OSError):
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + NICE)


def compute_batch(served: Served, batch: Sequence[Waiting]) -> Sequence[Any]:
    """Return the record of each row, or the error that it raised: one row does not cost others their answers."""
    rows = [one.asked.rows[one.number] for one in batch]
    try:
        return served.predict_batch(rows)
    except Exception as error:
        if len(rows) == 1:
            return [error]
        return [record for one in batch for record in compute_batch(served, [one])]
