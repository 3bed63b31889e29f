"""The parts of the bridge that need neither Metaflow nor MLflow: values, secrets, differences."""

from __future__ import annotations

import base64
import datetime
import decimal
import io
import json
import math
import re
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dlpipe.bridge.attempts import TaskAttempt, TaskMetadata
from dlpipe.bridge.contents import describe_verdict, find_datasets
from dlpipe.bridge.datastore import Unreadable
from dlpipe.bridge.description import AttemptSummary, describe_run
from dlpipe.bridge.names import name_attempt, name_run
from dlpipe.bridge.records import NAME, Dataset, Document, HeldRecord, Metric, Model, RunRecord, find_differences
from dlpipe.bridge.totals import RunTotals
from dlpipe.bridge.values import TooManyValues, keep, keep_text, make_file_name, to_mlflow_key, to_python_name
from dlpipe.errors import SettingError
from dlpipe.redaction import HIDDEN, find_secrets, looks_secret, redact, redact_card, redact_value, set_secrets


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


def held_as(record: RunRecord) -> HeldRecord:
    return HeldRecord(
        run_id="r",
        parent=record.parent,
        name=record.name,
        status=record.status,
        start=record.start,
        end=record.end,
        params=dict(record.params),
        metrics=frozenset(record.metrics),
        tags={**record.all_tags, "mine": "kept"},
        documents={document.path: document.digest for document in record.documents},
        datasets=frozenset(record.datasets),
    )


def test_what_is_held_as_it_should_be_has_no_difference() -> None:
    assert find_differences(RECORD, held_as(RECORD)) == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"status": "RUNNING"}, "status"),
        ({"end": None}, "end"),
        ({"parent": None}, "parent"),
        ({"params": {"epochs": "3"}}, "parameter epochs"),
        ({"metrics": frozenset({Metric("loss", 0.75, 2000)})}, "metric loss"),
        ({"tags": {NAME: "train"}}, "tag metaflow.step"),
        ({"documents": {}}, "file logs/stdout.txt"),
        ({"datasets": frozenset()}, "dataset reviews@v0"),
    ],
)
def test_each_thing_that_differs_is_named(change: dict[str, Any], what: str) -> None:
    assert [one.what for one in find_differences(RECORD, replace(held_as(RECORD), **change))] == [what]


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
        "Authorization: Bearer S3cr3tX9",
        '{"Authorization": "Basic S3cr3tX9"}',
        '{"password": "correct horse S3cr3t"}',
        "password='correct horse S3cr3t'",
        "PASSWORD=a,S3cr3t",
        r"{\"token\": \"S3cr3t\"}",
        "--password S3cr3t",
        "run --api-token S3cr3t x",
        "passphrase=S3cr3t",
        "https://S3cr3t@example.org/x.git",
        "postgresql://ana:p@S3cr3t@db/x",
        "AccountKey=S3cr3t==;",
        "https://example.org/b?x=1&sig=S3cr3t&y=2",
        'api_keys = ["S3cr3t", "b"]',
        "&quot;token&quot;: &quot;S3cr3t&quot;",
        "config={'user': {'token': 'S3cr3t'}}",
    ],
)
def test_credentials_are_taken_out_of_text(text: str) -> None:
    assert "S3cr3t" not in redact(f"before {text} after")
    assert redact(f"before {text}").startswith("before ")


def test_numbers_are_no_credentials_by_a_word_that_also_stands_for_other_things() -> None:
    scores = {"token_accuracy": 0.93, "key_error": 2, "signature_loss": np.float32(0.5), "loss_per_token": 1.5}
    assert {name: keep(name, value).kind for name, value in scores.items()} == dict.fromkeys(scores, "metric")
    line = "token_accuracy=0.93, key_error: 2; {'loss_per_token': 0.25} token_share=5%"
    assert redact(line) == line
    hidden = {"password": 0.5, "pin": 1234, "token": 123456, "api_key": 12.5, "token_of_mine": "abc"}
    assert {name: keep(name, value).param for name, value in hidden.items()} == dict.fromkeys(hidden, HIDDEN)
    for text in ("token=123456", "password=0.5", "token=12e5", "token_of_mine=S3cr3t"):
        assert redact(text).endswith(HIDDEN), text


