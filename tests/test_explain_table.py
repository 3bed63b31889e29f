"""Whole tables in slices, killed and gone on; the explainer as a model."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from test_explain import WordList

from dlpipe.errors import ModelNotFound, NoRows, SchemaMismatch
from dlpipe.explain import (
    ExplainSettings,
    explain_all,
    explain_rows,
    explain_table,
    make_row_figure,
    register_explainer,
)
from dlpipe.explain.pyfunc import ExplainerModel
from dlpipe.explain.slices import SliceExplainer
from dlpipe.inference import is_pipeline, load_predictor
from dlpipe.parts import cut_slices
from dlpipe.registry import log_and_register
from dlpipe.tables import history, read_table, table_at, write_table
from dlpipe.task import open_predictor
from dlpipe.tracking import open_store

SETTINGS = ExplainSettings(max_evals=30)
NAMES = {"model": "models:/reviews/3"}


@pytest.fixture
def source(tmp_path):
    """300 rows, 200 of them in the test split, of which 20 are the same."""
    rows = [(f"id{at}", f"so good number {at} and dull" if at % 10 else "just the same") for at in range(300)]
    splits = ["train" if at % 3 == 0 else "test" for at in range(300)]
    columns = {"row_id": [row for row, _ in rows], "text": [text for _, text in rows], "split": splits}
    return write_table(tmp_path / "reviews", pa.table(columns))


@pytest.mark.parametrize("explain", [explain_all, explain_table])
def test_a_table_with_other_columns_is_refused_before_anything_is_computed(explain, source, tmp_path):
    target = str(tmp_path / "explanations")
    explain_all(WordList(), source, target=target, settings=SETTINGS, **NAMES)
    kept = read_table(table_at(target))
    older = kept.rename_columns(["label" if name == "output_name" else name for name in kept.column_names])
    before = write_table(tmp_path / "older", older)
    with pytest.raises(SchemaMismatch, match=r"has the columns .*label.* the rows have .*output_name"):
        explain(None, source, target=before.path, settings=SETTINGS, **NAMES)
    assert table_at(before.path) == before


def test_every_row_of_a_split_is_explained_in_one_commit(source, tmp_path):
    target = str(tmp_path / "explanations")
    done = explain_all(WordList(), source, target=target, settings=SETTINGS, **NAMES)
    assert (done.rows, done.new_rows, done.table.version) == (200, 200, 0)
    table = read_table(done.table)
    expected = read_table(source, split="test")
    assert list(dict.fromkeys(table["row_id"].to_pylist())) == expected["row_id"].to_pylist()
    rows = list(zip(expected["row_id"].to_pylist(), expected["text"].to_pylist(), strict=True))
    made = explain_rows(WordList(), rows, settings=SETTINGS)
    assert table.equals(made.to_table(model="models:/reviews/3", source=source))
    assert not list(Path(target).glob("_staged/*"))
    assert [row.row_id for row in done.sample.rows] == expected["row_id"].to_pylist()[: SETTINGS.rows]


def test_a_row_whose_text_is_missing_has_no_words_and_leaves_the_others_alone(tmp_path):
    columns = {"row_id": ["a", "b"], "text": pa.array(["so good", None]), "split": ["test", "test"]}
    source = write_table(tmp_path / "holes", pa.table(columns))
    done = explain_all(WordList(), source, target=str(tmp_path / "all"), settings=SETTINGS, **NAMES)
    made, _ = explain_table(WordList(), source, target=str(tmp_path / "some"), settings=SETTINGS, **NAMES)
    assert [len(row.parts) for row in done.sample.rows] == [len(row.parts) for row in made.rows] == [2, 0]
    assert set(read_table(done.table)["row_id"].to_pylist()) == {"a"}


def test_a_sample_is_drawn_from_the_rows_that_are_named(source, tmp_path):
    names, target = [f"id{at}" for at in (3, 6, 9, 299)], str(tmp_path / "explanations")
    options = {"target": target, "settings": ExplainSettings(max_evals=30, rows=2), **NAMES}
    made, table = explain_table(WordList(), source, among=names, **options)
    assert len(made.rows) == 2
    assert {row.row_id for row in made.rows} <= set(names)
    assert set(read_table(table)["row_id"].to_pylist()) == {row.row_id for row in made.rows}
    assert explain_table(WordList(), source, among=names, **options)[1] == table
    nothing, empty = explain_table(WordList(), source, among=[], **options)
    assert (nothing.rows, empty.rows) == ((), table.rows)


def test_a_row_of_the_table_names_model_source_and_method(source, tmp_path):
    done = explain_all(WordList(), source, target=str(tmp_path / "e"), settings=SETTINGS, split=None, **NAMES)
    row = read_table(done.table).to_pylist()[0]
    assert row["model_version"] == "models:/reviews/3"
    assert (row["source"], row["source_version"], row["method"]) == (source.path, 0, "partition")
    assert done.rows == 300


def test_explaining_again_makes_no_new_rows_and_other_settings_do(source, tmp_path):
    target = str(tmp_path / "explanations")
    first = explain_all(WordList(), source, target=target, settings=SETTINGS, **NAMES)
    again = explain_all(WordList(), source, target=target, settings=SETTINGS, **NAMES)
    assert (again.new_rows, again.rows, again.table.version) == (0, 200, first.table.version)
    other = explain_all(WordList(), source, target=target, settings=ExplainSettings(max_evals=20), **NAMES)
    assert (other.new_rows, other.table.version) == (200, 1)


def test_where_there_is_no_row_to_explain_it_is_said_and_nothing_is_committed(source, tmp_path):
    options = {"target": str(tmp_path / "e"), "settings": SETTINGS, **NAMES}
    with pytest.raises(NoRows, match=r"has no row in its 'valid' split: 100 in train, 200 in test\."):
        explain_all(WordList(), source, split="valid", **options)
    rows = {"row_id": ["a"], "text": ["good"], "split": pa.nulls(1, pa.string())}
    bare = write_table(tmp_path / "letters", pa.table(rows))
    with pytest.raises(NoRows, match=r"'letters@v0' has no row in its 'test' split: 1 in no split"):
        explain_table(WordList(), bare, **options)
    empty = write_table(tmp_path / "empty", pa.table(rows).slice(0, 0))
    with pytest.raises(NoRows, match="'empty@v0' has no rows"):
        explain_all(WordList(), empty, split=None, **options)
    assert not (tmp_path / "e").exists()


def test_slices_can_be_explained_by_other_processes_in_any_order(source, tmp_path):
    def backwards(explain, slices):
        for piece in reversed(slices):
            yield pickle.loads(pickle.dumps(explain))(pickle.loads(pickle.dumps(piece)))

    here = explain_all(WordList(), source, target=str(tmp_path / "a"), settings=SETTINGS, **NAMES)
    there = explain_all(WordList(), source, target=str(tmp_path / "b"), settings=SETTINGS, each=backwards, **NAMES)
    assert read_table(here.table).equals(read_table(there.table))


def test_an_explainer_of_slices_with_a_network_can_be_pickled(tiny_model, tiny_table, tmp_path):
    slices, cut = cut_slices(tiny_table, "test", rows=64)
    made = SliceExplainer(
        open_predictor(tiny_model), tiny_table, "models:/a/1", str(tmp_path / "e"), SETTINGS, {"a": "b"}, cut
    )
    assert pickle.loads(pickle.dumps(made))(slices[0]) == slices[0].rows


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[3])
import dlpipe.explain.table_explaining as table_explaining
from test_explain import WordList
from dlpipe.explain import ExplainSettings, explain_all
from dlpipe.tables import table_at
table_explaining.SLICE_ROWS = 16
class Slow(WordList):
    def predict_outputs(self, texts):
        time.sleep(0.03)
        return super().predict_outputs(texts)
done = explain_all(Slow(), table_at(sys.argv[1]), model="models:/reviews/3", target=sys.argv[2],
                   settings=ExplainSettings(max_evals=30), say=None)
print(done.new_rows, done.rows)
"""


