"""What was asked in the last minutes: counts and durations by model and alias, in slots of seconds."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from dlpipe.serving.entries import Entry

SLOT_SECONDS = 5
SLOTS = 60
KEPT = 100
"""Durations that are kept of a slot, the last ones: quantiles of five minutes are of up to 6,000."""
ERROR, FAILURE = 400, 500


@dataclass(slots=True)
class Asked:
    """Requests to one model under one alias.

    Attributes
    ----------
    statuses : dict
        How many were answered with each status.
    durations : list of float
        Milliseconds of the last ones that got an answer.
    """

    statuses: dict[int, int] = field(default_factory=dict)
    durations: list[float] = field(default_factory=list)
    answered: int = 0

    @property
    def requests(self) -> int:
        """How many there were."""
        return sum(self.statuses.values())

    @property
    def errors(self) -> int:
        """How many were answered with a status of 400 or more."""
        return sum(number for status, number in self.statuses.items() if status >= ERROR)

    @property
    def failures(self) -> int:
        """How many had no answer for a reason that is not with whoever asked: a status of 500 or more."""
        return sum(number for status, number in self.statuses.items() if status >= FAILURE)

    def add(self, status: int, duration_ms: float | None) -> None:
        """Count a request; without a duration where that says nothing of others, as of one that loads a model."""
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if status >= ERROR or duration_ms is None:
            return
        if len(self.durations) < KEPT:
            self.durations.append(duration_ms)
        else:
            self.durations[self.answered % KEPT] = duration_ms
        self.answered += 1

    def quantile(self, share: float) -> float | None:
        """Return the milliseconds in which this share had its answer; ``None`` where none had."""
        ordered = sorted(self.durations)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


Key = tuple[str, str]
"""A model, and the alias or the number by which it was asked; empty where no version was reached."""


class Recent:
    """The last five minutes.

    Parameters
    ----------
    clock : callable
        Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._slots: deque[tuple[int, dict[Key, Asked]]] = deque(maxlen=SLOTS)

    def count(self, entry: Entry) -> None:
        """Count a request; one that reached no version has no name here, for there is no end of those."""
        number = int(self._clock()) // SLOT_SECONDS
        if not self._slots or self._slots[-1][0] != number:
            self._slots.append((number, {}))
        slot = self._slots[-1][1]
        key = (entry.model, entry.alias or str(entry.version)) if entry.version else ("", "")
        asked = slot.get(key)
        if asked is None:
            asked = slot[key] = Asked()
        asked.add(entry.status, None if entry.loading else entry.duration_ms)

    @property
    def seconds(self) -> float:
        """How long the time is of which is told: less than five minutes after a start."""
        return max(1.0, min(SLOTS * SLOT_SECONDS, self._clock() - self._began))

    def sum_up(self) -> dict[Key, Asked]:
        """Return what was asked, by model and alias."""
        found: dict[Key, list[Asked]] = {}
        for slot in self._list_slots():
            for key, asked in slot.items():
                found.setdefault(key, []).append(asked)
        return {key: merge(parts) for key, parts in found.items()}

    def list_slots(self) -> list[tuple[int, int]]:
        """Return the requests and errors of each slot of five seconds, the oldest first."""
        now = int(self._clock()) // SLOT_SECONDS
        there = dict(self._slots)
        slots = [there.get(number, {}).values() for number in range(now - SLOTS + 1, now + 1)]
        return [(sum(one.requests for one in slot), sum(one.errors for one in slot)) for slot in slots]

    def _list_slots(self) -> Sequence[dict[Key, Asked]]:
        oldest = int(self._clock()) // SLOT_SECONDS - SLOTS
        return [slot for number, slot in self._slots if number > oldest]


def merge(parts: Iterable[Asked]) -> Asked:
    """Return what several count together.

    Examples
    --------
    >>> one, other = Asked(), Asked()
    >>> one.add(200, 3.0), other.add(503, 1.0)
    (None, None)
    >>> merge([one, other]).requests, merge([one, other]).errors, merge([one, other]).quantile(0.5)
    (2, 1, 3.0)
    """
    whole = Asked()
    for part in parts:
        for status, number in part.statuses.items():
            whole.statuses[status] = whole.statuses.get(status, 0) + number
        whole.durations.extend(part.durations)
        whole.answered += part.answered
    return whole
