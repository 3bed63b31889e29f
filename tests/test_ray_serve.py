"""The same server on Ray Serve: a real cluster of two nodes on this machine, one of which is killed under load."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests
from clusters import Nodes, cluster_of
from served import Server, serving, to_near
from stores import new_store, untouched_environment

from dlpipe.registry import log_and_register, promote, resolve
from dlpipe.serving.key_file import create_key
from dlpipe.serving.logged import read_logged
from dlpipe.tables import read_table, table_at

pytestmark = [pytest.mark.slow, pytest.mark.long]

TEXTS = ["the film was good", "awful plot and all", "what a superb score"]
CLIENTS = 4
WAIT_SECONDS = 240.0


@pytest.fixture(scope="module")
def store(tmp_path_factory, tiny_model) -> Iterator[None]:
    with untouched_environment():
        new_store(tmp_path_factory.mktemp("serving"))
        for number in range(2):
            tags = {"delta.table": "t", "delta.version": str(number), "delta.digest": "d"}
            made = log_and_register(tiny_model, name="reviews", example=TEXTS[:2], params={}, tags=tags)
            if not number:
                promote(made)
        yield


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with cluster_of(2) as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("folder")


@pytest.fixture(scope="module")
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def keys(folder: Path) -> dict[str, str]:
    """Keys by their names: one that may do everything, one with a quota of 40 rows."""
    file = folder / "state" / "keys.json"
    _, owner = create_key(file, "owner", rights=["predict", "explain", "feedback", "admin"])
    _, guest = create_key(file, "guest", quota=40)
    return {"owner": owner, "guest": guest}


@contextmanager
def on_ray(nodes: Nodes, folder: Path, port: int, keys: dict[str, str], *words: str) -> Iterator[Server]:
    """Run `dlpipe serve` with two replicas on a cluster; requests have a key."""
    given = ["--ray-address", nodes.address, "--port", str(port), "--replicas", "2", "--model", "reviews", *words]
    with serving(*given, folder=folder) as server:
        server.key = keys["owner"]
        yield server


@pytest.fixture(scope="module")
def server(store, nodes: Nodes, folder: Path, port: int, keys: dict[str, str]) -> Iterator[Server]:
    with on_ray(nodes, folder, port, keys) as made:
        yield made


def list_replicas(server: Server) -> dict[str, float]:
    """Return how many requests each replica has answered, by its name."""
    told = server.get("/metrics").text
    names = re.findall(r'^dlpipe_server_info\{.*replica="(\w+)"', told, re.MULTILINE)
    asked = dict.fromkeys(names, 0.0)
    for name, number in re.findall(r'^dlpipe_requests_total\{.*replica="(\w+)".*\} (\S+)$', told, re.MULTILINE):
        asked[name] += float(number)
    return asked


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} takes too long"
        time.sleep(0.2)


@dataclass
class Load:
    """Clients that ask until they are stopped, and what they got."""

    server: Server
    pause: float = 0.1
    most: int = 3
    rows: dict[str, int] = field(default_factory=dict)
    refused: list[requests.Response] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def run(self) -> Iterator[Load]:
        clients = [threading.Thread(target=self.ask, args=(number,)) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        try:
            yield self
        finally:
            self.stopped.set()
            for client in clients:
                client.join()

    def ask(self, seed: int) -> None:
        chance = random.Random(seed)
        with requests.Session() as session:
            session.headers["Authorization"] = f"Bearer {self.server.key}"
            while not self.stopped.is_set():
                time.sleep(self.pause)
                texts = chance.choices(TEXTS, k=chance.randint(1, self.most))
                try:
                    got = session.post(f"{self.server.address}/models/reviews", json=texts, timeout=60)
                except requests.RequestException as error:
                    self.broken.append(repr(error))
                    continue
                if got.status_code == 200:
                    self.rows[got.json()["request_id"]] = len(texts)
                else:
                    self.refused.append(got)

    def wait_for_more(self, number: int) -> None:
        """Wait until so many more requests have been answered."""
        wanted = len(self.rows) + number
        wait_until(lambda: len(self.rows) >= wanted, "answering")


def check_logged(rows: dict[str, int], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """See that each of the requests is in the log, with its rows, each once."""
    monkeypatch.setenv("DLPIPE_TABLES", str(folder / "tables"))
    logged = read_logged("reviews_requests")
    places = Counter(zip(logged["request_id"].to_pylist(), logged["row"].to_pylist(), strict=True))
    assert max(places.values()) == 1
    counts = Counter(request for request, _ in places)
    assert {request: counts[request] for request in rows} == rows


def test_answers_errors_and_headers_are_those_of_a_server_of_one_process(server: Server, folder: Path):
    with serving("--model", "reviews", folder=folder) as alone:
        alone.key = server.key
        for path, body in (
            ("/models/reviews", TEXTS),
            ("/models/reviews/1", {"text": TEXTS[0]}),
            ("/invocations", {"inputs": TEXTS}),
            ("/models/reviews", [None]),
            ("/models/reviews", b"{"),
            ("/models/other", TEXTS),
            ("/models/reviews/99", TEXTS),
        ):
            expected, got = alone.post(path, body), server.post(path, body)
            assert got.status_code == expected.status_code
            assert without_moments(got.json()) == to_near(without_moments(expected.json()))
            told = [name for name in expected.headers if name.startswith("x-")]
            assert told
            assert all(name in got.headers for name in told)
            assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", got.headers["x-request-id"])
        assert server.get("/readyz").json() == {"ready": True}


def without_moments(body):
    """Return an answer without what differs from request to request."""
    if isinstance(body, dict):
        return {
            name: without_moments(value)
            for name, value in body.items()
            if name not in ("request_id", "duration_ms")
        }
    return body


def test_requests_go_to_all_replicas_and_metrics_are_of_all(server: Server):
    wait_until(lambda: len(list_replicas(server)) == 2, "that both replicas tell what they count")
    before = list_replicas(server)
    for _ in range(60):
        server.post("/models/reviews", TEXTS[:1])
    wait_until(lambda: sum(list_replicas(server).values()) >= sum(before.values()) + 60, "counting")
    after = list_replicas(server)
    assert all(after[name] > before[name] for name in before)


def test_a_quota_is_that_of_all_replicas_together(server: Server, keys: dict[str, str]):
    headers = {"Authorization": f"Bearer {keys['guest']}", "Content-Type": "application/json"}
    statuses = [server.post("/models/reviews", b'["good"]', headers=headers).status_code for _ in range(40)]
    assert set(statuses) == {200}
    answered = 40
    for _ in range(10):
        time.sleep(1.0)
        got = server.post("/models/reviews", b'["good"]', headers=headers)
        answered += got.status_code == 200
    assert got.status_code == 429
    assert got.json()["error"]["code"] == "quota"
    assert answered <= 45  # each replica alone would answer 40


def test_every_replica_follows_an_alias(server: Server):
    promote(resolve("models:/reviews/2"))
    moved = time.monotonic()
    last_old = moved
    while time.monotonic() < moved + 10:
        if server.post("/models/reviews", TEXTS[:1]).json()["version"] == 1:
            last_old = time.monotonic()
    assert last_old < moved + 8


def test_a_command_that_is_killed_leaves_the_server_and_the_next_takes_it_over(
    store, nodes: Nodes, server: Server, folder: Path, port: int, keys: dict[str, str], monkeypatch
):
    server.process.kill()
    server.process.wait()
    load = Load(server)
    with ExitStack() as commands:
        with load.run():
            load.wait_for_more(20)
            second = commands.enter_context(on_ray(nodes, folder, port, keys, "--timeout", "9"))
            load.wait_for_more(20)
            settings = folder / "bounds.toml"
            settings.write_text("[serving]\nmax_rows = 100\n")
            third = commands.enter_context(on_ray(nodes, folder, port, keys, "--settings", str(settings)))
            assert second.process.wait(WAIT_SECONDS) == 0
            assert "Another command has ended the server or taken it over.\n" in second.said
            load.wait_for_more(20)
            settings.write_text("[serving]\nmax_rows = 50\n")
            third.process.send_signal(signal.SIGHUP)
            wait_until(lambda: any("all replicas have them" in line for line in third.said), "reading settings")
            assert third.post("/models/reviews", TEXTS * 20).status_code == 413
        assert not load.refused
        assert not load.broken
        third.process.send_signal(signal.SIGTERM)
        assert third.process.wait(WAIT_SECONDS) == 0
    with pytest.raises(requests.ConnectionError):
        server.get("/livez")
    check_logged(load.rows, folder, monkeypatch)
    assert table_at("reviews_requests")
    assert read_table(table_at("reviews_requests")).num_rows == read_logged("reviews_requests").num_rows


def test_no_answered_request_is_lost_when_a_node_is_killed_under_load(
    store, nodes: Nodes, folder: Path, port: int, keys: dict[str, str], monkeypatch
):
    node = nodes.second()
    settings = folder / "every.toml"
    settings.write_text('[serving.ray]\nproxies = "every"\n')
    with on_ray(nodes, folder, port, keys, "--settings", str(settings)) as server:
        wait_until(lambda: len(list_replicas(server)) == 2, "that both replicas tell what they count")
        before = set(list_replicas(server))
        load = Load(server, pause=0.02, most=60)
        with load.run():
            load.wait_for_more(100)
            node.kill()
            killed = time.monotonic()
            load.wait_for_more(1)
            print(f"the next answer came {time.monotonic() - killed:.2f} s after the kill")
            load.wait_for_more(200)
            load.pause = 0.2  # or a node would take minutes to start beside it on two cores
            nodes.add()
            wait_until(lambda: len(set(list_replicas(server)) - before) > 0, "a replica elsewhere")
            asked = list_replicas(server)
            load.wait_for_more(100)
            wait_until(
                lambda: all(n > asked[name] for name, n in list_replicas(server).items()), "asking the new replica"
            )
        print(f"{len(load.rows)} answered, {len(load.refused)} refused, {len(load.broken)} broken")
        assert len(load.refused) + len(load.broken) <= CLIENTS  # those that it had in its hands
        assert {got.json()["error"]["code"] for got in load.refused} <= {"replica_lost"}
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(WAIT_SECONDS) == 0
    check_logged(load.rows, folder, monkeypatch)


# -- errors ------------------------------------------------------------------------------------------------------


def refuse(nodes: Nodes, folder: Path, *words: str) -> str:
    """Return the line with which `dlpipe serve` ends."""
    done = subprocess.run(
        [sys.executable, "-m", "dlpipe.cli", "serve", "--ray-address", nodes.address, *words],
        env={**os.environ, "DLPIPE_TABLES": str(folder / "tables"), "DLPIPE_STATE": str(folder / "none")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_what_cannot_be_served_is_one_line(store, nodes: Nodes, folder: Path, port: int):
    nodes.second()
    given = ["--port", str(port)]
    assert "room for 2 of 9 replicas, with 1 core for each" in refuse(nodes, folder, *given, "--replicas", "9")
    assert "'nothing'" in refuse(nodes, folder, *given, "--model", "nothing")
    reason = "No replica can be started: "
    assert reason in refuse(nodes, folder, *given, "--model", "reviews", "--engine", "onnx-int8")
    assert "takes no free port" in refuse(nodes, folder, "--port", "0")
    with socket.create_server(("127.0.0.1", port)):
        assert f"Port {port} of 127.0.0.1 on the node" in refuse(nodes, folder, *given)


def test_a_cluster_that_is_gone_ends_the_command_with_a_line(
    store, nodes: Nodes, folder: Path, port: int, keys: dict[str, str]
):
    nodes.second()
    with on_ray(nodes, folder, port, keys) as server:
        nodes.nodes[0].kill()
        assert server.process.wait(WAIT_SECONDS) == 1
        assert "is gone, and the server with it" in server.said[-1]
