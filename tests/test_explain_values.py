"""Values against shap's own, many texts at once, and the fast method."""

from __future__ import annotations

import csv
import itertools
import time
from dataclasses import replace

import numpy as np
import pytest
from test_explain import EDGES, WordList, explained
from texts import SHARED

from dlpipe.errors import ExplanationError
from dlpipe.explain import ExplainSettings, compare_methods, explain_rows
from dlpipe.explain.explaining import measure_agreement
from dlpipe.explain.explanations import Explanation, Explanations
from dlpipe.explain.partition import explain_by_partition
from dlpipe.explain.rounds import OPEN_ROWS, OutputCache, Work, run_in_rounds
from dlpipe.explain.shap_objects import import_shap
from dlpipe.task import find_task, open_predictor
from dlpipe.task.texts.word_tree import build_word_tree
from dlpipe.task.texts.words import split_words, tokenize_for_shap

TEXTS = [
    *EDGES.values(),
    "( so good ) , ' t but it ' s [x] bad . really ?",
    "a ( b ( good ) c ) d ) (",
    "not bad , and not good either ; dull and awful , or great ? i love it !",
    "good good good good good good good good good good good good good good good good good good good",
]


@pytest.fixture(scope="module")
def shap():
    """shap, as dlpipe imports it."""
    return import_shap()


def by_shap(shap, predictor, text, settings):
    """Return what shap's PartitionExplainer says of a text, on the same masks."""
    masker = shap.maskers.Text(tokenize_for_shap, mask_token=" ")
    explainer = shap.PartitionExplainer(lambda texts: predictor.predict_outputs([str(t) for t in texts]), masker)
    state = np.random.get_state()
    np.random.seed(settings.seed)
    try:
        return explainer([text], max_evals=settings.max_evals, batch_size=settings.batch_rows, silent=True)
    finally:
        np.random.set_state(state)


@pytest.mark.parametrize("max_evals", [30, 300, 5000])
def test_values_are_those_of_shaps_partition_explainer(shap, max_evals):
    settings = ExplainSettings(max_evals=max_evals, seed=4)
    predictor = WordList(max_length=60)
    for text in TEXTS:
        (mine,) = explain_rows(predictor, [("a", text)], settings=settings).rows
        if len(mine.parts) > 1:
            other = by_shap(shap, predictor, "".join(mine.parts), settings)
            np.testing.assert_allclose(mine.attributions, other.values[0], atol=1e-6)
            np.testing.assert_allclose(mine.base, other.base_values[0], atol=1e-6)


def test_values_of_a_network_are_those_of_shap(shap, tiny_model):
    predictor, settings = open_predictor(tiny_model), ExplainSettings(max_evals=60)
    pairs = itertools.permutations(["film", "plot", "soup"], 2)
    rows = [("a", f"the {one} was bad and the {two} i found lovely and good") for one, two in pairs]
    for row in explain_rows(predictor, rows, settings=settings).rows:
        other = by_shap(shap, predictor, row.row, settings)
        np.testing.assert_allclose(row.attributions, other.values[0], atol=1e-4)


def test_the_tree_of_words_is_that_of_shaps_text_masker(shap):
    masker = shap.maskers.Text(tokenize_for_shap, mask_token=" ")
    for text in (text for text in TEXTS if len(split_words(text)) > 1):
        theirs = masker.clustering(text)[:, :2].astype(int).tolist()
        assert [list(pair) for pair in build_word_tree(split_words(text)).children] == theirs


@pytest.mark.parametrize("text", ["a good film , not dull .", "good dull"])
def test_shaps_plots_draw_an_explanation(shap, text):
    import matplotlib.pyplot as plt

    (row,) = explained(text).rows
    made = row.to_shap()
    assert made.shape == row.attributions.shape
    assert (tuple(made.data), tuple(made.output_names)) == (row.parts, row.labels)
    np.testing.assert_array_equal(made.base_values, row.base)
    page = shap.plots.text(made, display=False)
    assert all(word.strip() in page for word in (*row.parts, *row.labels))
    with plt.rc_context(), plt.ioff():
        for draw in (shap.plots.waterfall, shap.plots.bar):
            figure = plt.figure()
            draw(row.to_shap("positive"), show=False)
            shown = [each.get_text() for each in figure.axes[0].get_yticklabels()]
            plt.close(figure)
            assert {word.strip() for word in row.parts} <= {*shown}


