"""Connections of a server: what uvicorn leaves to a proxy before it.

Headers and bodies that never end are ended, a client that goes takes its request out of the queue, more
connections than may be end the one that has been silent longest, and what is no HTTP gets JSON as well.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from dlpipe.serving.entries import make_request_id
from dlpipe.serving.refusals import CLIENT_GONE, Refused
from dlpipe.serving.replies import make_error

HEAD_SECONDS = 10.0
"""In which the headers of a request must arrive."""
HEAD_BYTES = 65_536
DROPPED_BYTES, DROPPED_SECONDS = 256_000_000, 30.0
"""How much of a body that was refused is read, so that its sender gets to read why."""


def make_protocol(most: int) -> type[HttpToolsProtocol]:
    """Return the class of the connections of a server.

    Parameters
    ----------
    most : int
        Connections at a time.
    """
    silent: dict[Connection, None] = {}
    """Those without a request under way, the longest silent first."""

    class Connection(HttpToolsProtocol):
        """A connection of a client."""

        _deadline: asyncio.TimerHandle | None = None
        _in_head, _head, _dropped = False, 0, 0
        _task: asyncio.Task[None] | None = None

        # uvicorn calls these -----------------------------------------------------------------------------

        def connection_made(self, transport: Any) -> None:
            """Begin, and end the one that has been silent longest where there are too many."""
            super().connection_made(transport)
            self._await(HEAD_SECONDS, self._end_slow_head)
            if len(self.connections) > most:
                oldest = next(iter(silent), None)
                if oldest is not None:
                    silent.pop(oldest)
                    oldest.transport.close()
                else:
                    self._refuse(Refused(503, "overloaded", "Too many connections. Try again.", retry_after=1))
                    return
            silent[self] = None

        def connection_lost(self, exc: Exception | None) -> None:
            """End, and with it the work on a request that nobody waits for."""
            self._stop_waiting()
            silent.pop(self, None)
            super().connection_lost(exc)
            if self._task is not None and not self._task.done():
                self._task.cancel(CLIENT_GONE)

        def eof_received(self) -> None:
            """Tell who sent half a request that the other half is missing; other clients are gone."""
            unfinished = self.cycle is not None and self.cycle.more_body and not self.cycle.response_started
            if self._in_head or unfinished:
                self._refuse(Refused(400, "bad_request", "The request ended before its end."))

        def data_received(self, data: bytes) -> None:
            """Read, and have headers that are not there yet wait for a while only."""
            self._unset_keepalive_if_required()
            self._feed(data)
            if self._in_head:
                self._head += len(data)
                if self._head > HEAD_BYTES:
                    self._refuse_head()
                elif self._deadline is None:
                    self._await(HEAD_SECONDS, self._end_slow_head)

        def on_message_begin(self) -> None:
            """Begin a request."""
            super().on_message_begin()
            self._in_head, self._head = True, 0
            silent.pop(self, None)

        def on_headers_complete(self) -> None:
            """Answer a request, whose body may be still to come."""
            if self._offers_upgrade():
                return
            self._in_head = False
            self._stop_waiting()
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            """Keep what comes; of a request that was answered before its end, drop it."""
            if self.cycle.response_complete:
                self._dropped += len(body)
                if self._dropped > DROPPED_BYTES:
                    self.transport.close()
                return
            super().on_body(body)

        def on_message_complete(self) -> None:
            """End a body, and read on: a large one stopped the reading, by which a client that goes is seen."""
            if self._offers_upgrade():
                return
            super().on_message_complete()
            if self.transport.is_closing():
                return
            if not self.pipeline:
                self.flow.resume_reading()
            if self.cycle.response_complete:
                self.cycle.more_body = False
                self._stop_waiting()
                self._unset_keepalive_if_required()
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )

        def on_response_complete(self) -> None:
            """Wait for the next request."""
            self._dropped = 0
            if not self.pipeline:
                silent[self] = None
            if self.cycle.response_complete and self.cycle.more_body:  # it is of this request, not of the next one
                self._await(DROPPED_SECONDS, self.transport.close)
            super().on_response_complete()

        def send_400_response(self, msg: str) -> None:
            """Answer what is no HTTP."""
            self._refuse(Refused(400, "bad_request", msg))

        def _start_asgi_task(self, cycle: Any, app: Any) -> None:
            self._task = self.loop.create_task(cycle.run_asgi(app))
            self._task.add_done_callback(self.tasks.discard)
            self.tasks.add(self._task)

        def _feed(self, data: bytes) -> None:
            try:
                self.parser.feed_data(data)
            except HttpParserError:
                self.send_400_response("Invalid HTTP request received.")
            except HttpParserUpgrade as upgrade:
                if self._offers_upgrade():
                    self._read_without_upgrade(data[upgrade.args[0] :])

        def _offers_upgrade(self) -> bool:
            """Return whether a client would rather speak another protocol, which nobody need do."""
            return bool(self.parser.should_upgrade() and any(name == b"upgrade" for name, _ in self.headers))

        def _read_without_upgrade(self, rest: bytes) -> None:
            """Begin anew with a request without its offer: the parser reads no body of one with it."""
            method, version = self.parser.get_method(), self.parser.get_http_version().encode()
            lines = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
            self.parser = HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
            self._feed(b"".join((b"%b %b HTTP/%b\r\n" % (method, self.url, version), *lines, b"\r\n", rest)))

        # ours --------------------------------------------------------------------------------------------

        def _await(self, seconds: float, end: Callable[[], Any]) -> None:
            self._stop_waiting()
            self._deadline = self.loop.call_later(seconds, end)

        def _stop_waiting(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _end_slow_head(self) -> None:
            if not self._in_head:  # it never said a word
                self.transport.close()
                return
            self._refuse(Refused(408, "slow_head", f"The headers did not arrive within {HEAD_SECONDS:g} s."))

        def _refuse_head(self) -> None:
            self._refuse(Refused(431, "head_too_large", f"The headers have more than {HEAD_BYTES:,} bytes."))

        def _refuse(self, refused: Refused) -> None:
            """Answer without the application, and close."""
            if self.transport.is_closing():
                return
            body, headers = make_error(refused, make_request_id(time.time()), shape="plain")
            lines = [b"%b: %b\r\n" % header for header in headers]
            length = b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)
            self.transport.write(b"".join((STATUS_LINE[refused.status], *lines, length, body)))
            self.transport.close()

    return Connection
