"""Who is refused and what it costs: keys, the log, quotas and what clients are told; in this process."""

from __future__ import annotations

import asyncio
import functools
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from applications import Version, answering, ask, make_models

from dlpipe.errors import ExplanationError, StorageFull
from dlpipe.registry import ModelVersion
from dlpipe.serving.application import LOGGED_UNKNOWN, Application
from dlpipe.serving.entries import Entry
from dlpipe.serving.explaining import Explainers
from dlpipe.serving.following import Models
from dlpipe.serving.key_file import create_key, read_keys, revoke_key
from dlpipe.serving.keys import KeyRing
from dlpipe.serving.request_log import RequestLog
from dlpipe.serving.server import choose_guard
from dlpipe.serving.settings import LogSettings
from dlpipe.serving.usage import count_used_rows


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


# keys ------------------------------------------------------------------------------------------------------------


def test_where_all_keys_are_revoked_nobody_is_answered(file: Path) -> None:
    create_key(file, "shop")
    revoke_key(file, "shop")

    async def work(app: Application) -> None:
        assert (await ask(app, "/models/reviews", "good")).status == 401
        assert (await ask(app, "/metrics")).status == 401

    answering(work, guard=choose_guard(KeyRing(file)))


UNKNOWN = {
    "nothing else": ("/models/reviews", {}),
    "a compressed body": ("/models/reviews", {"content-encoding": "gzip"}),
    "too large a body": ("/models/reviews", {"content-length": "9000000000"}),
    "binary tensors": ("/v2/models/reviews/infer", {"inference-header-content-length": "1"}),
    "no model": ("/invocations", {}),
}


@pytest.mark.parametrize(("path", "headers"), UNKNOWN.values(), ids=list(UNKNOWN))
def test_requests_without_a_key_fill_no_log_whatever_else_is_wrong(path: str, headers: dict, file: Path) -> None:
    create_key(file, "shop")
    logged: list[Entry] = []

    async def work(app: Application) -> Counter[int]:
        return Counter([(await ask(app, path, b"x", headers=headers)).status for _ in range(300)])

    assert answering(work, guard=KeyRing(file), record=logged.append) == {401: 300}
    assert LOGGED_UNKNOWN[1] <= len(logged) < LOGGED_UNKNOWN[1] + 10


def test_who_has_a_key_is_told_what_else_is_wrong(file: Path) -> None:
    _, key = create_key(file, "shop")

    async def work(app: Application) -> list[int]:
        return [
            (await ask(app, path, b"x", key=key, headers=headers)).status for path, headers in UNKNOWN.values()
        ]

    assert answering(work, guard=KeyRing(file)) == [400, 415, 413, 400, 404]


# quotas ----------------------------------------------------------------------------------------------------------


