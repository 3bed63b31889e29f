"""Loading registered models, here and in a process without a network, and scoring tables."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from packaging.utils import canonicalize_name
from stores import make_scores, new_store, untouched_environment

from dlpipe.errors import ModelNotFound, SettingError
from dlpipe.explain import ExplainSettings, explain_all, explain_table
from dlpipe.inference import load_predictor, predict_frame, score
from dlpipe.registry import ModelVersion, log_and_register, promote
from dlpipe.reproducing import compare_answers
from dlpipe.tables import read_table, table_at, write_table
from dlpipe.task import open_predictor
from dlpipe.task.texts.requests import read_texts

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
        scores=make_scores(accuracy=0.9),
        tags={"delta.table": tiny_table.path, "delta.version": str(tiny_table.version)},
    )
    return promote(made, verdict_passed=True).version


@pytest.fixture(scope="module")
def predictor(version):
    return load_predictor(version.uri)


def test_loaded_predictor_gives_the_probabilities_of_the_model(version, predictor, tiny_model):
    assert predictor.digest == version.digest == tiny_model.digest
    np.testing.assert_array_equal(
        predictor.predict_outputs(TEXTS), open_predictor(tiny_model).predict_outputs(TEXTS)
    )


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
    expected = predict_frame(predictor, TEXTS)
    assert [row["predicted"] for row in records] == expected["predicted"].tolist()
    np.testing.assert_allclose([row["probability"] for row in records], expected["probability"], atol=1e-6)
    assert "WARNING" not in done.stderr


@pytest.mark.parametrize(
    "given",
    [
        TEXTS,
        pd.Series(TEXTS),
        pd.Series(TEXTS, name="review"),
        pd.DataFrame({"text": TEXTS}),
        pd.DataFrame({"row_id": ["a", "b", "c"], "text": TEXTS}),
        pd.DataFrame({"review": TEXTS}),
        {"text": TEXTS},
        {"review": np.array(TEXTS)},
        [{"text": text} for text in TEXTS],
        np.array(TEXTS),
        pa.table({"row_id": ["a", "b", "c"], "text": TEXTS}),
        pa.record_batch({"review": TEXTS}),
    ],
    ids=[
        "list",
        "series",
        "named series",
        "frame",
        "with more",
        "one column",
        "dict",
        "arrays",
        "records",
        "array",
        "arrow",
        "arrow batch",
    ],
)
def test_pyfunc_takes_texts_in_every_usual_form(version, predictor, given):
    import mlflow.pyfunc

    found = mlflow.pyfunc.load_model(version.uri).predict(given)
    pd.testing.assert_frame_equal(found, predict_frame(predictor, TEXTS))


def test_output_has_label_probability_and_a_column_for_each_label(predictor):
    found = predict_frame(predictor, TEXTS)
    assert list(found) == ["predicted", "probability", "p_negative", "p_positive"]
    np.testing.assert_allclose(found["p_negative"] + found["p_positive"], 1, atol=1e-6)
    assert found["predicted"].tolist() == ["positive", "negative", "positive"]
    assert len(predict_frame(predictor, [])) == 0


@pytest.mark.parametrize("given", [{"row_id": ["a"]}, {"row_id": ["a"], "review": ["b"]}, {}])
def test_a_table_without_a_column_of_texts_is_refused_instead_of_scoring_ids(given):
    with pytest.raises(SettingError, match="must be in a column named 'text'; got "):
        read_texts(pd.DataFrame(given))


def test_two_columns_of_texts_are_refused_and_half_a_character_is_read():
    with pytest.raises(SettingError, match="2 columns are named 'text', of 2"):
        read_texts(pd.DataFrame([["a", "b"]], columns=["text", "text"]))
    assert read_texts(["\ud800x", None]) == ["?x", None]


MISSING = [None, float("nan"), np.nan, np.float32("nan"), pd.NA, pd.NaT]


@pytest.mark.parametrize("nothing", MISSING, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    "form", [list, pd.Series, lambda rows: np.array(rows, object), lambda rows: {"text": rows}, pd.DataFrame]
)
def test_a_missing_text_is_no_word_whatever_stands_for_it(form, nothing):
    rows = ["a", nothing, "nan"]
    given = pd.DataFrame({"text": pd.Series(rows, dtype=object)}) if form is pd.DataFrame else form(rows)
    assert read_texts(given) == ["a", None, "nan"]


@pytest.mark.parametrize("row", [3, 2.5, True, b"bytes", ["a", "b"], {"a": 1}])
def test_what_is_no_text_is_refused_by_its_row(row):
    with pytest.raises(SettingError, match=r"Row 1 is no text but an? "):
        read_texts(["a", row])


BODIES = [
    {"inputs": [TEXTS[0], None]},
    {"inputs": {"text": [TEXTS[0], None]}},
    {"instances": [{"text": TEXTS[0]}, {"text": None}]},
    {"dataframe_split": {"columns": ["text"], "data": [[TEXTS[0]], [None]]}},
    {"dataframe_records": [{"text": TEXTS[0]}, {"text": None}]},
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: next(iter(body)))
def test_a_null_in_json_is_answered_with_nothing(version, predictor, body):
    """By the function that MLflow's server calls for a request."""
    import mlflow.pyfunc
    from mlflow.pyfunc.scoring_server import invocations

    model = mlflow.pyfunc.load_model(version.uri)
    response = invocations(json.dumps(body), "application/json", model, model.metadata.get_input_schema())
    there, nothing = json.loads(response.response)["predictions"]
    assert there["predicted"] == predict_frame(predictor, TEXTS[:1])["predicted"][0]
    assert nothing.pop("predicted") is None
    assert all(np.isnan(share) for share in nothing.values())


