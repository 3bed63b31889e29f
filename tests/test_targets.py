"""Targets that are no classes: several labels a row, and numbers, from the training to what is predicted."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dlpipe.tables import TableVersion, read_table, write_table
from dlpipe.task import find_task, open_predictor
from dlpipe.task.labels.thresholds import best_thresholds
from dlpipe.task.numbers.intervals import conformal_halfwidth
from dlpipe.task.texts import TextTraining
from dlpipe.training import fit

WORDS = {"good": 2.0, "great": 3.0, "bad": -2.0, "awful": -3.0, "film": 0.5, "soup": -0.5}


def write_rows(folder: Path, kind: pa.DataType, rows: list[tuple[str, object]]) -> TableVersion:
    """Write rows into a table with their labels; of ten rows six train, two choose and two test."""
    splits = [
        ("train", "valid", "test")[max(0, at % 10 - 5) // 2 if at % 10 > 5 else 0] for at in range(len(rows))
    ]
    columns = {
        "row_id": [f"{at:04}" for at in range(len(rows))],
        "text": [text for text, _ in rows],
        "label": pa.array([label for _, label in rows], kind),
        "split": splits,
    }
    return write_table(folder / "rows", pa.table(columns))


def draw_texts(count: int) -> list[list[str]]:
    draw = random.Random(0)
    return [draw.sample(list(WORDS), draw.randint(1, 3)) for _ in range(count)]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> TableVersion:
    """Texts of a few words, whose labels are those of the words."""
    rows = [(f"the {' '.join(words)}", sorted({*words} & {"good", "bad", "film"})) for words in draw_texts(400)]
    return write_rows(tmp_path_factory.mktemp("labels"), pa.list_(pa.string()), rows)


@pytest.fixture(scope="module")
def numbered(tmp_path_factory) -> TableVersion:
    """Texts of a few words, whose number is the sum of theirs."""
    rows = [(f"the {' '.join(words)}", 100 + 10 * sum(WORDS[word] for word in words)) for words in draw_texts(400)]
    return write_rows(tmp_path_factory.mktemp("numbers"), pa.float64(), rows)


def test_a_model_of_labels_learns_them_and_its_thresholds(labelled, tiny_settings: TextTraining) -> None:
    task = find_task("text-multilabel")
    settings = dataclasses.replace(tiny_settings, epochs=12, patience=12)
    fitted = fit(labelled, task=task, settings=settings, say=None)
    predictor = open_predictor(fitted.model, threads=1)
    test = read_table(labelled, split="test")
    frame = task.target.make_frame(predictor.predict_outputs(test["text"].to_pylist()), predictor.card)
    assert predictor.labels == ("bad", "film", "good")
    assert set(predictor.card["decision"]["thresholds"]) == {"bad", "film", "good"}
    right = sum(given == truth for given, truth in zip(frame["predicted"], test["label"].to_pylist(), strict=True))
    assert right > 0.9 * len(frame)
    assert any(not given for given in frame["predicted"])


def test_a_model_of_numbers_learns_them_and_how_far_it_is_off(numbered, tiny_settings: TextTraining) -> None:
    task = find_task("text-regression")
    settings = dataclasses.replace(tiny_settings, epochs=12, patience=12)
    fitted = fit(numbered, task=task, settings=settings, say=None)
    predictor = open_predictor(fitted.model, threads=1)
    test = read_table(numbered, split="test")
    frame = task.target.make_frame(predictor.predict_outputs(test["text"].to_pylist()), predictor.card)
    truth = test["label"].to_numpy()
    errors = np.abs(frame["predicted"].to_numpy() - truth)
    assert errors.mean() < 0.2 * np.abs(truth - truth.mean()).mean()
    held = ((frame["low"] <= truth) & (truth <= frame["high"])).mean()
    assert 0.75 <= held <= 1.0
    assert fitted.best.score == fitted.best.scores["val_r2"] > 0.9


@pytest.mark.parametrize("task", ["text-multilabel", "text-regression"])
def test_what_decides_counts_for_the_digest(task: str, labelled, numbered, tiny_settings: TextTraining) -> None:
    table = labelled if task == "text-multilabel" else numbered
    model = fit(table, task=find_task(task), settings=dataclasses.replace(tiny_settings, epochs=1), say=None).model
    other = type(model)({**model.files, "dlpipe.json": model.files["dlpipe.json"].replace(b"0.", b"0.9")})
    assert other.card["decision"] != model.card["decision"]
    assert other.digest != model.digest


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_is_better_than_the_best(seed: int) -> None:
    from sklearn.metrics import f1_score

    draw = np.random.default_rng(seed)
    truth = (draw.random((60, 3)) < (0.5, 0.1, 0.9)).astype(np.float32)
    outputs = np.round(np.clip(truth * 0.3 + draw.random((60, 3)) * 0.7, 0, 1), 2)
    thresholds, f1 = best_thresholds(outputs, truth)
    for label in range(3):
        mine = f1_score(truth[:, label], outputs[:, label] >= thresholds[label])
        others = [f1_score(truth[:, label], outputs[:, label] >= cut) for cut in np.unique(outputs[:, label])]
        assert mine == pytest.approx(f1[label]) == pytest.approx(max(others))


def test_a_label_that_no_row_has_is_given_from_a_half_on() -> None:
    thresholds, f1 = best_thresholds(np.array([[0.2], [0.7]]), np.zeros((2, 1)))
    assert (thresholds.tolist(), f1.tolist()) == ([0.5], [0.0])


def test_intervals_hold_the_share_of_rows_that_they_promise() -> None:
    draw = np.random.default_rng(0)
    held = [
        np.mean(
            np.abs(draw.standard_t(3, 500)) <= conformal_halfwidth(np.abs(draw.standard_t(3, 99)), coverage=0.9)
        )
        for _ in range(200)
    ]
    assert 0.88 < np.mean(held) < 0.92


def test_too_few_errors_give_the_largest() -> None:
    assert conformal_halfwidth(np.array([3.0, 1.0]), coverage=0.9) == 3.0


def test_guessing_labels_is_what_always_giving_each_gives() -> None:
    from sklearn.metrics import f1_score

    truth = (np.random.default_rng(0).random((200, 3)) < (0.5, 0.1, 0.9)).astype(np.float32)
    chance = find_task("text-multilabel").target.chance(truth)
    assert chance.guess == pytest.approx(f1_score(truth, np.ones_like(truth), average="macro"))
    assert chance.highest_guess() > chance.guess


@pytest.mark.parametrize(
    ("task", "labels"),
    [("text-multilabel", [["a"], ["b"], ["a", "b"], []] * 10), ("text-regression", [1.0, 2.0, 3.0, 2.5] * 10)],
)
def test_baselines_learn_what_words_say(task: str, labels: list[object]) -> None:
    texts = ["so good", "so bad", "good and bad", "soup"] * 10
    fitted = find_task(task).fit_baseline(texts, labels, seed=0)
    outputs = fitted.predict_outputs(["so good", "so bad"])
    assert outputs[0, 0] != pytest.approx(outputs[1, 0])
    assert (outputs[0, 0] > outputs[1, 0]) == (task == "text-multilabel")
