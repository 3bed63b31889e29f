"""What other programs ask of a server, by HTTP: every body, every refusal, its start and its end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mlflow.pyfunc
import pandas as pd
import pytest
import requests
from click.testing import CliRunner
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
from prometheus_client.parser import text_string_to_metric_families
from served import Server, read_answer, serving, to_near
from stores import new_store, untouched_environment

from dlpipe.cli import main
from dlpipe.inference import load_predictor, predict_frame, register_pipeline
from dlpipe.registry import log_and_register, promote
from dlpipe.serving.feedback import join_feedback
from dlpipe.serving.key_file import create_key, revoke_key
from dlpipe.serving.logged import read_logged
from dlpipe.serving.usage import NO_MODEL, sum_usage

pytestmark = pytest.mark.slow

TEXTS = ["the film was good", "awful plot and all", "what a superb score"]
ABOUT = ["request_id", "model", "version", "digest", "engine", "duration_ms"]
MLFLOW = "/models/reviews/invocations"


@pytest.fixture(scope="module")
def store(tmp_path_factory, tiny_model) -> Iterator[None]:
    """Two versions of a classifier, the first of them champion, and a pipeline."""
    with untouched_environment():
        new_store(tmp_path_factory.mktemp("serving"))
        versions = [
            log_and_register(
                tiny_model,
                name="reviews",
                example=TEXTS[:2],
                params={},
                tags={"delta.table": "t", "delta.version": str(number), "delta.digest": "d"},
            )
            for number in range(2)
        ]
        register_pipeline(versions[0])
        promote(versions[0])
        yield


@pytest.fixture(scope="module")
def server(store) -> Iterator[Server]:
    with serving("--timeout", "3") as running:
        yield running
    assert not [line for line in running.said if "Traceback" in line], "".join(running.said)
    assert running.process.returncode == 0


@pytest.fixture(scope="module")
def expected(store) -> list[dict[str, Any]]:
    """What MLflow's Python function answers for the texts."""
    return to_near(predict_frame(load_predictor("models:/reviews@champion"), TEXTS).to_dict("records"))


# answers --------------------------------------------------------------------------------------------------------

PLAIN: list[tuple[str, Any]] = [
    ("columns", {"text": TEXTS}),
    ("records", [{"text": text} for text in TEXTS]),
    ("values", TEXTS),
    ("another column name", {"review": TEXTS}),
]
MLFLOWS: list[tuple[str, Any]] = [
    ("split", {"dataframe_split": {"columns": ["text"], "data": [[text] for text in TEXTS]}}),
    (
        "split with index",
        {"dataframe_split": {"columns": ["text"], "index": [5, 6, 7], "data": [[t] for t in TEXTS]}},
    ),
    ("split without names", {"dataframe_split": {"data": [[text] for text in TEXTS]}}),
    ("records", {"dataframe_records": [{"text": text} for text in TEXTS]}),
    ("instances of values", {"instances": TEXTS}),
    ("instances of rows", {"instances": [{"text": text} for text in TEXTS]}),
    ("instances of lists", {"instances": [[text] for text in TEXTS]}),
    ("inputs of columns", {"inputs": {"text": TEXTS}}),
    ("inputs of values", {"inputs": TEXTS}),
    ("with params", {"inputs": TEXTS, "params": {"temperature": 3}}),
]


@pytest.mark.parametrize("body", [body for _, body in PLAIN], ids=[name for name, _ in PLAIN])
def test_plain_bodies_are_answered_with_what_made_the_answer(body: Any, server: Server, expected) -> None:
    answer = server.post("/models/reviews", body)
    got = answer.json()
    assert answer.status_code == 200
    assert list(got) == ["predictions", *ABOUT]
    assert got["predictions"] == expected
    assert (got["model"], got["version"], got["engine"]) == (
        "reviews",
        1,
        load_predictor("models:/reviews/1").engine,
    )
    assert re.fullmatch(r"[0-9a-f]{64}", got["digest"])
    assert uuid.UUID(got["request_id"]).version == 7
    assert answer.headers["x-request-id"] == got["request_id"]
    assert got["duration_ms"] > 0


@pytest.mark.parametrize("body", [{"text": TEXTS[0]}, TEXTS[0], [TEXTS[0]], {"text": [TEXTS[0]]}])
def test_one_row_is_a_row(body: Any, server: Server, expected) -> None:
    (got,) = server.post("/models/reviews", body).json()["predictions"]
    assert got == expected[0]


@pytest.mark.parametrize("body", [body for _, body in MLFLOWS], ids=[name for name, _ in MLFLOWS])
def test_bodies_of_mlflow_are_answered_with_exactly_the_rows_of_its_python_function(
    body: Any, server: Server, expected
) -> None:
    answer = server.post(MLFLOW, body)
    assert answer.json() == {"predictions": expected}
    assert answer.headers["x-dlpipe-model"] == "reviews"
    assert answer.headers["x-dlpipe-version"] == "1"
    assert len(answer.headers["x-dlpipe-digest"]) == 64
    assert float(answer.headers["x-dlpipe-duration-ms"]) > 0
    assert uuid.UUID(answer.headers["x-request-id"]).version == 7


