"""Attempts whose end is looked for beside the scheduler's loop: Metaflow may take seconds to answer."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from dlpipe.orchestrator.deployments import Version
from dlpipe.orchestrator.findings import Finding, end_and_examine, examine
from dlpipe.orchestrator.runs import Run, RunAttempt

THREADS = 4
LONGEST_PAUSE = 60.0

Key = tuple[int, int]
"""Number of a run and of its attempt."""


class Examinations:
    """Examinations of attempts, in threads, and how often something about each attempt has failed.

    An end is noted in the attempt's folder under its lock: two processes that examine one attempt find the same.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="examine")
        self._begun: dict[Key, Future[Finding | None]] = {}
        self._failures: dict[Key, Failures] = {}

    def __len__(self) -> int:
        return len(self._begun)

    def __contains__(self, key: Key) -> bool:
        return key in self._begun

    def close(self) -> None:
        """Wait for none of them; what they end and note stays ended and noted."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def begin(self, version: Version, run: Run, attempt: RunAttempt, *, end: bool) -> None:
        """Begin to look how an attempt ended; with ``end``, end its processes first."""
        look = end_and_examine if end else examine
        self._begun[run.number, attempt.number] = self._pool.submit(look, version, run, attempt)

    def has_done(self) -> bool:
        """Whether one of them can be taken without waiting."""
        return any(examination.done() for examination in self._begun.values())

    def list_done(self, *, wait: bool) -> list[Key]:
        """The attempts whose examination is done; with ``wait`` all, which are done when they are taken."""
        return [key for key, examination in self._begun.items() if wait or examination.done()]

    def take(self, key: Key) -> Finding | None:
        """How an attempt ended; ``None`` if it has not. What the examination raised is raised."""
        return self._begun.pop(key).result()

    def note_failure(self, key: Key) -> int:
        """Let nothing be tried about an attempt for a while; return how often that has failed."""
        failures = self._failures.setdefault(key, Failures())
        failures.count += 1
        failures.until = time.monotonic() + min(2.0**failures.count, LONGEST_PAUSE)
        return failures.count

    def is_pausing(self, key: Key) -> bool:
        """Whether something about an attempt has failed a moment ago."""
        return time.monotonic() < self._failures.get(key, Failures()).until

    def forget_failures(self, key: Key) -> None:
        """Forget what failed: the end of the attempt is noted."""
        self._failures.pop(key, None)


@dataclass
class Failures:
    """How often something failed, and until when it is not tried again, on the monotonic clock."""

    count: int = 0
    until: float = 0.0