def test_killed_explaining_goes_on_after_its_last_slice_and_ends_with_the_same_rows(source, tmp_path):
    target = tmp_path / "explanations"
    command = [sys.executable, "-c", KILLED, source.path, str(target), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while len(list(target.glob("_staged/*.parquet"))) < 3:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert not list(target.glob("_delta_log/*"))
    new, rows = map(int, subprocess.run(command, capture_output=True, check=True).stdout.split())
    assert rows == 200
    assert 0 < new <= 200 - 3 * 16
    undisturbed = explain_all(WordList(), source, target=str(tmp_path / "other"), settings=SETTINGS, **NAMES)
    assert read_table(table_at(str(target))).equals(read_table(undisturbed.table))
    assert len(history(str(target))) == 1
    assert not list(target.glob("_staged/*"))


def test_progress_is_told_in_rows_a_second(source, tmp_path, capsys):
    explain_all(WordList(), source, target=str(tmp_path / "e"), settings=SETTINGS, **NAMES)
    assert re.search(r"explaining \S+@v0: 200 rows in [\d.,]+ s, [\d.,]+ rows/s\n", capsys.readouterr().out)


def test_a_sample_says_how_far_the_methods_agree(tiny_model, tiny_table, tmp_path):
    settings = ExplainSettings(rows=5, compared=4, max_evals=40)
    made, kept = explain_table(
        open_predictor(tiny_model), tiny_table, model="models:/a/1", target=str(tmp_path / "e"), settings=settings
    )
    assert made.agreement is not None
    assert made.agreement.rows <= 4
    assert read_table(kept).num_rows == sum(len(row.parts) for row in made.rows) * 2
    fast, _ = explain_table(
        open_predictor(tiny_model),
        tiny_table,
        model="models:/a/1",
        target=str(tmp_path / "e"),
        settings=ExplainSettings(rows=5, method="gradient"),
    )
    assert fast.method == "gradient"
    assert set(read_table(table_at(str(tmp_path / "e")))["method"].to_pylist()) == {"partition", "gradient"}
    assert make_row_figure(fast.rows[0])


@pytest.fixture
def classifier(tiny_model, tmp_path, monkeypatch):
    """The tiny model, registered with its lineage."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    tags = {"delta.table": "reviews", "delta.version": "0", "git.commit": "abc", "seed": "1"}
    return log_and_register(tiny_model, name="reviews", example=["a lovely film"], params={}, tags=tags)


def test_the_same_weights_and_settings_are_the_same_explainer(tiny_model, classifier):
    def register(**settings):
        given = ExplainSettings(**settings)
        return register_explainer(classifier, tiny_model, settings=given, example=["a lovely film"])

    made, again, other = register(), register(), register(max_evals=40)
    assert (made.uri, again.version, other.version) == ("models:/reviews-explainer/1", 1, 2)
    assert made.aliases == ("challenger",)
    assert made.tags["delta.table"] == "reviews"
    assert (made.tags["git.commit"], made.tags["seed"]) == ("abc", "1")
    assert not is_pipeline(made)
    with pytest.raises(ModelNotFound, match=r"of the kind 'explainer'; its classifier is models:/reviews/1\."):
        load_predictor(made.uri)


def test_a_registered_explainer_explains_in_a_fresh_process(tiny_model, classifier, tmp_path):
    model = ExplainerModel(tiny_model, ExplainSettings(max_evals=40))
    version = register_explainer(classifier, tiny_model, settings=model.settings, example=["a lovely film"])
    assert version.digest == model.digest != tiny_model.digest
    text = "the film was awful and dull"
    program = (
        "import json, mlflow.pyfunc, sys\n"
        f"model = mlflow.pyfunc.load_model({version.uri!r})\n"
        "from mlflow.pyfunc.scoring_server import predictions_to_json\n"
        "import io\n"
        "for params in (None, {'method': 'gradient'}):\n"
        f"    out = io.StringIO(); predictions_to_json(model.predict([{text!r}, ''], params=params), out)\n"
        "    print(out.getvalue())\n"
        "print(json.dumps(model.metadata.signature.outputs.to_dict()))\n"
        "print('shap' in sys.modules)\n"
    )
    environment = {**os.environ, "MLFLOW_TRACKING_URI": open_store().uri}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    exact, fast, signature, shap_loaded = done.stdout.splitlines()
    (row, empty) = json.loads(exact)["predictions"]
    (mine,) = explain_rows(open_predictor(tiny_model), [("a", text)], settings=model.settings).rows
    column = mine.highest
    assert (row["predicted"], row["parts"]) == (mine.predicted, text.split())
    np.testing.assert_allclose(row["attributions"], mine.attributions[:, column], atol=1e-6)
    assert row["base_value"] + sum(row["attributions"]) == pytest.approx(row["output"], abs=1e-4)
    assert (empty["parts"], empty["attributions"]) == ([], [])
    assert json.loads(fast)["predictions"][0]["attributions"] != row["attributions"]
    kinds = {column["name"]: column["type"] for column in json.loads(signature)}
    assert kinds["parts"] == kinds["attributions"] == "array"
    assert shap_loaded == "False"
