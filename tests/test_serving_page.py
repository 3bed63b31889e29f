"""The first page of a server: what it shows of models, traffic, errors and swaps, and to whom."""

from __future__ import annotations

import html
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from served import Server, serving
from stores import new_store, untouched_environment

from dlpipe.inference import download_model
from dlpipe.registry import log_and_register, point_alias, promote
from dlpipe.serving.key_file import create_key
from dlpipe.serving.recent import KEPT, SLOT_SECONDS, SLOTS, Recent
from dlpipe.tables import write_table
from dlpipe.task.example import EXAMPLE
from dlpipe.tracking import open_store

TEXTS = ["the film was good", "awful plot and all"]


def test_figures_are_of_the_last_five_minutes_and_need_no_more_memory_under_load():
    now = [1000.0]
    recent = Recent(lambda: now[0])

    def ask(status: int = 200, duration_ms: float = 1.0, **more: Any) -> None:
        about = {"model": "reviews", "alias": "champion", "version": 1, "loading": False, **more}
        recent.count(SimpleNamespace(status=status, duration_ms=duration_ms, **about))

    for number in range(1000):
        ask(duration_ms=number)
    ask(duration_ms=1e6, loading=True)
    ask(503)
    ask(404, version=0, model="made up")
    ask(200, alias="", version=7)
    found = recent.sum_up()
    assert set(found) == {("reviews", "champion"), ("reviews", "7"), ("", "")}
    champion = found["reviews", "champion"]
    assert (champion.requests, champion.errors, len(champion.durations)) == (1002, 1, KEPT)
    assert champion.quantile(0.5) == 950  # of the last ones
    assert recent.list_slots()[-1] == (1004, 2)
    now[0] += SLOT_SECONDS * (SLOTS - 1)
    ask()
    assert recent.list_slots()[0] == (1004, 2)
    assert recent.list_slots()[-1] == (1, 0)
    now[0] += SLOT_SECONDS
    assert recent.sum_up()["reviews", "champion"].requests == 1
    assert recent.seconds == SLOT_SECONDS * SLOTS
    now[0] += 3600
    assert recent.sum_up() == {}
    assert sum(map(sum, recent.list_slots())) == 0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[None]:
    with untouched_environment():
        new_store(tmp_path / "store")
        yield


def register(model: Any, name: str, version: int) -> Any:
    tags = {"delta.table": "t", "delta.version": str(version), "delta.digest": "d"}
    return log_and_register(model, name=name, example=TEXTS, params={}, tags=tags)


def damage(version: Any) -> None:
    folder = download_model(open_store(), version, scratch=Path(os.devnull))
    there = json.loads((folder / EXAMPLE).read_text())
    there["outputs"] = [[1 - value for value in row] for row in there["outputs"]]
    (folder / EXAMPLE).write_text(json.dumps(there))


def read_page(server: Server) -> str:
    """Return the text of the page, after a look at what a browser is told."""
    answer = server.get("/")
    assert answer.status_code == 200, answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    assert not re.search(r"<script|(src|href)=\"https?:", answer.text)
    for at in re.findall(r'href="(/[^"]*)"', answer.text):
        assert server.get(at).status_code == 200, at
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.text))


@pytest.mark.slow
def test_the_page_shows_what_answers_and_why_a_version_does_not(store, tiny_model):
    with serving() as server:
        assert "No model is registered." in read_page(server)
        deadline = time.monotonic() + 60
        while not any("No model is registered yet." in line for line in server.said):
            assert time.monotonic() < deadline, server.said
            time.sleep(0.1)
        first = register(tiny_model, "reviews", 0)
        promote(first)
        shown = read_page(server)
        assert "No model is loaded yet" in shown
        assert "not loaded" in shown
        for _ in range(20):
            assert server.post("/models/reviews", TEXTS).status_code == 200
        shown = read_page(server)
        assert "1 version answers; nothing is wrong." in shown
        assert re.search(r"reviews champion v1 \S+ answers 20 \d", shown)
        bad = register(tiny_model, "reviews", 1)
        damage(bad)
        promote(bad)
        other = register(tiny_model, "tickets", 0)
        promote(other)
        point_alias("tickets", "staging", 1)
        register(tiny_model, "letters", 0)
        for path in ("/models/tickets", "/models/tickets/staging", "/models/reviews/1", "/models/tickets/1"):
            assert server.post(path, TEXTS).status_code == 200
        assert server.post("/models/nothing", TEXTS).status_code == 404
        assert server.post("/models/reviews", b"{").status_code == 400
        deadline = time.monotonic() + 20
        while "refused" not in (shown := re.sub(r"<[^>]+>", " ", server.get("/").text)):
            assert time.monotonic() < deadline, shown
            time.sleep(0.2)
        shown = read_page(server)
    assert "Look at reviews@champion (refused)." in shown
    assert f"--json '{json.dumps({'text': TEXTS[0]}, separators=(',', ':'))}'" in html.unescape(shown)
    assert re.search("v2 is refused, v1 goes on answering: .* answers its registered example otherwise", shown)
    assert re.search(r"reviews 1 v1 answers 1 \d", shown)
    assert "letters champion nothing no champion" in shown
    assert shown.index("reviews champion v1") < shown.index("letters champion")
    assert "Errors: 1 of 400, 1 of 404. 1 request reached no version." in shown
    assert "reviews champion v1 v2 refused" in shown  # among the swaps
    assert not [line for line in server.said if "Traceback" in line]


