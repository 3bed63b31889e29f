"""What stands before Ray's proxy, without Ray: its errors in our words, and one more try for a lost request."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from dlpipe.serving.ray_serve import proxy
from dlpipe.serving.ray_serve.proxy import OwnAnswers, make_middlewares

BODY = b'{"text": "good"}'


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "PAUSE_SECONDS", 0.0)


class Proxy:
    """An ASGI application that reads a body and then answers, or does not, as it is told for each try."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.bodies = list(answers), []

    async def __call__(self, scope, receive, send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message.get("more_body", False)
        self.bodies.append(body)
        for message in self.answers.pop(0):
            await send(message)


def start(status: int, *ids: bytes) -> dict[str, Any]:
    headers = [(b"content-type", b"text/plain"), *((b"x-request-id", one) for one in ids)]
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(content: bytes = b"ok", more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": more}


def ask(app: Proxy, *parts: bytes, path: str = "/models/reviews", gone: bool = False) -> tuple[int, dict, bytes]:
    """Return the status, the headers and the body that a client gets; status 0 for nothing."""
    coming = [
        {"type": "http.request", "body": part, "more_body": number < len(parts) - 1}
        for number, part in enumerate(parts)
    ]
    if gone:
        coming = [{"type": "http.disconnect"}]
    got: list[Any] = []

    async def receive():
        return coming.pop(0)

    async def send(message):
        got.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": []}
    asyncio.run(OwnAnswers(app)(scope, receive, send))
    if not got:
        return 0, {}, b""
    names = [name for name, _ in got[0]["headers"]]
    assert names.count(b"x-request-id") == 1
    return got[0]["status"], dict(got[0]["headers"]), b"".join(one["body"] for one in got[1:])


def test_an_answer_of_a_replica_has_its_id_alone():
    status, headers, content = ask(Proxy([start(200, b"ours", b"rays"), body(b"a", True), body(b"b")]), BODY)
    assert (status, headers[b"x-request-id"], content) == (200, b"ours", b"ab")


def test_an_error_of_a_replica_stays_as_it_is():
    assert ask(Proxy([start(500, b"ours", b"rays"), body()]), BODY)[::2] == (500, b"ok")


@pytest.mark.parametrize("first", [[], [start(200, b"ours", b"rays")]])
def test_a_request_whose_replica_died_before_its_answer_is_sent_once_more(first: list[Any]):
    app = Proxy(first, [start(200, b"second", b"rays"), body()])
    status, headers, content = ask(app, BODY[:5], BODY[5:])
    assert (status, headers[b"x-request-id"], content) == (200, b"second", b"ok")
    assert app.bodies == [BODY, BODY]


def test_a_request_that_is_lost_twice_is_refused_with_an_error_of_ours():
    app = Proxy([], [], [])
    status, headers, content = ask(app, BODY)
    assert (status, headers[b"retry-after"], len(app.bodies)) == (503, b"1", 2)
    assert json.loads(content)["error"]["code"] == "replica_lost"
    assert json.loads(content)["error"]["request_id"].encode() == headers[b"x-request-id"]


def test_a_body_that_is_too_large_to_keep_is_sent_once(monkeypatch):
    monkeypatch.setattr(proxy, "KEPT_BYTES", 10)
    app = Proxy([], [])
    assert ask(app, BODY)[0] == 503
    assert len(app.bodies) == 1


def test_what_a_replica_has_begun_to_answer_is_not_sent_again():
    app = Proxy([start(200, b"ours", b"rays"), body(b"a", True)], [])
    assert ask(app, BODY)[::2] == (200, b"a")
    assert len(app.bodies) == 1


def test_a_client_that_is_gone_is_not_asked_for():
    assert ask(Proxy([], []), gone=True)[0] == 0


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [(404, 503, "unavailable"), (408, 504, "deadline"), (503, 503, "overloaded"), (500, 503, "overloaded")],
)
def test_what_the_proxy_says_itself_is_an_error_of_ours(said: int, status: int, code: str):
    app = Proxy([start(said, b"rays"), body(b"Path '/' not found.")], [])
    got, headers, content = ask(app, BODY, path="/v2/models/reviews/infer")
    assert (got, headers[b"content-type"], len(app.bodies)) == (status, b"application/json", 1)
    assert isinstance(json.loads(content)["error"], str)  # as the Open Inference Protocol wants it
    got, _, content = ask(Proxy([start(said, b"rays"), body()]), BODY)
    assert json.loads(content)["error"]["code"] == code


def test_addresses_of_other_applications_are_left_alone():
    app = Proxy([start(404, b"theirs"), body()])
    assert ask(app, BODY, path="/chat")[::2] == (404, b"ok")


def test_ray_serve_gets_it_as_a_middleware():
    (made,) = make_middlewares()
    assert made.cls is OwnAnswers
