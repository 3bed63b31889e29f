"""A server of a registered model, as a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from stores import new_store

from dlpipe.registry import log_and_register, promote


@dataclass
class Server:
    """A running `dlpipe serve`, with what it has said."""

    process: subprocess.Popen[str]
    environ: dict[str, str]
    address: str = ""
    key: str = ""
    said: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def post(self, path: str, body: Any = None, **options: Any) -> requests.Response:
        """Send ``body``: bytes as they are, anything else as JSON."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            options.setdefault("headers", {"Content-Type": "application/json"})
        return requests.post(self.address + path, data=body, timeout=30, **self._with_key(options))

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.address + path, timeout=30, **self._with_key(options))

    def _with_key(self, options: dict[str, Any]) -> dict[str, Any]:
        if not self.key:
            return options
        own = {"Authorization": f"Bearer {self.key}"}
        return {**options, "headers": {**own, **options.get("headers", {})}}

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def say(self, request: bytes) -> tuple[int, bytes]:
        """Send bytes, and return the status and the body of what comes back."""
        with self.connect() as connection:
            connection.sendall(request)
            return read_answer(connection)

    def measure_memory(self) -> int:
        """Return the bytes that it has in memory."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found
        return 1024 * int(found[1])


def read_answer(connection: socket.socket) -> tuple[int, bytes]:
    """Return the status and the body of the next answer; status 0 where there is none."""
    got = b""
    while b"\r\n\r\n" not in got:
        part = connection.recv(65536)
        if not part:
            return 0, got
        got += part
    head, _, body = got.partition(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head.lower())[1])
    while len(body) < length:
        body += connection.recv(65536)
    return int(head.split()[1]), body


def is_ready(server: Server) -> bool:
    """Whether it has loaded the models that it was told to load."""
    try:
        with server.connect() as connection:
            connection.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
            return read_answer(connection)[0] == 200
    except OSError:
        return False


def register_reviews(folder: Path, model: Any) -> None:
    """Make a store in ``folder`` whose only model is ``reviews``, and name it in the environment."""
    new_store(folder)
    about = {"delta.table": "t", "delta.version": "0", "delta.digest": "d"}
    promote(log_and_register(model, name="reviews", example=["the film was good"], params={}, tags=about))


@contextmanager
def serving(*words: str, folder: Path | None = None, environ: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Run `dlpipe serve` on a free port until the end of the block; its log and state are in ``folder``."""
    if folder is None:
        with (
            tempfile.TemporaryDirectory(prefix="dlpipe-tests-") as made,
            serving(*words, folder=Path(made), environ=environ) as server,
        ):
            yield server
        return
    own = {"DLPIPE_TABLES": str(folder / "tables"), "DLPIPE_STATE": str(folder / "state")}
    given = {**os.environ, "OMP_NUM_THREADS": "1", **own, **(environ or {})}
    process = subprocess.Popen(
        [sys.executable, "-m", "dlpipe.cli", "serve", "--port", "0", *words],
        env=given,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    server = Server(process, given)
    reading = threading.Thread(target=lambda: server.said.extend(process.stderr), daemon=True)
    reading.start()
    try:
        deadline = time.monotonic() + 120
        while not server.address:
            assert process.poll() is None, "".join(server.said)
            assert time.monotonic() < deadline, "".join(server.said)
            found = re.search(r"http://\S+", "".join(server.said))
            server.address = found[0] if found else ""
            time.sleep(0.02)
        while not is_ready(server):
            assert process.poll() is None, "".join(server.said)
            assert time.monotonic() < deadline, "".join(server.said)
            time.sleep(0.02)
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        reading.join(5)


def to_near(values: Any) -> Any:
    """The same values, equal to floats within 1e-5: what stands beside a row in a batch moves its last digits."""
    if isinstance(values, dict):
        return {name: to_near(value) for name, value in values.items()}
    if isinstance(values, list):
        return [to_near(value) for value in values]
    return pytest.approx(values, abs=1e-5) if isinstance(values, float) else values
