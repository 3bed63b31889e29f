"""What a server says of itself is so: requests made from its own description, and from that of the protocol."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from served import Server, register_reviews, serving
from stores import untouched_environment

from dlpipe.serving.key_file import create_key

pytestmark = pytest.mark.slow

OPEN_INFERENCE = Path(__file__).with_name("open_inference_protocol.yaml")
FEW, MANY = 5, 60
"""Requests for each address, beside those that are at the edges of its description."""
REFUSED = 'checks.negative_data_rejection.expected-statuses = ["4xx", "503", "504"]'
"""Its own list lacks 413, with which more rows are refused than a request may have."""
TEXT = {"type": "string", "pattern": "^[a-z]+( [a-z]+)*$"}
TEXTS = {"type": "array", "items": TEXT, "minItems": 1, "maxItems": 3}


@pytest.fixture(scope="module")
def store(tmp_path_factory, tiny_model) -> Iterator[None]:
    with untouched_environment():
        register_reviews(tmp_path_factory.mktemp("protocol"), tiny_model)
        yield


@pytest.fixture(scope="module")
def server(store) -> Iterator[Server]:
    with serving("--model", "reviews") as running:
        yield running
    assert not [line for line in running.said if "Traceback" in line], "".join(running.said)


def read_own(server: Server) -> dict[str, Any]:
    """Return the server's own description, of its only model."""
    document = server.get("/openapi.json").json()
    for item in document["paths"].values():
        for given in item.get("parameters", []):
            known = {"name": ["reviews"], "which": ["1", "champion"]}.get(given["name"])
            if known:
                given["schema"]["enum"] = known
    return document


def read_protocol() -> dict[str, Any]:
    """Return the description of the protocol, of the only model."""
    document = yaml.safe_load(OPEN_INFERENCE.read_text())
    document["components"]["parameters"]["name"]["schema"]["enum"] = ["reviews"]
    document["components"]["parameters"]["version"]["schema"]["enum"] = ["1"]
    return document


def narrow_own(document: dict[str, Any]) -> dict[str, Any]:
    """Return the same for bodies that this model reads: texts, and columns of one length."""
    document = copy.deepcopy(document)
    schemas = document["components"]["schemas"]
    record = {"type": "object", "required": ["text"], "properties": {"text": TEXT}, "maxProperties": 1}
    columns = {"type": "object", "required": ["text"], "properties": {"text": TEXTS}, "maxProperties": 1}
    records = {"type": "array", "items": record, "minItems": 1, "maxItems": 3}
    rows = {"anyOf": [TEXT, record, columns, records, TEXTS]}
    split = {
        "type": "object",
        "required": ["columns", "data"],
        "properties": {"columns": {"const": ["text"]}, "data": {"type": "array", "items": narrow_tuple()}},
        "additionalProperties": False,
    }
    split["properties"]["data"] |= {"minItems": 1, "maxItems": 3}
    forms = {"dataframe_split": split, "dataframe_records": records, "instances": rows, "inputs": rows}
    schemas |= {
        "Rows": rows,
        "Invocations": {
            "oneOf": [
                {"type": "object", "required": [name], "properties": {name: form}, "maxProperties": 1}
                for name, form in forms.items()
            ]
        },
    }
    schemas["InferRequest"]["properties"] |= narrow_tensors()
    schemas["Label"]["properties"] |= {
        "label": {"enum": ["negative", "positive"]},
        "row": {"type": "integer", "minimum": 0, "maximum": 9},
    }
    schemas["Labels"] = {"anyOf": [schemas["Label"], {"type": "array", "items": schemas["Label"], "minItems": 1}]}
    for item in document["paths"].values():
        content = item.get("post", {}).get("requestBody", {}).get("content", {})
        if "text/csv" in content:
            content["text/csv"]["schema"] = {"type": "string", "pattern": "^text\n[a-z]+(\n[a-z]+)?\n$"}
    return document


def narrow_protocol(document: dict[str, Any]) -> dict[str, Any]:
    """Return the same for the tensors that this model reads."""
    document = copy.deepcopy(document)
    document["components"]["schemas"]["InferenceRequest"]["properties"] |= narrow_tensors()
    return document


def narrow_tuple() -> dict[str, Any]:
    return {"type": "array", "items": TEXT, "minItems": 1, "maxItems": 1}


def narrow_tensors() -> dict[str, Any]:
    tensors = [
        {
            "type": "object",
            "required": ["name", "shape", "datatype", "data"],
            "properties": {
                "name": {"const": "text"},
                "shape": {"enum": [[size], [size, 1]]},
                "datatype": {"const": "BYTES"},
                "data": {"type": "array", "items": TEXT, "minItems": size, "maxItems": size},
            },
        }
        for size in (1, 2)
    ]
    output = {"type": "object", "required": ["name"], "properties": {"name": {"enum": ["predicted"]}}}
    return {
        "inputs": {"type": "array", "items": {"anyOf": tensors}, "minItems": 1, "maxItems": 1},
        "outputs": {"type": "array", "items": output, "maxItems": 1},
    }


def check(document: dict[str, Any], server: Server, folder: Path, *words: str, examples: int) -> None:
    """See that requests made from a description are answered as it says."""
    (folder / "schemathesis.toml").write_text(REFUSED)
    described = folder / "described.json"
    described.write_text(json.dumps(document))
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", str(described), "--url", server.address]
    command += ["--checks", "all", "--max-examples", str(examples), "--seed", "1", "--no-color"]
    command += ["--continue-on-failure", "--generation-database", "none", "--request-timeout", "60", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


# no schema says what each model reads: a body may be right by it and refused. The narrow ones say it
ANY = ("--exclude-checks", "positive_data_acceptance", "--phases", "coverage,fuzzing")
GOOD = ("--mode", "positive", "--phases", "coverage,fuzzing")


def test_the_server_answers_as_its_own_description_says(server: Server, tmp_path: Path) -> None:
    check(read_own(server), server, tmp_path, *ANY, examples=FEW)


def test_what_is_right_by_its_own_description_is_answered(server: Server, tmp_path: Path) -> None:
    check(narrow_own(read_own(server)), server, tmp_path, *GOOD, examples=FEW)


def test_the_server_answers_as_the_open_inference_protocol_says(server: Server, tmp_path: Path) -> None:
    check(read_protocol(), server, tmp_path, *ANY, examples=FEW)


def test_what_is_right_by_the_open_inference_protocol_is_answered(server: Server, tmp_path: Path) -> None:
    check(narrow_protocol(read_protocol()), server, tmp_path, *GOOD, examples=FEW)


def test_with_keys_no_address_answers_without_one_that_says_it_takes_one(store, tmp_path: Path) -> None:
    file = tmp_path / "state" / "keys.json"
    _, key = create_key(file, "all", rights=("predict", "explain", "feedback", "admin"))
    with serving("--model", "reviews", folder=tmp_path) as server:
        document = read_own(server)
        assert document["security"] == [{"key": []}]
        check(document, server, tmp_path, *ANY, "--header", f"Authorization: Bearer {key}", examples=FEW)


@pytest.mark.long
def test_many_requests_are_answered_as_both_descriptions_say(server: Server, tmp_path: Path) -> None:
    every = ("--exclude-checks", "positive_data_acceptance")  # all phases, also calls that follow each other
    check(read_own(server), server, tmp_path, *every, examples=MANY)
    check(read_protocol(), server, tmp_path, *every, examples=MANY)
    check(narrow_own(read_own(server)), server, tmp_path, "--mode", "positive", examples=MANY)
    check(narrow_protocol(read_protocol()), server, tmp_path, "--mode", "positive", examples=MANY)
