"""A server that is killed under load: every request that was answered is in the log once, and so is each label."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests
from served import Server, serving
from stores import new_store, untouched_environment

from dlpipe.registry import log_and_register, promote
from dlpipe.serving.journal import find_journals
from dlpipe.serving.log_commits import adopt_journals
from dlpipe.serving.logged import read_logged
from dlpipe.serving.usage import sum_usage
from dlpipe.tables import read_table, table_at

TEXTS = ["the film was good", "awful plot and all", "what a superb score"]
CLIENTS = 4


@pytest.fixture(scope="module")
def store(tmp_path_factory, tiny_model) -> Iterator[None]:
    with untouched_environment():
        new_store(tmp_path_factory.mktemp("serving"))
        tags = {"delta.table": "t", "delta.version": "0", "delta.digest": "d"}
        promote(log_and_register(tiny_model, name="reviews", example=TEXTS[:2], params={}, tags=tags))
        yield


@dataclass
class Answered:
    """What clients have got answers for."""

    rows: dict[str, int] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)


def ask_for_ever(server: Server, answered: Answered, chance: random.Random) -> None:
    """Ask and give labels until the server is gone."""
    with requests.Session() as session:
        while True:
            texts = TEXTS[: chance.randint(1, 3)]
            try:
                got = session.post(f"{server.address}/models/reviews", json=texts, timeout=10)
                if got.status_code != 200:
                    continue
                request = got.json()["request_id"]
                answered.rows[request] = len(texts)
                if chance.random() < 0.2:
                    label = {"request_id": request, "label": "positive"}
                    got = session.post(f"{server.address}/models/reviews/feedback", json=label, timeout=10)
                    if got.status_code == 200:
                        answered.labels.append(request)
            except (requests.RequestException, ValueError):
                return


def run_rounds(folder: Path, rounds: int, seed: int) -> Answered:
    """Kill so many servers, each at a random moment under load, and return what was answered."""
    answered, chance = Answered(), random.Random(seed)
    settings = folder / "serving.toml"
    settings.write_text("[serving.log]\nflush_seconds = 0.2\n")
    for number in range(rounds):
        with serving("--settings", str(settings), "--model", "reviews", folder=folder) as server:
            clients = [
                threading.Thread(
                    target=ask_for_ever, args=(server, answered, random.Random(f"{seed} {number} {n}"))
                )
                for n in range(CLIENTS)
            ]
            for client in clients:
                client.start()
            time.sleep(0.1 + 1.5 * chance.random())
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()
            for client in clients:
                client.join()
    return answered


def check(answered: Answered) -> None:
    """Look for each answered request and label, before and after the journals are committed."""
    before = sum_usage(["model", "version"])
    adopt_journals(find_journals())
    assert not list(find_journals().rglob("*.journal"))
    rows = read_table(table_at("reviews_requests"))
    places = Counter(zip(rows["request_id"].to_pylist(), rows["row"].to_pylist(), strict=True))
    assert max(places.values()) == 1
    counts = Counter(request for request, _ in places)
    assert {request: counts[request] for request in answered.rows} == answered.rows
    labels = Counter(read_table(table_at("reviews_feedback"))["request_id"].to_pylist())
    assert {request: labels[request] for request in answered.labels} == dict.fromkeys(answered.labels, 1)
    assert set(labels.values()) == {1}
    assert sum_usage(["model", "version"]) == before
    (used,) = before
    assert (used.calls, used.rows) == (len(counts), rows.num_rows)
    assert read_logged("reviews_requests").num_rows == rows.num_rows


@pytest.mark.slow
def test_all_that_was_answered_is_in_the_log_once_after_servers_were_killed_under_load(
    store, tmp_path, monkeypatch
):
    monkeypatch.setenv("DLPIPE_TABLES", str(tmp_path / "tables"))
    answered = run_rounds(tmp_path, rounds=4, seed=int(time.time()))
    assert len(answered.rows) > 20
    check(answered)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_all_that_was_answered_is_in_the_log_once_after_200_servers_were_killed(store, tmp_path, monkeypatch):
    monkeypatch.setenv("DLPIPE_TABLES", str(tmp_path / "tables"))
    check(run_rounds(tmp_path, rounds=200, seed=0))
