"""How much of their rate and quota keys have used, in this process and, where several answer, in all of them.

Each process decides by itself, at once. Those that answer together tell each other a few times a second what they
gave away: a bucket in debt refuses until it is paid off, so what all give is the rate in the long run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True)
class Allowance:
    """What a key has used.

    Attributes
    ----------
    tokens, at : float
        Requests that its rate allows now, and when that was reckoned; below 0 where processes together gave more.
    ends : float
        When its day ends.
    used : int
        Rows of that day.
    taken, charged : int
        Requests and rows that other processes have not been told of.
    """

    tokens: float
    at: float
    ends: float = 0.0
    used: int = 0
    taken: int = 0
    charged: int = 0

    def refill(self, rate: float, burst: float, now: float) -> None:
        """Reckon the tokens of ``now``."""
        self.tokens = min(burst, self.tokens + max(now - self.at, 0.0) * rate)
        self.at = now

    def take(self, rate: float, burst: float, now: float) -> float:
        """Take one request, and return 0; or the seconds after which there is one.

        Examples
        --------
        >>> allowance = Allowance(1.0, at=100.0)
        >>> allowance.take(2.0, 1.0, 100.0), allowance.take(2.0, 1.0, 100.0), allowance.take(2.0, 1.0, 100.5)
        (0.0, 0.5, 0.0)
        """
        self.refill(rate, burst, now)
        if self.tokens < 1.0:
            return (1.0 - self.tokens) / rate
        self.tokens -= 1.0
        self.taken += 1
        return 0.0

    def charge(self, rows: int) -> None:
        """Count rows."""
        self.used += rows
        self.charged += rows

    def begin_day(self, ends: float) -> None:
        """Begin a day that ends then, where it has not begun."""
        if ends > self.ends:
            self.ends, self.used, self.charged = ends, 0, 0


@dataclass(frozen=True, slots=True)
class Use:
    """What one process gave a key since it last said so.

    Attributes
    ----------
    key : str
        Its id.
    rate, burst : float
        Requests a second, and at once; 0 without bound.
    ends : float
        When the day of the rows ends.
    known : int
        Rows of that day by all processes, as far as this one knew before.
    taken, charged : int
        Requests and rows.
    """

    key: str
    rate: float
    burst: float
    ends: float
    known: int
    taken: int
    charged: int


@dataclass(frozen=True, slots=True)
class Balance:
    """What all processes together have left of a key's rate, and have used of its day."""

    key: str
    tokens: float
    ends: float
    used: int


class Balances:
    """What processes that answer together have given, kept in one place.

    It may be lost: processes say what they know of a day, so it is known again; a bucket is full again.
    """

    def __init__(self) -> None:
        self._shared: dict[str, Allowance] = {}

    def settle(self, uses: Sequence[Use], now: float) -> list[Balance]:
        """Add what a process gave, and return what all have.

        Examples
        --------
        >>> one, other = (Use("k", 0.0, 0.0, 86400.0, known, 0, rows) for known, rows in ((0, 30), (0, 12)))
        >>> balances = Balances()
        >>> [balance.used for use in (one, other) for balance in balances.settle([use], 0.0)]
        [30, 42]
        """
        settled = []
        for use in uses:
            shared = self._shared.setdefault(use.key, Allowance(use.burst, now))
            shared.begin_day(use.ends)
            if use.ends == shared.ends:
                shared.used = max(shared.used, use.known) + use.charged
            shared.refill(use.rate, use.burst, now)
            shared.tokens -= use.taken
            settled.append(Balance(use.key, shared.tokens, shared.ends, shared.used))
        return settled
