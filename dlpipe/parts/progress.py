"""Progress of long work on the rows of a table."""

from __future__ import annotations

import time
from collections.abc import Callable

REPORT_SECONDS = 10.0


class RowProgress:
    """Rows done and their rate: a bar on a terminal, a line every ten seconds elsewhere.

    Parameters
    ----------
    what : str
        Such as ``"scoring reviews@v0"``.
    total : int
        All rows, with those that an earlier try has done.
    there : int
        Rows that an earlier try has done: they count as done, and not for the rate.
    say : callable, optional
        Gets each line; None keeps silent.
    """

    def __init__(
        self, what: str, *, total: int, there: int = 0, say: Callable[[str], None] | None = print
    ) -> None:
        from tqdm import tqdm

        self.what, self.total, self.rows = what, total, 0
        self._there, self._say = there, say or _ignore
        self._started = self._reported = time.monotonic()
        quiet = True if say is None else None  # None: no bar where there is no terminal
        self._bar = tqdm(desc=what, total=total, initial=there, unit=" rows", disable=quiet, leave=False)
        if there:
            self._say(f"{what}: going on, {there:,} of {total:,} rows were there already")

    def add(self, rows: int) -> None:
        """Count ``rows`` more as done."""
        self.rows += rows
        self._bar.update(rows)
        if self._bar.disable and time.monotonic() - self._reported > REPORT_SECONDS:
            self._reported = time.monotonic()
            self._say(f"{self.what}: {self._there + self.rows:,} of {self.total:,} rows, {self._show_rate()}")

    def end(self) -> None:
        """Take the bar away and say the total."""
        self._bar.close()
        seconds = time.monotonic() - self._started
        self._say(f"{self.what}: {self.rows:,} rows in {seconds:,.1f} s, {self._show_rate()}")

    def _show_rate(self) -> str:
        return f"{self.rate:,.{0 if self.rate >= 100 else 1}f} rows/s"

    @property
    def rate(self) -> float:
        """Rows a second since the beginning, without those that were there."""
        return self.rows / max(time.monotonic() - self._started, 1e-9)


def _ignore(line: str) -> None:
    pass
