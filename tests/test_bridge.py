"""The parts of the bridge that need neither Metaflow nor MLflow: values, secrets, differences."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import Any

import pytest

from dlpipe.bridge.records import Dataset, Document, Held, Metric, RunRecord, differences
from dlpipe.bridge.redaction import looks_secret, redact, redact_value
from dlpipe.bridge.values import file_name, keep, keep_text, mlflow_key, python_name


@dataclass(frozen=True)
class Score:
    value: float
    api_key: str


RECORD = RunRecord(
    key="Flow/1/train/2/0",
    parent="Flow/1",
    name="train",
    status="FINISHED",
    start=1000,
    end=2000,
    params={"epochs": "2"},
    metrics=(Metric("loss", 0.5, 2000),),
    tags={"metaflow.step": "train"},
    documents=(Document("logs/stdout.txt", b"hello"),),
    datasets=(Dataset("reviews", 0, "abc", 10, "data"),),
)


def held_as(record: RunRecord) -> Held:
    return Held(
        run_id="r",
        parent=record.parent,
        name=record.name,
        status=record.status,
        start=record.start,
        end=record.end,
        params=dict(record.params),
        metrics=frozenset(record.metrics),
        tags={**record.tags, "mine": "kept"},
        documents={document.path: document.digest for document in record.documents},
        datasets=frozenset(record.datasets),
    )


def test_what_is_held_as_it_should_be_has_no_difference() -> None:
    assert differences(RECORD, held_as(RECORD)) == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"status": "RUNNING"}, "status"),
        ({"end": None}, "end"),
        ({"parent": None}, "parent"),
        ({"params": {"epochs": "3"}}, "parameter epochs"),
        ({"metrics": frozenset({Metric("loss", 0.5, 2001)})}, "metric loss"),
        ({"tags": {}}, "tag metaflow.step"),
        ({"documents": {}}, "file logs/stdout.txt"),
        ({"datasets": frozenset()}, "dataset reviews@v0"),
    ],
)
def test_each_thing_that_differs_is_named(change: dict[str, Any], what: str) -> None:
    assert [one.what for one in differences(RECORD, replace(held_as(RECORD), **change))] == [what]


def test_a_digest_changes_with_anything_the_record_says() -> None:
    changed = [{"end": 2001}, {"documents": (Document("logs/stdout.txt", b"hullo"),)}, {"datasets": ()}]
    digests = {RECORD.digest, *(replace(RECORD, **change).digest for change in changed)}  # type: ignore[arg-type]
    assert len(digests) == 4
    assert replace(RECORD).digest == RECORD.digest


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://ana:S3cr3t@db/x",
        "export API_TOKEN=S3cr3t",
        '{"password": "S3cr3t"}',
        "aws_secret_access_key: S3cr3t",
        "-----BEGIN RSA PRIVATE KEY-----\nS3cr3t\n-----END RSA PRIVATE KEY-----",
        "sk-S3cr3tS3cr3t",
        "ghp_S3cr3tS3cr3tS3cr3t",
    ],
)
def test_credentials_are_taken_out_of_text(text: str) -> None:
    assert "S3cr3t" not in redact(f"before {text} after")
    assert redact(f"before {text}").startswith("before ")


def test_plain_text_stays_as_it_is() -> None:
    text = "https://example.org/a:b@c the tokens are 27 long, epoch 1/2  loss 0.5, max_tokens 3 user@host"
    assert redact(text) == text
    assert not looks_secret("tokenizer_backbone_monkey") or redact_value("note", "x") == "x"


def test_redaction_gets_through_a_picture_in_a_card() -> None:
    picture = "A" * 3_000_000  # a pattern that starts at every letter would need hours
    assert redact(picture) == picture


def test_own_pattern_is_hidden_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLPIPE_BRIDGE_SECRETS", r"ACME-\d+")
    assert redact("order ACME-42") == "order [redacted]"


@pytest.mark.parametrize("name", ["plain", "a[0]", "größe", "a_u5b_", "x%y", "_u5f_u5b_"])
def test_names_that_mlflow_refuses_are_mapped_and_back(name: str) -> None:
    assert python_name(mlflow_key(name)) == name


def test_file_names_are_short_plain_and_different() -> None:
    names = ["a" * 300, "a" * 299, "ä/ö", "../x"]
    made = [file_name(name) for name in names]
    assert len(set(made)) == 4
    assert all(len(one) <= 100 and "/" not in one for one in made)


def test_long_text_is_a_short_parameter_and_a_file_with_the_whole() -> None:
    kept = keep_text("story", "x" * 10_000)
    assert kept.param is not None
    assert len(kept.param) <= 250
    assert kept.documents[0].content == b"x" * 10_000


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_mlflow_would_bend_are_parameters(value: float) -> None:
    assert keep("loss", value).param == str(value)


def test_a_dataclass_is_json_without_its_secrets() -> None:
    (document,) = keep("score", Score(0.5, "S3cr3t")).documents
    assert json.loads(document.content) == {"value": 0.5, "api_key": "[redacted]"}


def test_what_no_rule_knows_is_a_reference() -> None:
    assert keep("thing", object()).kind == "reference"
    assert keep("blob", b"\x00\x01").kind == "reference"
