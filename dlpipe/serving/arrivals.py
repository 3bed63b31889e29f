"""Requests as they arrive: their headers, their bodies, and how many rows these have; bounded in size and time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from dlpipe.serving.refusals import Refused, bad_request, too_large

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


def find_authorization(headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """Return the header ``Authorization``, the last where there are several."""
    found = None
    for name, value in headers:
        if name == b"authorization":
            found = value.decode("latin-1")
    return found


def read_headers(headers: Sequence[tuple[bytes, bytes]], max_body: int) -> str:
    """Return the type of a body.

    Raises
    ------
    Refused
        Where the body is too large, or compressed.
    """
    length, media = -1, ""
    for name, value in headers:
        if name == b"content-length":
            length = int(value)
        elif name == b"content-type":
            media = value.decode("latin-1")
        elif name == b"content-encoding" and value.lower() != b"identity":
            raise Refused(415, "unsupported_media_type", "The body is compressed; send it as it is.")
        elif name == b"inference-header-content-length":
            raise bad_request("Binary tensors are not read; send 'data' as JSON.")
    if length > max_body:
        raise too_large(f"The body has {length:,} bytes; a request may have {max_body:,}. Send several.")
    return media


async def read_body(receive: Receive, max_body: int, timeout: float, hold: Callable[[int], None]) -> bytes:
    """Return the body of a request.

    Parameters
    ----------
    receive : callable
        Of ASGI.
    max_body : int
    timeout : float
    hold : callable
        Gets the sizes of the parts of a body that does not come at once.

    Raises
    ------
    Refused
        With 413 where it is too large, and with 408 where it does not arrive in time.
    CancelledError
        Where the client is gone.
    """
    try:
        async with asyncio.timeout(timeout):
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body"):
                body = bytes(message["body"])
                if len(body) > max_body:
                    raise too_large(f"The body is larger than {max_body:,} bytes. Send several requests.")
                return body
            parts = bytearray()
            while True:
                if message["type"] == "http.disconnect":
                    raise asyncio.CancelledError
                part = message.get("body", b"")
                hold(len(part))
                parts += part
                if len(parts) > max_body:
                    raise too_large(f"The body is larger than {max_body:,} bytes. Send several requests.")
                if not message.get("more_body"):
                    return bytes(parts)
                message = await receive()
    except TimeoutError:
        raise Refused(408, "slow_body", f"The body did not arrive within {timeout:g} s.") from None


def count_rows(given: Any) -> int:
    """Return how many rows a body has, before each is looked at.

    Examples
    --------
    >>> count_rows({"text": ["a", "b"]}), count_rows(["a"])
    (2, 1)
    """
    return len(next(iter(given.values()))) if isinstance(given, dict) else len(given)


def check_rows(number: int, most: int) -> None:
    """Raise ``Refused`` where there are no rows, or too many."""
    if not number:
        raise bad_request("The body has no rows.")
    if number > most:
        raise too_large(f"The body has {number:,} rows; a request may have {most:,}. Send several.")
