"""What is known of an alias that a server follows: what answers for it, what does not and why, and its swaps."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from dlpipe.registry import ModelVersion
from dlpipe.serving.served import Served

LOOK_SECONDS = 30.0
"""How often an alias that has not moved is looked at whole: what it points at may have been deleted."""
SWAPS = 100


@dataclass(frozen=True)
class Swap:
    """A version that took the place of another, or was refused it.

    Attributes
    ----------
    at : float
        Seconds since the epoch.
    before, after : int or None
        Versions; ``None`` where there was none, or the alias is gone.
    seconds : float
        Of loading and checking.
    refused : str
        Why ``after`` does not answer; empty where it does.
    """

    at: float
    before: int | None
    after: int | None
    seconds: float = 0.0
    refused: str = ""


@dataclass(eq=False)
class Watch:
    """When an alias or a version was last looked at in the registry, and what was read then."""

    aliases: Any = None
    looked_at: float = -LOOK_SECONDS
    task: asyncio.Task[None] | None = None

    def begin(self, aliases: Any, *, sure: bool = True) -> bool:
        """Return whether it is to be looked at now, which is noted.

        Where aliases are what they were, that is once in a while; not while somebody looks.

        Parameters
        ----------
        aliases : object
            Of the model, in a form that is the same while they do not move.
        sure : bool
            Whether nothing was the matter the last time.
        """
        now = time.monotonic()
        if self.task is not None and not self.task.done():
            return False
        if sure and aliases == self.aliases and now - self.looked_at < LOOK_SECONDS:
            return False
        self.aliases, self.looked_at = aliases, now
        return True


@dataclass(eq=False)
class Followed:
    """An alias of a model, and what answers for it.

    Attributes
    ----------
    served : Served or None
        What answers; ``None`` before the first version is loaded, or when the alias is gone.
    wanted : ModelVersion or None
        Where the alias pointed when it was last seen.
    refused : str
        Why ``wanted`` does not answer.
    unseen : str
        That the registry could not be asked the last time; why is for the operator alone.
    swapped : int
        How many versions took the place of others, or of none.
    """

    name: str
    alias: str
    served: Served | None = None
    wanted: ModelVersion | None = None
    refused: str = ""
    refused_at: float = 0.0
    unseen: str = ""
    gone: str = ""
    watch: Watch = field(default_factory=Watch)
    swapped: int = 0
    swaps: deque[Swap] = field(default_factory=lambda: deque(maxlen=SWAPS))
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def note(self, swap: Swap) -> None:
        """Keep what happened, and count it where it was not refused."""
        self.swaps.append(swap)
        self.swapped += not swap.refused