def test_csv_is_read_as_a_table(server: Server, expected) -> None:
    body = pd.DataFrame({"text": TEXTS, "id": [1, 2, 3]}).to_csv(index=False).encode()
    answer = server.post(MLFLOW, body, headers={"Content-Type": "text/csv; charset=utf-8"})
    assert answer.json() == {"predictions": expected}


def test_mlflows_own_client_gets_what_its_own_function_returns(store) -> None:
    frame = pd.DataFrame({"text": TEXTS})
    with serving("--model", "reviews") as running:
        client = ScoringServerClient("127.0.0.1", running.port)
        client.wait_server_ready(timeout=10, scoring_server_proc=running.process)
        got = client.invoke(frame).get_predictions()
        assert running.post("/models/reviews-pipeline", TEXTS).status_code == 404
    local = mlflow.pyfunc.load_model("models:/reviews@champion").predict(frame)
    pd.testing.assert_frame_equal(got, local, check_dtype=False, rtol=1e-6)


def test_a_request_of_the_open_inference_protocol_gets_tensors_and_its_id_back(server: Server, expected) -> None:
    tensor = {"name": "text", "shape": [3, 1], "datatype": "BYTES", "data": TEXTS}
    body = {"id": "mine", "inputs": [tensor], "parameters": {"a": 1}, "outputs": [{"name": "probability"}]}
    got = server.post("/v2/models/reviews/versions/1/infer", body).json()
    assert (got["model_name"], got["model_version"], got["id"]) == ("reviews", "1", "mine")
    assert list(got["parameters"]) == ABOUT
    data = [row["probability"] for row in expected]
    assert got["outputs"] == [{"name": "probability", "shape": [3], "datatype": "FP64", "data": data}]
    whole = server.post("/v2/models/reviews/infer", {"inputs": [tensor | {"shape": [3]}]}).json()
    assert [output["name"] for output in whole["outputs"]] == list(expected[0])
    metadata = server.get("/v2/models/reviews").json()
    assert metadata["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    told = {output["name"]: output["datatype"] for output in metadata["outputs"]}
    assert told == {output["name"]: output["datatype"] for output in whole["outputs"]}


def test_versions_and_aliases_have_addresses_of_their_own(server: Server) -> None:
    numbers = {
        which: server.post(f"/models/reviews{which}", TEXTS[0]).json()["version"]
        for which in ("", "/champion", "/1", "/2", "/challenger")
    }
    assert numbers == {"": 1, "/champion": 1, "/1": 1, "/2": 2, "/challenger": 2}
    assert server.post("/models/reviews/2/invocations", {"inputs": TEXTS}).headers["x-dlpipe-version"] == "2"


def test_a_pipeline_answers_for_rows_that_it_cannot_read(server: Server) -> None:
    got = server.post("/models/reviews-pipeline", {"text": [TEXTS[0], None, 3]}).json()["predictions"]
    assert [row["predicted"] is None for row in got] == [False, True, True]
    assert got[1]["status"] == "empty"


def test_a_column_that_is_missing_in_all_rows_has_the_type_that_the_metadata_says(server: Server) -> None:
    tensor = {"name": "text", "shape": [2], "datatype": "BYTES", "data": [None, None]}
    outputs = server.post("/v2/models/reviews-pipeline/infer", {"inputs": [tensor]}).json()["outputs"]
    found = {output["name"]: (output["datatype"], output["data"]) for output in outputs}
    assert found["probability"] == ("FP64", [None, None])
    assert found["predicted"] == ("BYTES", [None, None])
    told = {
        output["name"]: output["datatype"]
        for output in server.get("/v2/models/reviews-pipeline").json()["outputs"]
    }
    assert {name: kind for name, (kind, _) in found.items()} == told


def test_the_metadata_of_a_pipeline_names_all_that_it_answers_with(server: Server) -> None:
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": TEXTS[:1]}
    whole = server.post("/v2/models/reviews-pipeline/infer", {"inputs": [tensor]}).json()
    told = server.get("/v2/models/reviews-pipeline").json()["outputs"]
    assert {output["name"]: output["datatype"] for output in told} == {
        output["name"]: output["datatype"] for output in whole["outputs"]
    }


def test_answers_are_those_of_the_command(server: Server) -> None:
    done = CliRunner().invoke(main, ["predict", "--model", "reviews", "--json", *TEXTS])
    got = server.post("/models/reviews", TEXTS).json()["predictions"]
    assert [{"text": text, **row} for text, row in zip(TEXTS, got, strict=True)] == json.loads(done.output)


def test_many_clients_get_the_answers_that_each_would_get_alone(server: Server) -> None:
    texts = [f"the film was {word} {'and ' * (number % 9)}good" for number, word in enumerate(TEXTS * 40)]
    frame = predict_frame(load_predictor("models:/reviews@champion"), texts)
    with ThreadPoolExecutor(16) as pool:
        got = list(pool.map(lambda text: server.post("/models/reviews", text).json()["predictions"][0], texts))
    assert [row["probability"] for row in got] == pytest.approx(frame["probability"].tolist(), abs=1e-5)
    assert [row["predicted"] for row in got] == frame["predicted"].tolist()


def test_explanations_add_up(server: Server) -> None:
    got = server.post("/models/reviews/explain", TEXTS[:1])
    assert got.status_code == 200, got.text
    (row,) = got.json()["explanations"]
    assert [part["part"] for part in row["parts"]] == TEXTS[0].split()
    total = row["base_value"] + sum(part["attribution"] for part in row["parts"])
    assert total == pytest.approx(row["output"], abs=1e-4)
    assert server.post("/models/reviews/explain?method=magic", TEXTS[:1]).status_code == 400
    assert server.post("/models/reviews-pipeline/explain", TEXTS[:1]).status_code == 400


def test_the_server_describes_itself(server: Server) -> None:
    server.post("/models/reviews", TEXTS)
    assert server.get("/livez").json() == {"live": True}
    assert server.get("/readyz").json() == {"ready": True}
    assert server.get("/v2/models/reviews/versions/1/ready").json() == {"name": "reviews", "ready": True}
    assert server.get("/v2").json()["name"] == "dlpipe"
    listed = {model["name"]: model for model in server.get("/models").json()["models"]}
    assert listed["reviews"]["aliases"] == {"challenger": 2, "champion": 1}
    assert listed["reviews"]["loaded"]["champion"]["version"] == 1
    about = server.get("/models/reviews/challenger").json()
    assert (about["version"], about["task"], about["single_text"]) == (2, "text-classification", True)
    page = server.get("/docs").text
    assert "/models/{name}/invocations" in page
    assert not re.search(r"<script|https?://", page)


def test_every_address_of_the_description_exists(server: Server) -> None:
    for path, item in server.get("/openapi.json").json()["paths"].items():
        at = path.replace("{name}", "reviews").replace("{which}", "1")
        if "get" in item:
            assert server.get(at).status_code == 200, at
        if "post" in item and at != "/invocations":
            assert server.post(at, b"{}").status_code == 400, at
            assert requests.delete(server.address + at, timeout=10).status_code == 405, at


def test_metrics_count_what_was_asked(server: Server) -> None:
    def count(name: str, **labels: str) -> float:
        families = text_string_to_metric_families(server.get("/metrics").text)
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    names = {"model": "reviews", "version": "1", "kind": "predict"}
    before = count("dlpipe_rows_total", **names), count("dlpipe_requests_total", status="404")
    server.post("/models/reviews", TEXTS)
    server.post("/models/nothing", TEXTS)
    assert count("dlpipe_rows_total", **names) == before[0] + 3
    assert count("dlpipe_requests_total", status="404", model="") == before[1] + 1
    assert count("dlpipe_model_version", model="reviews", alias="champion") == 1
    assert count("dlpipe_request_seconds_count", model="reviews") > 0
    assert count("process_resident_memory_bytes") > 0


# refusals -------------------------------------------------------------------------------------------------------

NESTED = b'{"text": ' + b"[" * 10_000 + b"]" * 10_000 + b"}"
LARGE = b'{"text": "' + b"x" * 100_000_000 + b'"}'
V2 = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["good"]}
EMPTY = {**V2, "name": "b", "shape": [0], "data": []}