@pytest.mark.parametrize("value", ["reviews", "user_id", "data/reviews", "Reviews", "2026", "film-reviews"])
def test_a_word_under_a_doubtful_name_is_hidden_there_and_not_everywhere(value: str) -> None:
    assert list(find_secrets({"key": value}, "options")) == []
    assert keep("key", value).param == HIDDEN
    assert list(find_secrets({"password": value}, "options")) == [value]


@pytest.mark.parametrize("value", ["a8f3k2", "correct-horse-battery", "XyZabc", "123456789", "s3cr3t"])
def test_what_may_be_a_key_is_hidden_everywhere(value: str) -> None:
    assert list(find_secrets({"key": value}, "options")) == [value]


def test_redacted_json_is_still_json() -> None:
    text = json.dumps({"password": 'p"S3cr3t', "nested": {"api_token": "S3cr3t", "max_tokens": 128}})
    assert json.loads(redact(text)) == {
        "password": "[redacted]",
        "nested": {"api_token": "[redacted]", "max_tokens": 128},
    }


def test_keys_that_are_hidden_leave_each_value_in_its_place() -> None:
    text = redact(json.dumps({"use": {"sk-12345678": 2, "sk-87654321": 3}}))
    assert "12345678" not in text
    (document,) = keep("use", {"sk-12345678": 2, "sk-87654321": 3}).documents
    assert sorted(json.loads(document.content).values()) == [2, 3]
    assert "8765" not in document.content.decode()


def test_all_that_stands_under_a_secret_name_is_hidden() -> None:
    for name, value in (
        ("api_keys", ["S3cr3t"]),
        ("credentials", ("ana", "S3cr3t")),
        ("password", {"a": "S3cr3t"}),
    ):
        assert keep(name, value).param == "[redacted]"
    (document,) = keep("account", {"password": {"value": "S3cr3t"}, "pad_token": "[PAD]"}).documents
    assert json.loads(document.content) == {"password": "[redacted]", "pad_token": "[PAD]"}


def test_a_value_that_stood_under_a_secret_name_is_hidden_everywhere() -> None:
    set_secrets(find_secrets({"password": "swordfish"}, "login"))
    try:
        assert redact("he said swordfish") == "he said [redacted]"
    finally:
        set_secrets([])
    assert redact("he said swordfish") == "he said swordfish"


def test_the_data_of_a_card_is_redacted_too() -> None:
    data = base64.b64encode(json.dumps({"rows": [["token=S3cr3t"]]}).encode()).decode()
    page = f'<script>window.__MF_DATA__["id"] = "{data}"</script>'
    hidden = redact_card(page)
    found = re.search(r'= "([^"]+)"', hidden)
    assert found
    assert json.loads(base64.b64decode(found[1])) == {"rows": [["token=[redacted]"]]}


@pytest.mark.parametrize("text", ["caf\udce9", "nul \0 inside"])
def test_what_no_store_takes_is_written_in_words(text: str) -> None:
    redact(text).encode()
    assert "\0" not in redact(text)


def test_plain_text_stays_as_it_is() -> None:
    text = (
        "https://example.org/a:b@c the tokens are 27 long, epoch 1/2  loss 0.5, max_tokens: 128, user@host "
        "pad_token='[PAD]' tokenizer: bert ssh://git@example.org/x Basic understanding"
    )
    assert redact(text) == text
    assert not looks_secret("tokenizer_backbone_monkey") or redact_value("note", "x") == "x"


def test_redaction_gets_through_a_picture_in_a_card() -> None:
    picture = "A" * 3_000_000  # a pattern that starts at every letter would need hours
    assert redact(picture) == picture


