"""Monitoring: drift is found and chance is not; quality is compared; an event is not repeated each hour."""

from __future__ import annotations

import dataclasses
import random
import typing
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from reading_cards import read, read_cells
from scipy import stats
from texts import BAD, GOOD, THINGS

from dlpipe.errors import ModelNotFound, NoRows, NothingToLearn, SchemaMismatch, SettingError, TableVersionNotFound
from dlpipe.flows.cards.drift import make_drift_parts
from dlpipe.inference import score, score_new
from dlpipe.inference.scoring import PartScorer
from dlpipe.monitoring import (
    DriftReport,
    DriftSettings,
    Sample,
    check_new_labels,
    check_scored,
    count_new_labels,
    find_subject,
    make_history_figure,
    make_sample,
    monitor,
)
from dlpipe.monitoring import compare as compare_by_inputs
from dlpipe.monitoring.domains import tell_apart
from dlpipe.monitoring.looks import append_look
from dlpipe.monitoring.samples import to_predictions
from dlpipe.monitoring.statistics import chi_square, holm, psi, psi_of_counts
from dlpipe.pictures import to_png
from dlpipe.registry import ModelVersion
from dlpipe.settings import read_settings
from dlpipe.tables import TableVersion, append, read_table, table_at, write_table
from dlpipe.task import DriftSeries, Inputs, Quality, find_task, open_predictor
from dlpipe.task.quality import compare_errors, compare_shares
from dlpipe.task.text_classification import TextClassData

WORDS = [*GOOD, *BAD, *THINGS]
OTHERS = ["camera", "kettle", "printer", "cable", "battery", "lid"]
HOUR = 3600.0
TASK = find_task("text-classification")


def drawn(count: int, seed: int, words: list[str] = WORDS) -> list[str]:
    chance = random.Random(seed)
    return [" ".join(chance.choices(words, k=chance.randint(4, 12))) for _ in range(count)]


def sample(count: int, seed: int, words: list[str] = WORDS, share: float = 0.5) -> Sample:
    chance = np.random.default_rng(seed)
    value = np.where(chance.random(count) < share, chance.beta(8, 2, count), chance.beta(2, 8, count))
    predicted = (
        DriftSeries("probability", "the predicted probability", value.tolist()),
        DriftSeries("predicted", "the predicted labels", np.where(value > 0.5, "good", "bad").tolist()),
    )
    rows = make_sample(TASK, drawn(count, seed, words))
    return dataclasses.replace(rows, predicted=predicted, predictions=count)


def with_texts(made: Sample, texts: list[str]) -> Sample:
    return dataclasses.replace(made, rows=texts, series=make_sample(TASK, texts).series)


def compare(reference, current, quality, settings):
    return compare_by_inputs(reference, current, quality, settings, inputs=TASK.inputs)


# --- statistics


def test_samples_of_one_population_are_told_apart_by_none_of_twenty_draws() -> None:
    reference = sample(500, 1000)
    found = [
        compare(reference, sample(60, seed), compare_shares(48, 60, 400, 500), DriftSettings())
        for seed in range(40)
    ]
    assert [signal.name for signal in found[0].signals] == [
        "domain",
        "length",
        "probability",
        "predicted",
        "quality",
    ]
    assert not [drift.reason for drift in found if drift.drifted]
    assert max(signal.p_value < 0.05 for drift in found for signal in drift.signals)  # some are, by chance


@pytest.mark.parametrize(
    ("current", "quality", "raised"),
    [
        (sample(60, 1, words=[*WORDS, *OTHERS]), None, {"domain"}),
        (with_texts(sample(60, 1), [text + text for text in drawn(60, 1)]), None, {"length"}),
        (sample(200, 1, share=0.95), None, {"probability", "predicted"}),
        (sample(60, 1), compare_shares(30, 60, 450, 500), {"quality"}),
    ],
    ids=["other subjects", "longer texts", "other answers", "more mistakes"],
)
def test_each_kind_of_change_raises_its_own_signal(current: Sample, quality: Quality, raised: set[str]) -> None:
    found = compare(sample(500, 1000), current, quality, DriftSettings())
    assert raised <= {signal.name for signal in found.raised} <= {*raised, "domain"}
    assert all(str(signal) in found.reason for signal in found.raised)