def v2(**changes: Any) -> dict[str, Any]:
    return {"inputs": [{**V2, **changes}]}


BAD: list[tuple[str, str, Any, int, str]] = [
    ("no body", "/models/reviews", b"", 400, "no JSON"),
    ("no JSON", "/models/reviews", b"{'text': 'good'}", 400, "no JSON"),
    ("half of it", "/models/reviews", b'{"text": "goo', 400, "no JSON"),
    ("nested deep", "/models/reviews", NESTED, 400, "no JSON"),
    ("nested less deep", "/models/reviews", [[[["a"]]]], 400, "Row 0 is no text"),
    ("no UTF-8", "/models/reviews", b'{"text": "\xff\xfe"}', 400, "byte 10 is no UTF-8"),
    ("half a surrogate", "/models/reviews", b'{"text": "\\ud800"}', 400, "no JSON"),
    ("null", "/models/reviews", None, 400, "no JSON"),
    ("JSON null", "/models/reviews", b"null", 400, "The body is null"),
    ("a number", "/models/reviews", 3, 400, "The body is a number: 3"),
    ("true", "/models/reviews", True, 400, "The body is a boolean: true"),
    ("an empty object", "/models/reviews", {}, 400, "empty object"),
    ("an empty list", "/models/reviews", [], 400, "no rows"),
    ("an empty column", "/models/reviews", {"text": []}, 400, "no rows"),
    ("a null text", "/models/reviews", {"text": ["good", None]}, 400, "Row 1 is missing"),
    ("one null text", "/models/reviews", {"text": None}, 400, "Row 0 is missing"),
    ("a number for a text", "/models/reviews", {"text": ["good", 3]}, 400, "Row 1 is no text but a number: 3"),
    ("an object for a text", "/models/reviews", {"text": {"a": 1}}, 400, 'no text but an object: {"a": 1}'),
    ("mixed rows", "/models/reviews", ["good", {"text": "bad"}], 400, "Row 1 is no text but an object"),
    ("columns of two lengths", "/models/reviews", {"text": ["a", "b"], "id": [1]}, 400, "one length"),
    ("a value beside a column", "/models/reviews", {"text": ["a", "b"], "id": 1}, 400, "one length"),
    ("other columns", "/models/reviews", {"a": "x", "b": "y"}, 400, "must be in a column named 'text'"),
    ("too many rows", "/models/reviews", ["a"] * 10_001, 413, "10,001 rows"),
    ("too large", "/models/reviews", LARGE, 413, "100,000,012 bytes"),
    ("too many to explain", "/models/reviews/explain", ["a"] * 21, 413, "may have 20"),
    ("null to explain", "/models/reviews/explain", ["a", None], 400, "Row 1 is missing"),
    ("MLflow without a form", MLFLOW, {"text": "good"}, 400, "one of dataframe_split"),
    ("MLflow with two", MLFLOW, {"instances": ["a"], "inputs": ["a"]}, 400, "one of dataframe_split"),
    ("MLflow list", MLFLOW, ["a"], 400, "it is none"),
    ("split without data", MLFLOW, {"dataframe_split": {"columns": ["text"]}}, 400, 'must have "data"'),
    ("split, strange keys", MLFLOW, {"dataframe_split": {"data": [], "rows": 1}}, 400, 'must have "data"'),
    ("split of text", MLFLOW, {"dataframe_split": {"data": "good"}}, 400, "must be a list of rows"),
    ("split, long row", MLFLOW, {"dataframe_split": {"columns": ["a"], "data": [["a", "b"]]}}, 400, "Row 0"),
    ("split, name twice", MLFLOW, {"dataframe_split": {"columns": ["a", "a"], "data": []}}, 400, "twice"),
    ("split, odd names", MLFLOW, {"dataframe_split": {"columns": [1], "data": [["a"]]}}, 400, "names"),
    ("split without names, wide", MLFLOW, {"dataframe_split": {"data": [["a", "b"]]}}, 400, "Row 0"),
    ("records of values", MLFLOW, {"dataframe_records": ["a"]}, 400, "list of objects"),
    ("instances null", MLFLOW, {"instances": None}, 400, "The body is null"),
    ("v2 without inputs", "/v2/models/reviews/infer", {"id": "1"}, 400, "'inputs' must be"),
    ("v2 list", "/v2/models/reviews/infer", [], 400, "JSON object"),
    ("v2 number as id", "/v2/models/reviews/infer", {"id": 3, **v2()}, 400, "'id'"),
    ("v2 of three dimensions", "/v2/models/reviews/infer", v2(shape=[1, 1, 1]), 400, "has the shape"),
    ("v2 shape of texts", "/v2/models/reviews/infer", v2(shape=["1"]), 400, "'shape'"),
    ("v2 negative shape", "/v2/models/reviews/infer", v2(shape=[-1]), 400, "'shape'"),
    ("NaN", "/models/reviews", b'{"text": NaN}', 400, "it has no NaN; write null"),
    ("-Infinity", "/models/reviews", '["\u00e4", -Infinity]'.encode(), 400, "Infinity; write null"),
    ("v2 other shape", "/v2/models/reviews/infer", v2(shape=[2]), 400, "has 1 values"),
    ("v2 datatype", "/v2/models/reviews/infer", v2(datatype="TEXT"), 400, "'datatype'"),
    ("v2 number as BYTES", "/v2/models/reviews/infer", v2(data=[3]), 400, "row 0 is no BYTES"),
    ("v2 binary", "/v2/models/reviews/infer", v2(data=None), 400, "binary"),
    ("v2 two names", "/v2/models/reviews/infer", {"inputs": [V2, V2]}, 400, "name of its own"),
    ("v2 no name", "/v2/models/reviews/infer", v2(name=None), 400, "name of its own"),
    ("v2 two lengths", "/v2/models/reviews/infer", {"inputs": [V2, EMPTY]}, 400, "one number of rows"),
    ("v2 unknown output", "/v2/models/reviews/infer", {**v2(), "outputs": [{"name": "x"}]}, 400, "no output 'x'"),
    ("v2 outputs", "/v2/models/reviews/infer", {**v2(), "outputs": ["predicted"]}, 400, "'outputs'"),
    ("unknown model", "/models/nothing", "good", 404, "No model 'nothing'"),
    ("unknown version", "/models/reviews/99", "good", 404, "no version 99"),
    ("huge version", f"/models/reviews/{'9' * 400}", "good", 404, "no version"),
    ("unknown alias", "/models/reviews/best", "good", 404, "no alias 'best'"),
    ("a body of MLflow", "/models/reviews", {"inputs": ["good"]}, 400, "at /models/NAME/invocations"),
    ("a body of v2", "/models/reviews", v2(), 400, "/v2/models/NAME/infer"),
    ("an alias as in a URI", "/models/reviews@best", "good", 404, "ask /models/reviews/best"),
    ("a slash at the end", "/models/reviews/", "good", 404, "no such address"),
    ("two dots", "/models/%2e%2e", "good", 404, "names no model"),
    ("odd name", "/models/a'b%22%00c", "good", 404, ""),
    ("a path up", "/models/..%2f..%2fetc%2fpasswd", "good", 404, ""),
    ("unknown address", "/modells/reviews", "good", 404, "no such address"),
    ("the only model of many", "/invocations", {"inputs": ["a"]}, 404, "started with one --model"),
    ("POST to a page", "/metrics", "good", 405, "takes GET"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "body", "status", "words"), [bad[1:] for bad in BAD], ids=[bad[0] for bad in BAD]
)
def test_bad_bodies_are_refused_in_a_line(path: str, body: Any, status: int, words: str, server: Server) -> None:
    answer = server.post(path, body)
    assert answer.status_code == status, answer.text[:300]
    check_error(answer.content, words, path=path)


