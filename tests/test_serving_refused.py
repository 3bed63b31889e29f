"""Who is refused and what it costs: keys, the log, quotas and what clients are told; in this process."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from applications import answering, ask, make_models

from dlpipe.serving.application import LOGGED_UNKNOWN, Application
from dlpipe.serving.entries import Entry
from dlpipe.serving.key_file import create_key, revoke_key
from dlpipe.serving.keys import KeyRing
from dlpipe.serving.server import choose_guard


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
