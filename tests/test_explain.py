from __future__ import annotations

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest

from dlpipe.errors import ExplanationError, SettingError
from dlpipe.explain import ExplainSettings, choose_rows, explain_rows, make_row_figure
from dlpipe.pictures import to_drawable, to_png
from dlpipe.settings import read_settings
from dlpipe.tables import TableVersion
from dlpipe.task.texts.words import normalize_word, split_words

WEIGHTS = {"good": 1.5, "great": 2.0, "love": 1.8, "bad": -1.5, "awful": -2.0, "dull": -1.6}
EDGES = {
    "empty": "",
    "blank": " \n\t ",
    "one word": "great!",
    "emoji": "\U0001f600\U0001f600",
    "long": "good plain words " * 340,
    "spaces": "  so   good\n\nand\tawful ",
    "Han": "我爱电影 good",
    "odd": "x" * 300 + " $a$ <br /><br />dull https://a.b/c?d=e नमस्ते \U0001f468‍\U0001f469‍\U0001f467 5/10",
}


class WordList:
    """Scores a text by its words, of which 'not' turns the next one round; softmax over the labels."""

    labels, card = ("negative", "positive"), {"task": "text-classification"}

    def __init__(self, max_length: int = 128) -> None:
        self.max_length = max_length
        self.calls: list[list[str]] = []

    def predict_outputs(self, texts):
        self.calls.append(list(texts))
        margin = np.array([self.margin(text) for text in texts])
        odds = np.exp(np.stack([np.zeros(len(texts)), margin], axis=1))
        return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)

    def margin(self, text: str) -> float:
        words = [normalize_word(word) for word in split_words(text)[: self.max_length]]
        turned = [False, *(word == "not" for word in words)]
        return sum(WEIGHTS.get(word, 0.0) * (-1 if flip else 1) for word, flip in zip(words, turned, strict=False))


class Topics(WordList):
    labels = ("sport", "politics", "a $third$ \U0001f9d1 label", "music", "health", "science", "finance")

    def predict_outputs(self, texts):
        hits = np.array([[text.count(label[:5]) for label in self.labels] for text in texts])
        odds = np.exp(hits.astype(float))
        return odds / odds.sum(axis=1, keepdims=True)


class Restless(WordList):
    """Never gives a text the same probabilities twice: nothing can be explained."""

    def predict_outputs(self, texts):
        made = super().predict_outputs(texts)
        return made + 0.01 * len(self.calls)


def explained(*texts: str, predictor=None, **options):
    rows = [(f"row-{number}", text) for number, text in enumerate(texts)]
    return explain_rows(predictor or WordList(), rows, settings=ExplainSettings(**options))


def to_table(made):
    source = TableVersion("tables/reviews", 2, rows=9, digest="", timestamp=0, columns=())
    return made.to_table(model="models:/reviews/3", source=source)


def toward(row, label: str = "positive") -> dict[str, float]:
    column = row.labels.index(label)
    return dict(zip(map(normalize_word, row.parts), row.attributions[:, column], strict=True))


@pytest.mark.parametrize("text", EDGES.values(), ids=EDGES.keys())
def test_words_join_to_the_text_again(text):
    assert "".join(split_words(text)) == (text if text.strip() else "")


@pytest.mark.parametrize("text", EDGES.values(), ids=EDGES.keys())
def test_attributions_add_up_to_the_output_on_every_kind_of_text(text):
    predictor = WordList()
    (row,) = explained(text, predictor=predictor).rows
    assert row.attributions.shape == (len(row.parts), 2)
    np.testing.assert_allclose(row.base + row.attributions.sum(axis=0), row.output, atol=1e-4)
    np.testing.assert_allclose(row.output, predictor.predict_outputs([text])[0])
    np.testing.assert_allclose(row.base, [0.5, 0.5])
    assert row.row == text


def test_decisive_words_get_their_sign_and_others_none():
    (row,) = explained("The film is great, but the ending is awful and I love it").rows
    values = toward(row)
    assert values["great"] > 0.1
    assert values["love"] > 0.1
    assert values["awful"] < -0.1
    assert abs(values["film"]) < 1e-6
    np.testing.assert_allclose(row.attributions.sum(axis=1), 0, atol=1e-6)
    assert row.predicted == "positive"


def test_interaction_is_shared_by_the_words_that_make_it():
    (row,) = explained("this is not good at all").rows
    assert row.predicted == "negative"
    assert toward(row)["not"] < -0.1
    # Shapley values of the two-word game, by hand: v(good), v(not), v(not good), v() of the probability
    good, turned = 1 / (1 + np.exp(-1.5)), 1 / (1 + np.exp(1.5))
    assert toward(row)["good"] == pytest.approx(((good - 0.5) + (turned - 0.5)) / 2, abs=1e-6)


def test_any_number_of_labels_is_explained():
    made = explained("sport and politics", predictor=Topics())
    assert made.rows[0].attributions.shape == (3, 7)
    assert toward(made.rows[0], "sport")["sport"] > 0
    assert toward(made.rows[0], "sport")["politics"] < 0


def test_rows_keep_their_order_and_do_not_change_each_other():
    texts = ["so good", "", "awful and dull", "great", "not bad"]
    together = explained(*texts).rows
    for text, row in zip(texts, together, strict=True):
        (alone,) = explained(text).rows
        assert row.row == text
        assert row.attributions.tolist() == alone.attributions.tolist()