def test_shap_has_no_explanation_of_a_text_without_words():
    (row,) = explained("").rows
    with pytest.raises(ExplanationError, match="Row 'row-0' has no words"):
        row.to_shap()


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not there")
def test_the_tree_of_real_sentences_is_that_of_shap(shap):
    with (SHARED / "snippets" / "movies_test.csv").open(newline="", encoding="utf-8") as file:
        texts = [row["review"] for row in csv.DictReader(file)][:300]
    masker = shap.maskers.Text(tokenize_for_shap, mask_token=" ")
    for text in texts:
        assert [list(pair) for pair in build_word_tree(split_words(text)).children] == (
            masker.clustering(text)[:, :2].astype(int).tolist()
        )


def test_what_many_texts_ask_in_a_round_is_one_call_and_nothing_is_asked_twice():
    predictor = WordList()
    texts = [f"plain {word} words number {number} and so on" for number in range(20) for word in ("good", "bad")]
    explained(*texts, predictor=predictor, max_evals=100)
    assert len(predictor.calls) <= 8
    asked = [text for call in predictor.calls for text in call]
    assert len(set(asked)) == len(asked)
    assert asked.count("") == 1


def test_ten_thousand_equal_texts_are_explained_once():
    predictor = WordList()
    began = time.monotonic()
    made = explained(*["so good, and not dull"] * 10_000, predictor=predictor)
    assert time.monotonic() - began < 5
    assert sum(map(len, predictor.calls)) < 50
    assert len(made.rows) == 10_000
    assert [made.rows[at].row_id for at in (0, 9_999)] == ["row-0", "row-9999"]


@pytest.mark.parametrize(
    "text",
    [
        "good and bad " * 80_000,
        "x" * 1_000_000,
        " ".join(letter * 10_000 for letter in "abcdefghij" * 10),
        "\U0001f600" * 250_000,
        "." * 500_000 + "我" * 500_000,
        "<" * 1_000_000,
    ],
    ids=["words", "one word", "long words", "emoji", "marks", "open tags"],
)
def test_a_text_of_a_megabyte_is_explained_in_seconds(tiny_model, text):
    began = time.monotonic()
    (row,) = explain_rows(open_predictor(tiny_model), [("a", text)], settings=ExplainSettings(max_evals=50)).rows
    assert time.monotonic() - began < 30
    assert row.gap < 1e-4


def test_a_bounded_number_of_texts_is_open_at_once_and_results_keep_their_order():
    opened, most = 0, 0

    def rounds(number: int):
        nonlocal opened, most
        opened += 1
        most = max(most, opened)
        for _ in range(number % 4):
            (answer,) = yield [str(number)]
            assert float(answer) == number
        opened -= 1
        return number

    def score(texts):
        return np.array([float(text) for text in texts])

    endless = (Work(1000, rounds(number)) for number in itertools.count())
    assert list(itertools.islice(run_in_rounds(endless, score), 500)) == list(range(500))
    assert 1 < most <= OPEN_ROWS
    long = (Work(300_000, rounds(number)) for number in range(40))
    opened = most = 0
    assert list(run_in_rounds(long, score)) == list(range(40))
    assert most <= 2


def test_the_memory_of_scored_texts_is_bounded(monkeypatch):
    monkeypatch.setattr("dlpipe.explain.rounds.REMEMBERED", 10)
    predictor = WordList()
    score = OutputCache(predictor)
    assert score(["good", "bad", "good"]).shape == (3, 2)
    assert predictor.calls == [["good", "bad"]]
    score([f"word{number}" for number in range(30)])
    assert len(score._known) == 10
    score(["good"])
    assert predictor.calls[-1] == ["good"]


def test_gradients_give_deciding_words_their_sign_and_nearly_add_up(tiny_model):
    predictor = open_predictor(tiny_model)
    texts = [
        "the film was bad and i found it so",
        "what a lovely plot",
        "",
        "film",
        "\U0001f600\U0001f600",
        "good " * 200,
    ]
    rows = [(str(at), text) for at, text in enumerate(texts)]
    made = explain_rows(predictor, rows, settings=ExplainSettings(method="gradient", steps=200))
    assert made.method == "gradient"
    column = made.labels.index("positive")
    assert made.rows[0].attributions[:, column].argmin() == 3
    assert made.rows[1].attributions[2, column] > 0.1
    for row in made.rows:
        assert row.attributions.shape == (len(row.parts), 2)
        assert row.gap < 1e-3
        np.testing.assert_allclose(row.output, predictor.predict_outputs([row.row])[0], atol=1e-4)
        np.testing.assert_allclose(row.attributions.sum(axis=1), 0, atol=1e-6)
    assert made.rows[2].parts == ()
    assert len(made.rows[5].parts) < 200


