"""An application in this process, of versions that answer at once, and requests to it without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from dlpipe.registry import ModelVersion
from dlpipe.serving.application import Application
from dlpipe.serving.batching import Batcher
from dlpipe.serving.following import Models


class Inputs:
    """Texts, or whatever comes."""

    def read_request(self, given: Any, card: Any = None) -> list[Any]:
        values = list(next(iter(given.values()))) if isinstance(given, dict) else list(given)
        return [value["text"] if isinstance(value, dict) else value for value in values]


class Version:
    """A version that answers each row with its number."""

    batch_tokens, engine, takes_missing, checked, lanes, digest = 1024, "none", False, True, 1, "d"
    example: Sequence[Any] = ()

    def __init__(
        self, version: ModelVersion, compute: Callable[[Sequence[Any]], None] = lambda rows: None
    ) -> None:
        self.version, self._compute = version, compute
        self.card = {"task": "text-classification", "labels": ["bad", "good"]}
        self.task = SimpleNamespace(name="texts", inputs=Inputs())

    def read_request(self, given: Any) -> list[Any]:
        return Inputs().read_request(given)

    def predict_batch(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        self._compute(rows)
        return [{"predicted": self.version.version} for _ in rows]


def find_version(uri: str) -> ModelVersion:
    """Return the version that a URI names; every alias is at the third."""
    name, _, which = uri.removeprefix("models:/").replace("@", "/").partition("/")
    number = int(which) if which.isdecimal() else 3
    return ModelVersion(name, number, f"models:/{name}/{number}", "", "", "")


def make_models(*only: str, make: Callable[[ModelVersion], Any] = Version) -> Models:
    """Return models of which each is registered that is asked for."""
    return Models(
        only=only,
        open_version=make,
        find_version=find_version,
        read_aliases=lambda names: dict.fromkeys(names, 0),
        say=lambda line: None,
    )


def answering(
    work: Callable[[Application], Any], *, models: Callable[[], Models] = make_models, **options: Any
) -> Any:
    """Run ``work(app)`` in an event loop."""

    async def main() -> Any:
        batcher = Batcher(threads=1)
        try:
            return await work(Application(models(), batcher, **options))
        finally:
            await asyncio.to_thread(batcher.close)

    return asyncio.run(main())


async def ask(
    app: Application,
    path: str,
    body: Any = None,
    *,
    key: str = "",
    headers: Mapping[str, str] = {},
    method: str = "",
) -> SimpleNamespace:
    """Send a request, with ``body`` as it is or as JSON; by default it is a POST where it has one."""
    got = SimpleNamespace(status=0, headers={}, content=b"")
    given = {**({"authorization": f"Bearer {key}"} if key else {}), **headers}
    sent = iter([{"type": "http.request", "body": body if isinstance(body, bytes) else json.dumps(body).encode()}])

    async def receive() -> dict[str, Any]:
        message = next(sent, None)
        return message if message is not None else await asyncio.Future()

    async def send(message: Any) -> None:
        got.status = message.get("status", got.status)
        got.headers.update(message.get("headers", ()))
        got.content += message.get("body", b"")

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method or ("GET" if body is None else "POST"),
        "scheme": "http",
        "server": ("127.0.0.1", 1),
        "root_path": "",
        "path": path,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }
    await app(scope, receive, send)
    got.json = lambda: json.loads(got.content)
    return got
