from __future__ import annotations

import dataclasses
import math
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest

from dlpipe.errors import EvaluationError, SettingError
from dlpipe.evaluation import Verdict
from dlpipe.evaluation import judge as judge_by_target
from dlpipe.pictures import to_png
from dlpipe.settings import read_settings
from dlpipe.task import find_task
from dlpipe.task.classes import Classes, ClassEvaluation, ClassThresholds
from dlpipe.task.classes.figures import make_calibration_figure
from dlpipe.task.classes.scores import METRICS

BINARY = ("negative", "positive")


def scored(probabilities, truth, labels=BINARY, **options) -> ClassEvaluation:
    ids = [f"row-{number}" for number in range(len(truth))]
    return Classes().evaluate(
        np.asarray(probabilities), truth, names=labels, decision={}, row_ids=ids, shown=ids, **options
    )


def judge(candidate, **given) -> Verdict:
    return judge_by_target(candidate, target=Classes(), **given)


def random_rows(rows: int, classes: int, *, skill: float = 1.0, seed: int = 0):
    random = np.random.default_rng(seed)
    labels = tuple(f"label {number}" for number in range(classes))
    truth = random.integers(0, classes, rows)
    probabilities = random.dirichlet(np.ones(classes), rows)
    probabilities[np.arange(rows), truth] += skill * random.random(rows)
    return probabilities, [labels[index] for index in truth], labels


def with_metrics(**metrics: float) -> ClassEvaluation:
    made = scored([[0.2, 0.8], [0.9, 0.1]], ["positive", "negative"], resamples=10)
    return dataclasses.replace(made, metrics={**made.metrics, **metrics})


def test_point_metrics_are_those_worked_out_by_hand():
    made = scored(
        [[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.2, 0.8]], ["negative", "negative", "positive", "negative"]
    )
    assert made.metrics["accuracy"] == 0.5
    assert made.metrics["macro_f1"] == pytest.approx((2 * 1 / 4 + 2 * 1 / 4) / 2)
    assert made.metrics["auroc"] == pytest.approx(2 / 3)
    assert made.metrics["log_loss"] == pytest.approx(-np.log([0.9, 0.4, 0.7, 0.2]).mean())
    # four rows in four bins: |1 - 0.9|, |0 - 0.6|, |1 - 0.7|, |0 - 0.8|
    assert made.metrics["calibration_error"] == pytest.approx((0.1 + 0.6 + 0.3 + 0.8) / 4)
    assert made.confusion.tolist() == [[1, 2], [0, 1]]


def test_auroc_of_many_labels_is_the_mean_one_versus_rest():
    from sklearn.metrics import roc_auc_score

    probabilities, truth, labels = random_rows(300, 4)
    scaled = probabilities / probabilities.sum(axis=1, keepdims=True)
    expected = roc_auc_score(truth, scaled, multi_class="ovr", labels=labels)
    assert scored(probabilities, truth, labels).metrics["auroc"] == pytest.approx(expected)


@pytest.mark.parametrize("classes", [2, 4])
def test_intervals_agree_with_a_bootstrap_that_recomputes_each_metric(classes):
    probabilities, truth, labels = random_rows(200, classes)
    probabilities = np.round(probabilities, 1) + 0.01  # many ties
    made = scored(probabilities, truth, labels)
    random = np.random.default_rng(1)
    values = {metric: [] for metric in METRICS}
    for _ in range(150):
        rows = random.integers(0, len(truth), len(truth))
        again = scored(probabilities[rows], [truth[row] for row in rows], labels, resamples=1)
        for metric in METRICS:
            values[metric].append(again.metrics[metric])
    for metric, (low, high) in made.intervals.items():
        slow_low, slow_high = np.percentile(values[metric], [2.5, 97.5])
        assert abs(low - slow_low) < 0.3 * (high - low), metric
        assert abs(high - slow_high) < 0.3 * (high - low), metric


def test_a_resample_that_draws_every_row_once_has_the_point_metrics():
    from dlpipe.task.classes.resampling import resample_metrics

    probabilities, truth, labels = random_rows(100, 3)
    made = scored(probabilities, truth, labels)
    scaled = probabilities / probabilities.sum(axis=1, keepdims=True)
    known = np.array([labels.index(label) for label in truth])
    for metric, value in resample_metrics(np.ones((100, 1)), scaled, known).items():
        assert value[0] == pytest.approx(made.metrics[metric]), metric


