"""A client of a server: what `dlpipe predict --url` and MLflow's deployments ask with."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from dlpipe.errors import ModelNotFound, ServerRefused, SettingError
from dlpipe.redaction import redact

KEY = "DLPIPE_KEY"
"""The variable with the key that a server asks for."""
NO_KEY = f"Set {KEY} to a key; `dlpipe keys create NAME` makes one where the server runs."
SENT_KEY = f"It was sent the one in {KEY}."
SECONDS = 90.0
"""More than a server takes to load a model and to answer."""


class Client:
    """Asks a server.

    Parameters
    ----------
    url : str
        Such as ``http://127.0.0.1:8720``.
    key : str, optional
        By default that in the variable ``DLPIPE_KEY``.

    Raises
    ------
    SettingError
        When the address is none of HTTP.
    """

    def __init__(self, url: str, *, key: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise SettingError(f"{redact(url)!r} is no address of a server. Write http://127.0.0.1:8720, say.")
        self.url = url.rstrip("/")
        self._about_key = "" if key else SENT_KEY if os.environ.get(KEY) else NO_KEY
        key = os.environ.get(KEY) if key is None else key
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def list_models(self) -> list[dict[str, Any]]:
        """Return the models of the server: their names, aliases, and what is loaded of them."""
        models: list[dict[str, Any]] = self._ask("GET", "/models")["models"]
        return models

    def describe(self, name: str, which: str = "") -> dict[str, Any]:
        """Return what answers for a model, what it reads and what it returns.

        Parameters
        ----------
        name : str
        which : str, optional
            A version or an alias; by default the champion.
        """
        return self._ask("GET", make_path(name, which))

    def predict(self, name: str, which: str = "", *, rows: Sequence[Any]) -> dict[str, Any]:
        """Return the answer for rows: ``predictions``, one a row, and what made them.

        Parameters
        ----------
        name, which : str
            As for ``describe``.
        rows : sequence of text or of mapping
        """
        return self._ask("POST", make_path(name, which), rows)

    def explain(self, name: str, which: str = "", *, rows: Sequence[Any], method: str = "") -> dict[str, Any]:
        """Return the explanations of rows: ``explanations``, one a row, and what made them.

        Parameters
        ----------
        name, which, rows
            As for ``predict``.
        method : str, optional
            ``partition`` or ``gradient``.
        """
        query = f"?method={quote(method)}" if method else ""
        return self._ask("POST", f"{make_path(name, which)}/explain{query}", rows)

    def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Return what is answered.

        Raises
        ------
        SettingError
            When rows hold what JSON has not.
        ModelNotFound
            With 404.
        ServerRefused
            With another error, or when the server does not answer.
        """
        import requests

        try:
            answer = requests.request(
                method, self.url + path, json=body, headers=self._headers, timeout=SECONDS, allow_redirects=False
            )
        except requests.exceptions.InvalidJSONError:
            raise SettingError(
                "The rows hold NaN or an infinite number, which JSON has not. Pass None for what is missing."
            ) from None
        except requests.exceptions.Timeout:
            raise ServerRefused(f"{redact(self.url)} has not answered for {SECONDS:g} s.") from None
        except requests.RequestException:
            raise ServerRefused(
                f"No server answers at {redact(self.url)}. Start one: dlpipe serve --port 8720."
            ) from None
        try:
            said = answer.json()
        except ValueError:
            said = {}
        if answer.status_code == 200 and isinstance(said, dict):
            return said
        message = find_message(said) or f"status {answer.status_code}, and nothing that a server of dlpipe says"
        error = ModelNotFound if answer.status_code == 404 and find_message(said) else ServerRefused
        if answer.status_code == 401:
            message = f"{message} {self._about_key}".rstrip()
        raise error(f"{redact(self.url)}: {message}")


def make_path(name: str, which: str) -> str:
    """Return the address of a model.

    Examples
    --------
    >>> make_path("my reviews", "3")
    '/models/my%20reviews/3'
    """
    return f"/models/{quote(name, safe='')}" + (f"/{quote(which, safe='')}" if which else "")


def find_message(said: Any) -> str:
    """Return the message of an error; empty where there is none."""
    error = said.get("error") if isinstance(said, Mapping) else None
    message = error.get("message") if isinstance(error, Mapping) else error
    return message if isinstance(message, str) else ""
