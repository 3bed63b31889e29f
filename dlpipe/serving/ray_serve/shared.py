"""What replicas tell each other: how much of its rate and quota a key has used, and what each counts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from dlpipe.serving.allowances import Balance, Balances, Use
from dlpipe.serving.keys import KeyRing
from dlpipe.serving.metrics import merge_families, write_families

if TYPE_CHECKING:
    from prometheus_client import Metric

    from dlpipe.serving.metrics import Metrics

LOGGER = logging.getLogger(__name__)
SETTLE_SECONDS = 0.5
PUBLISH_SECONDS = 2.0
ANSWER_SECONDS = 2.0
"""How long the place that replicas share has to answer, before a replica goes on by itself."""
FORGET_SECONDS = 15.0
"""After which the numbers of a replica that says nothing any more are dropped."""


class Shared:
    """The place that replicas share: a process of its own, which Ray Serve starts again where it dies."""

    def __init__(self) -> None:
        self._balances = Balances()
        self._counted: dict[str, tuple[float, Sequence[Metric]]] = {}

    async def settle(self, uses: Sequence[Use]) -> list[Balance]:
        """Add what a replica gave to keys, and return what all have given."""
        return self._balances.settle(uses, time.time())

    async def publish(self, replica: str, families: Sequence[Metric]) -> None:
        """Keep what a replica counts."""
        self._counted[replica] = time.monotonic(), families

    async def list_published(self) -> dict[str, Sequence[Metric]]:
        """Return what each replica counts, by its name."""
        now = time.monotonic()
        self._counted = {name: kept for name, kept in self._counted.items() if now - kept[0] < FORGET_SECONDS}
        return {name: families for name, (_, families) in self._counted.items()}


class Sharing:
    """One replica's part in it.

    Parameters
    ----------
    shared : handle of ``Shared``
    replica : str
        Its name.
    keys : KeyRing or None
        They may be set later.
    metrics : Metrics
    say : callable
        Gets a line when nothing can be shared, and one when it can again.
    """

    def __init__(
        self, shared: Any, replica: str, keys: KeyRing | None, metrics: Metrics, *, say: Callable[[str], None]
    ) -> None:
        self._shared, self._replica, self.keys = shared, replica, keys
        self._metrics, self._say = metrics, say
        self._trouble = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to tell, and to be told."""
        works = ((self._publish, PUBLISH_SECONDS), (self._settle, SETTLE_SECONDS))
        self._tasks = [asyncio.create_task(self._repeat(work, seconds)) for work, seconds in works]

    def stop(self) -> None:
        """End it."""
        for task in self._tasks:
            task.cancel()

    async def write_metrics(self) -> bytes:
        """Return what all replicas count; what this one does alone, where they cannot be asked."""
        try:
            parts = await asyncio.wait_for(self._ask("list_published"), ANSWER_SECONDS)
        except Exception:
            LOGGER.warning("what other replicas count cannot be asked for", exc_info=True)
            parts = {}
        return write_families(merge_families({**parts, self._replica: self._metrics.list_families()}))

    async def _repeat(self, work: Callable[[], Any], seconds: float) -> None:
        while True:
            try:
                await asyncio.wait_for(work(), ANSWER_SECONDS)
            except Exception as error:  # its process may be starting again
                if not self._trouble:
                    self._say(
                        f"This replica counts what keys use by itself until it can tell the others: {error!r}"
                    )
                self._trouble = True
            await asyncio.sleep(seconds)

    async def _settle(self) -> None:
        # there may be keys later
        if self.keys is not None and (uses := self.keys.list_uses()):
            self.keys.settle(await self._ask("settle", uses))

    async def _publish(self) -> None:
        await self._ask("publish", self._replica, self._metrics.list_families())

    async def _ask(self, method: str, *given: Any) -> Any:
        answer = await getattr(self._shared, method).remote(*given)
        if self._trouble:
            self._say("Replicas tell each other again what keys have used.")
        self._trouble = False
        return answer
