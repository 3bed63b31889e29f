"""Requests that a browser sends for somebody else to a server that asks for no keys."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from dlpipe.pages.hosts import is_loopback, is_same_origin
from dlpipe.serving.entries import make_request_id
from dlpipe.serving.refusals import Refused
from dlpipe.serving.replies import make_error


def find_foreign(headers: Sequence[tuple[bytes, bytes]], method: str) -> Refused | None:
    """Return why a request to a server without keys is refused; ``None`` where it comes from this machine's own.

    Programs send no ``Origin``; of a name in ``Host`` that is not this machine's, only a browser would not know.

    Examples
    --------
    >>> find_foreign([(b"host", b"localhost:8720")], "POST")
    >>> find_foreign([(b"host", b"evil.example")], "GET").code
    'foreign_host'
    """
    host, origin = None, None
    for name, value in headers:
        if name == b"host":
            host = value.decode("latin-1")
        elif name == b"origin":
            origin = value.decode("latin-1")
    if host is not None and not is_loopback(host):
        told = f"Without keys, this server is asked as 127.0.0.1 or localhost, and not as {host[:100]!r}."
        return Refused(403, "foreign_host", f"{told} Make keys (dlpipe keys create NAME), or ask by that name.")
    if method not in ("GET", "HEAD") and origin is not None and not is_same_origin(origin, host or ""):
        told = f"Without keys, this server takes nothing that a page of {origin[:100]!r} sends."
        return Refused(403, "foreign_origin", told)
    return None


async def send_refusal(
    refused: Refused, path: str, send: Callable[[MutableMapping[str, Any]], Awaitable[None]]
) -> None:
    """Answer a request that is not read."""
    shape = "v2" if path.startswith("/v2") else "plain"
    body, headers = make_error(refused, make_request_id(time.time()), shape=shape)  # type: ignore[arg-type]
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
