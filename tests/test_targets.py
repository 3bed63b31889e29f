"""Targets that are no classes: several labels a row, and numbers, from the training to what is predicted."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dlpipe.evaluation import judge
from dlpipe.monitoring import DriftSettings, compare, make_sample
from dlpipe.pictures import to_png
from dlpipe.serving.log_rows import dump
from dlpipe.tables import TableVersion, read_table, write_table
from dlpipe.task import Coding, find_task, open_predictor
from dlpipe.task.labels.thresholds import find_thresholds
from dlpipe.task.numbers.intervals import compute_halfwidth
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
    thresholds, f1 = find_thresholds(outputs, truth)
    for label in range(3):
        mine = f1_score(truth[:, label], outputs[:, label] >= thresholds[label])
        others = [f1_score(truth[:, label], outputs[:, label] >= cut) for cut in np.unique(outputs[:, label])]
        assert mine == pytest.approx(f1[label]) == pytest.approx(max(others))


def test_a_label_that_no_row_has_is_given_from_a_half_on() -> None:
    thresholds, f1 = find_thresholds(np.array([[0.2], [0.7]]), np.zeros((2, 1)))
    assert (thresholds.tolist(), f1.tolist()) == ([0.5], [0.0])


def test_intervals_hold_the_share_of_rows_that_they_promise() -> None:
    draw = np.random.default_rng(0)
    held = [
        np.mean(np.abs(draw.standard_t(3, 500)) <= compute_halfwidth(np.abs(draw.standard_t(3, 99)), coverage=0.9))
        for _ in range(200)
    ]
    assert 0.88 < np.mean(held) < 0.92


def test_too_few_errors_give_the_largest() -> None:
    assert compute_halfwidth(np.array([3.0, 1.0]), coverage=0.9) == 3.0


@pytest.mark.parametrize(("rows", "promised"), [(1, 0.5), (4, 0.8), (8, 8 / 9), (9, 0.9), (500, 0.9)])
def test_a_model_of_numbers_promises_what_its_valid_rows_can_hold(rows: int, promised: float) -> None:
    target, coding = find_task("text-regression").target, Coding(("value",), {"mean": 0.0, "deviation": 1.0})
    draw = np.random.default_rng(0)
    held = []
    for _ in range(400):
        errors = draw.standard_normal(rows)
        decision = target.learn_decision(errors[:, None], np.zeros(rows), coding)
        assert decision["coverage"] == pytest.approx(promised)
        held.append(np.mean(np.abs(draw.standard_normal(200)) <= decision["halfwidth"]))
    assert promised - 0.03 < np.mean(held) < max(0.93, promised + 0.03)
    assert bool(target.doubt_decision(np.zeros(rows), coding)) == (promised < 0.9)


@pytest.mark.parametrize(("task", "said"), [("text-multilabel", "has 'rare'"), ("text-regression", "about 67%")])
def test_a_training_says_what_its_valid_rows_cannot_decide(
    task: str, said: str, tmp_path: Path, tiny_settings: TextTraining
) -> None:
    many, labels = task == "text-multilabel", [["good"], ["good"], ["good", "rare"]]
    kind = pa.list_(pa.string()) if many else pa.float64()
    rows = {
        "row_id": [f"r{at}" for at in range(14)],
        "text": [f"a good film {at}" for at in range(14)],
        "label": pa.array(
            [labels[at % 3] if many else at / 2 for at in range(12)] + [labels[0] if many else 1.0] * 2, kind
        ),
        "split": ["train"] * 12 + ["valid"] * 2,
    }
    lines: list[str] = []
    settings = dataclasses.replace(tiny_settings, epochs=1)
    fit(write_table(tmp_path / "rows", pa.table(rows)), task=find_task(task), settings=settings, say=lines.append)
    assert sum(said in line for line in lines) == 1


def test_a_label_that_is_never_given_is_said_and_one_that_no_row_has() -> None:
    target, ids = find_task("text-multilabel").target, [str(row) for row in range(4)]
    outputs = np.array([[0.9, 0.1, 0.1]] * 2 + [[0.2, 0.1, 0.1]] * 2)
    options = {"names": ["a", "b", "c"], "decision": {}, "row_ids": ids, "shown": ids}
    made = target.evaluate(outputs, [["a"], ["a", "b"], [], ["b"]], **options)
    assert target.describe(made) == "recall 'a' 1.000 of 2, 'b' 0.000 of 2; never given: 'b'; no row has 'c'"


def test_a_label_whose_probability_is_always_0_is_not_given() -> None:
    thresholds, f1 = find_thresholds(np.zeros((3, 1)), np.array([[1], [0], [0]]))
    assert (thresholds.tolist(), f1.tolist()) == ([0.5], [0.0])


def test_guessing_labels_is_what_always_giving_each_gives() -> None:
    from sklearn.metrics import f1_score

    truth = (np.random.default_rng(0).random((200, 3)) < (0.5, 0.1, 0.9)).astype(np.float32)
    chance = find_task("text-multilabel").target.measure_chance(truth)
    assert chance.guess == pytest.approx(f1_score(truth, np.ones_like(truth), average="macro"))
    assert chance.bound_guess() > chance.guess


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


def test_scores_of_labels_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import accuracy_score, f1_score, log_loss

    draw, names = np.random.default_rng(0), ["a", "b", "c"]
    known = (draw.random((80, 3)) < (0.5, 0.2, 0.05)).astype(int)
    outputs = np.clip(known * 0.4 + draw.random((80, 3)) * 0.6, 0.01, 0.99)
    truth = [[name for name, there in zip(names, row, strict=True) if there] for row in known]
    decision, ids = {"thresholds": {"a": 0.5, "b": 0.4, "c": 0.6}}, [str(row) for row in range(80)]
    made = find_task("text-multilabel").target.evaluate(
        outputs, truth, names=names, decision=decision, row_ids=ids, shown=ids
    )
    given = outputs >= [0.5, 0.4, 0.6]
    assert made.metrics == pytest.approx(
        {
            "macro_f1": f1_score(known, given, average="macro"),
            "micro_f1": f1_score(known, given, average="micro"),
            "exact_match": accuracy_score(known, given),
            "log_loss": np.mean([log_loss(known[:, at], outputs[:, at]) for at in range(3)]),
        }
    )
    assert all(low < made.metrics[name] < high for name, (low, high) in made.intervals.items())
    assert len(made.mistakes) == min(20, int((known != given).any(axis=1).sum()))
    assert [score.rows for score in made.by_label] == known.sum(axis=0).tolist()


def test_scores_of_numbers_are_those_of_scikit_learn_and_scipy() -> None:
    from scipy.stats import spearmanr
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    draw = np.random.default_rng(0)
    truth = draw.integers(0, 8, 70).astype(float)  # with ties
    outputs, ids = (truth + draw.normal(size=70)).round(1)[:, None], [str(row) for row in range(70)]
    decision = {"halfwidth": 1.5, "coverage": 0.9}
    made = find_task("text-regression").target.evaluate(
        outputs, truth.tolist(), names=["value"], decision=decision, row_ids=ids, shown=ids
    )
    assert made.metrics == pytest.approx(
        {
            "mae": mean_absolute_error(truth, outputs),
            "rmse": root_mean_squared_error(truth, outputs),
            "r2": r2_score(truth, outputs),
            "spearman": spearmanr(truth, outputs[:, 0]).statistic,
            "coverage": np.mean(np.abs(truth - outputs[:, 0]) <= 1.5),
        }
    )
    assert all(low < made.metrics[name] < high for name, (low, high) in made.intervals.items())


def test_a_model_of_numbers_that_answers_the_mean_does_not_pass() -> None:
    target, ids = find_task("text-regression").target, ["a", "b", "c", "d"]
    truth = [1.0, 2.0, 3.0, 4.0]
    constant, close = (
        target.evaluate(np.array(values)[:, None], truth, names=["value"], decision={}, row_ids=ids, shown=ids)
        for values in ([2.5] * 4, [1.1, 2.0, 2.9, 4.2])
    )
    assert not judge(constant, baseline=constant, champion=None, thresholds=target.gate(), target=target).passed
    verdict = judge(close, baseline=constant, champion=None, thresholds=target.gate(), target=target)
    assert verdict.passed
    assert "mean absolute error 0.100 is 0.900 better than the baseline's 1.000" in verdict.reason
    worse = judge(constant, baseline=close, champion=None, thresholds=target.gate(), target=target)
    assert "0.900 worse" in worse.reason


def test_a_model_that_gives_every_label_always_does_not_pass() -> None:
    target, ids = find_task("text-multilabel").target, [str(row) for row in range(6)]
    truth = [["a"], ["a", "b"], [], ["b"], ["a"], []]
    always = target.evaluate(np.ones((6, 2)), truth, names="ab", decision={}, row_ids=ids, shown=ids)
    verdict = judge(always, baseline=always, champion=None, thresholds=target.gate(), target=target)
    assert not verdict.passed
    assert "of giving every label always" in verdict.reason
    assert (always.recall, always.precision) == ({"a": 1.0, "b": 1.0}, {"a": 0.5, "b": pytest.approx(1 / 3)})


def test_pictures_of_an_evaluation_of_numbers_are_drawn() -> None:
    target, ids = find_task("text-regression").target, [str(row) for row in range(6)]
    outputs = np.linspace(1, 5, 6)[:, None]
    truth = [1.0, 2, 3, 4, 5, 6]
    made = target.evaluate(outputs, truth, names=["value"], decision={}, row_ids=ids, shown=ids)
    for caption, figure in target.draw_figures(made, made):
        assert caption
        assert to_png(figure).startswith(b"\x89PNG")


def test_quality_of_numbers_is_their_error_and_of_labels_the_share_that_is_exact() -> None:
    numbers, labels = find_task("text-regression").target, find_task("text-multilabel").target
    predicted = pa.table({"predicted": [1.0, 2.0, 5.0], "low": [0.0] * 3, "high": [9.0] * 3})
    errors = numbers.score_predictions(predicted, [1.0, 4.0, 4.0])
    assert errors == [0.0, 2.0, 1.0]
    quality = numbers.compare_quality(errors, [0.5, 0.5])
    assert (quality.metric, quality.value, quality.size, quality.limit) == ("mae", 1.0, 1.0, "max_error_growth")
    given = pa.table({"predicted": [["b", "a"], [], ["a"]]})
    scores = labels.score_predictions(given, [["a", "b"], [], ["b"]])
    assert scores == [1.0, 1.0, 0.0]
    assert labels.compare_quality(scores, [1.0]).value == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("task", "old", "new", "telling"),
    [
        ("text-pair-classification", ("the film was fine", "a film"), ("the cable broke", "a cable"), "cable"),
        ("tabular-classification", {"width": 1.0, "kind": "a"}, {"width": 9.0, "kind": "b"}, "width"),
    ],
)
def test_new_rows_of_any_task_are_told_from_old_ones(task: str, old, new, telling: str) -> None:
    def vary(row, at: int):
        if isinstance(row, dict):
            return {**row, "width": row["width"] + at / 100}
        return (f"{row[0]} {at}", row[1])

    found = find_task(task)
    before, after = (make_sample(found, [vary(row, at) for at in range(60)]) for row in (old, new))
    drift = compare(before, after, None, DriftSettings(), inputs=found.inputs)
    assert drift.domains.auc > 0.9
    assert any(telling in name for name, _ in drift.domains.new)
    assert {"domain"} < {signal.name for signal in drift.signals}


@pytest.mark.parametrize(
    ("task", "outputs", "card"),
    [
        ("text-classification", [[0.25, 0.75], [1.0, 0.0]], {"labels": ["bad", "good"]}),
        ("text-multilabel", [[0.25, 0.75], [0.0, 0.0]], {"labels": ["drama", "war"], "decision": {}}),
        ("text-regression", [[4.5], [-1.0]], {"labels": ["value"], "decision": {"halfwidth": 0.5}}),
    ],
)
def test_what_a_server_answered_is_read_back_as_predictions(task: str, outputs, card) -> None:
    target, made = find_task(task).target, np.array(outputs, np.float32)
    kept = pa.table(target.make_prediction_columns(made, card), pa.schema(target.list_prediction_fields()))
    records = [json.loads(dump({**record, "status": "ok"})) for record in target.make_records(made, card)]
    assert target.read_records(records).equals(kept)
    assert target.read_records([]).schema == kept.schema