def test_the_point_lies_inside_its_interval_and_the_seed_decides_the_interval():
    probabilities, truth, labels = random_rows(400, 3)
    made = scored(probabilities, truth, labels, seed=3)
    assert made.intervals == scored(probabilities, truth, labels, seed=3).intervals
    assert made.intervals != scored(probabilities, truth, labels, seed=4).intervals
    for metric in set(METRICS) - {"calibration_error"}:  # which is biased upwards in resamples
        low, high = made.intervals[metric]
        assert low < made.metrics[metric] < high


def test_a_rare_label_missing_from_resamples_does_not_break_auroc():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = scored([[0.8, 0.2]] * 9 + [[0.3, 0.7]], ["negative"] * 9 + ["positive"], resamples=200)
    assert made.metrics["auroc"] == 1.0
    assert made.intervals["auroc"] == (1.0, 1.0)


def test_truth_of_one_label_has_no_auroc_and_all_other_metrics():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = scored([[0.8, 0.2], [0.3, 0.7]], ["negative", "negative"])
    assert math.isnan(made.metrics["auroc"])
    assert all(map(math.isnan, made.intervals["auroc"]))
    assert made.metrics["accuracy"] == 0.5


def test_mistakes_are_the_wrong_rows_most_confident_first():
    made = scored([[0.4, 0.6], [0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], ["negative"] * 4, worst=2)
    assert [(wrong.row_id, round(wrong.probability, 3)) for wrong in made.mistakes] == [
        ("row-1", 0.9),
        ("row-3", 0.7),
    ]
    assert (made.mistakes[0].label, made.mistakes[0].predicted) == ("negative", "positive")


def test_evaluation_says_its_metric_in_one_line_and_survives_pickling():
    made = scored([[0.8, 0.2], [0.3, 0.7]], BINARY)
    assert made.line() == "accuracy 1.000 (1.000 to 1.000)"
    assert len(made.lines()) == len(METRICS)
    assert pickle.loads(pickle.dumps(made)).metrics == made.metrics


def test_float32_probabilities_that_miss_one_by_a_hair_are_taken_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scored(np.array([[0.8, 0.2001], [0.3, 0.7]], dtype=np.float32), BINARY)


@pytest.mark.parametrize(
    ("probabilities", "truth", "words"),
    [
        ([[0.5, 0.5]], ["neutral"], "'neutral'"),
        ([[0.5, math.nan]], ["negative"], "1 of 1 rows"),
        ([[0.5, 0.5]], ["negative", "positive"], "2 rows and 2 labels"),
        (np.zeros((0, 2)), [], "no row"),
    ],
)
def test_input_that_does_not_fit_is_refused_in_one_line(probabilities, truth, words):
    with pytest.raises(EvaluationError, match=words) as caught:
        scored(probabilities, truth)
    assert "\n" not in str(caught.value)


def test_baseline_learns_and_gives_columns_in_the_asked_order():
    texts = ["good and kind", "so good", "bad and dull", "so bad", "a plain chair", "a plain table"]
    fitted = find_task().fit_baseline(texts, ["up", "up", "down", "down", "flat", "flat"], seed=0)
    given = fitted.predict_outputs(["good", "bad"], outputs=("up", "unseen", "down", "flat"))
    assert given.argmax(axis=1).tolist() == [0, 2]
    assert given[:, 1].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(given.sum(axis=1), 1)
    assert fitted.labels == ("down", "flat", "up")


def test_baseline_is_the_same_twice():
    texts, labels = ["good film", "bad film", "good book", "bad book"], ["+", "-", "+", "-"]
    first, second = (find_task().fit_baseline(texts, labels, seed=1).predict_outputs(texts) for _ in range(2))
    assert first.tolist() == second.tolist()


def test_baseline_is_fitted_to_texts_without_words():
    fitted = find_task().fit_baseline(["\U0001f600", "\U0001f44e"], ["+", "-"], seed=0)
    assert fitted.predict_outputs(["\U0001f600", "\U0001f44e"]).argmax(axis=1).tolist() == [0, 1]


def test_gate_passes_a_better_model_and_says_the_numbers():
    verdict = judge(
        with_metrics(accuracy=0.871),
        baseline=with_metrics(accuracy=0.794),
        champion=with_metrics(accuracy=0.871),
        thresholds=ClassThresholds(),
    )
    assert verdict.passed
    assert verdict.reason == (
        "passed: accuracy 0.871 is at least 0.600; macro F1 1.000 is above the 0.333 of always 'negative'; "
        "accuracy 0.871 is 0.077 better than the baseline's 0.794; "
        "accuracy 0.871 is the same as the champion's 0.871; recall 'negative' 1.000 of 1, 'positive' 1.000 of 1"
    )


def test_gate_refuses_a_model_that_loses_to_the_baseline():
    verdict = judge(
        with_metrics(accuracy=0.78),
        baseline=with_metrics(accuracy=0.79),
        champion=None,
        thresholds=ClassThresholds(),
    )
    assert not verdict.passed
    assert verdict.reason.startswith("not promoted: accuracy 0.780 is 0.010 worse than the baseline's 0.790; rec")


@pytest.mark.parametrize(("accuracy", "passed"), [(0.86, True), (0.85, True), (0.849, False)])
def test_champion_margin_allows_exactly_that_much(accuracy, passed):
    verdict = judge(
        with_metrics(accuracy=accuracy),
        baseline=with_metrics(accuracy=0.5),
        champion=with_metrics(accuracy=0.86),
        thresholds=ClassThresholds(champion_margin=0.01),
    )
    assert verdict.passed is passed
    assert "(margin 0.010)" in verdict.reason


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"min_accuracy": 0.9}, "accuracy 0.870 is below 0.900"),
        ({"min_macro_f1": 0.9}, "macro F1 0.860 is below 0.900"),
        ({"max_calibration_error": 0.05}, "calibration error 0.100 is above 0.050"),
        ({"max_log_loss": 0.3}, "log loss 0.400 is above 0.300"),
    ],
)
def test_each_absolute_threshold_bites(asked, words):
    candidate = with_metrics(accuracy=0.87, macro_f1=0.86, calibration_error=0.1, log_loss=0.4)
    verdict = judge(
        candidate, baseline=with_metrics(accuracy=0.5), champion=None, thresholds=ClassThresholds(**asked)
    )
    assert not verdict.passed
    assert verdict.reason.startswith(f"not promoted: {words}; recall ")


