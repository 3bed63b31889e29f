"""What stands before Ray's proxy, in its own process: our words for its errors, and one more try.

Ray Serve calls ``make_middlewares`` in each of its proxies, for a variable names it. A request whose replica
died before it answered is sent once more: predictions change nothing, and a label that comes twice counts once.
Other applications of the same Ray Serve are left alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from dlpipe.serving.entries import make_request_id
from dlpipe.serving.refusals import Refused
from dlpipe.serving.replies import make_error
from dlpipe.serving.routes import find_route

if TYPE_CHECKING:
    from starlette.middleware import Middleware

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

VARIABLES = {
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "dlpipe.serving.ray_serve.proxy.make_middlewares",
    # else a proxy asks those on its own node alone, until they take no more
    "RAY_SERVE_PROXY_PREFER_LOCAL_NODE_ROUTING": "0",
    "RAY_SERVE_PROXY_PREFER_LOCAL_AZ_ROUTING": "0",
}
"""What a proxy is started with."""
TRIES = 2
"""Not more: a request may itself be what a replica dies of."""
PAUSE_SECONDS = 0.25
KEPT_BYTES = 64_000_000
"""Of a body at most, to send it again."""
REQUEST_ID = b"x-request-id"


def make_middlewares() -> list[Middleware]:
    """Return what Ray Serve is to put before a proxy."""
    from starlette.middleware import Middleware

    return [Middleware(OwnAnswers)]


class OwnAnswers:
    """An ASGI application before that of Ray's proxy."""

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Have a request answered."""
        route = find_route(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if route is None:
            await self._app(scope, receive, send)
            return
        body = Body(receive)
        for tried in range(1, TRIES + 1):
            answer = Answer(send)
            await self._app({**scope, "headers": list(scope["headers"])}, body.open(), answer)
            if answer.begun or body.gone:
                return
            if answer.refused is not None or tried == TRIES or not body.whole:
                break
            await asyncio.sleep(PAUSE_SECONDS)
        refused = answer.refused or Refused(
            503, "replica_lost", "What computed the answer died. Try again.", retry_after=1.0
        )
        content, headers = make_error(refused, make_request_id(time.time()), shape=route.shape)
        headers.append((b"content-length", b"%d" % len(content)))
        await send({"type": "http.response.start", "status": refused.status, "headers": headers})
        await send({"type": "http.response.body", "body": content})


class Body:
    """What a client sends, kept so that it can be read again.

    Attributes
    ----------
    whole : bool
        Whether all that came is kept.
    gone : bool
        Whether the client is gone.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._kept: list[Message] = []
        self._size = 0
        self.whole, self.gone = True, False

    def open(self) -> Receive:
        """Return a way to receive it from its beginning."""
        waiting = list(self._kept)

        async def receive() -> Message:
            if waiting:
                return waiting.pop(0)
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.gone = True
            elif self.whole:
                self._kept.append(message)
                self._size += len(message.get("body", b""))
                if self._size > KEPT_BYTES:
                    self._kept, self.whole = [], False
            return message

        return receive


class Answer:
    """What a proxy sends: what a replica answered goes on to the client, the proxy's own errors do not.

    Attributes
    ----------
    begun : bool
        Whether the client has got something.
    refused : Refused or None
        What the proxy said itself.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self.begun = False
        self.refused: Refused | None = None

    async def __call__(self, message: Message) -> None:
        """Take a message of the proxy."""
        if message["type"] == "http.response.start":
            # the proxy puts an id of its own behind that of a replica
            ids = [value for name, value in message["headers"] if name.lower() == REQUEST_ID]
            if len(ids) < 2:
                self.refused = to_refused(message["status"])
            others = [(name, value) for name, value in message["headers"] if name.lower() != REQUEST_ID]
            # held until there is a body: a replica may die between the two
            self._start = {**message, "headers": [*others, *((REQUEST_ID, value) for value in ids[:1])]}
            return
        if self.refused is not None:
            return
        if self._start is not None:
            start, self._start, self.begun = self._start, None, True
            await self._send(start)
        await self._send(message)


def to_refused(status: int) -> Refused:
    """Return in our words what a proxy says without a replica."""
    if status == 408:
        return Refused(504, "deadline", "There was no answer in time.", retry_after=1.0)
    if status == 404:
        return Refused(503, "unavailable", "The server is being started or ended. Try again.", retry_after=1.0)
    return Refused(503, "overloaded", "No process is free for the request. Try again.", retry_after=1.0)
