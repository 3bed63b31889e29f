"""What a server costs a request, with a model that does nothing: CPU time of its process, and of bare Starlette.

The server logs its requests, knows a key and counts; the table of the log is written by its process too.

The servers are processes of their own; clients are threads of another one, with a connection each that stays open.
CPU time of the server's process divided by requests is what holds on a noisy machine; latencies stand beside it.

    python tests/bench/serving.py
    python tests/bench/serving.py --seconds 2 --clients 1
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlpipe.serving.key_file import create_key

TEXT = "a film that takes its time and rewards the patience of those who stay with it until the end"
BODIES = {
    "plain": ("/models/none", json.dumps({"text": TEXT})),
    "mlflow": (
        "/models/none/invocations",
        json.dumps({"dataframe_split": {"columns": ["text"], "data": [[TEXT]]}}),
    ),
    "v2": (
        "/v2/models/none/infer",
        json.dumps({"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [TEXT]}]}),
    ),
}
WARM_SECONDS = 8.0
"""The log is committed for the first time after five seconds, which imports what writes tables."""
BOUNDS = {1: 0.5, 16: 0.25}
"""Milliseconds a request at most."""


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DLPIPE_TABLES"] = folder
        keys = Path(folder, "keys.json")
        os.environ["BENCH_KEYS"], os.environ["BENCH_KEY"] = str(keys), create_key(keys, "bench")[1]
        compare(options)


def compare(options: argparse.Namespace) -> None:
    print(f"{'':24}{'clients':>8}{'CPU ms a request':>18}{'p50 ms':>9}{'p99 ms':>9}{'requests/s':>12}{'must':>8}")
    for clients in options.clients:
        for name, server, (path, body) in (
            ("bare uvicorn, Starlette", serve_bare, BODIES["plain"]),
            *((f"dlpipe, {shape}", serve_none, given) for shape, given in BODIES.items()),
        ):
            cpu, latencies, rate = measure(server, path, body, clients, options.seconds)
            must = f"{BOUNDS[clients]:.2f}" if name.startswith("dlpipe") and clients in BOUNDS else ""
            p50, p99 = (1000 * find_quantile(latencies, share) for share in (0.5, 0.99))
            print(f"{name:24}{clients:>8}{cpu:>18.3f}{p50:>9.2f}{p99:>9.2f}{rate:>12,.0f}{must:>8}", flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="Of each measurement, after some in which the server warms up."
    )
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16])
    return parser.parse_args()


def find_quantile(values: Sequence[float], share: float) -> float:
    return statistics.quantiles(values, n=1000)[int(share * 1000) - 1]


# -- servers -----------------------------------------------------------------------------------------------------


class NoModel:
    """A version that answers every row with the same numbers."""

    lanes, batch_tokens, engine, digest, checked, takes_missing = 1, 4096, "none", "0" * 64, True, False
    example, card = (), {}

    def __init__(self) -> None:
        from dlpipe.registry import ModelVersion
        from dlpipe.task import find_task

        self.version = ModelVersion("none", 1, "models:/none/1", "", "", "")
        self.task = find_task("text-classification")

    def read_request(self, given: Any) -> list[Any]:
        return self.task.inputs.read_request(given, {})

    def predict_batch(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        return [
            {"predicted": "positive", "probability": 0.75, "p_negative": 0.25, "p_positive": 0.75} for _ in rows
        ]


def serve_none(listening: socket.socket) -> None:
    import uvloop

    from dlpipe.registry import ModelVersion
    from dlpipe.serving.application import Application
    from dlpipe.serving.batching import Batcher
    from dlpipe.serving.following import Models
    from dlpipe.serving.keys import KeyRing
    from dlpipe.serving.request_log import RequestLog
    from dlpipe.serving.server import answer
    from dlpipe.serving.settings import LogSettings

    def find(uri: str) -> ModelVersion:
        return ModelVersion("none", 1, "models:/none/1", "", "", "")

    ring = KeyRing(Path(os.environ["BENCH_KEYS"]))
    log = RequestLog(LogSettings())
    log.start()

    async def run() -> None:
        models = Models(only=["none"], open_version=lambda version: NoModel(), find_version=find, say=print)
        await models.start()
        batcher = Batcher(max_wait=60)
        await answer(Application(models, batcher, guard=ring, record=log.record), listening)

    uvloop.run(run())
    log.close()


def serve_bare(listening: socket.socket) -> None:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def predict(request: Request) -> JSONResponse:
        given = await request.json()
        return JSONResponse({"predictions": [{"predicted": "positive", "probability": len(given["text"])}]})

    app = Starlette(routes=[Route("/models/none", predict, methods=["POST"])])
    uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False)).run(sockets=[listening])


# -- clients -----------------------------------------------------------------------------------------------------


def measure(server: Any, path: str, body: str, clients: int, seconds: float) -> tuple[float, list[float], float]:
    """Return milliseconds of CPU a request, the seconds of each, and requests a second."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        process = multiprocessing.get_context("fork").Process(target=quiet, args=(server, listening), daemon=True)
        process.start()
    request = make_request(path, body)
    wait_until_it_answers(port, request)
    ask_for(port, request, clients, WARM_SECONDS)
    before = read_cpu(process.pid)
    began = time.perf_counter()
    latencies = ask_for(port, request, clients, seconds)
    took = time.perf_counter() - began
    cpu = read_cpu(process.pid) - before
    process.terminate()
    process.join(20)
    return 1000 * cpu / len(latencies), latencies, len(latencies) / took


def quiet(server: Any, listening: socket.socket) -> None:
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    server(listening)


def make_request(path: str, body: str) -> bytes:
    head = (
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "User-Agent: bench",
        "Accept: */*",
        "Content-Type: application/json",
        f"Authorization: Bearer {os.environ['BENCH_KEY']}",
        f"Content-Length: {len(body)}",
    )
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()


def wait_until_it_answers(port: int, request: bytes) -> None:
    for _ in range(600):
        try:
            assert b" 200 " in ask(port, request)[:20]
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the server does not answer")


def ask(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        return connection.recv(65536)


def ask_for(port: int, request: bytes, clients: int, seconds: float) -> list[float]:
    """Return the seconds of each request that as many clients sent in that time, one after the other each."""
    until = time.perf_counter() + seconds
    latencies: list[float] = []

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (began := time.perf_counter()) < until:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            latencies.append(time.perf_counter() - began)
        writer.close()

    async def every() -> None:
        await asyncio.gather(*(one() for _ in range(clients)))

    thread = threading.Thread(target=lambda: asyncio.run(every()))
    thread.start()
    thread.join()
    return latencies


def read_cpu(pid: int | None) -> float:
    """Return the seconds of CPU that a process has taken so far."""
    fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()  # noqa: SIM115
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
