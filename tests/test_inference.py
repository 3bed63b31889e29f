"""Loading registered models, here and in a process without a network, and scoring tables."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from stores import new_store, untouched_environment

from dlpipe.errors import ModelNotFound, SettingError
from dlpipe.inference import load_predictor, predictions, texts_of
from dlpipe.registry import ModelVersion, log_and_register, promote
from dlpipe.task import open_predictor

TEXTS = ["the film was good", "awful plot and all", "what a superb score"]

# a process that can reach nothing: any attempt to connect is recorded and refused
FRESH = """
import json, socket, sys
attempts = []
def refuse(self, address, *more):
    attempts.append(str(address))
    raise OSError("no network")
socket.socket.connect = socket.socket.connect_ex = refuse
import mlflow.pyfunc
assert "dlpipe.inference" not in sys.modules
model = mlflow.pyfunc.load_model("models:/reviews@champion")
found = model.predict(json.loads(sys.argv[1]))
print(json.dumps([found.to_dict("records"), attempts]))
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with untouched_environment():
        yield new_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def version(store, tiny_model, tiny_table) -> ModelVersion:
    """The tiny model, registered and champion."""
    made = log_and_register(
        tiny_model,
        name="reviews",
        experiment="train",
        run_name="register",
        example=TEXTS[:2],
        params={"epochs": 3},
        metrics={"test_accuracy": 0.9},
        tags={"delta.table": tiny_table.path, "delta.version": str(tiny_table.version)},
    )
    return promote(made, verdict_passed=True).version


@pytest.fixture(scope="module")
def predictor(version):
    return load_predictor(version.uri)


def test_loaded_predictor_gives_the_probabilities_of_the_model(version, predictor, tiny_model):
    assert predictor.digest == version.digest == tiny_model.digest
    np.testing.assert_array_equal(predictor.predict_proba(TEXTS), open_predictor(tiny_model).predict_proba(TEXTS))


def test_fresh_process_without_a_network_loads_and_predicts(store, version, predictor, tmp_path):
    import os

    environ = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    environ |= {"MLFLOW_TRACKING_URI": store.uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(
        [sys.executable, "-c", FRESH, json.dumps(TEXTS)], cwd=tmp_path, env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    records, attempts = json.loads(done.stdout)
    assert attempts == []
    expected = predictions(predictor, TEXTS)
    assert [row["label"] for row in records] == expected["label"].tolist()
    np.testing.assert_allclose([row["probability"] for row in records], expected["probability"], atol=1e-6)
    assert "WARNING" not in done.stderr


@pytest.mark.parametrize(
    "given",
    [
        TEXTS,
        pd.Series(TEXTS),
        pd.Series(TEXTS, name="text"),
        pd.DataFrame({"text": TEXTS}),
        pd.DataFrame({"text": TEXTS, "row_id": ["a", "b", "c"]}),
        np.array(TEXTS),
    ],
    ids=["list", "series", "named series", "frame", "frame with more", "array"],
)
def test_pyfunc_takes_texts_in_every_usual_form(version, predictor, given):
    import mlflow.pyfunc

    found = mlflow.pyfunc.load_model(version.uri).predict(given)
    pd.testing.assert_frame_equal(found, predictions(predictor, TEXTS))


def test_output_has_label_probability_and_a_column_for_each_label(predictor):
    found = predictions(predictor, TEXTS)
    assert list(found) == ["label", "probability", "p_negative", "p_positive"]
    np.testing.assert_allclose(found["p_negative"] + found["p_positive"], 1, atol=1e-6)
    assert found["label"].tolist() == ["positive", "negative", "positive"]
    assert len(predictions(predictor, [])) == 0


def test_frame_whose_texts_do_not_come_first_is_refused_instead_of_scoring_ids():
    with pytest.raises(SettingError, match="must be the first column, named 'text'; got 'row_id'"):
        texts_of(pd.DataFrame({"row_id": ["a"]}))


def test_model_of_another_library_is_named_as_such(store, version):
    import mlflow.pyfunc
    import mlflow.sklearn

    client = store.client()
    run = client.create_run(store.experiment("foreign")).info.run_id
    client.create_registered_model("foreign")
    folder = f"{store.artifact_location}/foreign"
    mlflow.pyfunc.save_model(folder, loader_module="json", pip_requirements=["numpy"])
    client.create_model_version("foreign", folder, run_id=run)
    with pytest.raises(ModelNotFound, match="is not a dlpipe model"):
        load_predictor("foreign/1")
