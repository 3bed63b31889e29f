"""The process of a server: its socket, its event loop, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import logging
import math
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from uvicorn import Config, Server

from dlpipe.errors import AddressUnusable, DlpipeError, SettingError, StoreNotFound
from dlpipe.serving.application import Application
from dlpipe.serving.batching import Batcher
from dlpipe.serving.connections import make_protocol
from dlpipe.serving.feedback import write_feedback
from dlpipe.serving.following import Models
from dlpipe.serving.guards import Guard, Open
from dlpipe.serving.key_file import find_key_file
from dlpipe.serving.keys import KeyRing, await_keys
from dlpipe.serving.logged import is_logged
from dlpipe.serving.reloading import Reloader
from dlpipe.serving.request_log import RequestLog
from dlpipe.serving.settings import KeySettings, ServingSettings
from dlpipe.serving.usage import count_used_rows
from dlpipe.terminal import lose_unwritable
from dlpipe.tracking import open_store

LOGGER = logging.getLogger(__name__)
CONNECTIONS = 8192
KEEP_ALIVE_SECONDS = 30
CANCELLED_SECONDS = 5.0
"""In which those that were under way for too long are told that the server ends."""
FILES = 256
"""Open files that are not connections."""
BACKLOG = 1024
"""Connections that wait to be accepted."""
SWITCH_SECONDS = 0.0005
"""After which a thread lets others have Python: a lane asks for it many times a batch, beside the event loop."""


@dataclass(frozen=True)
class ServeSettings:
    """What `dlpipe serve` is told.

    Attributes
    ----------
    host : str
        An address of this machine.
    port : int
        0 for a free one.
    models : sequence of str
        By default every registered one.
    engine : str, optional
        By default that of each version.
    serving : ServingSettings
        Bounds, the request log and keys.
    """

    host: str = "127.0.0.1"
    port: int = 0
    models: Sequence[str] = ()
    engine: str | None = None
    serving: ServingSettings = field(default_factory=ServingSettings)


def serve(
    settings: ServeSettings,
    *,
    say: Callable[[str], None],
    reread: Callable[[], ServingSettings] | None = None,
) -> None:
    """Answer requests until SIGTERM or Ctrl-C, and end when those under way have their answers.

    A second signal ends the process at once.

    Parameters
    ----------
    settings : ServeSettings
    reread : callable, optional
        Returns the settings as they are now, when SIGHUP comes; by default that ends the process.
    say : callable
        Gets lines for people.

    Raises
    ------
    SettingError
        When the address is not of loopback, and there are no keys.
    KeysUnusable
        When others may read the file of keys, or it is none.
    StorageFull
        When requests cannot be logged.
    StoreNotFound
        When there is no registry here; one that is empty, or does not answer now, may come later.
    AddressUnusable
        When the port is taken, or the address is not of this machine.
    DlpipeError
        When a model that is named cannot be served.
    """
    import uvloop

    say = lose_unwritable(say)
    sys.setswitchinterval(SWITCH_SECONDS)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    keys = open_keys(settings.serving.keys, say=say)
    check_host(settings.host, keys=0 if keys is None else keys.count_valid())
    check_store()
    with open_socket(settings.host, settings.port) as listening:
        log = RequestLog(settings.serving.log, say=say)
        log.start()
        try:
            uvloop.run(run(settings, listening, log, choose_guard(keys), say=say, reread=reread))
        finally:
            log.close()


def open_keys(settings: KeySettings, *, say: Callable[[str], None]) -> KeyRing | None:
    """Return the keys of a server; ``None`` where there is no file of them, and nobody has named one.

    Raises
    ------
    KeysUnusable
        When others may read the file, or it is none of keys.
    SettingError
        When the file that is named does not exist.
    """
    path = find_key_file(settings.file)
    if path.exists():
        return KeyRing(path, used=count_used_rows, say=say)
    if settings.file:
        raise SettingError(f"[serving.keys]: there is no file {path}. `dlpipe keys create NAME` makes it.")
    return None


def choose_guard(keys: KeyRing | None) -> Guard:
    """Return who decides what is answered: where there is a file of keys, nobody is without one, be none valid."""
    return Open() if keys is None else keys


def check_host(host: str, *, keys: int) -> None:
    """Raise ``SettingError`` where other machines reach ``host``, and there are no keys.

    Examples
    --------
    >>> [check_host(host, keys=0) for host in ("localhost", "127.0.0.2", "::1")]
    [None, None, None]
    """
    if keys:
        return
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return
    if host == "localhost":
        return
    raise SettingError(
        f"--host {host} would let other machines ask, and there are no keys. Make one (dlpipe keys create NAME), "
        "or use 127.0.0.1."
    )


def check_store() -> None:
    """Raise ``StoreNotFound`` where there is no registry; one that does not answer now may do so later."""
    try:
        open_store()
    except StoreNotFound:
        raise
    except DlpipeError as error:
        LOGGER.debug("the registry does not answer yet: %s", error)


async def tell_if_empty(models: Models, *, say: Callable[[str], None]) -> None:
    """Say so where no model is registered yet."""
    with contextlib.suppress(DlpipeError):  # a registry that does not answer is said by whoever asks it
        if not await models.lookup.list_all():
            say("No model is registered yet. One that is (python flows/train_flow.py run) answers at once.")


def open_socket(host: str, port: int) -> socket.socket:
    """Return a socket that is bound and does not listen yet.

    Raises
    ------
    AddressUnusable
        When the port is taken, or the address is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise AddressUnusable(
            f"Port {port} of {host} cannot be used: {error.strerror}. Choose another with --port."
        ) from None
    return made


