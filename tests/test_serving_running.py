"""A server while it starts, when its settings change, and towards browsers that ask it for others."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from served import Server, read_answer, register_reviews, serving
from stores import untouched_environment

from dlpipe.errors import DlpipeError, ModelDamaged
from dlpipe.registry import ModelVersion
from dlpipe.serving import connections
from dlpipe.serving import settings as serving_settings
from dlpipe.serving.application import Application
from dlpipe.serving.batching import Batcher
from dlpipe.serving.entries import Entry
from dlpipe.serving.explaining import Explainers
from dlpipe.serving.following import Models
from dlpipe.serving.key_file import create_key, revoke_key
from dlpipe.serving.logged import read_logged
from dlpipe.serving.server import answer, answer_while_loading, close_application, open_socket
from dlpipe.serving.settings import LOAD_SECONDS, LimitSettings
from dlpipe.tables import table_at

pytestmark = pytest.mark.slow


class Echo:
    """A version that answers a row with the row itself."""

    batch_tokens, engine, digest, lanes, takes_missing, checked = 1024, "echo", "d", 1, False, True
    card, example = {"task": "text-classification"}, ()
    task = SimpleNamespace(name="text-classification", inputs=SimpleNamespace(name_values=lambda row: row))

    def __init__(self, version: ModelVersion) -> None:
        self.version = version

    def read_request(self, given: Any) -> list[Any]:
        return [given] if isinstance(given, str) else list(given)

    def predict_batch(self, rows: list[Any]) -> list[dict[str, Any]]:
        return [{"predicted": row} for row in rows]


@pytest.fixture(scope="module")
def store(tmp_path_factory, tiny_model) -> Iterator[None]:
    with untouched_environment():
        register_reviews(tmp_path_factory.mktemp("running"), tiny_model)
        yield


@pytest.fixture(scope="module")
def server(store) -> Iterator[Server]:
    with serving() as running:
        yield running


# the start ------------------------------------------------------------------------------------------------------


def answer_beside(work: Callable[[str, threading.Event], None], *, broken: bool = False) -> None:
    """Run a server here, whose model is loaded when an event is set, and ``work`` in a thread beside it."""
    loaded = threading.Event()

    def find(uri: str) -> ModelVersion:
        return ModelVersion("reviews", 1, "models:/reviews/1", "", "", "")

    def open_version(version: ModelVersion) -> Any:
        loaded.wait(60)
        if broken:
            raise ModelDamaged("It answers otherwise.")
        return SimpleNamespace(version=version, engine="none", digest="d")

    async def main() -> None:
        models = Models(
            only=["reviews"],
            find_version=find,
            open_version=open_version,
            read_aliases=lambda names: {},
            say=lambda line: None,
        )
        app = Application(models, Batcher())
        with open_socket("127.0.0.1", 0) as listening:
            listening.listen()
            address = f"http://127.0.0.1:{listening.getsockname()[1]}"
            working = asyncio.create_task(asyncio.to_thread(work, address, loaded))
            try:
                await answer_while_loading(app, listening, say=lambda line: None)
            finally:
                loaded.set()
                await working
                await close_application(app)

    asyncio.run(main())


def test_probes_are_answered_before_the_models_are_loaded() -> None:
    def work(address: str, loaded: threading.Event) -> None:
        try:
            assert requests.get(f"{address}/livez", timeout=30).json() == {"live": True}
            not_yet = requests.get(f"{address}/readyz", timeout=30)
            assert not_yet.status_code == 503
            assert not_yet.json() == {"ready": False, "not_ready": {"reviews@champion": "It is being loaded."}}
            loaded.set()
            deadline = time.monotonic() + 30
            while (ready := requests.get(f"{address}/readyz", timeout=30)).status_code != 200:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert ready.json() == {"ready": True}
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    answer_beside(work)


def test_a_named_model_that_cannot_answer_ends_the_server() -> None:
    def work(address: str, loaded: threading.Event) -> None:
        assert requests.get(f"{address}/livez", timeout=30).status_code == 200
        loaded.set()

    with pytest.raises(Exception, match="It answers otherwise"):
        answer_beside(work, broken=True)


# connections ----------------------------------------------------------------------------------------------------


def talk(work: Callable[[int], None]) -> list[Entry]:
    """Run a server that answers texts with themselves, and ``work`` beside it with its port; return its log."""
    logged: list[Entry] = []

    async def main() -> None:
        models = Models(
            find_version=lambda uri: ModelVersion("reviews", 1, uri, "", "", ""),
            open_version=Echo,
            read_aliases=lambda names: {},
            say=lambda line: None,
        )
        app = Application(models, Batcher(), record=logged.append)
        await models.find("reviews")
        with open_socket("127.0.0.1", 0) as listening:
            listening.listen()
            working = asyncio.create_task(asyncio.to_thread(work, listening.getsockname()[1]))
            working.add_done_callback(lambda done: os.kill(os.getpid(), signal.SIGTERM))
            try:
                await answer(app, listening, say=lambda line: None)
                await working
            finally:
                await close_application(app)

    asyncio.run(main())
    return logged


POST = b"POST /models/reviews HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"


@pytest.mark.parametrize(
    "parts",
    [
        [POST + UPGRADE + b'Content-Length: 6\r\n\r\n"good"'],
        [POST + UPGRADE + b"Content-Length: 6\r\n\r\n", b'"good"'],
        [POST + UPGRADE[:50], UPGRADE[50:] + b"Content-Length: 6\r\n\r", b'\n"go', b'od"'],
        [POST + b"Transfer-Encoding: chunked\r\n" + UPGRADE + b'\r\n6\r\n"go', b'od"\r\n0\r\n\r\n'],
    ],
    ids=["at once", "in two parts", "in four parts", "chunked"],
)
def test_an_offer_to_speak_another_protocol_is_passed_over(parts: list[bytes]) -> None:
    """As Java's HttpClient and `curl --http2` make it."""

    def work(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            for _ in range(2):
                for part in parts:
                    connection.sendall(part)
                    time.sleep(0.05)
                status, body = read_answer(connection)
                assert (status, json.loads(body)["predictions"]) == (200, [{"predicted": "good"}])
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + UPGRADE + b"\r\n")
            assert read_answer(connection)[0] == 200
            connection.sendall(POST + UPGRADE + b"Content-Length: +6\r\n\r\n")
            assert read_answer(connection)[0] == 400

    assert [entry.status for entry in talk(work)] == [200, 200]


