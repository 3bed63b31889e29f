"""Receivers of events: a file with one event a line, or a server that speaks OpenLineage's HTTP.

The server is spoken to by openlineage-python's own transport, with what its variables and ``openlineage.yml`` say
of keys, certificates and headers.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Container, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from openlineage.client.client import OpenLineageClient
from openlineage.client.transport.http import HttpConfig, HttpTransport

from dlpipe.durable import sync_file, sync_folder
from dlpipe.errors import EventNotTaken, ReceiverUnavailable, SettingError
from dlpipe.openlineage.events import Body, find_key
from dlpipe.openlineage.sent import hold_sent
from dlpipe.redaction import redact, show_address
from dlpipe.terminal import is_utf8

ENDPOINT = "api/v1/lineage"
URL, KEY = "OPENLINEAGE_URL", "OPENLINEAGE_API_KEY"
SETTING = "DLPIPE_OPENLINEAGE"
"""Names who is told of runs while they happen: a file, an address, or 1 for the server of ``OPENLINEAGE_URL``."""
ON, OFF = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")
HOW = f"Pass --to FILE or --to http://HOST:PORT, or set {SETTING} or {URL}."
REFUSED, MISSING, LATER = (401, 403), (404, 405), (408, 425, 429)
"""Answers that mean: no key, no such address, and try again; all other 4xx are of the event itself."""
RETRIES = 3


class Told(Container[str], Protocol):
    """What a receiver was told, by keys."""

    def note(self, key: str) -> None:
        """Note that it was."""


class Receiver(Protocol):
    """Whoever is told events."""

    @property
    def address(self) -> str:
        """Where it is, without credentials."""

    def hold(self) -> AbstractContextManager[Told]:
        """Yield what it was told; nobody else of this user tells it anything meanwhile."""

    def send(self, body: Body) -> None:
        """Tell it an event.

        Raises
        ------
        ReceiverUnavailable
            When it does not answer, or takes none.
        EventNotTaken
            When it does not take this one.
        """


def open_receiver(to: str = "", *, retries: int = RETRIES) -> Receiver:
    """Return the receiver at a path or an address.

    Parameters
    ----------
    to : str, optional
        By default what ``DLPIPE_OPENLINEAGE`` names, or ``OPENLINEAGE_URL``.
    retries : int, optional
        How often a server that does not answer is asked again at once.

    Raises
    ------
    SettingError
        When it can be neither.
    """
    if not (to := to.strip()):
        to = os.environ.get(SETTING, "").strip()
        if to.lower() in (*ON, *OFF):
            to = os.environ.get(URL, "").strip()
    if not to:
        raise SettingError(f"Nobody is named who is to be told. {HOW}")
    scheme, found, rest = to.partition("://")
    if found and scheme.lower() in ("http", "https"):
        return ServerReceiver(to, retries=retries)
    if found and scheme.lower() != "file":
        raise SettingError(f"{show_address(to)} is no receiver: {scheme!r} is not spoken. {HOW}")
    return FileReceiver(Path(rest if found else to))


class FileReceiver:
    """A file with an event a line, to which what is new is appended: it says itself what it was told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    @property
    def address(self) -> str:
        """Its path."""
        return str(self.path)

    @contextmanager
    def hold(self) -> Iterator[Told]:
        """Yield the keys of the events that it has; what comes to it is on the disk afterwards."""
        is_new = not self.path.exists()
        if not is_new and not self.path.is_file():  # a device may have no end
            raise SettingError(f"{self.path} is no file. {HOW}")
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise SettingError(f"{self.path} cannot be written: {error.strerror}. {HOW}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            yield self._read()
            sync_file(self.path)
            if is_new:
                sync_folder(self.path.absolute().parent)
        finally:
            os.close(self._file)
            self._file = None

    def _read(self) -> FileKeys:
        assert self._file is not None
        with open(os.dup(self._file), "rb") as lines:
            keys, whole = set(), 0
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):  # torn by a kill
                    break
                whole += len(line)
                keys.add(self._read_key(line, number))
        os.ftruncate(self._file, whole)
        return FileKeys(keys)

    def _read_key(self, line: bytes, number: int) -> str:
        try:
            body = json.loads(line)
            if "eventTime" in body:
                return find_key(body)
        except (ValueError, LookupError, TypeError, AttributeError):
            pass
        raise SettingError(
            f"{self.path} holds something else than events of OpenLineage: line {number}. Name another file."
        )

    def send(self, body: Body) -> None:
        """Append a line."""
        assert self._file is not None
        line = json.dumps(body, sort_keys=True, ensure_ascii=False).encode(errors="replace") + b"\n"
        try:
            while line:
                line = line[os.write(self._file, line) :]
        except OSError as error:
            raise ReceiverUnavailable(f"{self.path} cannot be written: {error.strerror}") from None