def one_sided(rows: dict[str, int], constant: str, *, skill: int = 0) -> ClassEvaluation:
    """Return the evaluation of a model that says ``constant``, but for the first ``skill`` rows of each class."""
    labels = tuple(rows)
    truth = [label for label, count in rows.items() for _ in range(count)]
    answers = [label if at < skill else constant for label, count in rows.items() for at in range(count)]
    shares = [[0.9 if label == answer else 0.1 / (len(labels) - 1) for label in labels] for answer in answers]
    return scored(shares, truth, labels, resamples=5)


@pytest.mark.parametrize("rows", [{"ham": 198, "spam": 2}, {"a": 90, "b": 8, "c": 2}, {"ham": 5, "spam": 5}])
def test_a_model_that_always_says_the_majority_class_never_passes(rows):
    made = one_sided(rows, next(iter(rows)))
    verdict = judge(made, baseline=made, champion=None, thresholds=ClassThresholds(min_accuracy=0))
    assert not verdict.passed
    reason = f"macro F1 {made.metrics['macro_f1']:.3f} is not above the {made.metrics['macro_f1']:.3f} of always"
    assert verdict.reason.startswith(f"not promoted: {reason}")
    assert made.recall == {label: float(label == next(iter(rows))) for label in rows}
    assert made.precision == {next(iter(rows)): next(iter(rows.values())) / sum(rows.values())}
    rare = list(rows)[-1]
    assert f"{rare!r} 0.000 of {rows[rare]}" in verdict.reason
    better = one_sided(rows, next(iter(rows)), skill=1)
    assert judge(better, baseline=made, champion=None, thresholds=ClassThresholds(min_accuracy=0)).passed


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"spam": 0.6}, "recall of 'spam' 0.500 is below 0.600"),
        ({"*": 0.6}, "recall of 'spam' 0.500 is below 0.600"),
        ({"*": 0.9, "spam": 0.6}, "recall of 'spam' 0.500 is below 0.600"),
        ({"smap": 0.1}, "min_recall names 'smap', which is no class of this model"),
        ({"eggs": 0.1}, "recall of 'eggs' is unknown, no test row has it"),
        ({"*": 0.5}, None),
    ],
)
def test_a_threshold_can_name_a_class(asked, words):
    made = one_sided({"ham": 98, "spam": 2, "eggs": 0}, "ham", skill=1)
    thresholds = read_settings(ClassThresholds, {"min_recall": asked}, where="[gate]")
    verdict = judge(made, baseline=made, champion=None, thresholds=thresholds)
    assert verdict.passed == (words is None)
    assert words is None or verdict.reason.startswith(f"not promoted: {words}; recall ")


def test_of_many_classes_the_verdict_names_those_with_the_lowest_recall():
    made = one_sided({f"c{number}": 2 for number in range(30)}, "c0", skill=1)
    reason = judge(made, baseline=made, champion=None, thresholds=ClassThresholds(min_accuracy=0)).reason
    assert reason.endswith("lowest recall of 30 classes " + ", ".join(f"'c{n}' 0.500 of 2" for n in range(1, 7)))


