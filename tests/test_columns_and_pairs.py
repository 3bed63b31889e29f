"""Inputs that are no single text: pairs of texts, and columns of numbers and categories with a text."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from dlpipe.errors import SchemaMismatch, SettingError
from dlpipe.explain import ExplainSettings, explain_rows, register_explainer
from dlpipe.registry import log_and_register
from dlpipe.serving.log_rows import dump
from dlpipe.tables import TableVersion, read_table, write_table
from dlpipe.task import find_task, load_model, open_predictor
from dlpipe.task.tabular import TabularTraining
from dlpipe.task.texts import TextTraining
from dlpipe.training import fit

COLUMNS, PAIRS = find_task("tabular-classification"), find_task("text-pair-classification")
NOTES = ("a good film", "a bad film", "the soup was great", "the soup was awful")


def write_rows(folder: Path, columns: dict[str, object], labels: list[str]) -> TableVersion:
    rows = len(labels)
    splits = [(*["train"] * 6, *["valid"] * 2, *["test"] * 2)[at % 10] for at in range(rows)]
    ids = [f"{at:04}" for at in range(rows)]
    return write_table(folder / "rows", pa.table({"row_id": ids, **columns, "label": labels, "split": splits}))


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> TableVersion:
    """Rows whose label depends on a number, a category and a word."""
    draw = np.random.default_rng(0)
    age, town = draw.integers(18, 80, 600).astype(float), draw.choice(["Bern", "Bonn", "Oslo"], 600)
    note = draw.choice(NOTES, 600)
    points = (age > 50) * 2.0 + (town == "Bonn") * 1.5 + np.array(["good" in n or "great" in n for n in note]) * 2
    missing = draw.random(600) < 0.05
    columns = {
        "age": pa.array([None if gone else value for value, gone in zip(age, missing, strict=True)], pa.float64()),
        "town": pa.array([None if value == "Oslo" else value for value in town], pa.string()),
        "text": note,
    }
    return write_rows(tmp_path_factory.mktemp("people"), columns, ["yes" if n > 2.2 else "no" for n in points])


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> TableVersion:
    """Pairs whose label says whether both texts praise."""
    draw = random.Random(0)
    texts = [(draw.choice(NOTES), draw.choice(NOTES)) for _ in range(500)]
    good = ("good", "great")
    labels = ["both" if all(any(w in t for w in good) for t in pair) else "not" for pair in texts]
    columns = {name: [pair[at] for pair in texts] for at, name in enumerate(("text", "text_pair"))}
    return write_rows(tmp_path_factory.mktemp("pairs"), columns, labels)


@pytest.fixture(scope="module")
def tabular(tiny_backbone: Path) -> TabularTraining:
    return TabularTraining(backbone=str(tiny_backbone), threads=1, max_length=32)


@pytest.fixture(scope="module")
def of_people(people, tabular):
    return fit(people, task=COLUMNS, settings=tabular, say=None).model


def accuracy(predictor, table: TableVersion, task) -> float:
    test = read_table(table, split="test")
    rows = task.inputs.read_rows(test.select(list(task.inputs.find_columns(table))))
    decided = task.target.decide(predictor.predict_outputs(rows), predictor.card)
    return sum(own == true for own, true in zip(decided, test["label"].to_pylist(), strict=True)) / len(rows)


def test_a_model_learns_numbers_categories_and_texts(people, of_people) -> None:
    assert accuracy(open_predictor(of_people, threads=1), people, COLUMNS) > 0.9


def test_a_backbone_can_be_trained_with_the_columns(people, tabular) -> None:
    settings = dataclasses.replace(tabular, strategy="no_freeze", epochs=6, learning_rate=3e-3)
    model = fit(people, task=COLUMNS, settings=settings, say=None).model
    assert accuracy(open_predictor(model, threads=1), people, COLUMNS) > 0.8


@pytest.mark.parametrize(
    ("with_text", "layers", "idle"),
    [
        (True, 2, set()),
        (False, 2, {"backbone", "strategy", "max_length", "allow_download"}),
        (True, 0, {"width", "dropout"}),
    ],
)
def test_the_settings_of_a_training_are_those_that_its_rows_and_layers_look_at(
    with_text: bool, layers: int, idle: set[str], people, tabular, tmp_path: Path
) -> None:
    table = people if with_text else write_rows(tmp_path, {"age": [1.0] * 10}, ["yes", "no"] * 5)
    listed = COLUMNS.inputs.list_settings(dataclasses.replace(tabular, layers=layers), table)
    assert {field.name for field in dataclasses.fields(tabular)} - set(listed) == idle
    assert listed["batch_size"] == tabular.batch_size


def test_a_model_of_columns_is_the_same_from_its_files(of_people, tmp_path: Path) -> None:
    loaded = load_model(of_people.save(tmp_path / "model"))
    assert loaded.digest == of_people.digest
    rows = [{"age": 70, "town": "Bonn", "text": "a good film"}, {"age": None, "town": "Rome", "text": None}]
    outputs, again = (open_predictor(model, threads=1).predict_outputs(rows) for model in (of_people, loaded))
    np.testing.assert_array_equal(outputs, again)
    assert outputs[0, 1] > 0.9 > outputs[1, 1]


def test_the_same_columns_and_seed_give_the_same_weights(people, tabular) -> None:
    settings = dataclasses.replace(tabular, epochs=2)
    digest, again = (fit(people, task=COLUMNS, settings=settings, say=None).model.digest for _ in range(2))
    assert digest == again


def test_how_columns_are_scaled_counts_for_the_digest(of_people) -> None:
    card = json.loads(of_people.files["dlpipe.json"])
    card["decision"]["columns"]["numbers"][0]["mean"] += 1
    other = type(of_people)({**of_people.files, "dlpipe.json": json.dumps(card).encode()})
    assert other.digest != of_people.digest


@pytest.mark.parametrize(
    "given",
    [
        pd.DataFrame({"age": [70.0, np.nan], "town": ["Bonn", None], "text": ["a good film", "a bad film"]}),
        pa.table({"age": [70.0, None], "town": ["Bonn", None], "text": ["a good film", "a bad film"]}),
        {"age": [70.0, None], "town": ["Bonn", None], "text": ["a good film", "a bad film"]},
        [{"age": 70.0, "town": "Bonn", "text": "a good film"}, {"text": "a bad film"}],
    ],
)
def test_columns_are_read_from_whatever_holds_them(given, of_people) -> None:
    rows = COLUMNS.inputs.read_request(given, of_people.card)
    assert rows == [
        {"age": 70.0, "town": "Bonn", "text": "a good film"},
        {"age": None, "town": None, "text": "a bad film"},
    ]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([{"size": 3}], "none of the columns that the model reads (age, town, text)"),
        ([{"age": "old"}], "age = 'old' is no number"),
        (["a good film"], "a model over columns reads names"),
        ("a good film", "a model over columns reads names"),
    ],
)
def test_what_are_no_columns_is_refused(given, says, of_people) -> None:
    with pytest.raises(SettingError) as refused:
        COLUMNS.inputs.read_request(given, of_people.card)
    assert says in str(refused.value)


def test_a_table_that_lacks_a_column_of_the_model_is_refused(of_people, pairs) -> None:
    with pytest.raises(SchemaMismatch, match="lacks the columns 'age', 'town'"):
        COLUMNS.inputs.find_columns(pairs, of_people.card)


def test_a_table_with_words_where_a_model_reads_numbers_is_refused(of_people, tmp_path) -> None:
    columns = {"age": ["old", "young"], "town": ["Bonn", "Bern"], "text": ["so good", "so bad"]}
    with pytest.raises(SchemaMismatch, match=r"has string in the column 'age', where the model reads numbers"):
        COLUMNS.inputs.find_columns(write_rows(tmp_path, columns, ["yes", "no"]), of_people.card)


def test_a_flow_refuses_a_table_that_lacks_columns_when_it_pins_its_inputs(
    of_people, people, pairs, tmp_path, monkeypatch
) -> None:
    from dlpipe.flows.pinning import pin

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    rows = [{"age": 66.0, "town": "Bonn", "text": "a good film"}]
    version = log_and_register(of_people, name="people", example=rows, params={}, tags={})
    assert pin(version.uri, people.path, None) == (version, people)
    with pytest.raises(SchemaMismatch) as refused:
        pin(version.uri, pairs.path, None)
    (line,) = str(refused.value).splitlines()
    assert "lacks the columns 'age', 'town', which the model reads; its columns are: row_id, text" in line


@pytest.mark.parametrize("number", range(3))
def test_columns_and_words_explain_what_the_model_says(number: int, of_people, people) -> None:
    predictor = open_predictor(of_people, threads=1)
    rows = COLUMNS.inputs.read_rows(read_table(people, split="test").select(["age", "town", "text"]))
    (made,) = explain_rows(predictor, [("r", rows[number])], settings=ExplainSettings()).rows
    assert made.gap < 1e-4
    assert len(made.parts) == 2 + len(rows[number]["text"].split())


def test_a_registered_explainer_of_columns_reads_records(of_people, tmp_path, monkeypatch) -> None:
    import mlflow.pyfunc

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    rows = [{"age": 66.0, "town": "Bonn", "text": "a good film"}, {"age": None, "town": "Bern", "text": "awful"}]
    shared = {"example": rows, "challenger": False}
    registered = log_and_register(of_people, name="people", params={}, tags={}, **shared)
    explainer = register_explainer(registered, of_people, settings=ExplainSettings(), **shared)
    answers = mlflow.pyfunc.load_model(explainer.uri).predict(pd.DataFrame(rows)).to_dict("records")
    assert [list(answer["parts"]) for answer in answers] == [
        ["66", "Bonn", "a", "good", "film"],
        ["missing", "Bern", "awful"],
    ]
    for answer in answers:
        assert answer["base_value"] + sum(answer["attributions"]) == pytest.approx(answer["output"], abs=1e-4)


@pytest.mark.parametrize(("strategy", "listed"), [("no_freeze", set()), ("lora", {"lora_rank", "lora_alpha"})])
def test_the_settings_of_a_training_over_texts_are_those_of_its_strategy(
    strategy: str, listed: set[str], pairs
) -> None:
    of_strategies = {"lora_rank", "lora_alpha", "unfreeze_epoch", "unfreeze_modules"}
    found = PAIRS.inputs.list_settings(TextTraining(strategy=strategy), pairs)
    assert of_strategies & found.keys() == listed


def test_a_model_learns_what_two_texts_say_together(pairs, tiny_settings: TextTraining) -> None:
    settings = dataclasses.replace(tiny_settings, epochs=10, patience=10)
    model = fit(pairs, task=PAIRS, settings=settings, say=None).model
    predictor = open_predictor(model, threads=1)
    assert accuracy(predictor, pairs, PAIRS) > 0.9
    row = ("a good film", "the soup was great")
    (made,) = explain_rows(predictor, [("r", row)], settings=ExplainSettings()).rows
    assert made.gap < 1e-4
    assert len(made.parts) == 7
    fast = explain_rows(predictor, [("r", row)], settings=ExplainSettings(method="gradient", steps=200)).rows[0]
    np.testing.assert_allclose([fast.base, fast.output], [made.base, made.output], atol=1e-3)
    assert fast.columns == ("text",) * 3 + ("text_pair",) * 4
    # what both words decide together comes in one jump of the way, which no number of steps measures well
    assert set(fast.attributions[:, 0].argsort()[-2:]) == {1, 6}
    long = explain_rows(predictor, [("r", ("good " * 500, "a bad film"))], settings=ExplainSettings()).rows[0]
    assert not long.whole
    assert long.columns.count("text_pair") == 3
    assert long.columns.count("text") == predictor.max_length - 6  # three words of the other, three of its own
    assert long.gap < 1e-4


@pytest.mark.parametrize(
    "given",
    [
        [("a", "b"), ("c", "d")],
        {"text": ["a", "c"], "text_pair": ["b", "d"]},
        [{"text": "a", "text_pair": "b"}, {"text_pair": "d", "text": "c"}],
        pd.DataFrame({"text_pair": ["b", "d"], "id": [1, 2], "text": ["a", "c"]}),
        pa.table({"text": ["a", "c"], "text_pair": ["b", "d"]}),
    ],
)
def test_pairs_are_read_from_whatever_holds_them(given) -> None:
    assert PAIRS.inputs.read_request(given, {}) == [("a", "b"), ("c", "d")]


def test_one_pair_is_a_row() -> None:
    assert PAIRS.inputs.read_request(("a", "b"), {}) == [("a", "b")]
    assert PAIRS.inputs.read_request({"text": "a", "text_pair": None}, {}) == [None]


@pytest.mark.parametrize("given", ["a text", ["a", "b", "c"], [("a", 3)], {"text": ["a"]}, [("a", "b", "c")]])
def test_what_are_no_pairs_is_refused(given) -> None:
    with pytest.raises(SettingError, match="pair"):
        PAIRS.inputs.read_request(given, {})


def test_a_row_that_was_asked_is_read_back_from_its_json(of_people) -> None:
    card = open_predictor(of_people).card
    asked = COLUMNS.inputs.read_request([{"age": np.float64(31), "text": "a good film"}], card)
    again = json.loads(dump(COLUMNS.inputs.name_values(asked[0])))
    assert again == {"age": 31.0, "town": None, "text": "a good film"}
    assert COLUMNS.inputs.read_request([again], card) == asked
    (pair,) = PAIRS.inputs.read_request([("a | b", "c")], {})
    assert PAIRS.inputs.read_request([json.loads(dump(PAIRS.inputs.name_values(pair)))], {}) == [pair]


def test_plain_models_of_columns_and_pairs_learn(people, pairs) -> None:
    for task, table in ((COLUMNS, people), (PAIRS, pairs)):
        names = list(task.inputs.find_columns(table))
        train, test = (read_table(table, split=split) for split in ("train", "test"))
        rows, others = (task.inputs.read_rows(part.select(names)) for part in (train, test))
        fitted = task.fit_baseline(rows, train["label"].to_pylist(), seed=0)
        guess = np.array(fitted.labels)[fitted.predict_outputs(others).argmax(axis=1)]
        assert (guess == np.array(test["label"].to_pylist())).mean() > 0.7


def test_drift_of_columns_is_looked_at_column_by_column(people) -> None:
    rows = COLUMNS.inputs.read_rows(read_table(people).select(["age", "town", "text"]))
    series = {part.name: part for part in COLUMNS.inputs.make_drift_series(rows)}
    assert list(series) == ["age", "town", "text"]
    assert set(series["town"].values) == {"", "Bern", "Bonn"}
    assert {type(value) for value in series["age"].values} == {float}