def test_a_tunnel_is_not_made() -> None:
    def work(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert 400 <= read_answer(connection)[0] < 500

    assert talk(work) == []


def test_a_second_request_whose_body_comes_late_is_answered(monkeypatch) -> None:
    monkeypatch.setattr(connections, "DROPPED_SECONDS", 0.2)

    def work(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(
                b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" + POST + b"Content-Length: 6\r\n\r\n"
            )
            assert read_answer(connection)[0] == 200
            time.sleep(0.6)
            connection.sendall(b'"good"')
            assert read_answer(connection)[0] == 200

    assert [entry.status for entry in talk(work)] == [200]


# explanations ---------------------------------------------------------------------------------------------------


def test_explanations_that_nobody_waits_for_any_more_are_not_made() -> None:
    go, made = threading.Event(), []

    def explain(rows: list[Any], *, method: str | None) -> SimpleNamespace:
        made.extend(rows)
        go.wait(10)
        return SimpleNamespace(rows=[])

    async def main() -> None:
        explainers = Explainers(load=lambda uri: SimpleNamespace(explain=explain))
        served = Echo(ModelVersion("reviews", 1, "models:/reviews/1", "", "", ""))

        def ask(row: str) -> asyncio.Task[Any]:
            return asyncio.create_task(explainers.explain(served, [row], method=None, timeout=10))

        asking = [ask(row) for row in ("first", "second", "third")]
        while not made:
            await asyncio.sleep(0.01)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        last = ask("last")
        await asyncio.sleep(0)
        go.set()
        assert await last == []
        explainers.close()

    asyncio.run(main())
    assert made == ["first", "last"]


# the end --------------------------------------------------------------------------------------------------------


class Explainer:
    """Takes its time."""

    def explain(self, rows: list[Any], *, method: str | None) -> SimpleNamespace:
        time.sleep(1.5)
        return SimpleNamespace(rows=[])


def test_a_server_that_ends_waits_for_explanations_and_tells_those_that_take_too_long(monkeypatch) -> None:
    monkeypatch.setattr(serving_settings, "LOAD_SECONDS", 2.0)
    monkeypatch.setattr(serving_settings, "DRAIN_SECONDS", 0.5)
    loaded = threading.Event()
    logged: list[Entry] = []
    answers: dict[str, requests.Response] = {}

    def open_version(version: ModelVersion) -> Any:
        if version.name == "slow":
            loaded.wait(30)
        return Echo(version)

    async def main() -> None:
        models = Models(
            find_version=lambda uri: ModelVersion(uri[8:].partition("@")[0], 1, uri, "", "", ""),
            open_version=open_version,
            read_aliases=lambda names: {},
            say=lambda line: None,
        )
        limits = LimitSettings(timeout=0.5, explain_timeout=2.5)
        explainers = Explainers(load=lambda uri: Explainer())
        app = Application(models, Batcher(), limits=limits, record=logged.append, explainers=explainers)
        await models.find("reviews")
        with open_socket("127.0.0.1", 0) as listening:
            listening.listen()
            address = f"http://127.0.0.1:{listening.getsockname()[1]}"

            def ask(path: str) -> None:
                answers[path] = requests.post(f"{address}/models/{path}", json="good", timeout=30)

            asking = [asyncio.create_task(asyncio.to_thread(ask, path)) for path in ("reviews/explain", "slow")]
            asyncio.get_running_loop().call_later(0.5, os.kill, os.getpid(), signal.SIGTERM)
            try:
                await answer(app, listening, say=lambda line: None)
                await asyncio.gather(*asking)
            finally:
                loaded.set()
                await close_application(app)

    asyncio.run(main())
    assert answers["reviews/explain"].status_code == 200
    late = answers["slow"]
    assert (late.status_code, late.json()["error"]["code"]) == (503, "ending")
    assert int(late.headers["retry-after"]) > 0
    assert sorted((entry.model, entry.status) for entry in logged) == [("reviews", 200), ("slow", 503)]


def test_what_is_under_way_has_more_time_at_the_end_than_any_request_may_take() -> None:
    for limits in (LimitSettings(), LimitSettings(timeout=100), LimitSettings(explain_timeout=100)):
        assert limits.draining > max(limits.timeout, limits.explain_timeout, LOAD_SECONDS)


# settings -------------------------------------------------------------------------------------------------------


def wait_for_line(server: Server, words: str) -> str:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for line in server.said:
            if words in line:
                return line
        time.sleep(0.02)
    raise AssertionError("".join(server.said))


def test_settings_are_read_again_on_a_signal_and_bad_ones_change_nothing(store, tmp_path: Path) -> None:
    file = tmp_path / "serving.toml"
    file.write_text("[serving]\nmax_rows = 2\n")

    def reload(text: str, words: str) -> None:
        file.write_text(text)
        running.process.send_signal(signal.SIGHUP)
        wait_for_line(running, words)

    with serving("--timeout", "9", "--settings", str(file)) as running:
        assert running.post("/models/reviews", ["good"] * 3).status_code == 413
        reload(
            "[serving]\nmax_rows = 3\ntimeout = 1\n[serving.log]\ntexts = true\n",
            "The settings were read again: max_rows is 3 (was 2), texts is True (was False).",
        )
        assert running.post("/models/reviews", ["good"] * 3).status_code == 200
        assert running.post("/models/reviews", ["good"] * 4).status_code == 413
        for bad in ("[serving]\nmax_rows = 0\n", "[serving]\nmax_row = 5\n", "max_rows = \n", "serving = 3\n"):
            before = len(running.said)
            file.write_text(bad)
            running.process.send_signal(signal.SIGHUP)
            deadline = time.monotonic() + 30
            while not any("The settings that were read before stay" in line for line in running.said[before:]):
                assert time.monotonic() < deadline, "".join(running.said)
                time.sleep(0.02)
            assert running.post("/models/reviews", ["good"] * 3).status_code == 200
        reload(
            '[serving]\nmax_rows = 3\n[serving.log]\ntexts = true\n[serving.keys]\nfile = "other.json"\n',
            "[serving.keys] changed, which needs a restart.",
        )
        assert "nothing has changed" in "".join(running.said)
        assert running.post("/models/reviews", ["good"] * 3).status_code == 200
    assert running.process.returncode == 0
    assert not any("Traceback" in line for line in running.said)


# keys ------------------------------------------------------------------------------------------------------------


def test_a_server_that_began_without_keys_asks_for_them_from_the_first_one_on(store, tmp_path: Path) -> None:
    with serving("--model", "reviews", folder=tmp_path) as server:
        assert server.post("/models/reviews", "good").status_code == 200
        _, shown = create_key(tmp_path / "state" / "keys.json", "shop")
        deadline = time.monotonic() + 20
        while server.post("/models/reviews", "good").status_code != 401:
            assert time.monotonic() < deadline, server.said
            time.sleep(0.1)
        key = {"Authorization": f"Bearer {shown}"}
        assert requests.post(f"{server.address}/models/reviews", json="good", headers=key).status_code == 200
        assert requests.get(f"{server.address}/metrics").status_code == 401
    assert any("every request needs one" in line for line in server.said)


def test_a_server_whose_only_key_is_revoked_answers_nobody(store, tmp_path: Path) -> None:
    file = tmp_path / "state" / "keys.json"
    create_key(file, "shop")
    revoke_key(file, "shop")
    with serving("--model", "reviews", folder=tmp_path) as server:
        assert server.post("/models/reviews", "good").status_code == 401


# what cannot be said --------------------------------------------------------------------------------------------


def test_a_server_whose_lines_nobody_can_be_told_goes_on_with_all_its_work(store, tmp_path: Path) -> None:
    settings = tmp_path / "serving.toml"
    settings.write_text("[serving.log]\nflush_seconds = 0.2\n")
    tables = tmp_path / "tables"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "dlpipe.cli", "serve", "--port", str(port), "--settings", str(settings)]
    given = {**os.environ, "DLPIPE_TABLES": str(tables), "DLPIPE_STATE": str(tmp_path / "state")}
    (tables / "reviews_requests").mkdir(parents=True)
    (tables / "reviews_requests" / "_delta_log").write_text("no folder")
    with open("/dev/full", "w") as full, subprocess.Popen(command, env=given, stderr=full) as process:
        try:
            ask = functools.partial(
                requests.post, f"http://127.0.0.1:{port}/models/reviews", json="good", timeout=30
            )
            wait_until(lambda: answers(ask))
            time.sleep(2.0)  # the flusher would have said that it cannot commit
            shutil.rmtree(tables / "reviews_requests")
            assert answers(ask)
            with untouched_environment():
                os.environ["DLPIPE_TABLES"] = str(tables)
                wait_until(lambda: count_committed("reviews_requests") >= 2)
        finally:
            process.terminate()
        assert process.wait(30) == 0


def answers(ask: Callable[[], requests.Response]) -> bool:
    with contextlib.suppress(requests.ConnectionError):
        return ask().status_code == 200
    return False


def count_committed(table: str) -> int:
    with contextlib.suppress(DlpipeError):
        return table_at(table).rows
    return 0


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


# wrong keys -----------------------------------------------------------------------------------------------------


def test_ten_thousand_wrong_keys_keep_nobody_waiting_and_fill_no_log(store, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("DLPIPE_TABLES", str(tmp_path / "tables"))
    _, shown = create_key(tmp_path / "state" / "keys.json", "shop", rights=("predict", "admin"))
    good = {"Authorization": f"Bearer {shown}"}
    secret = shown.rpartition("_")[2]

    def measure() -> float:
        started = time.monotonic()
        assert requests.post(f"{server.address}/models/reviews", b'"good"', headers=good, timeout=30).ok
        return time.monotonic() - started

    def send_wrong(first: int) -> int:
        refused = 0
        with server.connect() as connection:
            for start in range(first, first + 625, 25):
                connection.sendall(b"".join(map(make_wrong, range(start, start + 25))))
                received = b""
                while received.count(b"The key is not known here.") < 25:
                    received += connection.recv(65_536)
                refused += received.count(b"HTTP/1.1 401")
        return refused

    began = time.monotonic()
    with serving("--model", "reviews", folder=tmp_path) as server, ThreadPoolExecutor(4) as pool:
        delays = []
        for first in range(0, 10_000, 2_500):  # a machine that is busy elsewhere spoils a round, not all
            alone = statistics.median([measure() for _ in range(10)])
            floods = [pool.submit(send_wrong, number) for number in range(first, first + 2_500, 625)]
            beside = [measure()]
            while not all(flood.done() for flood in floods):
                beside.append(measure())
            assert sum(flood.result() for flood in floods) == 2_500
            delays.append(statistics.median(beside) - 10 * alone)
        assert min(delays) < 0.2
        metrics = requests.get(f"{server.address}/metrics", headers=good, timeout=30).text
    assert re.search(r'dlpipe_requests_total\{.*status="401".*\} 10000', metrics)
    logged = read_logged("refused-requests")
    assert 0 < logged.num_rows <= 60 + (time.monotonic() - began)
    # neither the true key nor a wrong one is anywhere but in the hands of who has it
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    database = Path(os.environ["MLFLOW_TRACKING_URI"].removeprefix("sqlite:///")).read_bytes()
    for word in (secret, WRONG):
        assert word not in metrics + "".join(server.said)
        assert word.encode() not in written + database
        assert word not in str(logged.to_pylist())


WRONG = "wrong" * 8


def make_wrong(number: int) -> bytes:
    """Return a request with a key that does not exist."""
    return (
        f"POST /models/reviews HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer dlp_{number:012x}_{WRONG}\r\n"
        "Content-Length: 0\r\n\r\n"
    ).encode()


# browsers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8720", "127.0.0.1.evil.example", "10.0.0.7", "a]"])
@pytest.mark.parametrize("path", ["/", "/models", "/models/reviews", "/v2/models/reviews/infer", "/livez"])
def test_a_site_that_calls_this_machine_its_own_reads_nothing(host: str, path: str, server: Server) -> None:
    for ask in (server.get, server.post):
        refused = ask(path, headers={"Host": host, "Content-Type": "application/json"})
        assert refused.status_code == 403
        error = refused.json()["error"]
        assert "Without keys, this server is asked as 127.0.0.1" in (
            error if path[:3] == "/v2" else error["message"]
        )


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.9.9.9:8720", "[::1]:8720"])
def test_names_of_this_machine_are_answered(host: str, server: Server) -> None:
    assert server.get("/models", headers={"Host": host}).status_code == 200


def test_a_probe_that_names_no_host_is_answered(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        assert read_answer(connection)[0] == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", ""])
@pytest.mark.parametrize("path", ["/models/reviews", "/models/reviews/feedback", "/v2/models/reviews/infer"])
def test_what_a_page_of_another_site_sends_is_refused(origin: str, path: str, server: Server) -> None:
    # without a type, as a browser sends the bytes of a script without asking the server first
    body = json.dumps({"text": "good"}).encode()
    refused = requests.post(server.address + path, data=body, headers={"Origin": origin}, timeout=30)
    assert refused.status_code == 403
    assert "foreign_origin" in refused.text
    host = server.address.removeprefix("http://")
    allowed = requests.post(server.address + path, data=body, headers={"Origin": f"http://{host}"}, timeout=30)
    assert allowed.status_code != 403
