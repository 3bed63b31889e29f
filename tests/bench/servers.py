"""The servers that ``serving.py`` measures, each a process of its own that prints its port.

bare      uvicorn and Starlette, which answer with the length of a text
nothing   dlpipe's server with a version that computes nothing
dlpipe    dlpipe's server with the registered model; with ``--alone``, each row is a batch
forward   no server: the model in a process of its own, which runs what each line of its stdin asks

``dlpipe`` and ``nothing`` have a key, log and count; the tables of the log are written by their processes too.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MODEL = "reviews"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=SERVERS)
    parser.add_argument("--engine", default="onnx-int8")
    parser.add_argument("--keys", type=Path)
    parser.add_argument("--alone", action="store_true", help="each row is a batch")
    parser.add_argument("--max-wait", type=float, default=0.5, help="seconds")
    parser.add_argument("--folder", type=Path, help="of the model")
    options = parser.parse_args()
    SERVERS[options.name](options)


def open_port() -> socket.socket:
    """Return a socket at a free port, which is printed."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    return listening


def serve_bare(options: argparse.Namespace) -> None:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def predict(request: Request) -> JSONResponse:
        given = await request.json()
        return JSONResponse({"predictions": [{"predicted": "positive", "probability": len(given["text"])}]})

    app = Starlette(routes=[Route("/models/none", predict, methods=["POST"])])
    uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False)).run(sockets=[open_port()])


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


def serve_nothing(options: argparse.Namespace) -> None:
    import uvloop

    from dlpipe.serving.application import Application
    from dlpipe.serving.batching import Batcher
    from dlpipe.serving.following import Models
    from dlpipe.serving.keys import KeyRing
    from dlpipe.serving.request_log import RequestLog
    from dlpipe.serving.server import answer
    from dlpipe.serving.settings import LogSettings

    ring, log = KeyRing(options.keys), RequestLog(LogSettings(), say=complain)
    log.start()

    async def run() -> None:
        version = NoModel()
        models = Models(
            only=["none"], open_version=lambda _: version, find_version=lambda _: version.version, say=complain
        )
        await models.start()
        app = Application(models, Batcher(max_wait=60), guard=ring, record=log.record)
        await answer(app, open_port(), say=complain)

    uvloop.run(run())
    log.close()


def serve_model(options: argparse.Namespace) -> None:
    from dlpipe.serving import served
    from dlpipe.serving.server import ServeSettings, serve
    from dlpipe.serving.settings import KeySettings, LimitSettings, ServingSettings

    if options.alone:
        served.ALONE = served.BESIDE = 1

    port = ""

    def say(line: str) -> None:
        nonlocal port
        complain(line)
        if " on http://" in line:
            port = line.rpartition(":")[2]
        if line.startswith(
            f"{MODEL}@champion is v"
        ):  # stopped before that, it takes the registry for one that is silent
            print(port, flush=True)

    limits, keys = LimitSettings(max_wait=options.max_wait), KeySettings(str(options.keys))
    serving = ServingSettings(limits=limits, keys=keys)
    serve(ServeSettings(models=[MODEL], engine=options.engine, serving=serving), say=say)


def complain(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# -- the model without a server ----------------------------------------------------------------------------------


def run_forward(options: argparse.Namespace) -> None:
    """Run what each line of stdin asks: ``forward`` of many texts, or a ``call`` a text; print what it took."""
    from dlpipe.task import open_predictor

    predictor = open_predictor(options.folder, engine=options.engine)
    predictor.predict_outputs(["a warm welcome"] * 9)
    print(0, flush=True)
    for line in sys.stdin:
        given = json.loads(line)
        run = time_forward if "forward" in given else time_calls
        print(json.dumps(run(predictor, given)), flush=True)


def time_forward(predictor: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Return how long the network takes for texts that are token ids and batches of like length already."""
    from dlpipe.task.batches import sort_batches
    from dlpipe.task.texts.engines.networks import map_in_parallel

    network, encoded = predictor._network, predictor.encode(given["forward"])
    batches = [encoded.pad_arrays(rows) for rows in sort_batches(encoded.lengths, tokens=given["tokens"])]
    began, cpu = time.perf_counter(), time.process_time()
    list(map_in_parallel(lambda at: network.compute_logits(batches[at]), range(len(batches)), network.workers))
    return {"rows": len(encoded), "seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}


def time_calls(predictor: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Return the seconds of each call of the model with one text, as Python makes it without a server."""
    from dlpipe.task import find_task

    target, seconds = find_task(predictor.card["task"]).target, []
    until, texts = time.perf_counter() + given["seconds"], given["call"]
    while (began := time.perf_counter()) < until:
        target.make_records(predictor.predict_batch([texts[len(seconds) % len(texts)]]), predictor.card)
        seconds.append(time.perf_counter() - began)
    return {"seconds": seconds}


SERVERS = {"bare": serve_bare, "nothing": serve_nothing, "dlpipe": serve_model, "forward": run_forward}

if __name__ == "__main__":
    main()
