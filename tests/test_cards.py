"""What the cards of flows show, of results that are made up: their parts, without a run."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from made_up_results import HEBREW, judged_classes, judged_labels, judged_numbers, score_made_up
from reading_cards import read, read_cells
from test_explain import Topics, WordList, explained, to_table

from dlpipe.evaluation import Rival, compare_row_by_row, judge
from dlpipe.flows.cards.data import make_data_parts
from dlpipe.flows.cards.evaluation import make_evaluation_parts, make_verdict_parts
from dlpipe.flows.cards.explanations import make_explanation_parts
from dlpipe.flows.cards.parts import make_matrix, make_table, show
from dlpipe.flows.cards.predictions import make_prediction_parts
from dlpipe.flows.cards.shares import make_histogram
from dlpipe.flows.cards.training import (
    BEHIND,
    LearningCurves,
    draw_curves,
    make_training_boxes,
    make_training_title,
    make_trial_parts,
)
from dlpipe.flows.former import FormerTraining
from dlpipe.registry import ModelVersion, Promotion
from dlpipe.tables import Sources, ingest, write_table
from dlpipe.task import find_task
from dlpipe.task.evaluation import Mistake, ScoreTable
from dlpipe.task.tabular_classification import TabularData
from dlpipe.task.text_classification import TextClassData
from dlpipe.training import EpochScore
from dlpipe.tuning import Trial, Tuned

MAKERS = {"text-regression": judged_numbers, "text-multilabel": judged_labels}


@pytest.mark.parametrize("classes", [2, 25])
def test_the_card_of_an_evaluation_says_how_good_compared_with_what_and_whether_that_is_enough(
    classes: int, tmp_path: Path
) -> None:
    made, plain, model, rows = judged_classes(tmp_path, classes, count=300)
    gate = find_task(model.task).target.gate(min_accuracy=0.5)
    page = read(make_evaluation_parts(made, plain, model=model, rows=rows, gate=gate, name="reviews"))
    accuracy, beaten = (each.metrics["accuracy"] for each in (made, plain))
    assert page.startswith(f"# Accuracy {accuracy:.3f}: enough for the gate so far")
    head = page[: page.index("## ")]
    for words in (f"{beaten:.3f}", "300 test rows", "3 of 3 passed", "`reviews`", "0123456789ab", "rows@v0"):
        assert words in head
    by_class = read_cells(page, "## By class")
    assert {cells[0] for cells in by_class} == {*made.labels}
    assert sum(int(cells[1]) for cells in by_class) == 300
    f1 = [float(cells[4].split()[0]) for cells in by_class]
    assert f1 == sorted(f1)
    confusion = read_cells(page, "## Confusion")
    counts = [[int(cell.split()[0] or 0) if cell else 0 for cell in line[1:]] for line in confusion]
    assert counts == made.confusion.tolist()
    assert ("## Most frequent confusions" in page) is (classes > 2)
    assert "[picture: Calibration]" in page


def test_scores_of_classes_are_those_of_scikit_learn_within_their_intervals(tmp_path: Path) -> None:
    from sklearn.metrics import precision_recall_fscore_support

    made, plain, model, _ = judged_classes(tmp_path, 6, count=300)
    (table, *_) = find_task(model.task).target.make_tables(made, plain)
    truth = np.repeat(np.arange(36) // 6, made.confusion.ravel())
    predicted = np.repeat(np.arange(36) % 6, made.confusion.ravel())
    expected = np.array(precision_recall_fscore_support(truth, predicted)[:3]).T
    for line in table.rows:
        scores = [[float(number) for number in re.findall(r"[\d.]+", cell)] for cell in line[2:5]]
        assert [value for value, _, _ in scores] == pytest.approx(expected[made.labels.index(line[0])], abs=5e-4)
        assert all(low < value <= high and low < high for value, low, high in scores)


def test_rows_that_are_won_and_lost_stand_on_the_card_as_they_are(tmp_path: Path) -> None:
    made, plain, model, rows = judged_classes(tmp_path, 2, count=200)
    right = [each.by_row.errors == 0 for each in (made, plain)]
    found = compare_row_by_row(made, plain, rows, task=find_task(model.task))
    assert (found.won, found.lost) == (int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum()))
    assert found.gain == pytest.approx(made.metrics["accuracy"] - plain.metrics["accuracy"])
    spread = (right[0].astype(float) - right[1]).std() / np.sqrt(200)
    assert found.interval == pytest.approx((found.gain - 1.96 * spread, found.gain + 1.96 * spread), abs=0.02)
    itself = compare_row_by_row(made, made, rows, task=find_task(model.task))
    assert itself.line() == "share of right rows the same on every row"
    page = read(make_evaluation_parts(made, plain, model=model, rows=rows))
    lost = read_cells(page, "### Lost")
    assert [cells[2] for cells in lost] == [row.predicted for row in found.lost_rows]
    assert all(cells[1] == cells[3] != cells[2] for cells in lost)
    assert HEBREW in page
    assert "<script>" not in page
    assert "&lt;script&gt;alert(&#x27;no&#x27;)&lt;/script&gt; &amp; **stars** | pipes lines" in page
    assert "gate" not in page


@pytest.mark.parametrize(
    ("task", "says"), [("text-regression", "## By size of the true number"), ("text-multilabel", "## By label")]
)
def test_cards_of_other_tasks_have_their_own_tables(task: str, says: str, tmp_path: Path) -> None:
    made, plain, model, rows = MAKERS[task](tmp_path)
    gate = find_task(task).target.gate()
    page = read(make_evaluation_parts(made, plain, model=model, rows=rows, gate=gate))
    assert ": enough for the gate so far" in page.splitlines()[0]
    assert sum(int(cells[1]) for cells in read_cells(page, says)) == (
        made.rows if "regression" in task else sum(score.rows for score in made.by_label)
    )
    assert re.search(r"Better on \d+ of \d+ rows, worse on \d+", page)
    assert "### Lost" in page


def test_names_and_texts_that_are_very_long_leave_a_card_as_wide_as_it_is() -> None:
    names = [f"{letter}{'_very_long' * 10}" for letter in "abc"]
    shades = tuple((0.1, 0.2, 0.3) for _ in names)
    table = ScoreTable("Confusion", ("true", *names), tuple((name, "1", "2", "3") for name in names), shades)
    page = read([make_matrix(table)])
    heads = re.findall(r"<th[^>]*>(.*?)</th>", page)
    for head, name in zip(heads[1:], names, strict=True):
        assert "vertical-rl" in head
        assert f">{name[:31]}…<" in head
    assert [line[0] for line in read_cells(page, "")] == names
    made = make_table(["a", "b"], [["x" * 300, "1"], ["y", "2"]])
    address, number, short, _ = re.findall(r"<td[^>]*>", read([made]))
    assert "overflow-wrap:anywhere" in address
    assert "nowrap" in number
    assert "nowrap" in short


def test_a_model_without_mistakes_and_an_evaluation_of_an_older_run_have_cards(tmp_path: Path) -> None:
    made, plain, model, rows = judged_classes(tmp_path, 2, count=50)
    three, _, of_three, table = judged_classes(tmp_path / "three", 3, count=30)
    right = replace(three, confusion=np.diag(three.confusion.sum(axis=1)))
    assert "Most frequent confusions" not in read(make_evaluation_parts(right, three, model=of_three, rows=table))
    older = replace(made, by_row=None, mistakes=())
    page = read(make_evaluation_parts(older, plain, model=model, rows=rows))
    assert "None: every row was predicted right." in page
    assert "Row by row" not in page


@pytest.mark.parametrize("passes", [True, False])
def test_the_card_of_a_registration_has_the_verdict_and_the_former_champion(passes: bool, tmp_path: Path) -> None:
    made, plain, model, rows = judged_classes(tmp_path, 2, count=200)
    candidate, former = (made, plain) if passes else (plain, made)
    gate, rival = find_task(model.task).target.gate(min_accuracy=0.5), Rival(3, former, candidate)
    target = find_task(model.task).target
    verdict = judge(candidate, baseline=plain, champion=rival, thresholds=gate, target=target)
    version = ModelVersion("reviews", 4, "models:/reviews/4", "", "", "")
    promotion = Promotion(version, passes, 3)
    done = SimpleNamespace(classifier=version, verdict=verdict, promotion=promotion, rival=rival)
    page = read(make_verdict_parts(done, candidate, plain, model=model, rows=rows, gate=gate))
    words = "passes the gate" if passes else "is refused by the gate"
    assert page.startswith(f"# reviews v4, accuracy {candidate.metrics['accuracy']:.3f}, {words}")
    assert str(promotion) in page
    asked = read_cells(page, "## What the gate asks")
    assert asked[0][0] == ("✓ passed" if passes else "✗ failed")
    assert any("champion v3" in words for _, words in asked)
    assert "## Row by row against champion v3" in page
    done.rival = replace(rival, evaluation=None, candidate=None, problem="it is gone")
    assert "it is gone" in read(make_verdict_parts(done, candidate, plain, model=model, rows=rows, gate=gate))
    done.rival = None
    assert "none before" in read(make_verdict_parts(done, candidate, plain, model=model, rows=rows, gate=gate))


def test_a_card_that_cannot_be_drawn_says_so_and_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from metaflow import current

    def parts():
        yield make_table(["row"], [["fine"]])
        raise ValueError("no <such> column")

    shown: list[Any] = []
    current._update_env({"card": shown})
    show(parts())
    (page,) = shown
    assert "fine" in read([page])
    assert "could not be drawn** (ValueError: no &lt;such&gt; column)" in read([page])


@pytest.mark.parametrize("predictor", [WordList(), Topics()], ids=["2", "7"])
def test_explanations_show_whole_words_and_an_overview_only_of_many_rows(predictor, tmp_path: Path) -> None:
    texts = [f"a good film number {at} , awful politics and {HEBREW} <b>" for at in range(30)]
    made = explained(*texts, predictor=predictor, max_evals=200)
    table = write_table(str(tmp_path / "made"), to_table(made))
    mistakes = [Mistake("row-0", "", "another", "label")]
    page = read(make_explanation_parts(made, mistakes, table=table, model="models:/reviews/3"))
    overview = {output: (raising, lowering) for output, raising, lowering in read_cells(page, "## In general")}
    assert {*overview} == {*made.labels}
    if len(made.labels) == 2:
        assert overview["negative"][0] == overview["positive"][1].replace("-", "+")
        assert "awful +0.4" in overview["negative"][0]
        assert "(30)" in overview["negative"][0]
    assert "Model: `models:/reviews/3`." in page
    assert page.count("a mistake: the label is another") == 1
    assert page.count("drawn from the test split") == 29
    assert ">awful</span> " in page or ">politics</span> " in page
    assert all(word in page for word in HEBREW.split())
    assert "<b> " not in page
    few = read(make_explanation_parts(made, table=table, model="models:/reviews/4"))
    assert "0 rows are too few to say what a word does in general; it takes 30" in few
    assert read_cells(page, "## In general") != []
    assert "In general" not in read(make_explanation_parts(made))


def test_a_text_without_words_has_no_explanation() -> None:
    page = read(make_explanation_parts(explained(""), title="words of 1 rows"))
    assert page.splitlines()[0] == "# Nothing to explain: words of 1 rows"


def test_the_card_of_a_scoring_says_how_many_how_surely_and_what_was_before(tmp_path: Path) -> None:
    card = {"labels": ["bad", "good"], "decision": {}}
    shares = np.array([0.9] * 6 + [0.55, 0.3, 0.8, 0.85])
    outputs = [np.stack([some, 1 - some], axis=1) for some in (shares[:6], shares[6:])]
    done, rows, model = score_made_up(tmp_path, "text-classification", outputs, card, count=10)
    page = read(make_prediction_parts(done, rows=rows, model=model))
    assert page.startswith("# 4 rows scored by reviews v3")
    for words in (
        "of 10 rows of rows@v0, in scored@v1",
        "1 row (25%) below 0.6; before 0.900",
        "beside the 6 predictions of rows of this table that this model made before",
    ):
        assert words in page
    least = read_cells(page, "## The least sure")
    assert [(cells[1], cells[2], cells[3]) for cells in least] == [
        ("bad", "0.550", "r6"),
        ("good", "0.700", "r7"),
        ("bad", "0.800", "r8"),
        ("bad", "0.850", "r9"),
    ]
    assert least[0][0].endswith(" 6")
    assert [
        [cell.split()[-2:] for cell in cells[1:]] for cells in read_cells(page, "## The predicted labels")
    ] == [
        [["3", "(75%)"], ["6", "(100%)"]],
        [["1", "(25%)"], ["0", "(0%)"]],
    ]
    again = read(make_prediction_parts(replace(done, new_rows=0), rows=rows, model=model))
    assert again.startswith("# Nothing new to score in rows@v0")
    assert "All 10 rows" in again


@pytest.mark.parametrize(
    ("by", "says"),
    [
        ((3, 2, 3), "before 0.900"),
        ((1, 2, 3), "before 0.750"),
    ],
)
def test_predictions_are_compared_with_those_of_the_same_model_if_it_has_some(
    by: tuple[int, ...], says: str, tmp_path: Path
) -> None:
    card = {"labels": ["bad", "good"], "decision": {}}
    outputs = [np.array([[share, 1 - share]] * 2) for share in (0.9, 0.6, 0.95)]
    done, rows, model = score_made_up(tmp_path, "text-classification", outputs, card, count=6, by=by)
    page = read(make_prediction_parts(done, rows=rows, model=model))
    assert says in page
    whose = (
        "2 predictions of rows of this table that this model" if by[0] == 3 else "4 predictions of rows of this"
    )
    assert f"beside the {whose}" in page


@pytest.mark.parametrize(
    ("task", "width", "says"),
    [("text-regression", 1, "## The predicted number"), ("text-multilabel", 3, "## The least sure")],
)
def test_cards_of_scorings_of_other_tasks_are_readable(task: str, width: int, says: str, tmp_path: Path) -> None:
    card = {"labels": list("abc")[:width], "decision": {"halfwidth": 1.0}}
    outputs = np.random.default_rng(0).random((20, width))
    done, rows, model = score_made_up(tmp_path, task, [outputs], card, count=20)
    page = read(make_prediction_parts(done, rows=rows, model=model))
    assert "here are no earlier predictions of this table to compare with" in page
    assert read_cells(page, says)
    assert ("How sure" in page) is (task == "text-multilabel")


def test_ranges_of_numbers_are_readable_beside_an_outlier_and_of_one_value() -> None:
    lengths = [float(length) for length in range(1, 101)]
    cells = read_cells(read([make_histogram([*lengths, 5000.0], lengths, name="words")]), "")
    assert cells[0][0] == "1 to 10"
    assert cells[-1][0] == "91 or more"
    fractions = [length + 0.5 for length in lengths]
    assert (
        read_cells(read([make_histogram([*fractions, 5000.0], fractions, name="cm")]), "")[0][0] == "1.5 to 11.4"
    )
    few = read_cells(read([make_histogram([0.0, 2.0, 3.0], [1.0], name="labels")]), "")
    assert [line[0] for line in few] == ["0", "1", "2", "3"]
    assert cells[-1][0].endswith(" or more")
    counts = [[int(cell.split("> ")[-1].split()[0]) for cell in line[1:]] for line in cells]
    assert [sum(column) for column in zip(*counts, strict=True)] == [101, 100]
    assert sum(count for (count, _) in counts[:-1]) > 80
    assert len(read_cells(read([make_histogram([0.35], [], name="sureness", within=(0, 1))]), "")) == 7
    for same in (2.0, 0.9):  # no ranges where all are one number: of a probability they would go beyond 1
        cells = read_cells(read([make_histogram([same, same], [same], name="number")]), "")
        assert [line[0] for line in cells] == [f"{same:g}"]


def test_the_card_of_an_ingest_shows_rows_of_each_class_what_changed_and_what_was_set_aside(
    tmp_path: Path,
) -> None:
    lines = [f"text number {n} of many,{'good' if n % 2 else 'bad'}" for n in range(60)]
    file = tmp_path / "rows.csv"

    def read_card(*more: str, **options: Any) -> str:
        file.write_text("\n".join(["text,label", *lines, *more]))
        done = ingest(
            Sources(data=str(file)),
            tmp_path / "table",
            settings=TextClassData(text_column="text", label_column="label"),
        )
        return read(make_data_parts(done, **options))

    first = read_card(",good", max_length=4)
    assert first.startswith("# 60 rows in ")
    assert "the first one" in first
    assert [cells[0] for cells in read_cells(first, "## Examples")] == ["bad", "bad", "good", "good"]
    assert "most texts are longer" in first
    reason, rows, place, _ = read_cells(first, "## Set aside")[0]
    assert (rows, place != "", reason != "") == ("1", True, True)
    second = read_card("one more text,good", max_length=100)
    assert "since version 0: 1 added" in second
    assert "all of every text" in second
    assert "Set aside" not in second


EPOCHS = [
    EpochScore(at, 0.9 / at, {"val_loss": 0.8, "val_accuracy": score}, "val_accuracy", 2.0, 100.0)
    for at, score in ((1, 0.7), (2, 0.9), (3, 0.9))
]


def test_the_card_of_a_training_names_the_best_epoch_and_draws_losses_and_scores_apart() -> None:
    assert make_training_title(EPOCHS) == "# Epoch 2 of 3 is the best so far: accuracy 0.900 on the valid split"
    assert make_training_title(EPOCHS, ended=True).startswith("# Epoch 2 of 3 is the best: accuracy 0.900")
    boxes = make_training_boxes(EPOCHS).render()["source"]
    assert "1 further epoch made it no better" in boxes
    assert "6 s" in boxes
    assert "accuracy on the valid split" in boxes
    losses, scores = draw_curves(EPOCHS)["hconcat"]
    assert {point["name"] for point in losses["data"]["values"]} == {"train", "valid"}
    assert {point["name"] for point in scores["data"]["values"]} == {"accuracy"}
    assert all(chart["layer"][1]["data"]["values"] == [{"epoch": 2}] for chart in (losses, scores))


def test_the_card_of_a_search_says_what_the_winner_beat_and_what_each_setting_did() -> None:
    trials = [
        Trial(at, {"learning_rate": 10.0**-at, "strategy": "lora"}, tuple(EPOCHS[:2]), None) for at in range(3)
    ]
    trials.append(Trial(3, {"learning_rate": 1.0, "strategy": "lora"}, (), "no memory"))
    charts = [
        part
        for part in make_trial_parts(Tuned(tuple(trials), {"learning_rate": 0.1}))
        if not hasattr(part, "_text")
    ]
    curves, slices = (part.render()["spec"] for part in charts)
    assert {point["trial"] for point in curves["data"]["values"]} == {"1", "2", "3"}
    assert curves["encoding"]["color"]["scale"]["domain"] == [
        "trial 1, the best",
        "trial 2, the next",
        "the others",
    ]
    assert curves["encoding"]["y"]["title"] == "accuracy"
    (slice_,) = slices["concat"]  # the strategy did not vary
    assert slice_["encoding"]["x"]["type"] == "ordinal"  # three values are names
    odd = [replace(trial, values={"dropout": trial.number / 7}) for trial in trials[:3]]
    charts = [part for part in make_trial_parts(Tuned(tuple(odd), {})) if not hasattr(part, "_text")]
    (slice_,) = charts[1].render()["spec"]["concat"]
    assert slice_["encoding"]["x"]["type"] == "quantitative"  # names of sixteen digits would lie over each other
    page = read([part for part in make_trial_parts(Tuned(tuple(trials), {})) if hasattr(part, "_text")])
    assert page.startswith("# The settings are used as they stand")
    assert "3 trials are too few" in page
    assert "1 failed" in page
    assert read_cells(page, "## Trials")[3][-1] == "no memory"
    assert "no trials were asked for" in read(make_trial_parts(Tuned((), {})))
    failed = read(make_trial_parts(Tuned((trials[3],), {})))
    assert "No trial has ended with a score: 1 of 1 failed." in failed
    assert "learning rate" in failed


def test_a_setting_matters_on_the_card_of_a_search_where_chance_alone_would_not_do_it() -> None:
    chance = np.random.default_rng(0)
    trials = [
        Trial(
            at,
            {"learning_rate": 10 ** (-5 + at / 8), "dropout": float(chance.random())},
            (replace(EPOCHS[0], scores={"val_loss": 1.0, "val_accuracy": 0.5 + at / 50}),),
            None,
        )
        for at in range(16)
    ]
    parts = list(make_trial_parts(Tuned(tuple(trials), {})))
    (slices,) = (part.render()["spec"] for part in parts if not hasattr(part, "_text"))
    assert slices["concat"][0]["encoding"]["x"]["scale"] == {"type": "log"}
    page = read(part for part in parts if hasattr(part, "_text"))
    assert read_cells(page, "rank correlation with accuracy") == [
        ["learning rate", "+1.00", "more is better"],
        ["dropout", read_cells(page, "rank correlation")[1][1], "no clear direction"],
    ]


def test_the_curves_of_the_champion_stand_behind_those_of_a_training() -> None:
    version = ModelVersion("reviews", 3, "models:/reviews/3", "", "", "")
    former = FormerTraining(version, (*EPOCHS, replace(EPOCHS[0], epoch=4)), "reviews@v1", True)
    assert str(former) == "reviews v3, the champion so far, trained on reviews@v1"
    losses, scores = draw_curves(EPOCHS, former)["hconcat"]
    assert [point["name"] for point in losses["data"]["values"]][:4] == ["v3 valid"] * 4  # drawn first
    assert {point["name"] for point in scores["data"]["values"]} == {"v3 accuracy", "accuracy"}
    for chart, names in ((losses, ["train", "valid", "v3 valid"]), (scores, ["accuracy", "v3 accuracy"])):
        scale = chart["layer"][0]["encoding"]["color"]["scale"]
        assert scale["domain"] == names
        assert scale["range"][-1] == BEHIND
        assert BEHIND not in scale["range"][:-1]


def test_the_card_of_a_training_has_its_settings_before_there_is_a_curve() -> None:
    from metaflow import current

    class Card(list):
        def refresh(self) -> None:
            """Nothing to do: nobody looks."""

    card = Card()
    current._update_env({"card": {"training": card}})
    curves = LearningCurves({"learning_rate": 1e-4, "strategy": None})
    assert read_cells(read(card), "## Settings") == [["learning rate", "0.0001"]]
    assert "waiting for the first epoch" in read(card)
    curves.add(EPOCHS[0])
    curves.add(EPOCHS[1])
    title, boxes, chart, *below = card
    assert title.render()["source"].startswith("# Epoch 2 of 2")
    assert "accuracy on the valid split" in boxes.render()["source"]
    assert {point["epoch"] for point in chart.render()["spec"]["hconcat"][0]["data"]["values"]} == {1, 2}
    assert read_cells(read(below), "## Settings") == [["learning rate", "0.0001"]]
    curves.end()
    assert "is the best: " in title.render()["source"]


def test_the_card_of_an_ingest_of_many_classes_or_columns_is_no_wider_than_a_page(tmp_path: Path) -> None:
    columns = [f"c{at}" for at in range(20)]
    lines = [",".join([*(f"{at}.5" for _ in columns), f"class {at % 25}"]) for at in range(500)]
    file = tmp_path / "rows.csv"
    file.write_text("\n".join([",".join([*columns, "label"]), *lines]))
    settings = TabularData(number_columns=tuple(columns), label_column="label")
    done = ingest(Sources(data=str(file)), tmp_path / "table", settings=settings)
    page = read(make_data_parts(done))
    counts = read_cells(page, "## Rows by split")
    assert [line[0] for line in counts] == ["all rows", *done.labels]
    assert sum(int(count) for line in counts[1:] for count in line[1:]) == 500
    examples = read_cells(page, "## Examples")
    assert [line[0] for line in examples] == columns
    assert max(map(len, examples)) <= 8
