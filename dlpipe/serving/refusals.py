"""Why a request has no answer, as HTTP has it: a status, a word for programs and a line for people."""

from __future__ import annotations

import math
from http import HTTPStatus

from dlpipe.errors import (
    DeadlinePassed,
    DlpipeError,
    ExplanationError,
    ModelNotFound,
    ModelNotLoaded,
    Overloaded,
    SettingError,
    StorageFull,
    TrackingUnavailable,
)
from dlpipe.redaction import redact

TRY_AGAIN = 5.0
"""Seconds after which what cannot be loaded now may be asked for again."""
REGISTRY_AWAY = "The registry does not answer. Models that are loaded do; ask for others again in some seconds."
"""What clients are told: why is in a line of the server, which names the store."""
NOT_LOADED = (
    "The version cannot be loaded, or answers otherwise than at its registration: the server's log says why."
)
"""What clients are told: the reason may name folders."""
LOG_FULL = "The log of requests cannot be written, and nothing is taken without it. Try again later."
"""What clients are told: the reason names a folder."""
GONE = 499
"""The status of a request whose client went before its answer; nobody gets it."""


TOLD = {TrackingUnavailable: REGISTRY_AWAY, ModelNotLoaded: NOT_LOADED, StorageFull: LOG_FULL}
"""Lines for clients, where an error's own is for the operator alone."""


class Refused(Exception):
    """A request that gets an error instead of an answer.

    Parameters
    ----------
    status : int
        Of HTTP.
    code : str
        A word for programs.
    message : str
        A line for people; nothing secret, no traceback.
    retry_after : float, optional
        Seconds after which it may be tried again.
    headers : sequence of (name, value), optional
        More of them.
    key : str
        Id of the key that was presented, if it was a true one.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retry_after: float | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        key: str = "",
    ) -> None:
        super().__init__(message)
        self.key = key
        self.status, self.code, self.message = int(status), code, message
        self.headers = headers
        if retry_after is not None:
            self.headers = (*headers, (b"retry-after", b"%d" % max(1, math.ceil(retry_after))))


CLIENT_GONE = "The client was gone before its answer."
"""Why a request is cancelled whose connection is lost."""
ENDING = Refused(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "ending",
    "The server ends, and has no time left to answer.",
    retry_after=TRY_AGAIN,
)
"""What those are told that are still under way when a server has waited long enough for them."""


def bad_request(message: str) -> Refused:
    """Return the refusal of a body that cannot be read."""
    return Refused(HTTPStatus.BAD_REQUEST, "bad_request", message)


def too_large(message: str) -> Refused:
    """Return the refusal of a body or of rows that are too many."""
    return Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", message)


def refuse(error: Exception) -> Refused:
    """Return what the client is told of an error.

    An error that nobody expected is one of the server, and its message is kept from the client; so is that of a
    registry that does not answer, a version that cannot be loaded and a full disk: they name folders.

    Examples
    --------
    >>> refuse(SettingError("Row 1 is no text but a number: 3.")).status
    400
    >>> refuse(ZeroDivisionError("division by zero")).message
    'The server failed to answer; its log has the reason under this request id.'
    """
    if isinstance(error, Refused):
        return error
    if isinstance(error, Overloaded):  # not redacted: there are thousands a second, and it quotes nobody
        status, code = HTTPStatus.SERVICE_UNAVAILABLE, "overloaded"
        return Refused(status, code, str(error), retry_after=error.retry_after)
    line = " ".join(redact(str(error)).split())
    if isinstance(error, DeadlinePassed):
        return Refused(HTTPStatus.GATEWAY_TIMEOUT, "deadline", line, retry_after=1.0)
    if isinstance(error, ModelNotFound):
        return Refused(HTTPStatus.NOT_FOUND, "model_not_found", line)
    if isinstance(error, SettingError | ExplanationError):
        return bad_request(line)
    if isinstance(error, DlpipeError):
        line = next((told for kind, told in TOLD.items() if isinstance(error, kind)), line)
        return Refused(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", line, retry_after=TRY_AGAIN)
    told = "The server failed to answer; its log has the reason under this request id."
    return Refused(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", told)
