"""Who may read the status page: those who know its token, and not everybody with an account on this machine."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dlpipe.durable import write_file
from dlpipe.errors import StateUnusable

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

FILE = "page.token"
ASKED = "This page needs its token. `dlpipe scheduler page` prints the address with it.\n"


def read_token(folder: Path) -> str:
    """The token of the page of the state in ``folder``, made if there is none; it stays, as bookmarks do."""
    file = folder / FILE
    try:
        if file.exists() and (known := file.read_text().strip()):
            file.chmod(0o600)
            return known
        made = secrets.token_urlsafe(24)
        write_file(file, made, mode=0o600)
    except OSError as error:
        raise StateUnusable(
            f"{file} cannot be read and written: {error.strerror}. `--no-token` does without it."
        ) from None
    return made


def make_guard(token: str) -> Callable[[], Response | tuple[str, int] | None]:
    """What is done before each request: nothing for those who know the token.

    It comes in the address (``?token=``), which leaves a cookie and is then taken out of the address, or as
    ``Authorization: token ...``.
    """
    from flask import redirect, request

    cookie = f"dlpipe-page-{hashlib.sha256(token.encode()).hexdigest()[:8]}"  # ports of a host share their cookies

    def check() -> Response | tuple[str, int] | None:
        named = request.args.get("token")
        if named is not None and is_same(named, token):
            answer = redirect(request.path)
            answer.set_cookie(cookie, token, httponly=True, samesite="Lax")
            return answer
        given = request.cookies.get(cookie) or request.headers.get("Authorization", "").removeprefix("token ")
        return None if is_same(given, token) else (ASKED, 403)

    return check


def is_same(given: str, token: str) -> bool:
    """Whether two tokens are one, in a time that says nothing of how much of them is."""
    return hmac.compare_digest(given.encode(errors="replace"), token.encode())
