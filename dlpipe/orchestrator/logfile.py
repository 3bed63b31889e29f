"""The scheduler's log: on standard error, and in a file that is rotated and survives a full disk."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from dlpipe.terminal import lose_unwritable, make_visible

LOG = "scheduler.log"
LOG_BYTES = 5 * 1024 * 1024
LOG_FILES = 5


@contextlib.contextmanager
def logging_to(folder: Path) -> Iterator[None]:
    """Log to standard error, and to a file in ``folder`` that is rotated."""
    form = PlainFormatter("%(asctime)s UTC %(levelname)-7s %(message)s", "%Y-%m-%d %H:%M:%S")
    logger = logging.getLogger("dlpipe")
    handlers = [logging.StreamHandler(sys.stderr), *file_handlers(folder)]
    for handler in handlers:
        handler.setFormatter(form)
        logger.addHandler(handler)
    before, propagated = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.propagate = propagated
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()


class PlainFormatter(logging.Formatter):
    """Lines in UTC, with nothing in them that a terminal would obey: reasons are from flows."""

    converter = staticmethod(time.gmtime)  # type: ignore[assignment]

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and a traceback below it if there is one."""
        return make_visible(super().format(record))


def file_handlers(folder: Path) -> list[logging.Handler]:
    """The handler that writes the log's file; none when it cannot be written."""
    try:
        return [LogFile(folder / LOG, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8", delay=False)]
    except OSError as error:
        lose_unwritable(partial(print, file=sys.stderr))(f"{folder / LOG} cannot be written: {error.strerror}")
        return []


class LogFile(logging.handlers.RotatingFileHandler):
    """A file that a full disk leaves incomplete, without a traceback for each line."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Lose the line: it stands on standard error as well."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)
