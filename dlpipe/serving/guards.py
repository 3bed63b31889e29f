"""Who may do what: the place for keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

READ = "read"
"""What it takes to read what a model is: one of ``READERS``. No key has it by itself."""
READERS = ("predict", "admin")
UNCHARGED = (400, 413, 429, 503)
"""Statuses of requests whose rows count against no quota: they were refused, or may be tried again."""


class Grant(Protocol):
    """What a key may do.

    Attributes
    ----------
    key : str
        Its id.
    models : tuple of str
        Which it may ask and see; empty for all.
    """

    @property
    def key(self) -> str:
        """The id; empty without keys."""

    @property
    def models(self) -> tuple[str, ...]:
        """Which it may ask; empty for all."""


class Guard(Protocol):
    """Decides who may do what."""

    def check(self, authorization: str | None, *, model: str, right: str) -> Grant:
        """Return what whoever sent the header ``Authorization`` may do, or raise a ``Refused``.

        Called once a request, before its body is read. ``right`` is ``predict``, ``explain``,
        ``feedback``, ``admin``, or ``READ``.
        """

    def charge(self, grant: Grant, rows: int) -> None:
        """Count rows that are to be computed, or raise a ``Refused`` where there are too many."""

    def give_back(self, grant: Grant, rows: int) -> None:
        """Count rows no more that were charged, and that were not answered for a reason in ``UNCHARGED``."""


@dataclass(frozen=True)
class Anybody:
    """The grant of a server without keys."""

    key: str = ""
    models: tuple[str, ...] = ()


class Open:
    """A server without keys: everybody who reaches it may do everything."""

    anybody = Anybody()

    def check(self, authorization: str | None, *, model: str, right: str) -> Grant:
        """Return the same for all."""
        return self.anybody

    def charge(self, grant: Grant, rows: int) -> None:
        """Count nothing."""

    def give_back(self, grant: Grant, rows: int) -> None:
        """Count nothing."""