def test_a_change_that_is_sure_but_small_raises_nothing() -> None:
    found = compare(sample(1500, 1000), sample(1500, 1, share=0.6), None, DriftSettings())
    sure = {signal.name for signal in found.signals if signal.adjusted < 0.001}
    assert sure >= {"predicted", "probability"}
    assert not found.drifted


def test_too_few_rows_are_not_compared() -> None:
    found = compare(
        sample(500, 1000), sample(49, 1, words=OTHERS), compare_shares(0, 49, 400, 500), DriftSettings()
    )
    assert (found.signals, found.drifted, found.title) == ((), False, "Nothing to compare")
    assert found.reason == (
        "nothing to compare: 49 texts of new rows of 50 needed; 49 predictions of new rows of 50 needed; "
        "49 labels of new rows of 50 needed"
    )
    some = compare(sample(500, 1000), make_sample(TASK, drawn(60, 1)), None, DriftSettings())
    assert (some.title, some.missing) == ("No drift", ("0 predictions of new rows of 50 needed",))


def test_the_size_that_chance_gives_is_taken_off_the_stability_index() -> None:
    chance = np.random.default_rng(0)
    found = [psi(chance.normal(size=300), chance.normal(size=60)) for _ in range(200)]
    assert np.mean(found) < 0.08  # 0.18 without that
    assert psi(chance.normal(size=300), chance.normal(1, size=60)) > 0.4
    assert psi([4] * 50, [4] * 50) == 0
    assert psi([4] * 50, [12] * 50) > 1
    assert psi([4] * 50, [3] * 50) > 1
    assert psi_of_counts([50, 50, 0], [0, 50, 50]) > 1


def test_adjusted_values_are_those_of_statsmodels_rule() -> None:
    values = [0.01, 0.04, 0.03, 0.005, 0.5]
    ranked = sorted(values)
    by_hand = [max(min(1, (5 - j) * ranked[j]) for j in range(i + 1)) for i in range(5)]
    assert holm(values) == [by_hand[ranked.index(value)] for value in values]
    assert holm([]) == []


def test_labels_that_are_rare_are_put_together() -> None:
    assert chi_square([100, 100, 1, 0], [50, 50, 0, 1]) > 0.5
    plain = stats.chi2_contingency([[60, 40], [30, 70]]).pvalue
    assert chi_square([60, 40], [30, 70]) == pytest.approx(plain)


@pytest.mark.parametrize("text", ["", "!!!", "\N{THUMBS UP SIGN}"])
def test_texts_without_words_are_told_apart_too(text: str) -> None:
    odd = [text + "?" * (number % 5) for number in range(60)]
    found = tell_apart(drawn(60, 0), odd, inputs=TASK.inputs, seed=0)
    assert found.auc > 0.9


def test_mean_errors_that_grew_are_a_signal_with_a_limit_of_their_own() -> None:
    chance = np.random.default_rng(0)
    test = np.abs(chance.normal(0, 2, 300)).tolist()
    same, worse = (np.abs(chance.normal(0, size, 200)).tolist() for size in (2, 3))
    reference, current = sample(500, 1000), sample(60, 1)
    calm, found = (
        compare(reference, current, compare_errors(errors, test), DriftSettings()) for errors in (same, worse)
    )
    assert not calm.drifted
    (signal,) = found.raised
    assert (signal.name, signal.limit) == ("quality", 0.2)
    assert str(signal).startswith("growth of the mean absolute error since the test split 0.4")
    assert not compare(reference, current, compare_errors(worse, test), DriftSettings(max_error_growth=1)).drifted
    assert compare_errors([], test).p_value == 1.0


class TwoColumns(Inputs):
    """A number that may be missing and a category, of which the features are the number and its square."""

    rows_noun = "measurements"

    def make_featurizer(self, rows):
        from sklearn.preprocessing import FunctionTransformer

        return FunctionTransformer(
            lambda some: np.array([[row["width"] or 0.0, (row["width"] or 0.0) ** 2] for row in some]),
            feature_names_out=lambda *_: ["width", "width squared"],
        )

    def make_drift_series(self, rows):
        widths = [float("nan") if row["width"] is None else row["width"] for row in rows]
        return [
            DriftSeries("the width", "the width", widths),
            DriftSeries("quality", "the kind", [row["kind"] for row in rows]),
        ]


