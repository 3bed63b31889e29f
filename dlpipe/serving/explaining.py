"""Explanations of a server: one at a time, in a thread of its own, beside predictions."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from dlpipe.errors import DeadlinePassed, Overloaded

if TYPE_CHECKING:
    from dlpipe.explain.pyfunc import PyfuncExplainer
    from dlpipe.registry import ModelVersion
    from dlpipe.serving.served import Record, Served

WAITING = 2
"""So many requests wait beside the one that is explained; more are refused."""
KEPT = 2
"""Explainers that stay loaded."""
FIRST_SECONDS = 5.0
"""What a request is taken to need until one has been measured."""


def load(uri: str) -> PyfuncExplainer:
    """Return the explainer of a version."""
    from dlpipe.explain import load_explainer

    return load_explainer(uri)


class Explainers:
    """What explains the versions of this server."""

    def __init__(self, *, load: Callable[[str], Any] = load) -> None:
        self._load = load
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dlpipe-explain")
        self._kept: OrderedDict[tuple[object, ...], Any] = OrderedDict()
        self._under_way = 0
        self._seconds = FIRST_SECONDS

    async def explain(
        self, served: Served, rows: Sequence[Any], *, method: str | None, timeout: float
    ) -> list[Record]:
        """Return what each part of each row adds to the prediction.

        Parameters
        ----------
        served : Served
        rows : sequence of rows
            As ``served.read_request`` returned them, none missing.
        method : str, optional
            ``partition`` or ``gradient``; by default as the model's explainer has it.
        timeout : float
            Seconds.

        Raises
        ------
        Overloaded
            At once, where two wait.
        DeadlinePassed
        ExplanationError, SettingError
            Where rows of the task are not explained, or the method is another.
        """
        if self._under_way > WAITING:
            raise Overloaded(
                f"{WAITING} requests for explanations wait already. Try again.",
                retry_after=self._seconds * self._under_way,
            )
        self._under_way += 1
        try:
            given = self._thread.submit(
                self._explain, served.version, list(rows), method, time.monotonic() + timeout
            )
        except BaseException:
            self._under_way -= 1
            raise
        work = asyncio.wrap_future(given)
        work.add_done_callback(self._end)
        try:
            return await asyncio.wait_for(asyncio.shield(work), timeout)
        except asyncio.CancelledError:
            given.cancel()  # one that has not begun gives its place back; one that has ends first
            raise
        except TimeoutError:
            given.cancel()
            raise DeadlinePassed(
                f"No explanation within {timeout:g} s. Send fewer rows, or shorter ones."
            ) from None

    def close(self) -> None:
        """Begin no more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _end(self, work: asyncio.Future[Any]) -> None:
        self._under_way -= 1
        if not work.cancelled():
            work.exception()  # or asyncio says that nobody has seen it, where its client is gone

    def _explain(
        self, version: ModelVersion, rows: list[Any], method: str | None, deadline: float
    ) -> list[Record]:
        if time.monotonic() > deadline:  # nobody waits any more
            return []
        from dlpipe.explain.wording import describe_row

        started = time.monotonic()
        key = version.identity
        if key not in self._kept:
            self._kept[key] = self._load(version.uri)
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        made = self._kept[key].explain(rows, method=method).rows
        self._seconds += 0.3 * (time.monotonic() - started - self._seconds)
        return [describe_row(row) for row in made]