def test_a_champion_that_lacks_a_class_is_judged_on_those_that_it_knows():
    from dlpipe.evaluation import Rival

    mine, theirs = one_sided({"a": 5, "b": 5}, "a", skill=4), one_sided({"a": 5, "b": 5}, "a", skill=2)
    whole = one_sided({"a": 5, "b": 5, "new": 4}, "a", skill=4)
    rival = Rival(3, theirs, mine, {"new": 4})
    verdict = judge(whole, baseline=whole, champion=rival, thresholds=ClassThresholds())
    assert (verdict.passed, verdict.champion) == (True, 3)
    assert "champion v3's 0.700 on the 10 rows of classes that it knows, without 'new' (4)" in verdict.reason
    none = Rival(3, None, None, {"new": 4}, "it knows x, y, none of which the test split has")
    refused = judge(whole, baseline=whole, champion=none, thresholds=ClassThresholds())
    assert refused.reason.startswith("not promoted: the champion v3 cannot be compared: it knows x, y, none of")


def test_lower_is_better_where_the_headline_metric_is_a_loss():
    thresholds = ClassThresholds(metric="log_loss")
    good, bad = with_metrics(log_loss=0.3), with_metrics(log_loss=0.5)
    assert judge(good, baseline=bad, champion=bad, thresholds=thresholds).passed
    assert not judge(bad, baseline=bad, champion=good, thresholds=thresholds).passed


def test_a_metric_that_is_not_a_number_fails_the_gate():
    candidate = with_metrics(accuracy=math.nan)
    assert not judge(candidate, baseline=with_metrics(), champion=None, thresholds=ClassThresholds()).passed


def test_evaluations_of_other_rows_are_not_compared():
    other = scored([[0.2, 0.8]], ["positive"])
    with pytest.raises(EvaluationError, match="champion was evaluated on 1 rows and the candidate on 2"):
        judge(with_metrics(), baseline=with_metrics(), champion=other, thresholds=ClassThresholds())


def test_thresholds_are_read_with_bounds_and_suggestions():
    read = read_settings(ClassThresholds, {"min_accuracy": 0.7, "max_log_loss": None}, where="[gate]")
    assert (read.min_accuracy, read.max_log_loss) == (0.7, None)
    with pytest.raises(SettingError, match="did you mean 'min_accuracy'"):
        read_settings(ClassThresholds, {"min_acuracy": 0.7}, where="[gate]")
    with pytest.raises(SettingError, match=r"min_macro_f1"):
        read_settings(ClassThresholds, {"min_macro_f1": 1.5}, where="[gate]")


@pytest.mark.parametrize("classes", [2, 12, 90])
def test_figures_of_any_number_of_labels_are_drawn_without_a_warning(classes):
    probabilities, truth, labels = random_rows(300, classes)
    odd = (*labels[1:], "a $very$ long name with \U0001f9d1 and 电影 in it, and more of it")
    truth = [odd[labels.index(label)] for label in truth]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = scored(probabilities, truth, odd, resamples=20)
        for figure in (
            make_calibration_figure(made, made),
            make_calibration_figure(made),
        ):
            assert to_png(figure).startswith(b"\x89PNG")


def test_on_99_to_1_the_model_that_never_says_the_rare_class_is_refused_with_its_recall(tmp_path):
    from dlpipe.evaluation import evaluate_baseline, evaluate_model
    from dlpipe.tables import Sources, ingest
    from dlpipe.task.text_classification import TextClassData

    source = Path(__file__).resolve().parents[2] / "shared/cases/imbalance.csv"
    if not source.exists():
        pytest.skip("there is no folder shared/cases beside the project")
    table = ingest(Sources(data=str(source)), str(tmp_path / "t"), settings=TextClassData()).table

    class NeverRare:
        card = {"task": "text-classification"}  # noqa: RUF012
        labels = ("common", "rare")

        def predict_outputs(self, texts):
            return np.tile([0.9, 0.1], (len(texts), 1))

    made, baseline = evaluate_model(NeverRare(), table), evaluate_baseline(table, beside=NeverRare())
    assert made.metrics["accuracy"] == baseline.metrics["accuracy"] >= 0.98
    verdict = judge(made, baseline=baseline, champion=None, thresholds=ClassThresholds())
    assert not verdict.passed
    assert verdict.reason.startswith(
        "not promoted: macro F1 0.497 is not above the 0.497 of always 'common'; recall"
    )
    assert made.recall == {"common": 1.0, "rare": 0.0}
