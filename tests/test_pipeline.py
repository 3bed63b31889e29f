"""Multi-step inference: clean-up, language, cache and classifier as one model, registered, scored and served."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import requests
from stores import new_store, untouched_environment

from dlpipe.errors import ModelNotFound, SettingError
from dlpipe.inference import (
    Pipeline,
    PipelineSettings,
    load_pipeline,
    load_predictor,
    predict_frame,
    register_pipeline,
    score_with_pipeline,
)
from dlpipe.inference.cleaning import Cleaning, clean, strip_html
from dlpipe.inference.packing import list_outputs
from dlpipe.monitoring import make_predict
from dlpipe.registry import ModelVersion, log_and_register
from dlpipe.tables import history, read_table, write_table
from dlpipe.task import open_predictor

TEXTS = ["the film was good", "awful plot and all", "what a superb score"]
BAD_ROWS = [
    None,
    float("nan"),
    3,
    4.5,
    True,
    b"bytes",
    ["a"],
    "",
    "  \n",
    "<br />",
    "\ud800",
    "😀👍",
    "x" * 1_000_000,
]


class Counting:
    """A predictor that remembers what it was asked."""

    def __init__(self, predictor):
        self.predictor, self.card = predictor, predictor.card
        self.labels, self.digest = predictor.labels, predictor.digest
        self.batches: list[list[str]] = []

    def predict_outputs(self, texts):
        self.batches.append(list(texts))
        return self.predictor.predict_outputs(texts)


@pytest.fixture(scope="module")
def predictor(tiny_model):
    return open_predictor(tiny_model)


@pytest.fixture
def counting(predictor) -> Counting:
    return Counting(predictor)


@pytest.fixture
def pipeline(counting) -> Pipeline:
    return Pipeline(counting, settings=PipelineSettings(), model_version="models:/reviews/1")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with untouched_environment():
        yield new_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def classifier(store, tiny_model, tiny_table) -> ModelVersion:
    return log_and_register(
        tiny_model,
        name="reviews",
        example=TEXTS[:2],
        params={},
        tags={"delta.table": tiny_table.path, "delta.version": "0", "seed": "7"},
    )


@pytest.fixture(scope="module")
def registered(classifier) -> ModelVersion:
    return register_pipeline(classifier, example=TEXTS[:2])


# -- a batch -------------------------------------------------------------------------------------------------


def test_clean_texts_get_the_classifiers_own_answers(pipeline, predictor):
    found, expected = pipeline.predict(TEXTS), predict_frame(predictor, TEXTS)
    assert found["predicted"].tolist() == expected["predicted"].tolist()
    np.testing.assert_allclose(found["p_positive"], expected["p_positive"], atol=1e-6)
    assert set(found["model_version"]) == {"models:/reviews/1"}
    assert set(found["language"]) == {"en"}
    assert list(found) == [name for name, _ in list_outputs(pipeline.predictor.card)]


def test_a_batch_goes_to_the_classifier_as_one_batch_with_each_text_once(pipeline, counting):
    found = pipeline.predict([*TEXTS, None, TEXTS[0], f"<p>{TEXTS[0]}</p>"])
    assert counting.batches == [TEXTS]
    assert found["cached"].tolist() == [False, False, False, False, True, True]
    assert found["probability"][0] == found["probability"][4] == found["probability"][5]


def test_ten_thousand_equal_texts_are_one_text_for_the_classifier(pipeline, counting):
    found = pipeline.predict(TEXTS[:1] * 10_000)
    assert counting.batches == [TEXTS[:1]]
    assert len(found) == 10_000
    assert found["predicted"].nunique() == 1


def test_a_text_that_comes_again_is_answered_from_the_cache(pipeline, counting):
    first, again = pipeline.predict(TEXTS), pipeline.predict(TEXTS[::-1])
    assert len(counting.batches) == 1
    assert again["cached"].all()
    assert again["probability"].tolist() == first["probability"].tolist()[::-1]
    assert again["language_probability"].tolist() == first["language_probability"].tolist()[::-1]


def test_the_cache_holds_no_more_than_it_may_and_forgets_what_was_used_longest_ago(counting):
    pipeline = Pipeline(counting, settings=PipelineSettings(cache_rows=2), model_version="m")
    pipeline.predict(TEXTS[:2])
    pipeline.predict(TEXTS[:1])
    pipeline.predict(TEXTS[2:])
    counting.batches.clear()
    found = pipeline.predict(TEXTS)
    assert counting.batches == [[TEXTS[1]]]
    assert found["cached"].tolist() == [True, False, True]
    assert len(pipeline._cache) == 2


def test_without_a_cache_repeats_in_a_batch_still_cost_nothing(counting):
    pipeline = Pipeline(counting, settings=PipelineSettings(cache_rows=0), model_version="m")
    for _ in range(2):
        pipeline.predict(TEXTS[:1] * 3)
    assert counting.batches == [TEXTS[:1], TEXTS[:1]]


def test_many_threads_share_the_cache_and_get_the_right_answers(predictor):
    pipeline = Pipeline(predictor, settings=PipelineSettings(cache_rows=20), model_version="m")
    texts = [
        f"the {thing} was {word}"
        for thing in ("film", "plot", "cast", "room")
        for word in ("good", "awful", "dull")
    ]
    expected = predict_frame(predictor, texts)["p_positive"].to_numpy()
    wrong: list[float] = []

    def ask(seed: int) -> None:
        draw = np.random.default_rng(seed)
        for _ in range(40):
            rows = draw.integers(0, len(texts), 5)
            found = pipeline.predict([texts[row] for row in rows])["p_positive"].to_numpy()
            wrong.extend(abs(found - expected[rows])[abs(found - expected[rows]) > 1e-5])

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_bad_rows_get_a_row_that_says_so_and_leave_the_others_alone(pipeline, predictor):
    rows = [TEXTS[0], *BAD_ROWS, TEXTS[1]]
    found = pipeline.predict(pd.DataFrame({"text": pd.Series(rows, dtype=object)}))
    assert found["status"].tolist() == [
        "ok",
        *["empty"] * 2,
        *["not text"] * 5,
        *["empty"] * 3,
        *["no letters"] * 2,
        "cut",
        "ok",
    ]
    none = found["predicted"].isna()
    assert none.tolist() == [status in ("empty", "not text") for status in found["status"]]
    assert found.loc[none, ["probability", "p_positive"]].isna().all(axis=None)
    assert not found["cached"].any()
    assert found["predicted"].iloc[[0, -1]].tolist() == predict_frame(predictor, TEXTS[:2])["predicted"].tolist()


def test_a_batch_of_bad_rows_alone_and_an_empty_batch_go_through(pipeline, counting):
    assert pipeline.predict([None, 3])["status"].tolist() == ["empty", "not text"]
    empty = pipeline.predict([])
    assert list(empty) == [name for name, _ in list_outputs(pipeline.predictor.card)]
    assert len(empty) == 0
    assert counting.batches == []


def test_shares_of_the_time_add_up_to_the_batchs_stages(pipeline):
    pipeline.predict(TEXTS[:1])
    found = pipeline.predict([*TEXTS, None])
    stages = found[["batch_clean_ms", "batch_language_ms", "batch_classify_ms"]]
    assert (stages.nunique() == 1).all()
    assert found["row_ms"].sum() == pytest.approx(stages.iloc[0].sum())
    assert found["row_ms"][0] == found["row_ms"][3] < found["row_ms"][1]


# -- clean-up and language -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("One.<br /><br />Two", "One. Two"),
        ("<p class='x'>A &quot;fine&quot; film</p>", 'A "fine" film'),
        ("a<script>var x = '<b>';</script> b<style>p{}</style><!-- c -->", "a b"),
        ("&lt;b&gt; is a tag, 3 < 4 and 5 > 2", "<b> is a tag, 3 < 4 and 5 > 2"),
        ("cafÃ© &amp; crÃ¨me", "café & crème"),
        ("bell\x07 soft\u00adhyphen \ufeffmark\r\n\ttab", "bell softhyphen mark tab"),
        ("👩‍👩‍👧 stays, “so” do quotes", "👩‍👩‍👧 stays, “so” do quotes"),
    ],
)
def test_texts_are_cleaned(given, expected):
    assert clean(given, Cleaning()) == (expected, "ok")


def test_each_step_of_the_clean_up_can_be_left_out():
    given = "cafÃ© <b>x</b>\x07"
    assert clean(given, Cleaning(False, False, False))[0] == given
    assert clean(given, Cleaning(strip_html=False))[0] == "café <b>x</b>"
    assert clean(given, Cleaning(repair_encoding=False))[0] == "cafÃ© x"


@pytest.mark.parametrize("piece", ["<script", "<!--", "<", "<a", "&", "</", "<script></script>", "Ã©"])
def test_cleaning_takes_no_longer_than_the_text(piece):
    started = time.perf_counter()
    strip_html(piece * (1_000_000 // len(piece)))
    clean(piece * (100_000 // len(piece)), Cleaning())
    assert time.perf_counter() - started < 3


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("I loved every minute of it.", "en"),
        ("Le film était superbe, vraiment.", "fr"),
        ("Der Film war leider ziemlich schlecht.", "de"),
        ("映画は素晴らしかったです", "ja"),
        ("ok", "und"),
        ("1234567890 12345", "und"),
    ],
)
def test_languages_are_told_and_short_texts_are_undetermined(pipeline, text, code):
    (found,) = pipeline.predict([text]).itertuples()
    assert found.language == code
    assert 0 <= found.language_probability <= 1


def test_a_text_in_another_language_than_expected_has_a_status(counting):
    settings = PipelineSettings(languages=("en", "fr"), expected_languages=("en",))
    pipeline = Pipeline(counting, settings=settings, model_version="m")
    found = pipeline.predict(["Le film était superbe, vraiment.", "The film was superb.", "ok"])
    assert found["status"].tolist() == ["other language", "ok", "ok"]
    assert found["predicted"].notna().all()


def test_a_language_that_nobody_can_detect_is_refused_with_those_that_can(counting):
    with pytest.raises(SettingError, match=r"cannot be detected: xx\. Known: .*en.*"):
        Pipeline(counting, settings=PipelineSettings(languages=("en", "xx")), model_version="m")


# -- in the registry -----------------------------------------------------------------------------------------


def test_the_same_classifier_and_settings_are_the_same_version(classifier, registered):
    assert registered.uri == "models:/reviews-pipeline/1"
    assert register_pipeline(classifier).version == 1
    other = register_pipeline(classifier, settings=PipelineSettings(strip_html=False))
    assert other.version == 2
    assert other.digest != registered.digest
    assert registered.tags["dlpipe.classifier"] == classifier.uri
    assert {name: registered.tags[name] for name in ("delta.table", "seed")} == {
        name: classifier.tags[name] for name in ("delta.table", "seed")
    }


def test_mlflow_lets_bad_rows_through(registered):
    import mlflow.pyfunc

    model = mlflow.pyfunc.load_model(registered.uri)
    assert model.predict([1, 2])["status"].tolist() == ["not text"] * 2
    assert model.predict(pd.DataFrame({"text": [None, None]}))["status"].tolist() == ["empty"] * 2
    assert model.predict(pd.DataFrame({"text": [TEXTS[0], 3, None]}))["status"].tolist() == [
        "ok",
        "not text",
        "empty",
    ]


def test_pipelines_and_classifiers_are_not_taken_for_each_other(classifier, registered):
    with pytest.raises(ModelNotFound, match=r"of the kind 'pipeline'; its classifier is models:/reviews/1\."):
        load_predictor(registered.uri)
    with pytest.raises(ModelNotFound, match="is not a dlpipe pipeline"):
        load_pipeline(classifier.uri)


def test_a_pipeline_scores_a_table_in_one_commit_and_only_once(registered, tmp_path):
    texts = [*TEXTS, "", TEXTS[0]]
    source = write_table(tmp_path / "t", pa.table({"row_id": list("abcde"), "text": [*texts[:4], texts[4]]}))
    pipeline, target = load_pipeline(registered.uri), str(tmp_path / "answers")
    done = score_with_pipeline(pipeline, source, model=registered, target=target, split=None)
    rows = read_table(done.table).to_pylist()
    assert (done.rows, done.new_rows, len(history(target))) == (5, 5, 1)
    assert [row["row_id"] for row in rows] == list("abcde")
    assert [row["predicted"] for row in rows] == ["positive", "negative", "positive", None, "positive"]
    assert [row["status"] for row in rows] == ["ok", "ok", "ok", "empty", "ok"]
    assert [row["cached"] for row in rows] == [False, False, False, False, True]
    assert rows[3]["probability"] is rows[3]["probabilities"] is None
    assert rows[0]["model_version"] == "models:/reviews/1"
    assert rows[0]["pipeline_version"] == registered.uri
    again = score_with_pipeline(pipeline, source, model=registered, target=target, split=None)
    assert (again.new_rows, len(history(target))) == (0, 1)


# -- served --------------------------------------------------------------------------------------------------


@contextmanager
def served(uri: str, environ: dict[str, str], log: Path) -> Iterator[str]:
    """Yield the address of ``mlflow models serve`` on loopback, ended with all its processes."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as out:
        command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", uri, *options]
        server = subprocess.Popen(command, env=environ, stdout=out, stderr=out, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 90
        while not answers(f"{address}/ping"):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(server.pid, 9)
        server.wait()


def answers(address: str) -> bool:
    try:
        return requests.get(address, timeout=2).ok
    except requests.ConnectionError:
        return False


@pytest.mark.slow
def test_mlflow_serves_a_pipeline_a_batch_a_call(store, registered, tmp_path):
    environ = os.environ | {
        "MLFLOW_TRACKING_URI": store.uri,
        "PATH": f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}",
    }
    batch = [TEXTS[0], f"<p>{TEXTS[1]}</p>", None, 3, "", "😀", "word " * 200_000]
    with served(registered.uri, environ, tmp_path / "log") as address:
        for body in (
            {"inputs": batch},
            {"dataframe_split": {"columns": ["text"], "data": [[row] for row in batch]}},
            {"dataframe_records": [{"text": row} for row in batch]},
        ):
            response = requests.post(f"{address}/invocations", json=body, timeout=60)
            assert response.status_code == 200, response.text
            found = response.json()["predictions"]
            assert [row["status"] for row in found] == [
                "ok",
                "ok",
                "empty",
                "not text",
                "empty",
                "no letters",
                "cut",
            ]
            assert [row["predicted"] for row in found[:3]] == ["positive", "negative", None]
        assert [row["cached"] for row in found] == [True, True, False, False, False, True, True]


def test_a_pipeline_predicts_rows_for_the_monitor_and_none_that_it_cannot_read(registered):
    readable, empty = make_predict(registered)([TEXTS[0], ""]).to_pylist()
    assert readable["predicted"] in readable["labels"]
    assert set(empty.values()) == {None}