def check_error(body: bytes, words: str, *, path: str = "") -> None:
    """See that an error is one line of JSON, with an id, and says ``words``."""
    got = json.loads(body)
    message = got["error"] if path.startswith("/v2") else got["error"]["message"]
    about = got if path.startswith("/v2") else got["error"]
    assert words in message
    assert uuid.UUID(about["request_id"]).version == 7
    assert about["code"]
    assert "\n" not in message
    assert "Traceback" not in message
    assert len(message) < 700


@pytest.mark.parametrize(
    ("headers", "status", "words"),
    [
        ({"Content-Type": "text/plain"}, 415, "application/json"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415, "Set the header"),
        ({"Content-Type": "application/json; charset=latin-1"}, 415, "UTF-8"),
        ({"Content-Type": "text/csv"}, 415, "what is read here"),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415, "compressed"),
        ({"Content-Type": "application/json", "Inference-Header-Content-Length": "3"}, 400, "Binary"),
        ({"Content-Type": "\xff\xff"}, 415, "what is read here"),
    ],
)
def test_other_kinds_of_bodies_are_refused(
    headers: dict[str, str], status: int, words: str, server: Server
) -> None:
    answer = server.post("/models/reviews", b'{"text": "good"}', headers=headers)
    assert answer.status_code == status
    check_error(answer.content, words)