TwoColumns.__abstractmethods__ = frozenset()


def measurements(count: int, seed: int, *, centre: float = 0.0, kinds: str = "ab") -> Sample:
    chance = np.random.default_rng(seed)
    rows = [
        {"width": None if at % 10 == 0 else float(chance.normal(centre, 1)), "kind": kinds[at % len(kinds)]}
        for at in range(count)
    ]
    return Sample(rows, tuple(TwoColumns().make_drift_series(rows)))


def test_rows_of_any_kind_are_compared_by_their_series_and_told_apart_by_their_features() -> None:
    old = measurements(300, 0)
    calm, moved = (
        compare_by_inputs(old, new, None, DriftSettings(), inputs=TwoColumns())
        for new in (measurements(200, 1), measurements(200, 1, centre=2.0, kinds="abc"))
    )
    assert [signal.name for signal in calm.signals] == ["domain", "the_width", "quality_"]
    assert not calm.drifted
    assert {signal.name for signal in moved.raised} == {"domain", "the_width", "quality_"}
    assert moved.signals[0].words == "AUC of telling new measurements from old ones"
    assert moved.signals[1].rows == 180  # what is missing is left out
    assert "width" in {name for name, _ in moved.domains.new}
    few = compare_by_inputs(old, measurements(9, 1), None, DriftSettings(), inputs=TwoColumns())
    assert few.missing[0] == "9 measurements of new rows of 50 needed"


def test_another_table_of_the_name_is_refused_in_a_line(world: World) -> None:
    world.arrives(new_texts(60))
    write_table(f"{world.folder / 'incoming'}_drift", pa.table({"at": ["1"]}))
    with pytest.raises(
        SchemaMismatch, match=r"'incoming_drift@v0' has no column 'labelled_rows' and .* Move it away"
    ):
        world.look()


def test_a_column_named_as_a_signal_gets_another_name() -> None:
    numbers = [float(at) for at in range(60)]
    names = ("predicted", "a b", "a_b", "quality", "domain")
    rows = tuple(DriftSeries(name, name, numbers) for name in names)
    both = Sample(drawn(60, 0), rows, (DriftSeries("predicted", "the predicted number", numbers),), 60)
    found = compare(both, both, None, DriftSettings())
    names = [signal.name for signal in found.signals]
    assert names == ["domain", "predicted_", "a_b", "a_b_", "quality_", "domain_", "predicted"]


def test_the_probability_of_the_last_of_two_labels_has_its_name() -> None:
    def signals(*labels: str) -> list[str]:
        shares = np.full((2, len(labels)), 1 / len(labels))
        made = to_predictions(TASK.target, shares, {"labels": list(labels)})
        return [series.name for series in make_sample(TASK, ["a", "b"], made).predicted]

    assert signals("bad", "good") == ["p_good", "predicted"]
    assert signals("bad", "good", "so so") == ["probability", "predicted"]


def test_looks_with_other_signals_stand_in_one_table(tmp_path: Path) -> None:
    target = str(tmp_path / "rows_drift")
    first = append_look(target, pa.table({"at": ["1"], "length": [0.1]}), key={"look": "1"})
    second = append_look(target, pa.table({"at": ["2"], "width": [0.2], "length": [0.3]}), key={"look": "2"})
    third = append_look(target, pa.table({"at": ["3"], "length": [0.4]}), key={"look": "3"})
    assert append_look(target, pa.table({"at": ["3"], "length": [0.4]}), key={"look": "3"}) == third
    assert read_table(third).to_pydict() == {
        "at": ["1", "2", "3"],
        "length": [0.1, 0.3, 0.4],
        "width": [None, 0.2, None],
    }
    assert read_table(first).column_names == ["at", "length"]
    assert second.version == first.version + 2


