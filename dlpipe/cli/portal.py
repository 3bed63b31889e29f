"""`dlpipe ui`: MLflow's pages on this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click

from dlpipe.cli.printing import say
from dlpipe.errors import DlpipeError, TrackingUnavailable

if TYPE_CHECKING:
    from dlpipe.tracking import TrackingStore

PORT = 5000
START_SECONDS = 60.0
STOP_SECONDS = 10.0
REFRESH_SECONDS = 20.0
"""How often the columns of the table of runs are chosen again; a page shows them when it is loaded."""


@click.command()
@click.argument("flow", required=False)
@click.option(
    "--port", type=click.IntRange(1, 65535), help=f"Port of the server.  [default: {PORT}, or the next free one]"
)
def ui(flow: str | None, port: int | None) -> None:
    """Open MLflow's pages on this machine, until Ctrl-C.

    The address that is printed shows the runs of FLOW, or of the flow that ran last, with their scores, data sets,
    models, the parameters in which they differ and the usual ones; columns of new runs come with a reload. It is
    an MLflow server with one worker, bound to 127.0.0.1, without job runner. Where MLFLOW_TRACKING_URI names a
    server, its address is printed and nothing is started.

    \b
    Examples:
      dlpipe ui
      dlpipe ui --port 8080
    """
    from dlpipe.redaction import show_address
    from dlpipe.tracking import find_page, open_store

    store = open_store()
    if store.is_server:
        say(f"{show_address(store.uri).rstrip('/')}/{find_page(store.client(), flow)}")
        return
    page = find_page(store.client(), flow)
    port = find_port() if port is None else check_port(port)
    with portal(store, port) as server:
        say(f"http://127.0.0.1:{port}/{page}")
        say("The portal is open. Ctrl-C closes it.", err=True)
        sys.exit(wait_until_closed(server, store, flow))


def wait_until_closed(server: subprocess.Popen[bytes], store: TrackingStore, flow: str | None) -> int:
    """Return how the server ended; until then, its table of runs gets the columns by which new runs differ.

    Parameters
    ----------
    server : Popen
    store : TrackingStore
        Whose pages it serves.
    flow : str, optional
        Whose table it is; by default of the flow that ran last.
    """
    from dlpipe.tracking import find_page, tracking_errors

    client = store.client()
    while True:
        try:
            return server.wait(REFRESH_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(DlpipeError), tracking_errors(store):  # the next look finds it
                find_page(client, flow)


@contextmanager
def portal(store: TrackingStore, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run an MLflow server that answers, and end it with all its processes, also on Ctrl-C and SIGTERM."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    server = subprocess.Popen(
        make_command(store, port),
        env=make_environment(store),
        start_new_session=True,  # a group of its own, to end as one
        stdout=sys.stderr.fileno(),
    )
    try:
        wait_until_open(server, port)
        yield server
    except KeyboardInterrupt:
        say("The portal is closed.", err=True)
    finally:  # its workers would outlive it and keep the port
        end_group(server)


def make_environment(store: TrackingStore) -> dict[str, str]:
    """Return the server's environment, with the addresses of ``store``: commands are read by every user."""
    return {
        "PYTHONWARNINGS": "ignore",
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_BACKEND_STORE_URI": store.uri,
        "MLFLOW_REGISTRY_STORE_URI": store.registry_uri,
    }


def make_command(store: TrackingStore, port: int) -> list[str]:
    """Return the command of an MLflow server of ``store``: one worker costs a fifth of a second a page less."""
    options = {
        "--host": "127.0.0.1",
        "--port": str(port),
        "--workers": "1",
        "--uvicorn-opts": "--log-level=warning",
    }
    if store.artifact_location is not None:
        options["--default-artifact-root"] = options["--artifacts-destination"] = store.artifact_location
    return [sys.executable, "-m", "mlflow", "server", *(word for pair in options.items() for word in pair)]


def wait_until_open(server: subprocess.Popen[bytes], port: int) -> None:
    """Return when the server answers; ``TrackingUnavailable`` when it ends or takes too long."""
    from dlpipe.tracking import check_answers

    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            return check_answers(f"http://127.0.0.1:{port}")
        except TrackingUnavailable:
            time.sleep(0.2)
    raise TrackingUnavailable(f"The MLflow server did not open on port {port}. Its own words are above.")


def end_group(server: subprocess.Popen[bytes]) -> None:
    """End ``server`` and every process it started: politely first, by force after ten seconds."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
            server.wait(STOP_SECONDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def find_port(first: int = PORT) -> int:
    """Return the first port from ``first`` on that nothing listens on."""
    return next(port for port in range(first, 65536) if is_free(port))


def check_port(port: int) -> int:
    """Return ``port`` if nothing listens on it."""
    if not is_free(port):
        raise TrackingUnavailable(f"Port {port} is taken. Give another with --port, or none to have one found.")
    return port


def is_free(port: int) -> bool:
    """Whether a server could listen on ``port`` of this machine."""
    with socket.socket() as trying:
        trying.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trying.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def stop(number: int, _frame: object) -> None:
    """Treat a request to end like Ctrl-C."""
    raise KeyboardInterrupt