class FileKeys:
    """The keys of the events of a file, which says itself what it was told."""

    def __init__(self, keys: set[str]) -> None:
        self._keys = keys

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def note(self, key: str) -> None:
        """Note that an event is there."""
        self._keys.add(key)


class ServerReceiver:
    """A server that takes events by POST."""

    def __init__(self, url: str, *, retries: int = RETRIES) -> None:
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError:  # it may quote a password
            raise SettingError(f"The address of the receiver has a host or a port that is none. {HOW}") from None
        if not parts.hostname or " " in parts.netloc or not is_utf8(parts.netloc):
            raise SettingError(f"{show_address(url)} names no host. {HOW}")
        self._endpoint = parts.path.strip("/") or os.environ.get("OPENLINEAGE_ENDPOINT", "").strip("/") or ENDPOINT
        self._transport = HttpTransport(self._configure(f"{parts.scheme}://{parts.netloc}", retries))

    def _configure(self, server: str, retries: int) -> HttpConfig:
        """Return what openlineage-python's own settings say of a server over HTTP, with this address."""
        client = OpenLineageClient(transport=_make_no_transport())
        try:
            named = client.config.transport or {}
            settings: dict[str, Any] = dict(named) if named.get("type") in ("http", "async_http") else {}
            settings |= {"url": server, "endpoint": self._endpoint, "retry": {"total": retries, "read": retries}}
            if "auth" not in settings and (key := os.environ.get(KEY)):
                settings["auth"] = {"type": "api_key", "apiKey": key}
            return HttpConfig.from_dict(settings)
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise SettingError(f"What openlineage.yml says of its transport cannot be used: {error}") from None

    @property
    def address(self) -> str:
        """Server and path, without credentials."""
        return f"{show_address(self._transport.url).rstrip('/')}/{self._endpoint}"

    def hold(self) -> AbstractContextManager[Told]:
        """Yield what this server was told, as it is noted on this machine."""
        return hold_sent(self.address)

    def send(self, body: Body) -> None:
        """Post an event, and return when the server has taken it."""
        import requests

        try:
            answer = self._transport.emit(dict(body))  # type: ignore[arg-type]
        except requests.HTTPError as error:
            raise self._explain(error.response) from None
        except (requests.RequestException, RuntimeError) as error:
            raise ReceiverUnavailable(f"{self.address} does not answer: {describe_failure(error)}") from None
        if answer.history or not 200 <= answer.status_code < 300:
            raise self._explain(answer)

    def _explain(self, answer: Any) -> ReceiverUnavailable | EventNotTaken:
        if answer.history:  # what is posted is lost on the way: a login, say, is only asked for its page
            return ReceiverUnavailable(
                f"{self.address} redirects to {show_address(answer.url.partition('?')[0])}, and takes no events. "
                f"Give its whole address, and {KEY} where it wants a key"
            )
        status, text = answer.status_code, redact(" ".join(answer.text.split())[:200])
        told = f"status {status}{f', {text}' if text else ''}"
        if status in REFUSED:
            return ReceiverUnavailable(
                f"{self.address} wants a key ({told}). Set {KEY}, or auth in openlineage.yml"
            )
        if status in MISSING or status < 400:
            return ReceiverUnavailable(f"{self.address} takes no events ({told}). Give its whole address")
        if status in LATER or status >= 500:
            return ReceiverUnavailable(f"{self.address} takes no events at the moment ({told})")
        return EventNotTaken(f"{self.address} does not take an event ({told})")


def _make_no_transport() -> Any:
    from openlineage.client.transport.noop import NoopConfig, NoopTransport

    return NoopTransport(NoopConfig())


def describe_failure(error: BaseException) -> str:
    """Return why nobody answered, in a few words: the cause of all that requests and urllib3 say around it.

    Examples
    --------
    >>> describe_failure(ConnectionRefusedError(111, "Connection refused"))
    'Connection refused'
    """
    while (inner := getattr(error, "reason", None) or error.__cause__ or error.__context__) and isinstance(
        inner, BaseException
    ):
        error = inner
    return redact(getattr(error, "strerror", None) or str(error) or type(error).__name__)