def test_a_restart_counts_of_a_quota_what_the_process_has_counted_and_no_row_that_may_be_tried_again(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLPIPE_TABLES", str(tmp_path / "tables"))
    owner, key = create_key(file, "shop", quota=100)
    log = RequestLog(LogSettings(flush_seconds=3600), say=lambda line: None)
    log.start()
    ring = KeyRing(file)

    async def work(app: Application) -> None:
        app.explainers = Explainers(load=lambda uri: Explainer())
        post = functools.partial(ask, app, key=key)
        assert (await post("/models/reviews", ["good", None])).status == 400
        assert (await post("/models/reviews", ["good"] * 20_000)).status == 413
        assert (await post("/models/reviews", ["good"] * 3)).status == 200
        explained = await asyncio.gather(*(post("/models/reviews/explain", ["good"] * 5) for _ in range(6)))
        assert Counter(answer.status for answer in explained) == {200: 3, 503: 3}
        assert (await post("/models/reviews/explain", ["good"] * 5 + ["a bad one"])).status == 400
        monkeypatch.setattr(app.batcher, "check_room", lambda served: None)
        monkeypatch.setattr(app.batcher, "max_wait", -1.0)
        assert (await post("/models/reviews", ["good"] * 7)).status == 503
        assert (await post("/models/reviews", ["good"] * 99)).status == 429

    answering(work, guard=ring, record=log.record)
    log.close()
    (use,) = ring.list_uses()
    assert use.known + use.charged == 3 + 3 * 5
    assert count_used_rows(read_keys(file)[owner.id], 0.0) == 3 + 3 * 5


class Explainer:
    """What explains, slowly, all texts but bad ones."""

    def explain(self, rows: Sequence[str], method: str | None = None) -> SimpleNamespace:
        time.sleep(0.2)
        if "a bad one" in rows:
            raise ExplanationError("A text has no words.")
        return SimpleNamespace(rows=[])


# what a body may hold --------------------------------------------------------------------------------------------

DEEP = b"[" * 1000 + b"]" * 1000
ID = b"01a221e0-e8fb-7abc-8def-0123456789ab"


@pytest.mark.parametrize(
    "label",
    [
        b'{"request_id": %b, "label": "good"}' % DEEP,
        b'{"request_id": "%b", "label": %b}' % (ID, DEEP),
        b'{"request_id": "%b", "label": "good", "row": %b}' % (ID, DEEP),
    ],
    ids=["id", "label", "row"],
)
def test_labels_that_are_nested_deeply_are_refused(label: bytes) -> None:
    async def work(app: Application) -> None:
        await app.load("reviews", "")
        got = await ask(app, "/models/reviews/feedback", label)
        assert (got.status, got.json()["error"]["code"]) == (400, "bad_request")

    answering(work, take=lambda model, given, key: None)


def test_a_row_that_is_nested_deeply_is_refused_and_in_the_log() -> None:
    logged: list[Entry] = []

    def make(version: ModelVersion) -> Version:
        made = Version(version)
        made.takes_missing = True  # as a pipeline, which is given anything
        return made

    async def work(app: Application) -> int:
        return (await ask(app, "/models/reviews", b"[1, %b]" % DEEP)).status

    status = answering(work, models=lambda: make_models(make=make), record=logged.append)
    assert [entry.status for entry in logged] == [status]
    assert status == 400


# what clients are told -------------------------------------------------------------------------------------------


def test_clients_are_not_told_where_the_log_is() -> None:
    def fail(*given: Any) -> None:
        raise StorageFull("The log of requests cannot be written in /srv/secret: No space left on device.")

    async def work(app: Application) -> None:
        labels = {"request_id": ID.decode(), "label": "good"}
        for path, body in (("/models/reviews", "good"), ("/models/reviews/feedback", labels)):
            got = await ask(app, path, body)
            assert (got.status, b"secret" in got.content) == (503, False)
            assert b"The log of requests cannot be written" in got.content

    answering(work, record=fail, take=fail)


def test_a_key_for_one_model_sees_no_other(file: Path) -> None:
    rights = ["predict", "admin"]
    keys = [
        create_key(file, name, models=of, rights=rights)[1] for name, of in (("one", ["reviews"]), ("all", []))
    ]

    def make() -> Models:
        models = make_models("reviews", "secret-project@next")
        models.lookup._list_all = lambda: {name: {"champion": 1} for name in ("reviews", "secret-project")}
        return models

    async def work(app: Application) -> None:
        one, every = [functools.partial(ask, app, key=key) for key in keys]
        assert [model["name"] for model in (await one("/models")).json()["models"]] == ["reviews"]
        assert len((await every("/models")).json()["models"]) == 2
        for path in ("/", "/metrics"):
            assert [(await get(path)).status for get in (one, every)] == [403, 200]
        told = [(await ask(app, "/readyz", key=key)).json().get("not_ready", {}) for key in ("", *keys)]
        assert [list(missing) for missing in told] == [
            [],
            ["reviews@champion"],
            ["reviews@champion", "secret-project@next"],
        ]

    answering(work, models=make, guard=KeyRing(file))


def test_who_asks_for_a_model_that_is_not_served_is_not_told_which_are(file: Path) -> None:
    _, key = create_key(file, "shop", models=["reviews"])

    async def work(app: Application) -> None:
        got = await ask(app, "/models/reviews", "good", key=key)
        assert (got.status, b"secret" in got.content) == (404, False)

    answering(work, models=lambda: make_models("secret-project"), guard=KeyRing(file))


# the log ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("only", "alias"), [("reviews@challenger", "challenger"), ("reviews/3", ""), ("reviews", "champion")]
)
def test_the_log_says_what_invocations_meant(only: str, alias: str) -> None:
    logged: list[Entry] = []

    async def work(app: Application) -> Any:
        assert (await ask(app, "/invocations", {"inputs": ["good"]})).status == 200

    answering(work, models=lambda: make_models(only), record=logged.append)
    assert [(entry.model, entry.version, entry.alias) for entry in logged] == [("reviews", 3, alias)]