def test_a_table_with_names_of_before_gets_the_columns_of_today(world: World) -> None:
    world.arrives(new_texts(60))
    (row,) = read_table(world.look(min_rows=20).table).to_pylist()
    renamed = {"predicted": "label", "predicted_p": "label_p"}
    older = {renamed.get(name, name): value for name, value in row.items()}
    target = f"{world.folder / 'incoming'}_drift"
    write_table(target, pa.Table.from_pylist([older]), mode="overwrite")
    world.arrives(new_texts(60, seed=1))
    kept, made = read_table(world.look(min_rows=20).table).to_pylist()
    assert (kept["label"], kept["predicted"]) == (row["predicted"], None)
    assert (made["label"], made["predicted"] is None) == (None, False)


def test_a_text_on_both_sides_is_not_known_by_heart() -> None:
    texts = drawn(100, 0)
    assert tell_apart(texts, texts, inputs=TASK.inputs, seed=0).auc == pytest.approx(0.5, abs=0.1)


def test_the_picture_of_looks_has_dates_and_limits_as_lines() -> None:
    row = {"at": "2026-11-02T10:00:00+00:00", "domain": 0.9, "accuracy": float("nan"), "test_accuracy": 0.8}
    history = [
        row | {"drifted": True},
        row | {"at": "2026-11-05T10:00:00+00:00", "domain": None, "drifted": False},
    ]
    figure = make_history_figure(history, TASK, DriftSettings(max_auc=0.7))
    domain, quality = figure.axes
    assert [text.get_text() for text in domain.get_legend().get_texts()] == ["limit 0.7", "guessing 0.5"]
    assert [text.get_text() for text in quality.get_legend().get_texts()] == ["test split 0.8", "limit 0.75"]
    assert domain.get_lines()[0].get_xdata()[0].day == 2
    assert [text.get_text() for text in quality.texts] == ["nothing to compare yet"]
    assert to_png(figure).startswith(b"\x89PNG")


