"""Texts explained and their rate."""

from __future__ import annotations

import logging
import time
from types import TracebackType

LOGGER = logging.getLogger(__name__)
REPORT_SECONDS = 10.0


class Progress:
    """A bar on a terminal, a line every ten seconds in a log."""

    def __init__(self, what: str, *, total: int) -> None:
        from tqdm import tqdm

        self.what, self.total, self.done, self.skipped = what, total, 0, 0
        self._started = self._said = time.monotonic()
        self._bar = tqdm(desc=f"explaining {what}", total=total, unit=" texts", disable=None, leave=False)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        LOGGER.info("explained %s: %s", self.what, self)

    def skip(self, texts: int) -> None:
        """Count ``texts`` as done before."""
        self.skipped = self._bar.initial = texts
        self._bar.update(texts)
        if texts:
            LOGGER.info("explaining %s: %s of %s texts were explained before", self.what, texts, self.total)

    def add(self, texts: int) -> None:
        """Count ``texts`` more as explained."""
        self.done += texts
        self._bar.update(texts)
        if self._bar.disable and time.monotonic() - self._said > REPORT_SECONDS:
            self._said = time.monotonic()
            LOGGER.info("explaining %s: %s", self.what, self)

    def __str__(self) -> str:
        rate = self.done / max(time.monotonic() - self._started, 1e-9)
        return f"{self.skipped + self.done:,} of {self.total:,} texts, {rate:,.1f} texts/s"