def test_the_same_seed_gives_the_same_numbers_and_numpy_state_is_left_alone():
    text = " ".join(f"word{number} good dull" for number in range(20))
    np.random.seed(5)
    expected = np.random.random()
    np.random.seed(5)
    first = explained(text, seed=1, max_evals=100).rows[0]
    assert np.random.random() == expected
    second = explained(text, seed=1, max_evals=100).rows[0]
    assert first.attributions.tolist() == second.attributions.tolist()


def test_model_is_asked_in_batches_and_at_most_as_often_as_allowed():
    predictor = WordList()
    explained(" ".join(f"word{number}" for number in range(19)), predictor=predictor, batch_rows=32)
    assert max(map(len, predictor.calls)) <= 32
    assert sum(map(len, predictor.calls)) <= 300
    assert len(predictor.calls) <= 16
    texts = [text for call in predictor.calls for text in call]
    assert len(set(texts)) == len(texts)


def test_only_the_words_that_the_model_reads_are_explained():
    (row,) = explained("good " * 1000, predictor=WordList(max_length=50)).rows
    assert len(row.parts) == 50
    assert row.row.startswith("".join(row.parts))


def test_a_predictor_that_knows_what_it_reads_is_believed():
    class Reader(WordList):
        def count_seen_characters(self, text):
            return 14

        def predict_outputs(self, texts):
            return super().predict_outputs([text[:14] for text in texts])

    (row,) = explained("so good, great awful dull", predictor=Reader()).rows
    assert row.parts == ("so ", "good, ", "great")


def test_a_model_that_changes_its_mind_is_an_error():
    with pytest.raises(ExplanationError, match=r"'row-0'.*miss the model's output by 0.0") as caught:
        explained("one two three four", predictor=Restless(max_length=2))
    assert "\n" not in str(caught.value)


def test_table_has_a_row_for_each_part_and_label():
    made = explained("so good", "", "dull!")
    table = to_table(made)
    assert table.column_names == [
        "row_id",
        "position",
        "input_column",
        "part",
        "output_name",
        "attribution",
        "base_value",
        "output",
        "method",
        "model_version",
        "source",
        "source_version",
    ]
    assert table["part"].to_pylist() == ["so", "so", "good", "good", "dull!", "dull!"]
    assert set(table["input_column"].to_pylist()) == {"text"}
    assert table["row_id"].to_pylist() == ["row-0"] * 4 + ["row-2"] * 2
    last = table.to_pylist()[-1]
    assert (last["output_name"], last["position"]) == ("positive", 0)
    assert last["base_value"] + last["attribution"] == pytest.approx(last["output"], abs=1e-4)
    assert to_table(explained("")).num_rows == 0
    assert to_table(explained()).schema == table.schema


def test_word_effects_count_a_word_whatever_its_case_and_punctuation():
    made = explained("Good! So good", 'a "good" one', "dull")
    effects = {effect.name: effect for effect in made.effects("positive")}
    assert effects["good"].count == 3
    assert effects["good"].mean > 0 > effects["dull"].mean
    assert made.effects("positive")[0].name == "good"
    assert made.effects("negative")[0].name == "dull"


def test_chosen_rows_are_the_mistakes_and_a_seeded_draw_of_others():
    rows = [(f"{number}", f"text {number}") for number in range(50)]
    settings = ExplainSettings(rows=5, mistakes=2, seed=3)
    chosen = choose_rows(rows, mistakes=rows[:4], settings=settings)
    assert chosen[:2] == tuple(rows[:2])
    assert len(set(chosen)) == 7
    assert chosen == choose_rows(rows, mistakes=rows[:4], settings=settings)
    assert choose_rows([], settings=settings) == ()


def test_explanations_survive_pickling():
    made = explained("not good, dull")
    again = pickle.loads(pickle.dumps(made))
    assert again.rows[0].attributions.tolist() == made.rows[0].attributions.tolist()


def test_settings_are_bounded():
    with pytest.raises(SettingError, match="max_evals"):
        read_settings(ExplainSettings, {"max_evals": 1}, where="[explain]")


@pytest.mark.parametrize("predictor", [WordList(max_length=256), Topics(max_length=256)], ids=["2", "7"])
def test_figures_of_every_kind_of_text_are_drawn_without_a_warning(predictor):
    made = explained(*EDGES.values(), predictor=predictor, max_evals=20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for row in made.rows:
            assert to_png(make_row_figure(row)).startswith(b"\x89PNG")


def test_a_long_text_is_cut_in_its_picture_with_a_note():
    (row,) = explained("plain word " * 150, predictor=WordList(max_length=256), max_evals=10).rows
    figure = make_row_figure(row)
    written = [text.get_text() for text in figure.texts]
    assert written.count("plain") + written.count("word") == 200
    note = "drawn are the first 200 of 256 words; the model does not read the rest of this text"
    assert note in written


def test_glyphs_that_the_font_lacks_are_named_or_boxed():
    assert to_drawable("\U0001f9d1‍\U0001f680 电影 é") == ":adult::rocket: □□ é"


def test_explaining_prints_nothing():
    code = (
        "import numpy as np\n"
        "from dlpipe.explain import ExplainSettings, explain_rows\n"
        "class Flat:\n"
        "    labels, max_length, card = ('a', 'b'), 9, {'task': 'text-classification'}\n"
        "    def predict_outputs(self, texts): return np.full((len(texts), 2), 0.5)\n"
        "explain_rows(Flat(), [('1', 'one two three')], settings=ExplainSettings())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