@pytest.mark.parametrize(
    ("csv", "words"),
    [
        (b"", "must name its columns"),
        (b"text\n", "no rows"),
        (b"text\n\xff\n", "no UTF-8"),
        (b"text,text\na,b\n", "each once"),
        (b"text,id\na\n", "Row 0"),
        (b'text\n"a\n', "cannot be read"),
        (b"text,id\n,3\n", "Row 0 is missing"),
    ],
)
def test_bad_csv_is_refused(csv: bytes, words: str, server: Server) -> None:
    answer = server.post(MLFLOW, csv, headers={"Content-Type": "text/csv"})
    assert answer.status_code == 400
    check_error(answer.content, words)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_refused(method: str, server: Server) -> None:
    answer = requests.request(method, server.address + MLFLOW, timeout=10)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    check_error(answer.content, "takes POST")


HEAD = b"POST /models/reviews HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
        (HEAD + b"Content-Length: x\r\n\r\n", 400),
        (HEAD + b"Content-Length: -1\r\n\r\n", 400),
        (HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n", 400),
        (HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (HEAD + b"Content-Length: 999999999\r\n\r\n", 413),
        (HEAD + b"Content-Length: 999999999\r\nExpect: 100-continue\r\n\r\n", 413),
        (HEAD + b"X: " + b"a" * 1_000_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n", 431),
        (HEAD + b"".join(b"X-%d: a\r\n" % n for n in range(100_000)) + b"\r\n", 431),
        (HEAD + b"Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\n{}", 400),
    ],
)
def test_what_is_no_request_is_refused(request_: bytes, status: int, server: Server) -> None:
    with server.connect() as connection:
        with contextlib.suppress(OSError):  # it has been told already
            connection.sendall(request_)
        got, body = read_answer(connection)
    assert got == status
    check_error(body, "")


def test_a_chunked_body_without_an_end_is_refused_at_its_bound(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"100000\r\n" + b"a" * 0x100000 + b"\r\n"
        for _ in range(9):
            connection.sendall(chunk)
        status, body = read_answer(connection)
    assert status == 413
    check_error(body, "larger than 8,000,000")


def test_a_slow_body_is_refused_and_a_slow_sender_keeps_nobody_waiting(server: Server) -> None:
    assert server.post("/models/reviews", TEXTS).status_code == 200  # the first waits for the model
    with server.connect() as slow:
        slow.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
        started = time.monotonic()
        assert server.post("/models/reviews", TEXTS).status_code == 200
        assert time.monotonic() - started < 1
        status, body = read_answer(slow)
    assert status == 408
    check_error(body, "within 3 s")


def test_headers_that_come_one_by_one_are_refused_in_the_end(server: Server) -> None:
    with server.connect() as slow:
        slow.sendall(HEAD)
        assert server.post("/models/reviews", TEXTS).status_code == 200
        status, body = read_answer(slow)
    assert status == 408
    check_error(body, "within 10 s")


def test_half_a_request_is_refused(server: Server) -> None:
    for half in (HEAD, HEAD + b"Content-Length: 100\r\n\r\n{"):
        with server.connect() as connection:
            connection.sendall(half)
            connection.shutdown(socket.SHUT_WR)
            status, body = read_answer(connection)
        assert status == 400
        check_error(body, "ended before its end")


def test_a_client_that_sends_nothing_gets_nothing(server: Server) -> None:
    with server.connect() as connection:
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""


def test_requests_one_after_the_other_without_waiting_are_answered_in_order(server: Server) -> None:
    bodies = [json.dumps({"text": text}).encode() for text in TEXTS]
    expected = [server.post("/models/reviews", body).json()["predictions"] for body in bodies]
    with server.connect() as connection:
        connection.sendall(b"".join(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body for body in bodies))
        received, got = b"", []
        while len(got) < 3:
            received += connection.recv(65536)
            got = [json.loads(found) for found in re.findall(rb"\r\n\r\n(\{.*?\}\]?.*?ms\":[\d.]+\})", received)]
    assert [answer["predictions"] for answer in got] == to_near(expected)


def test_bad_requests_keep_nobody_waiting_and_memory_does_not_grow(server: Server) -> None:
    bad = [NESTED, LARGE[:20_000_000], b"[" + b"1," * 3_000_000 + b"1]", b'{"text": "' + b"\xff" * 100_000 + b'"}']

    def send_bad(until: float) -> None:
        number = 0
        while time.monotonic() < until:
            assert 400 <= server.post("/models/reviews", bad[number % len(bad)]).status_code < 500
            number += 1

    def send_good_beside(seconds: float) -> list[float]:
        until = time.monotonic() + seconds
        senders = [threading.Thread(target=send_bad, args=(until,)) for _ in range(2)]
        for sender in senders:
            sender.start()
        took = []
        while time.monotonic() < until:
            took.append(measure_seconds(server))
        for sender in senders:
            sender.join()
        return took

    send_good_beside(6)  # what the largest ones take is kept, and the log has imported what it needs
    delays, growth = [], []
    for _ in range(4):  # a machine that is busy elsewhere spoils a round, a server that waits or grows spoils all
        alone = [measure_seconds(server) for _ in range(20)]
        before = server.measure_memory()
        beside = send_good_beside(3)
        delays.append(statistics.median(beside) - 10 * statistics.median(alone))
        growth.append(server.measure_memory() - before)
        if delays[-1] < 0.2 and min(growth) < 60_000_000:
            break
    assert min(delays) < 0.2
    assert min(growth) < 60_000_000


def measure_seconds(server: Server) -> float:
    """Return how long a good request takes."""
    started = time.monotonic()
    assert server.post("/models/reviews", TEXTS[0]).status_code == 200
    return time.monotonic() - started


def test_many_large_bodies_at_a_time_are_refused_before_they_fill_the_memory(server: Server) -> None:
    part = b'{"text": "' + b"x" * 7_000_000
    before = server.measure_memory()
    connections = [server.connect() for _ in range(20)]
    try:
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.sendall(HEAD + b"Content-Length: 7900000\r\n\r\n" + part)
        assert server.post("/models/reviews", TEXTS[0]).status_code == 200
        assert server.measure_memory() - before < 250_000_000
        statuses = [read_answer(connection)[0] for connection in connections]
    finally:
        for connection in connections:
            connection.close()
    assert set(statuses) == {408, 503}
    assert server.post("/models/reviews", TEXTS[0]).status_code == 200


def test_many_silent_connections_keep_nobody_out(server: Server) -> None:
    silent = [server.connect() for _ in range(500)]
    try:
        assert server.post("/models/reviews", TEXTS[0]).status_code == 200
    finally:
        for connection in silent:
            connection.close()


def test_of_ten_thousand_connections_the_longest_silent_end_and_nobody_is_kept_out(server: Server) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < 12_000:
        pytest.skip(f"A process may open {most} files here.")
    assert server.post("/models/reviews", TEXTS[0]).status_code == 200  # with the model, or it counts as memory
    before, files = server.measure_memory(), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    silent: list[socket.socket] = []
    try:
        for number in range(10_000):
            silent.append(server.connect())
            if number % 1_000 == 0:
                assert server.post("/models/reviews", TEXTS[0]).status_code == 200
        assert server.post("/models/reviews", TEXTS[0]).status_code == 200
        assert server.measure_memory() - before < 200_000_000
        silent[0].settimeout(30)
        assert silent[0].recv(1) == b""
    finally:
        for connection in silent:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, files)
    assert server.post("/models/reviews", TEXTS[0]).status_code == 200


# what is kept of requests, and who may ask -----------------------------------------------------------------------


def test_every_request_is_in_the_log_once_and_labels_come_by_http(store, tmp_path, monkeypatch) -> None:
    settings = tmp_path / "serving.toml"
    settings.write_text("[serving.log]\ntexts = true\n")
    monkeypatch.setenv("DLPIPE_TABLES", str(tmp_path / "tables"))
    with serving("--settings", str(settings), folder=tmp_path) as running:
        answered = [running.post("/models/reviews", TEXTS).json() for _ in range(5)]
        assert running.post("/models/reviews", {"text": [None]}).status_code == 400
        assert running.post("/models/nothing", "good").status_code == 404
        first = answered[0]["request_id"]
        labels = [{"request_id": first, "row": row, "label": "positive"} for row in range(3)]
        assert running.post("/models/reviews/feedback", labels).json()["accepted"] == 3
        assert running.post("/models/reviews/feedback", {**labels[0], "label": "negative"}).status_code == 200
        for wrong, status, words in (
            ({"request_id": "mine", "label": "positive"}, 400, "no request id"),
            ({"request_id": first}, 400, "lacks 'label'"),
            (["positive"], 400, "Pass"),
            ([labels[0], {**labels[0], "label": "neutral"}], 400, "Label 1: 'neutral' is no class of the model"),
            ({**labels[0], "row": 3}, 400, "its request had 3 rows, counted from 0, and no row 3"),
            (
                {"request_id": first, "label": "positive"},
                400,
                "its request had 3 rows: give the number of the row",
            ),
            ([], 400, "no rows"),
            (b"{", 400, "no JSON"),
        ):
            got = running.post("/models/reviews/feedback", wrong)
            assert got.status_code == status
            check_error(got.content, words)
        unknown = running.post("/models/nothing/feedback", labels)
        assert unknown.status_code == 404
        assert "reviews" not in unknown.text
        assert 'dlpipe_requests_total{kind="feedback",model="reviews"' in running.get("/metrics").text
    rows = read_logged("reviews_requests").to_pylist()
    assert sorted((row["request_id"], row["row"]) for row in rows if row["status"] == 200) == sorted(
        (answer["request_id"], row) for answer in answered for row in range(3)
    )
    by_id = {(row["request_id"], row["row"]): row for row in rows}
    for answer in answered:
        for number, (text, record) in enumerate(zip(TEXTS, answer["predictions"], strict=True)):
            row = by_id[answer["request_id"], number]
            assert (row["text"], json.loads(row["answer"])) == (text, record)
    assert [row["error"] for row in rows if row["status"] == 400] == [
        "Row 0 is missing: it is null, and the model reads no such row."
    ]
    (use,) = sum_usage([])
    # labels are no calls, whether they are taken or refused
    assert (use.calls, use.rows, use.errors) == (7, len(rows), 2)
    assert {(part.group["model"], part.calls, part.errors) for part in sum_usage(["model"])} == {
        ("reviews", 6, 1),
        (NO_MODEL, 1, 1),
    }
    joined = [row for row in join_feedback("reviews").to_pylist() if row["request_id"] == first]
    assert {row["row"]: row["label"] for row in joined} == {0: "negative", 1: "positive", 2: "positive"}


def test_a_server_with_keys_knows_who_asks(store, tmp_path) -> None:
    file = tmp_path / "state" / "keys.json"
    secrets = {
        name: create_key(file, name, **options)[1]
        for name, options in {
            "all": {"rights": ("predict", "explain", "feedback", "admin")},
            "other": {"models": ("nothing",)},
            "few": {"quota": 4},
        }.items()
    }

    def ask(name: str, path: str = "/models/reviews") -> requests.Response:
        headers = {"Authorization": f"Bearer {secrets.get(name, name)}", "Content-Type": "application/json"}
        return running.post(path, json.dumps(TEXTS).encode(), headers=headers)

    with serving("--host", "0.0.0.0", folder=tmp_path) as running:
        running.address = running.address.replace("0.0.0.0", "127.0.0.1")
        assert running.post("/models/reviews", TEXTS).status_code == 401
        assert ask("dk_wrong_wrong").status_code == 401
        assert ask("all").status_code == 200
        assert ask("other").status_code == 403
        assert ask("few").status_code == 200
        refused = ask("few")
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
        check_error(refused.content, "of 4 rows left today")
        assert running.get("/models").status_code == running.get("/metrics").status_code == 401
        assert running.get("/livez").status_code == running.get("/readyz").status_code == 200
        admin = {"Authorization": f"Bearer {secrets['all']}"}
        assert running.get("/metrics", headers=admin).status_code == 200
        done = CliRunner().invoke(
            main,
            ["predict", "--model", "reviews", "--url", running.address, "good"],
            env={"DLPIPE_KEY": secrets["all"]},
        )
        assert done.exit_code == 0, done.output
        for key, words in (
            ("", "Send one in the header Authorization, as Bearer KEY. Set DLPIPE_KEY"),
            ("x", "DLPIPE_KEY"),
        ):
            done = CliRunner().invoke(
                main, ["predict", "--model", "reviews", "--url", running.address, "good"], env={"DLPIPE_KEY": key}
            )
            assert (done.exit_code, words in done.output, "[redacted]" in done.output) == (1, True, False)
        revoke_key(file, "all")
        time.sleep(2)
        assert ask("all").status_code == 401


# beginning and end ----------------------------------------------------------------------------------------------


def run_serve(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dlpipe.cli", "serve", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_port_in_use_is_one_line(server: Server) -> None:
    done = run_serve("--port", str(server.port))
    assert done.returncode == 1
    assert done.stderr == (
        f"Error: Port {server.port} of 127.0.0.1 cannot be used: Address already in use. "
        "Choose another with --port.\n"
    )


def test_an_address_that_others_reach_is_refused() -> None:
    done = run_serve("--host", "0.0.0.0")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: --host 0.0.0.0 would let other machines ask")
    assert done.stderr.count("\n") == 1


def test_a_folder_without_a_store_is_refused_and_stays_empty(tmp_path, monkeypatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "DLPIPE_TABLES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    done = run_serve("--port", "0")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: There is no MLflow store")
    assert "train a model here first" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_does_not_exist_ends_the_start(store) -> None:
    done = run_serve("--port", "0", "--model", "nothing")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: No model 'nothing' is registered; there are reviews")


def test_requests_under_way_get_their_answers_when_the_server_is_told_to_end(store) -> None:
    text = "the film was good and " * 2000
    with serving("--max-wait", "60", "--timeout", "60") as running, ThreadPoolExecutor(12) as pool:
        running.post("/models/reviews", "good")
        asked = [pool.submit(running.post, "/models/reviews", [text] * 40) for _ in range(8)]
        late = running.connect()
        late.sendall(HEAD + b"Content-Length: 16\r\n\r\n")
        time.sleep(0.3)
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        late.sendall(b'{"text": "good"}')
        assert read_answer(late)[0] == 200
        assert [one.result().status_code for one in asked] == [200] * 8
        assert running.process.wait(30) == 0
        with pytest.raises(OSError, match="refused"):
            running.connect()
    assert re.search(r"Ending; \d+ requests under way", "".join(running.said))


def test_a_second_signal_ends_at_once(store) -> None:
    with serving("--timeout", "60") as running:
        running.post("/models/reviews", "good")
        slow = running.connect()
        slow.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
        time.sleep(0.2)
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert running.process.poll() is None
        os.kill(running.process.pid, signal.SIGTERM)
        assert running.process.wait(5) == 128 + signal.SIGTERM


def test_a_client_that_goes_takes_its_request_with_it(server: Server) -> None:
    def count(name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (.+)$", server.get("/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def wait_until(reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not reached():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    gone = 'dlpipe_requests_total{kind="predict",model="reviews",status="499",version="1"}'
    before = count(gone)
    # of more than 64 kB, after which reading pauses, and of more work than fits between two looks at the queue
    body = json.dumps(["the film was good and " * 2000] * 150).encode()
    with server.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        wait_until(lambda: count("dlpipe_rows_waiting") > 0)
    wait_until(lambda: count(gone) == before + 1)
    wait_until(lambda: count("dlpipe_rows_waiting") == 0)