@pytest.mark.slow
def test_the_page_and_a_metric_say_that_requests_cannot_be_logged(store, tiny_model, tmp_path):
    promote(register(tiny_model, "reviews", 0))
    settings = tmp_path / "serving.toml"
    settings.write_text("[serving.log]\nflush_seconds = 0.1\n")
    write_table(tmp_path / "tables/reviews_requests", pa.table({"text": ["a table of somebody"]}))
    with serving("--settings", str(settings), folder=tmp_path) as server:
        assert "cannot be logged" not in read_page(server)
        assert "dlpipe_log_trouble 0.0" in server.get("/metrics").text
        assert server.post("/models/reviews", TEXTS).status_code == 200
        deadline = time.monotonic() + 60
        while "dlpipe_log_trouble 1.0" not in server.get("/metrics").text:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert "Requests cannot be logged now." in read_page(server)


@pytest.mark.slow
def test_with_keys_the_page_takes_one_with_the_right_admin_as_a_password(store, tiny_model, tmp_path):
    promote(register(tiny_model, "reviews", 0))
    path = tmp_path / "state/keys.json"
    admin, plain = (create_key(path, name, rights=rights)[1] for name, rights in KEYS)
    with serving(folder=tmp_path) as server:
        refused = server.get("/")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Basic ")
        assert server.get("/", auth=("", plain)).status_code == 403
        assert server.get("/", auth=("ana", "dlp_made_up")).status_code == 401
        assert server.get("/", auth=("ana", admin)).status_code == 200
        assert server.get("/", headers={"Authorization": f"Bearer {admin}"}).status_code == 200
        assert server.get("/style.css").status_code == 200
        linked = ("/docs", "/openapi.json", "/metrics", "/models", "/models/reviews")
        assert server.post("/models/reviews", TEXTS, headers={"Authorization": f"Bearer {plain}"}).ok
        page = server.get("/", auth=("ana", admin)).text
        assert (
            {"/metrics", "/models/reviews"}
            <= set(re.findall(r'href="(/[^"]*)"', page))
            <= {*linked, "/", "/style.css"}
        )
        for path in linked:
            assert server.get(path, auth=("ana", admin)).status_code == 200, path
            assert server.get(path, headers={"Authorization": f"Bearer {admin}"}).status_code == 200, path
        for address in (page, server.get("/docs").text):
            assert "-H &#34;Authorization: Bearer $DLPIPE_KEY&#34;" in address
        assert server.get("/models/reviews", auth=("ana", plain)).status_code == 200
        assert server.get("/metrics", auth=("ana", plain)).status_code == 403
        asked = server.get("/models", headers={"Accept": "text/html,*/*"})
        assert (asked.status_code, asked.headers["www-authenticate"].split()[0]) == (401, "Basic")
        # what a browser sends for others
        fetched = server.get("/models", auth=("ana", plain), headers={"Sec-Fetch-Site": "cross-site"})
        posted = server.post("/models/reviews", TEXTS, auth=("ana", plain))
        for refused in (fetched, posted):
            assert (refused.status_code, "as Bearer KEY" in refused.text) == (401, True)
        followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        assert server.get("/models", auth=("ana", plain), headers=followed).status_code == 200


KEYS = (("watcher", ("admin",)), ("caller", ("predict",)))