def test_a_batch_of_missing_texts_alone_is_answered(predictor):
    found = predict_frame(predictor, [None, None])
    assert found.isna().all(axis=None)
    assert list(found) == ["predicted", "probability", "p_negative", "p_positive"]


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


# -- elsewhere -----------------------------------------------------------------------------------------------

BARE = """
import json, sys
sys.path[:0] = sys.argv[1:3]
import mlflow.pyfunc
model = mlflow.pyfunc.load_model(sys.argv[3])
import dlpipe
print(json.dumps([dlpipe.__file__, model.predict(["the film was good", None])["predicted"].tolist()]))
"""


def needed(lines: list[str]) -> set[str]:
    """Return the distributions that ``lines`` ask for, with those that they need in turn."""
    from packaging.requirements import Requirement

    found, left = set(), [Requirement(line).name for line in lines if not line.startswith(("-f", "dlpipe"))]
    while left:
        name = canonicalize_name(left.pop())
        if name in found or not (there := list(metadata.distributions(name=name))):
            continue
        found.add(name)
        asked = map(Requirement, there[0].requires or [])
        left += [one.name for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def test_a_model_loads_where_its_requirements_are_installed_and_nothing_else(version, store, tmp_path):
    """An environment made of links to what the requirements need, and of the wheel among the model's files."""
    root = Path(store.client().get_model_version_download_uri(version.name, str(version.version)))
    lines = (root / "requirements.txt").read_text().splitlines()
    packages, own, asked = tmp_path / "packages", tmp_path / "own", root / "of_dlpipe.txt"
    packages.mkdir()
    for name in needed(lines):
        for top in {
            file.parts[0] for file in metadata.files(name) or [] if file.parts[0] not in ("..", "__pycache__")
        }:
            if not (packages / top).exists():
                (packages / top).symlink_to(Path(metadata.distribution(name).locate_file(top)))
    asked.write_text("\n".join(line for line in lines if line.startswith(("-f", "dlpipe"))))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(own)]
    subprocess.run([*pip, "-r", str(asked)], check=True, cwd=tmp_path)
    command = [sys.executable, "-S", "-c", BARE, str(own), str(packages), str(root)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={"HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    place, labels = json.loads(done.stdout.splitlines()[-1])
    assert Path(place).is_relative_to(own)
    assert labels == ["positive", None]


# -- predictions computed again ----------------------------------------------------------------------------------


def test_predictions_computed_again_are_the_same_and_one_that_was_changed_is_told(
    version, predictor, tiny_table, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    score(predictor, tiny_table, model=version, target="scores", split=None, say=None)
    (same,) = compare_answers("scores", [version.uri])
    assert (same.outcome, same.rows, same.alike, same.left_out) == ("same", tiny_table.rows, tiny_table.rows, 0)
    assert same.largest < 1e-5
    rows = read_table(table_at("scores"))
    first = rows.slice(0, 1).to_pylist()[0]
    other = next(label for label in first["labels"] if label != first["predicted"])
    stranger = {**first, "row_id": "not-in-the-table"}
    changed = pa.Table.from_pylist([{**first, "predicted": other}, stranger], rows.schema)
    write_table("changed", pa.concat_tables([changed, rows.slice(1)]))
    (different,) = compare_answers("changed", [version.uri])
    assert (different.outcome, different.exit_code) == ("different", 4)
    assert (different.alike, different.rows, different.left_out) == (tiny_table.rows - 1, tiny_table.rows, 1)
    write_table(
        "gone",
        rows.set_column(rows.column_names.index("source_version"), "source_version", pa.array([99] * len(rows))),
    )
    (gone,) = compare_answers("gone", [version.uri])
    assert (gone.outcome, gone.exit_code) == ("not compared", 1)
    assert "has no version 99" in str(gone)


@pytest.mark.parametrize("method", ["partition", "gradient"])
def test_explanations_are_computed_again_by_the_settings_of_their_commits(
    version, predictor, tiny_table, method, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for number in (20, 60):  # by two settings, into one table
        settings = ExplainSettings(
            rows=4, mistakes=0, compared=0, method=method, max_evals=number, steps=number // 10
        )
        explain_table(predictor, tiny_table, model=version.uri, target="why", settings=settings)
    (same,) = compare_answers("why", [version.uri])
    assert (same.outcome, same.rows, same.alike, same.left_out, same.exit_code) == ("same", 4, 4, 0, 0)
    assert same.largest < 1e-5
    rows = read_table(table_at("why"))
    moved = pc.add(rows["attribution"], pa.array([0.01] + [0.0] * (len(rows) - 1)))
    key = {"model": version.uri, "source": tiny_table.path, "source_version": str(tiny_table.version)}
    key |= {"method": method, "max_evals": "60", "batch_rows": "64", "seed": "0", "steps": "6"}
    at = rows.column_names.index("attribution")
    write_table("moved", rows.set_column(at, "attribution", moved), key=key)
    (different,) = compare_answers("moved", [version.uri])
    assert (different.outcome, different.exit_code, different.rows) == ("different", 4, 4)
    assert different.alike < 4
    assert different.largest >= 0.0099
    write_table("untold", rows)
    (untold,) = compare_answers("untold", [version.uri])
    assert (untold.outcome, untold.exit_code) == ("not compared", 1)
    assert "no commit of untold@v0 says how they were computed" in str(untold)
    strangers = pa.array([f"x{row_id}" for row_id in rows["row_id"].to_pylist()])
    write_table("strangers", rows.set_column(rows.column_names.index("row_id"), "row_id", strangers), key=key)
    (strange,) = compare_answers("strangers", [version.uri])
    assert (strange.outcome, strange.left_out) == ("not compared", 4)
    assert "none of its rows is in" in str(strange)


def test_of_many_explained_rows_the_first_ones_are_explained_again(
    version, predictor, tiny_table, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dlpipe.reproducing.answers.EXPLAINED_AGAIN", 3)
    settings = ExplainSettings(max_evals=10, compared=0)
    explain_all(predictor, tiny_table, model=version.uri, target="why", split="train", settings=settings)
    explained = len(set(read_table(table_at("why"))["row_id"].to_pylist()))
    (same,) = compare_answers("why", [version.uri])
    assert (same.outcome, same.rows, same.left_out) == ("same", 3, explained - 3)
