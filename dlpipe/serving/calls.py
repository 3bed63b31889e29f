"""A request under way: what is known of it so far, and what is kept of it."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dlpipe.errors import DlpipeError
from dlpipe.serving.entries import Entry
from dlpipe.serving.guards import Grant
from dlpipe.serving.log_rows import dump
from dlpipe.serving.refusals import bad_request
from dlpipe.serving.routes import Route
from dlpipe.serving.served import Record, Served, measure_costs

LOGGER = logging.getLogger(__name__)
UNREADABLE = (TypeError, ValueError, KeyError, IndexError, AttributeError, RecursionError, OverflowError)
"""What reading rows of a kind that nobody thought of may raise: it is the body that is wrong."""


@dataclass(slots=True)
class Call:
    """A request under way, with what is known of it so far."""

    route: Route
    id: str
    arrived: float
    started: float
    query: bytes = b""
    key: str = ""
    charged: Grant | None = None
    """Whose quota its rows were counted against."""
    served: Served | None = None
    rows: Sequence[Any] = ()
    costs: Sequence[int] = ()
    texts: Sequence[str | None] = ()
    """Of the rows, as the log has them."""
    records: Sequence[Record] = ()
    media: str = ""
    body: bytes = b""
    held: int = 0
    """Bytes of the body that were counted."""
    loading: bool = False
    """Whether its model was loaded for it."""

    def measure(self) -> float:
        """Return the milliseconds since it arrived."""
        return (time.perf_counter() - self.started) * 1000

    def describe_rows(self, served: Served) -> None:
        """Note what the log has of the rows."""
        self.costs = measure_costs(self.rows)
        self.texts = [write_row(row, served) for row in self.rows]

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Refuse a body whose values cannot be read, whatever they are."""
        try:
            yield
        except DlpipeError:
            raise
        except UNREADABLE:
            LOGGER.info("request %s cannot be read", self.id, exc_info=True)
            raise bad_request("The body holds values of a kind that the model does not read.") from None


def make_entry(call: Call, status: int, error: str) -> Entry:
    """Return what is kept of a request.

    Parameters
    ----------
    call : Call
    status : int
    error : str
    """
    route, served = call.route, call.served
    version = served.version if served is not None else None
    return Entry(
        call.id,
        route.action,
        version.name if version else route.name,
        version.version if version else 0,
        served.digest if served else "",
        served.engine if served else "",
        route.alias,
        call.key,
        status,
        error,
        call.arrived,
        call.measure(),
        call.costs,
        call.texts,
        call.records,
        call.loading,
    )


def write_row(row: Any, served: Served) -> str | None:
    """Return a row as the log has it: a text as it is, values of columns as JSON; a pipeline is given anything."""
    if row is None or isinstance(row, str):
        return row
    return str(row) if served.takes_missing else dump(served.task.inputs.name_values(row)).decode()