def test_every_setting_stands_on_the_page_with_default_and_range() -> None:
    from test_docs import ROOT, allowed, default

    page = (ROOT / "docs/monitoring.md").read_text().partition("\n## Settings\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    hints = typing.get_type_hints(DriftSettings, include_extras=True)
    expected = [
        (f"`{field.name}`", default(field.default), allowed(hints[field.name]))
        for field in dataclasses.fields(DriftSettings)
    ]
    assert [tuple(cell.strip() for cell in row[:3]) for row in rows] == expected


def test_a_setting_out_of_range_is_refused() -> None:
    with pytest.raises(SettingError, match=r"\[monitoring\]: alpha = 0.0 is refused"):
        read_settings(DriftSettings, {"alpha": 0.0}, where="[monitoring]")


# --- tables


@pytest.fixture(scope="module")
def predictor(tiny_model):
    return open_predictor(tiny_model, threads=1)


@pytest.fixture
def world(tiny_model, tiny_table, predictor, tmp_path):
    return World(tiny_table, predictor, tmp_path)


class World:
    """A champion trained on ``reviews``, a table of rows that came in, and the predictions of them."""

    def __init__(self, trained_on: TableVersion, predictor, folder: Path) -> None:
        self.trained_on, self.predictor, self.folder = trained_on, predictor, folder
        self.champion = self.model(1)
        self.target = str(folder / "incoming_predictions")

    def model(self, number: int, **tags: str) -> ModelVersion:
        made_from = {"delta.table": self.trained_on.path, "delta.version": str(self.trained_on.version)}
        uri = f"models:/reviews/{number}"
        return ModelVersion("reviews", number, uri, self.predictor.digest, "", "", tags={**made_from, **tags})

    def arrives(self, texts: list[str], labels: list[str] | None = None, *, model: ModelVersion | None = None):
        lines = [f'"{text}",{label}' for text, label in zip(texts, labels or [""] * len(texts), strict=True)]
        file = self.folder / "new.csv"
        file.write_text("\n".join(["review,sentiment", *lines]) + "\n")
        rows = append(str(file), self.folder / "incoming", settings=TextClassData()).table
        make = lambda scoring: PartScorer(self.predictor, scoring)  # noqa: E731
        score_new(make, rows, model=model or self.champion, target=self.target, say=None)

    def look(self, *, now: float = 0.0, model: ModelVersion | None = None, **settings):
        subject = find_subject(model or self.champion, table_at(self.folder / "incoming"), table_at(self.target))
        return monitor(subject, predict=self.predict, settings=DriftSettings(**settings), now=now)

    def predict(self, texts: list[str]) -> pa.Table:
        return to_predictions(TASK.target, self.predictor.predict_outputs(texts), self.predictor.card)

    def learnt(self, count: int) -> list[str]:
        return read_table(self.trained_on, columns=["text"])["text"].to_pylist()[:count]


def new_texts(count: int, seed: int = 0) -> list[str]:
    return list(dict.fromkeys(drawn(2 * count, seed, OTHERS)))[:count]


def test_rows_that_came_in_are_compared_and_rows_that_were_learnt_are_not(world: World) -> None:
    world.arrives([*new_texts(60), *world.learnt(100)])
    found = world.look()
    assert sorted(found.current.rows) == sorted(new_texts(60))
    assert found.current.predictions == 60
    assert {"domain"} <= {signal.name for signal in found.drift.raised}
    assert found.publish
    assert found.payload()["table"] == world.trained_on.path
    assert found.payload()["model"] == "reviews"


def test_the_window_holds_the_last_rows(world: World) -> None:
    world.arrives(new_texts(150)[:100])
    world.arrives(new_texts(150)[100:])
    assert sorted(world.look(window=50).current.rows) == sorted(new_texts(150)[100:])


def test_answers_of_another_model_are_not_compared_with_the_champions(world: World) -> None:
    world.arrives(new_texts(140)[:80])
    world.arrives(new_texts(140)[80:], model=world.model(2))
    found = world.look()
    assert (len(found.current.rows), found.current.predictions) == (140, 80)


def test_answers_on_the_test_split_are_read_where_training_left_them(world: World) -> None:
    world.arrives(new_texts(60))
    made = world.look()
    score(world.predictor, world.trained_on, model=world.champion, target=world.target, split=None, say=None)
    read = world.look()
    assert read.quality.test_value == made.quality.test_value
    assert read.quality.test_rows == made.quality.test_rows > 20
    (values, labels), (made_values, made_labels) = (
        [series.values for series in look.reference.predicted] for look in (read, made)
    )
    assert sorted(values) == pytest.approx(sorted(made_values), abs=1e-5)
    assert Counter(labels) == Counter(made_labels)
    subject = dataclasses.replace(read.subject, predictions=table_at(world.target))
    monitor(subject, predict=None, settings=DriftSettings(seed=1), now=0.0)  # nothing is predicted


def test_quality_counts_labels_that_came_in_later(world: World) -> None:
    texts = new_texts(80)
    world.arrives(texts)
    assert world.look().quality.rows == 0
    predicted = dict(zip(texts, world.predict(texts).column(0).to_pylist(), strict=True))
    wrong = {"positive": "negative", "negative": "positive"}
    world.arrives(
        texts, [predicted[text] if at % 4 == 0 else wrong[predicted[text]] for at, text in enumerate(texts)]
    )
    found = world.look()
    assert (found.quality.value, found.quality.rows) == (0.25, 80)
    assert "quality" in {signal.name for signal in found.drift.raised}
    low, high = found.quality.interval
    assert low < 0.25 < high < found.quality.test_value


def test_the_same_look_again_is_one_row_and_one_event(world: World) -> None:
    world.arrives(new_texts(60))
    first, again = world.look(now=10.0), world.look(now=500.0)
    assert (again.table, again.event_id, again.publish) == (first.table, first.event_id, True)
    assert (first.new, again.new) == (True, False)
    assert first.table.rows == 1
    (row,) = read_table(first.table).to_pylist()
    assert (row["at"], row["drifted"], row["published"]) == ("1970-01-01T00:00:10+00:00", True, True)


def test_drift_that_goes_on_publishes_again_after_the_quiet_hours_or_when_labels_came(world: World) -> None:
    texts = new_texts(400)
    published = []
    for at, (hour, labels) in enumerate(
        [(0, None), (1, None), (169, None), (170, None), (171, ["positive", "negative"] * 25), (172, None)]
    ):
        world.arrives(texts[at * 60 : at * 60 + 50], labels)
        published.append(world.look(now=hour * HOUR).publish)
    assert published == [True, False, True, False, True, False]
    assert world.look(now=172 * HOUR, seed=1, model=world.model(2)).publish  # another champion
    history = world.look(now=172 * HOUR).history
    assert [row["published"] for row in history] == published


def test_a_table_that_the_model_never_scored_is_no_drift_of_it(world: World) -> None:
    """``--model triage --table reviews``: what others scored is not meant for this model."""
    world.arrives(new_texts(60))
    stranger = dataclasses.replace(world.model(1), name="triage", uri="models:/triage/1")
    found = world.look(model=stranger)
    assert (found.drift.title, found.drift.drifted, found.publish) == ("Nothing to compare", False, False)
    assert found.drift.reason == "nothing to compare: no version of triage has scored a row of incoming@v0"
    with pytest.raises(NoRows, match=r"has scored a row of incoming@v0: incoming_predictions@v0 has none"):
        check_scored(found.subject)
    check_scored(world.look().subject)


def test_a_model_without_lineage_or_of_a_table_made_anew_cannot_be_monitored(world: World) -> None:
    world.arrives(new_texts(5))
    incoming, predictions = table_at(world.folder / "incoming"), table_at(world.target)
    bare = dataclasses.replace(world.champion, tags={})
    with pytest.raises(ModelNotFound, match=r"has no tags delta\.table and delta\.version"):
        find_subject(bare, incoming, predictions)
    with pytest.raises(TableVersionNotFound, match="The table was made anew"):
        find_subject(world.model(1, **{"delta.digest": "0" * 32}), incoming, predictions)


def test_a_training_without_new_labels_has_nothing_to_learn(world: World) -> None:
    path, learnt = world.folder / "grown", world.trained_on
    write_table(path, read_table(learnt))
    rows = {"row_id": ["n1", "n2"], "text": ["one", "two"], "label": [None, None], "split": [None, None]}
    grown = write_table(path, pa.table(rows, schema=read_table(learnt).schema))
    with pytest.raises(NothingToLearn, match=r"2 of its 252 rows have no label; .* dlpipe append grown FILE"):
        check_new_labels(grown, world.champion)
    assert count_new_labels(grown, learnt) == 0
    rows = {"row_id": ["n3"], "text": ["three"], "label": ["positive"], "split": ["train"]}
    labelled = write_table(path, pa.table(rows, schema=read_table(learnt).schema))
    assert count_new_labels(labelled, learnt) == 1
    check_new_labels(labelled, world.champion)
    check_new_labels(grown, None)
    check_new_labels(grown, dataclasses.replace(world.champion, tags={}))


# --- other tasks


def write_rows(path: Path, rows: list[dict], label: pa.DataType, **columns) -> TableVersion:
    """Write rows with the columns that are given beside their own."""
    made = pa.Table.from_pylist(rows).drop_columns(["label"])
    made = made.append_column("label", pa.array([row["label"] for row in rows], label))
    for name, values in columns.items():
        made = made.append_column(name, pa.array(values))
    return write_table(path, made)


def monitored_numbers(folder: Path) -> DriftReport:
    """A model of numbers that is worse on new texts."""
    chance = np.random.default_rng(0)

    def make(count: int, start: int, words: list[str]) -> list[dict]:
        texts = drawn(count, start, words)
        return [
            {"row_id": f"{start + at}", "text": text, "label": float(len(text))} for at, text in enumerate(texts)
        ]

    def predict(rows: list[dict], spread: float) -> list[dict]:
        values = [row["label"] + chance.normal(0, spread) for row in rows]
        return [{"predicted": value, "low": value - 2, "high": value + 2} for value in values]

    old, new = make(300, 0, WORDS), make(80, 1000, OTHERS)
    splits = ["test" if at % 3 == 0 else "train" for at in range(300)]
    answers = pa.Table.from_pylist(
        predict([row for row, split in zip(old, splits, strict=True) if split == "test"], 1)
    )
    return look_at(folder, "text-regression", pa.float64(), (old, splits), (new, predict(new, 3)), answers)


def monitored_columns(folder: Path) -> DriftReport:
    """A classifier of columns, one of which has moved, and has the name of a column of the drift table."""
    chance = np.random.default_rng(0)

    def make(count: int, start: int, centre: float) -> list[dict]:
        return [
            {
                "row_id": f"{start + at}",
                "rows": float(chance.normal(centre)),
                "kind": "ab"[at % 2],
                "label": "yn"[at % 2],
            }
            for at in range(count)
        ]

    def predict(rows: list[dict]) -> list[dict]:
        return [
            {"predicted": row["label"], "probability": 0.9, "probabilities": [0.1, 0.9], "labels": ["n", "y"]}
            for row in rows
        ]

    old, new = make(300, 0, 0.0), make(80, 1000, 3.0)
    splits = ["test" if at % 3 == 0 else "train" for at in range(300)]
    test = [row for row, split in zip(old, splits, strict=True) if split == "test"]
    answers = pa.Table.from_pylist(predict(test))
    return look_at(folder, "tabular-classification", pa.string(), (old, splits), (new, predict(new)), answers)


def look_at(folder: Path, task: str, label: pa.DataType, old, new, answers: pa.Table) -> DriftReport:
    """Monitor a champion that predicts ``answers`` of the test split, and of new rows what stands beside them."""
    trained_on = write_rows(folder / "learnt", old[0], label, split=old[1])
    source = write_rows(folder / "incoming", new[0], label)
    tags = {"delta.table": trained_on.path, "delta.version": "0", "dlpipe.task": task}
    champion = ModelVersion("rows", 1, "models:/rows/1", "d1", "", "", tags=tags)
    fields = pa.schema(find_task(task).target.list_prediction_fields())
    predictions = pa.Table.from_pylist(new[1]).cast(fields)
    predictions = predictions.append_column("row_id", pa.array([row["row_id"] for row in new[0]]))
    for name, value in (("model_version", champion.uri), ("source", source.path), ("answer_set", "other")):
        predictions = predictions.append_column(name, pa.array([value] * predictions.num_rows))
    subject = find_subject(champion, source, write_table(folder / "incoming_predictions", predictions))
    return monitor(subject, predict=lambda rows: answers.cast(fields), settings=DriftSettings(), now=0.0)


def test_a_model_of_numbers_is_monitored_by_its_errors(tmp_path: Path) -> None:
    found = monitored_numbers(tmp_path)
    (row,) = read_table(found.table).to_pylist()
    assert {"domain", "length", "predicted", "quality"} <= {signal.name for signal in found.drift.signals}
    assert {"domain", "quality"} <= {signal.name for signal in found.drift.raised}
    assert row["test_mae"] < 1.2 < row["mae_low"] < row["mae"] < row["mae_high"]
    assert (row["judged_rows"], row["rows"]) == (80, 80)
    assert row["predicted_p"] is not None
    page = read(make_drift_parts(found))
    assert page.startswith("# Drift: incoming")
    assert "the new texts that look least like old ones" in page
    assert "mean absolute error of new rows" in page[: page.index("## ")]
    newest = [cells[0] for cells in read_cells(page, "## What is new in the texts")]
    assert len(newest) == 8
    assert {*newest} <= {*found.current.rows}
    assert "The event model-drifted asks for a training on the rows of" in page
    assert f"{row['mae']:.3f}" in page[: page.index("## ")]
    assert "This is the first look at this model (1970-01-01 00:00 UTC)" in page
    again = dataclasses.replace(found, publish=False, history=[row, row])
    assert "No new event: one of 1970-01-01 00:00 UTC has asked" in read(make_drift_parts(again))
    assert "red where drift was found]" in read(make_drift_parts(again))
    few = dataclasses.replace(found, drift=dataclasses.replace(found.drift, signals=(), missing=("3 texts",)))
    assert "# Nothing to compare: incoming" in read(make_drift_parts(few))


def test_a_model_of_columns_is_monitored_by_each_of_them(tmp_path: Path) -> None:
    found = monitored_columns(tmp_path)
    (row,) = read_table(found.table).to_pylist()
    assert {"domain", "rows", "kind", "predicted", "quality"} <= {signal.name for signal in found.drift.signals}
    assert {signal.name for signal in found.drift.raised} == {"domain", "rows"}
    assert (row["rows"], row["accuracy"]) == (80, 1.0)
    assert row["rows_"] > 1 > row["kind"]
    assert found.payload()["rows"] == 80
    assert "rows" in dict(found.drift.domains.new)
    assert "### Rows: raised" in read(make_drift_parts(found))
