"""A webhook on loopback that keeps what it gets."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Webhook:
    """Where it is, and what it got; it answers with ``answers``, then with 200."""

    url: str = ""
    got: list[dict[str, Any]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)


class Answering(http.server.BaseHTTPRequestHandler):
    """Keeps the JSON that is posted, unless the answer refuses it."""

    def __init__(self, hook: Webhook, *words: Any) -> None:
        self._hook = hook
        super().__init__(*words)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        code = self._hook.answers.pop(0) if self._hook.answers else 200
        if code == 200:
            self._hook.got.append(json.loads(body))
        self.send_response(code)
        self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def webhook() -> Iterator[Webhook]:
    """Serve a webhook."""
    made = Webhook()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Answering, made)) as server:
        made.url = f"http://127.0.0.1:{server.server_port}/hook?token=hunter22"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield made
        server.shutdown()