def describe_address(listening: socket.socket) -> str:
    """Return the address at which a socket is reached."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


async def run(
    settings: ServeSettings,
    listening: socket.socket,
    log: RequestLog,
    guard: Guard,
    *,
    say: Callable[[str], None],
    reread: Callable[[], ServingSettings] | None = None,
) -> None:
    """Answer requests until a signal, and load what is named beside that.

    Parameters
    ----------
    settings : ServeSettings
    listening : socket
        That is bound.
    log : RequestLog
        That has been started.
    guard : Guard
    say : callable
    reread : callable, optional
        As for ``serve``.
    """
    app = make_application(settings, log, guard, say=say)
    app.local = isinstance(guard, Open)
    if reread is not None:
        reloader = Reloader(settings.serving, reread, app, log, say=say)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reloader.reload)
    try:
        await app.models.check()
        listening.listen(BACKLOG)  # whoever reads the next line may ask at once
        say(f"Serving {describe_models(settings.models)} on {describe_address(listening)}")
        beside = [asyncio.create_task(tell_if_empty(app.models, say=say))]
        if app.local:
            find = functools.partial(open_keys, settings.serving.keys, say=say)
            beside.append(asyncio.create_task(await_keys(find, app.take_keys, say=say)))
        try:
            await answer_while_loading(app, listening, say=say)
        finally:
            for task in beside:
                task.cancel()
    finally:
        await close_application(app)


async def answer_while_loading(app: Application, listening: socket.socket, *, say: Callable[[str], None]) -> None:
    """Answer requests until a signal; probes are answered before the models are loaded.

    Raises
    ------
    DlpipeError
        When a model that was named cannot be served.
    """
    loading = asyncio.create_task(app.models.start())
    answering = asyncio.create_task(answer(app, listening, say=say))
    try:
        await asyncio.wait((loading, answering), return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()
        await answering
    finally:
        for task in (loading, answering):
            task.cancel()
        await asyncio.gather(loading, answering, return_exceptions=True)


def make_application(
    settings: ServeSettings, log: RequestLog, guard: Guard, *, say: Callable[[str], None]
) -> Application:
    """Return the application of a server, whose models have not been started.

    Parameters
    ----------
    settings : ServeSettings
    log : RequestLog
        That has been started.
    guard : Guard
    say : callable
        Gets a line for each swap and each refusal.
    """
    limits = settings.serving.limits
    return Application(
        Models(only=settings.models, engine=settings.engine, say=say),
        Batcher(max_wait=limits.max_wait),
        limits=limits,
        guard=guard,
        record=log.record,
        take=lambda model, given, key: write_feedback(log, model, given, key=key),
        is_logged=lambda model: is_logged(model, log.root),
        find_trouble=lambda: log.trouble,
    )


async def close_application(app: Application) -> None:
    """End what an application has running; nobody may be asking it any more."""
    await app.models.stop()
    app.explainers.close()
    app.batcher.close()


def describe_models(names: Sequence[str]) -> str:
    """Return what is served, in words."""
    return ", ".join(names) or "every registered model"


async def answer(app: Application, listening: socket.socket, *, say: Callable[[str], None] = print) -> None:
    """Answer requests that come to a socket until a signal, and then those under way."""
    config = Config(
        app,  # type: ignore[arg-type]
        http=make_protocol(find_most_connections()),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=math.ceil(app.limits.draining),
        backlog=BACKLOG,
    )
    # what it says of bad clients helps nobody; what goes wrong here is logged by the application
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    await DrainingServer(config, app, say).serve(sockets=[listening])


def find_most_connections() -> int:
    """Return how many connections this process may have, after it has asked for as many files as it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))
            soft = min(hard, 65_536)
    return max(16, min(CONNECTIONS, soft - FILES))


class DrainingServer(Server):
    """A server that says it ends, ends what is under way, and ends at once when it is told twice."""

    def __init__(self, config: Config, app: Application, say: Callable[[str], None]) -> None:
        super().__init__(config)
        self._app, self._say = app, say

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; or end."""
        if self.should_exit:
            os._exit(128 + sig)
        self.should_exit = self._app.draining = True
        self.config.timeout_graceful_shutdown = math.ceil(self._app.limits.draining)  # it may have changed
        under_way = len(self.server_state.tasks)
        self._say(
            f"Ending; {under_way} request{'' if under_way == 1 else 's'} under way. Another signal ends at once."
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what is under way; what takes too long is cancelled, and says so to its client."""
        await super().shutdown(sockets)
        if self.server_state.tasks:
            await asyncio.wait(set(self.server_state.tasks), timeout=CANCELLED_SECONDS)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[Any]:  # type: ignore[override]
        """Have both signals handled here; the process ends with 0."""
        numbers = signal.SIGINT, signal.SIGTERM
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