def test_gradients_of_a_batch_are_those_of_each_text_alone(tiny_model):
    predictor, settings = open_predictor(tiny_model), ExplainSettings(method="gradient")
    texts = ["the film was awful", "what a lovely plot and cast", "dull"]
    together = explain_rows(predictor, [(text, text) for text in texts], settings=settings)
    for text, row in zip(texts, together.rows, strict=True):
        (alone,) = explain_rows(predictor, [("a", text)], settings=settings).rows
        np.testing.assert_allclose(row.attributions, alone.attributions, atol=1e-5)


def test_the_agreement_of_the_methods_is_the_same_from_either_side(tiny_model):
    predictor, settings = open_predictor(tiny_model), ExplainSettings(compared=6)
    things, words = ("film", "soup"), ("good", "dull", "bad")
    rows = [("a", f"the {thing} was {word} and i found it so") for thing in things for word in words]
    made = explain_rows(predictor, [*rows, ("b", "not compared")], settings=settings)
    found = compare_methods(predictor, made, settings=settings)
    assert found is not None
    assert found.rows == 6
    assert f"rank correlation {found.rank:.2f}" in found.line()
    fast = explain_rows(predictor, rows, settings=replace(settings, method="gradient"))
    again = compare_methods(predictor, fast, settings=settings)
    assert again is not None
    assert again.rank == pytest.approx(found.rank, abs=1e-3)


def test_a_predictor_without_gradients_is_an_error_and_is_not_compared():
    with pytest.raises(ExplanationError, match=r"WordList.*'partition'"):
        explained("so good", method="gradient")
    made = explained("so good")
    assert compare_methods(WordList(), made, settings=ExplainSettings()) is None


def test_a_backbone_whose_attention_takes_no_weights_is_refused(tiny_model):
    from transformers import AutoConfig, AutoModel

    predictor = open_predictor(tiny_model)
    config = AutoConfig.for_model(
        "deberta-v2",
        vocab_size=99,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    inner = predictor._network if hasattr(predictor._network, "encoder") else predictor._network._network
    inner.encoder = AutoModel.from_config(config).eval()
    with pytest.raises(ExplanationError, match=r"deberta-v2.*'partition'") as caught:
        explain_rows(predictor, [("a", "so good")], settings=ExplainSettings(method="gradient"))
    assert "\n" not in str(caught.value)


def test_agreement_counts_only_texts_that_say_something():
    def explanation(*values: float) -> Explanation:
        attributions = np.array([[-value, value] for value in values]).reshape(-1, 2)
        base, output = np.array([0.5, 0.5]), np.array([0.1, 0.9])
        count, labels = len(values), ("no", "yes")
        parts = {"parts": ("w ",) * count, "names": ("w",) * count, "columns": ("text",) * count}
        numbers = {"base": base, "attributions": attributions, "output": output, "output_kind": "shares"}
        return Explanation("a", "t", labels, **parts, texts=("text",), whole=True, **numbers)

    exact = Explanations((explanation(0.1, 0.2, 0.3), explanation(0.2, 0.2), explanation()), ("no", "yes"))
    other = Explanations(
        (explanation(0.3, -0.2, 0.4), explanation(0.1, 0.2), explanation()), ("no", "yes"), "gradient"
    )
    found = measure_agreement(exact, other)
    assert found is not None
    assert (found.rows, found.rank, found.sign) == (1, pytest.approx(0.5), pytest.approx(2 / 3))
    a_word, another = (Explanations((explanation(value),), ("no", "yes")) for value in (0.2, 0.1))
    assert measure_agreement(a_word, another) is None


def test_a_row_that_misses_the_output_is_named():
    class Forgetful(WordList):
        def predict_outputs(self, texts):
            return super().predict_outputs(texts) + 0.01 * len(self.calls)

    rows = [("fine", "good"), ("cut", "one two three")]
    with pytest.raises(ExplanationError, match="'cut'"):
        list(explain_by_partition(Forgetful(max_length=2), find_task(), rows, ExplainSettings()))