@pytest.mark.parametrize("between", ["&", ",", ";", ": ", "="])
def test_any_number_of_names_and_values_is_looked_through(between: str) -> None:
    text = between.join(f"name{number}=value{number}" for number in range(5000)) + f"{between}token=S3cr3t"
    assert "S3cr3t" not in redact(text)
    assert redact(text).startswith("name0=value0")


@pytest.mark.parametrize("part", ["eyJ-", 'pw="', "a://:", "basic ", "--x ", "pw=&quot;"])
def test_no_text_takes_for_ever(part: str) -> None:
    began = time.process_time()
    redact(part * 50_000)
    assert time.process_time() - began < 5


def test_a_pattern_of_ones_own_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLPIPE_BRIDGE_SECRETS", "(")
    with pytest.raises(SettingError, match="DLPIPE_BRIDGE_SECRETS"):
        redact("x")


def test_what_is_nested_or_large_without_end_is_cut_the_same_at_each_depth_of_the_stack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dlpipe.bridge.values.VALUES", 20_000)
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    itself: list[Any] = []
    itself.append(itself)

    def kept(below: int) -> tuple[Document, ...]:
        return kept(below - 1) if below else keep("deep", {"deep": deep, "itself": itself}).documents

    assert kept(0) == kept(500)
    assert b"<nested deeper than 100>" in kept(0)[0].content
    doubled: list[Any] = [1]
    for _ in range(50):
        doubled = [doubled, doubled]
    with pytest.raises(TooManyValues):
        keep("doubled", doubled)
    assert list(find_secrets({"password": [doubled, "S3cr3t"]}, "login")) == ["S3cr3t"]


def test_values_that_are_there_again_and_again_do_not_fill_the_disk() -> None:
    text = "x" * 2**20
    with pytest.raises(TooManyValues):
        keep("list", [text] * 1000)
    with pytest.raises(TooManyValues):
        keep("frame", pd.DataFrame({"a": pd.Series([text] * 1000, dtype=object)}))
    with pytest.raises(TooManyValues):
        keep("nothing", pa.table({"a": pa.nulls(2**28)}))


@dataclass(frozen=True)
class Table:
    path: Any
    version: Any
    digest: Any
    rows: Any
    columns: Any = ()


def test_datasets_are_within_what_every_store_holds() -> None:
    long = Table("x" * 10**6 + "\udc80", 3, "\udc80" * 50, 5, [("c" * 1000, "int")] * 5000)
    (found,) = find_datasets(long, "data")
    assert len(found.source) < 65_535
    assert len(found.digest) <= 36
    assert len(json.dumps(found.columns)) < 2**20
    found.digest.encode()
    with pytest.raises(Unreadable):
        list(find_datasets(Table("x", 10**5000, "d", 1), "data"))


def test_data_sets_are_found_in_dictionaries_and_lists_and_are_whole_versions() -> None:
    plain = {"path": "tables/reviews", "version": 3, "digest": "abc", "rows": 10}
    found = list(find_datasets({"all": [Table("tables/other", 1, "d", 5), plain]}, "data"))
    assert [(dataset.name, dataset.role) for dataset in found] == [
        ("other@v1", "data.all.0"),
        ("reviews@v3", "data.all.1"),
    ]
    assert list(find_datasets({**plain, "version": "1.2.0"}, "package")) == []


def test_a_card_whose_data_is_nested_without_end_is_shown_without_it() -> None:
    data = base64.b64encode(("[" * 5000 + '"token=S3cr3t"' + "]" * 5000).encode()).decode()
    assert data not in redact_card(f'<script>window.__MF_DATA__["id"] = "{data}"</script>')


@pytest.mark.parametrize("value", [datetime.date(2026, 1, 2), decimal.Decimal("1.50"), np.bool_(True)])
def test_dates_and_numbers_of_other_kinds_are_parameters(value: Any) -> None:
    assert keep("value", value).param == str(value)


def test_a_tag_is_as_long_as_a_tag_may_be() -> None:
    record = replace(RECORD, tags={"long": "x" * 9000, "odd": "nul \0 and \udc80"})
    assert len(record.all_tags["long"]) == 5000
    assert record.all_tags["odd"] == "nul \\x00 and \\udc80"


def test_an_attempt_has_its_own_cards_and_not_those_of_the_next() -> None:
    def entry(field: str, value: str, at: int, attempt: int, kind: str = "") -> dict[str, Any]:
        named = {"field_name": field, "value": value, "type": kind or field, "tags": [f"attempt_id:{attempt}"]}
        return {**named, "ts_epoch": at}

    entries = (
        entry("attempt", "0", 1, 0),
        entry("one", "{}", 2, 0, "card-info"),
        entry("attempt", "1", 3, 1),
        entry("two", "{}", 4, 1, "card-info"),
        entry("attempt", "2", 5, 2),
    )
    attempts = TaskMetadata("Flow/1/start/1", 1, entries).attempts(alive=False, closed="")
    assert [(one.has_cards, one.cards_of_others) for one in attempts] == [
        (True, {"two"}),
        (True, {"one"}),
        (False, {"one", "two"}),
    ]


def test_own_pattern_is_hidden_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLPIPE_BRIDGE_SECRETS", r"ACME-\d+")
    assert redact("order ACME-42") == "order [redacted]"


@pytest.mark.parametrize("name", ["plain", "a[0]", "größe", "a_u5b_", "x%y", "_u5f_u5b_"])
def test_names_that_mlflow_refuses_are_mapped_and_back(name: str) -> None:
    assert to_python_name(to_mlflow_key(name)) == name


def test_file_names_are_short_plain_and_different() -> None:
    names = ["a" * 300, "a" * 299, "ä/ö", "../x"]
    made = [make_file_name(name) for name in names]
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


@pytest.mark.parametrize("value", [2**53 + 1, -(2**63), np.uint64(2**64 - 1)])
def test_whole_numbers_that_no_metric_holds_are_parameters(value: Any) -> None:
    assert keep("row", value).param == str(value)
    assert keep("row", 2**53).metric == 2**53


def test_a_table_whose_columns_mix_types_has_them_as_texts() -> None:
    frame = pd.DataFrame(
        {"rate": [1, "low", None], "set": [{"a": 1}, 2, "x"], "n": [1, 2, 3]}, index=[1, "b", 2.5]
    )
    kept = keep("log", frame)
    table = pq.read_table(io.BytesIO(kept.documents[0].content))
    assert table["rate"].to_pylist() == ["1", "low", None]
    assert table["set"].to_pylist() == ['{"a": 1}', "2", "x"]
    assert (table["n"].to_pylist(), table.to_pandas().index.tolist()) == ([1, 2, 3], ["1", "b", "2.5"])
    assert kept.lost == ("log.rate but as text", "log.set but as text", "log, its index, but as text")
    inside = keep("run", {"log": frame})
    assert [document.path for document in inside.documents][1] == "artifacts/run.log.parquet"
    assert inside.lost[0] == "run.log.rate but as text"


def test_a_verdict_of_numpy_is_one() -> None:
    assert describe_verdict({"passed": np.float64(0.5) > 0.4, "reason": "good"}) == "passed: good"


def test_a_dataclass_is_json_without_its_secrets() -> None:
    (document,) = keep("score", Score(0.5, "S3cr3t")).documents
    assert json.loads(document.content) == {"value": 0.5, "api_key": "[redacted]"}


def test_arrays_and_tables_inside_a_record_are_written_out_or_stand_beside_it() -> None:
    value = {
        "confusion": np.array([[5, 1], [0, 4]]),
        "days": np.array(["2026-11-28"], dtype="datetime64[D]"),
        "names": np.array(["a", None], dtype=object),
        "runs": [{"weights": np.arange(20_000.0)}],
        "folds": pd.DataFrame({"fold": [1, 2], "f1": [0.5, math.nan]}),
        "password": np.arange(20_000),
    }
    kept = keep("result", value)
    files = {document.path: document.content for document in kept.documents}
    assert json.loads(files["artifacts/result.json"]) == {
        "confusion": [[5, 1], [0, 4]],
        "days": ["2026-11-28"],
        "names": ["a", None],
        "runs": [{"weights": "<artifacts/result.runs.0.weights.npy>"}],
        "folds": "<artifacts/result.folds.parquet>",
        "password": HIDDEN,
    }
    assert np.load(io.BytesIO(files["artifacts/result.runs.0.weights.npy"])).sum() == sum(range(20_000))
    assert pq.read_table(io.BytesIO(files["artifacts/result.folds.parquet"])).column("fold").to_pylist() == [1, 2]
    assert json.loads(files["artifacts/result.folds.preview.json"])["data"] == [[1, 0.5], [2, None]]
    assert len(files) == 4
    assert kept.lost == ()


def test_what_is_in_no_file_is_named() -> None:
    kept = keep("result", {"model": object(), "inner": [1, b"ab"], "rows": 3})
    assert kept.lost == ("result.model <object>", "result.inner.1 <2 bytes>")
    many = keep("many", {str(at): np.zeros(20_000) for at in range(30)})
    assert (len(many.documents), len(many.lost)) == (21, 10)


def test_what_no_rule_knows_is_a_reference() -> None:
    assert keep("thing", object()).kind == "reference"
    assert keep("blob", b"\x00\x01").kind == "reference"


def test_a_run_is_called_by_its_data_and_the_score_that_decides() -> None:
    data = Dataset("tables/reviews", 3, "abc", 10, "data")
    totals = RunTotals(
        scores={"accuracy": 0.5, "macro_f1": 0.75},
        settings={"tuning/metric": "accuracy", "gate/metric": "macro_f1"},
        datasets=(data,),
        models=(Model("reviews", 2, "used"),),
    )
    at = 1_795_824_180_000
    assert name_run("TrainFlow", at, totals, {}) == "reviews v3 · 0.750 · 28 Nov 00:03"
    assert name_run("F", at, replace(totals, settings={}), {}) == "reviews v3 · 0.500 · 28 Nov 00:03"
    assert (
        name_run("F", at, replace(totals, scores={}), {"size": "1"}) == "reviews v3 · by reviews v2 · 28 Nov 00:03"
    )
    secret = {"api_token": HIDDEN, "file": "<file>", "data/rows": "3", "long": "x" * 99, "size": "1"}
    assert name_run("F", at, RunTotals(), secret) == "F · size=1 · 28 Nov 00:03"
    assert name_run("F" * 300, at, RunTotals(), {}).endswith("F · 28 Nov 00:03")
    assert len(name_run("F" * 300, at, RunTotals(), {})) < 250


def test_steps_and_tasks_sort_by_name_as_the_flow_has_them() -> None:
    steps = {f"step_{letter}": {} for letter in "zyxwvutsrqp"}
    attempts = [
        TaskAttempt(f"Flow/1/{step}/2", 0, 0, 9, "FINISHED", place=f"[{at}]") for step in steps for at in (2, 10)
    ]
    names = [name_attempt(attempt, steps, digits=3) for attempt in attempts]
    assert names == sorted(names)
    assert names[0] == "01 step_z[002]"


@pytest.mark.parametrize(
    ("error", "words"),
    [("ValueError: no", "**Failed in `train`** (task 2): `ValueError: no`."), ("", "(task 2), its log says why.")],
)
def test_the_first_line_of_a_failed_run_says_why_and_what_to_do(error: str, words: str) -> None:
    attempts = [
        AttemptSummary("start", "1", 0, "FINISHED", 0, 9, None),
        AttemptSummary("train", "2", 0, "FAILED", 0, 9, None, error=error),
    ]
    page = describe_run({"doc": "Train."}, attempts, resume="python flow.py resume --origin-run-id 1")
    first = page.splitlines()[0]
    assert words in first
    assert first.endswith("After a repair, `python flow.py resume --origin-run-id 1` goes on from there.")
