"""A server that receives events of OpenLineage: a process of its own, which tests kill and start again.

``python openlineage_receiver.py PORT FILE``: each event is a line of the file, on the disk before it is answered.
"""

from __future__ import annotations

import http.server
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

KEY = "hunter2-of-the-catalog"


class Handler(http.server.BaseHTTPRequestHandler):
    """Takes what is posted, with the right key alone where there is one."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        wanted = os.environ.get("RECEIVER_KEY")
        if wanted and self.headers.get("Authorization") != f"Bearer {wanted}":
            self._answer(401, b"no key")
        elif login := os.environ.get("RECEIVER_REDIRECTS"):
            self._answer(int(login), b"", Location="/login?state=hunter2")
        elif os.environ.get("RECEIVER_REFUSES", "\n") in body.decode():
            self._answer(422, b"not this one")
        else:
            with open(sys.argv[2], "ab", buffering=0) as file:
                file.write(json.dumps({"path": self.path, "body": json.loads(body)}).encode() + b"\n")
            time.sleep(random.uniform(0, 0.02))  # in which it may be killed: told, and not answered
            self._answer(201, b"")

    def do_GET(self) -> None:
        self._answer(200, b"<html>log in</html>")

    def _answer(self, status: int, text: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        pass


class Receiver:
    """The process, which can be killed and started again at the same address."""

    def __init__(self, file: Path, **environment: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.file, self.environment = file, {**os.environ, **environment}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, __file__, str(self.port), str(self.file)]
        self.process = subprocess.Popen(command, env=self.environment)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise TimeoutError(self.address)

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    @contextmanager
    def killed_at_random(self, *, seed: int, alive: float = 0.15, down: float = 0.1) -> Iterator[None]:
        """Kill it again and again, after a while of up to ``alive`` seconds, for up to ``down`` seconds."""
        over, chance = threading.Event(), random.Random(seed)

        def go_on() -> None:
            while not over.wait(chance.uniform(0, alive)):
                self.kill()
                over.wait(chance.uniform(0, down))
                self.start()

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def read(self) -> list[dict[str, Any]]:
        """Return the events that it got, also those that it was killed over."""
        lines = self.file.read_bytes().splitlines() if self.file.exists() else []
        return [found["body"] for line in lines if (found := _try_read(line))]


def _try_read(line: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except ValueError:  # torn by a kill: it was not answered, and so is told again
        return {}


@contextmanager
def receiving(file: Path, *, start: bool = True, **environment: str) -> Iterator[Receiver]:
    """Yield a receiver, which is gone at the end."""
    made = Receiver(file, **environment)
    try:
        if start:
            made.start()
        yield made
    finally:
        made.kill()


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
