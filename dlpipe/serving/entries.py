"""What is known of a request when its answer is ready: the request log and the sums over it are made of these."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Entry:
    """One request.

    Attributes
    ----------
    request_id : str
        UUIDv7, made by the server.
    kind : str
        ``predict`` or ``explain``.
    model, version, digest, engine : str, int, str and str
        What answered; version 0 and empty words where no version was reached.
    alias : str
        By which the version was asked for; empty where it was its number.
    key : str
        Id of the key that was presented; empty without keys.
    status : int
        Of HTTP; 499 where the client was gone before its answer.
    error : str
        Why there is no answer, in a line; empty where there is one.
    arrived : float
        Seconds since the epoch.
    duration_ms : float
    costs : sequence of int
        About how many tokens each row has.
    texts : sequence of str or None
        Each row: a text as it is, values of columns as JSON; ``None`` for a missing one.
    records : sequence of mapping
        What was answered for each row; empty where there is no answer.
    loading : bool
        Whether it waited for its model to be loaded, which its duration holds then.
    """

    request_id: str
    kind: str
    model: str
    version: int
    digest: str
    engine: str
    alias: str
    key: str
    status: int
    error: str
    arrived: float
    duration_ms: float
    costs: Sequence[int] = ()
    texts: Sequence[str | None] = ()
    records: Sequence[Mapping[str, Any]] = ()
    loading: bool = False


def make_request_id(now: float) -> str:
    """Return a new UUIDv7: ids sort by time, and nobody guesses that of another's request.

    Parameters
    ----------
    now : float
        Seconds since the epoch.

    Examples
    --------
    >>> make_request_id(1795866000.123)[:15]
    '01a221f4-7afb-7'
    """
    drawn = int.from_bytes(os.urandom(10), "big")
    number = int(now * 1000) << 80 | drawn
    number = number & ~(0xF << 76) | 0x7 << 76
    number = number & ~(0x3 << 62) | 0x2 << 62
    made = f"{number:032x}"
    return f"{made[:8]}-{made[8:12]}-{made[12:16]}-{made[16:20]}-{made[20:]}"
