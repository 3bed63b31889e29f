"""How the scheduler's sleep is ended: by a signal that asks for its end, or by a change of the state's folder."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import time
from collections.abc import Iterator
from types import FrameType

from dlpipe.orchestrator.watching import Watch


class StopSignal:
    """The wish to end, which signals bring and which ends a wait at once; so does what ``watch`` tells.

    ``told`` is when it did so last, on the monotonic clock.
    """

    def __init__(self, watch: Watch) -> None:
        self.asked = False
        self.told = -math.inf
        self._watch = watch
        self._reading, self._writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def wait(self, seconds: float) -> None:
        """Wait so long, or until the end is asked for or something has changed."""
        watched = [] if self._watch.descriptor is None else [self._watch.descriptor]
        ready, _, _ = select.select([self._reading, *watched], [], [], seconds)
        if self._watch.descriptor in ready:
            self._watch.take()
            self.told = time.monotonic()

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Take SIGTERM, SIGHUP and Ctrl-C as the wish to end."""
        before = {
            number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        with contextlib.suppress(BlockingIOError):
            os.write(self._writing, b"!")
