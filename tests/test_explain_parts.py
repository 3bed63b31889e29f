"""Rows of other kinds than one text, explained by their parts; outputs of other kinds than shares."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from stores import new_store, untouched_environment
from test_explain import WordList

from dlpipe.cli import main
from dlpipe.errors import ExplanationError
from dlpipe.explain import (
    ExplainSettings,
    compare_methods,
    explain_all,
    explain_rows,
    explain_table,
    make_row_figure,
)
from dlpipe.explain.partition import check_additivity
from dlpipe.explain.rounds import digest_row
from dlpipe.explain.shap_objects import import_shap
from dlpipe.flows.explaining import find_reason_not_explained
from dlpipe.pictures import to_png
from dlpipe.registry import TASK, ModelVersion
from dlpipe.tables import read_table, write_table
from dlpipe.task import open_predictor
from dlpipe.task.row_parts import PartTree, RowParts, balance_tree, join_trees

EXACT = ExplainSettings(max_evals=100_000)


@pytest.fixture(autouse=True, scope="module")
def made_up_tasks(tmp_path_factory) -> Iterator[None]:
    """The tasks of ``made_up_tasks``, installed as a package brings its tasks."""
    site = tmp_path_factory.mktemp("site")
    package = site / "made_up-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\n")
    names = ("two-texts", "columns", "shy", "one-number", "some-flags")
    lines = [f"{name} = made_up_tasks:{name.upper().replace('-', '_')}" for name in names]
    (package / "entry_points.txt").write_text("\n".join(["[dlpipe.tasks]", *lines, ""]))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        yield


class Made:
    """A predictor of a made-up task: ``answer`` gives the outputs of a row."""

    max_length = 128

    def __init__(self, task: str, labels: Sequence[str], answer: Callable[[Any], Sequence[float]], **card: Any):
        self.card, self.labels, self._answer = {"task": task, **card}, tuple(labels), answer
        self.asked: list[Any] = []

    def predict_outputs(self, rows):
        self.asked += rows
        return np.array([self._answer(row) for row in rows], dtype=np.float32)


def overlap(row: tuple[str, str]) -> tuple[float, float]:
    """Return whether an answer fits, by the words that it shares with its question: by pairs of words."""
    question, answer = (text.split() for text in row)
    shared = sum(word in answer for word in question)
    return 1 - 0.2 * shared, 0.2 * shared


def crossed(row: tuple[str, str]) -> tuple[float, float]:
    """Return an answer in which many words of both texts work together."""
    question, answer = (text.split() for text in row)
    score = 1 / (1 + np.exp(2 - sum(map(len, question)) * 0.3 * ("not" in answer) - len(answer) * len(question)))
    return 1 - score, score


def price(row: dict[str, Any]) -> tuple[float]:
    """Return a number in which three columns work together."""
    rooms, city, garden = row["rooms"], row["city"], row["garden"]
    return (
        1000 * rooms * (2 if city == "Bonn" else 1) + 500 * garden * rooms + 40 * len(row.get("text", "").split()),
    )


USUAL = {"rooms": 2.0, "city": "Essen", "garden": False}
HOUSE = {"rooms": 3.5, "city": "Bonn", "garden": True}


def houses() -> Made:
    return Made("columns", ["value"], price, usual=USUAL)


def exact_owen(parts: RowParts, answer: Callable[[Any], Sequence[float]]) -> np.ndarray:
    """Return the mean over all orders that the tree allows of what each part adds when it comes: by definition."""
    count = len(parts.shown)
    found = [np.zeros((count, len(answer(parts.keep([True] * count)))))]
    for order in orders(parts.tree, len(parts.tree.spans) - 1):
        found.append(added(parts, answer, order))
    return np.mean(found[1:], axis=0)


def orders(tree: PartTree, node: int) -> list[list[int]]:
    below = tree.get_children(node)
    if below is None:
        return [[node]]
    left, right = (orders(tree, child) for child in below)
    return [both for first, second in itertools.product(left, right) for both in (first + second, second + first)]


def exact_shapley(parts: RowParts, answer: Callable[[Any], Sequence[float]]) -> np.ndarray:
    """Return the mean over all orders of what each part adds when it comes."""
    return np.mean(
        [added(parts, answer, each) for each in itertools.permutations(range(len(parts.shown)))], axis=0
    )


def added(parts: RowParts, answer: Callable[[Any], Sequence[float]], order: Sequence[int]) -> np.ndarray:
    kept = [False] * len(parts.shown)
    before, values = np.array(answer(parts.keep(kept))), [np.zeros(0)] * len(kept)
    for place in order:
        kept[place] = True
        after = np.array(answer(parts.keep(kept)))
        values[place], before = after - before, after
    return np.stack(values)


def explain(predictor: Made, *rows: Any, settings: ExplainSettings = EXACT):
    return explain_rows(predictor, [(f"row-{at}", row) for at, row in enumerate(rows)], settings=settings)


PAIR = ("who is it  now", "it is him")


def test_words_of_two_texts_that_work_in_pairs_have_their_shapley_values():
    from made_up_tasks import TWO_TEXTS

    predictor = Made("two-texts", ["no", "yes"], overlap)
    (row,) = explain(predictor, PAIR).rows
    assert row.parts == ("who ", "is ", "it  ", "now", "it ", "is ", "him")
    assert row.columns == ("question",) * 4 + ("answer",) * 3
    expected = exact_shapley(TWO_TEXTS.inputs.split_parts(PAIR, predictor), overlap)
    np.testing.assert_allclose(row.attributions, expected, atol=1e-6)
    np.testing.assert_allclose(row.attributions[:, 1], [0, 0.1, 0.1, 0, 0.1, 0.1, 0], atol=1e-6)


@pytest.mark.parametrize("pair", [PAIR, ("", "it is not so"), ("why", ""), ("a b c d e", "not f")])
def test_values_of_two_texts_are_owen_values_with_the_texts_as_top_branches(pair):
    from made_up_tasks import TWO_TEXTS

    predictor = Made("two-texts", ["no", "yes"], crossed)
    parts = TWO_TEXTS.inputs.split_parts(pair, predictor)
    (row,) = explain(predictor, pair).rows
    np.testing.assert_allclose(row.attributions, exact_owen(parts, crossed), atol=1e-6)
    assert row.gap < 1e-6
    np.testing.assert_allclose(row.base, crossed(("", "")), atol=1e-6)
    if all(pair):
        assert predictor.asked[2:4] == [(pair[0], ""), ("", pair[1])]


@pytest.mark.parametrize("house", [HOUSE, {**HOUSE, "text": "near the river"}], ids=["columns", "and a text"])
def test_a_column_that_is_left_out_takes_its_usual_value(house):
    from made_up_tasks import COLUMNS

    predictor = houses()
    (row,) = explain(predictor, house).rows
    usual = {**USUAL, "text": ""} if "text" in house else USUAL
    assert float(row.base[0]) == price(usual)[0]
    expected = exact_owen(COLUMNS.inputs.split_parts(house, predictor), price)
    np.testing.assert_allclose(row.attributions, expected, atol=0.01)
    assert row.names[:3] == ("rooms", "city", "garden")
    assert row.noun == ("part" if "text" in house else "column")
    assert [row.title(place) for place in range(3)] == ["rooms = 3.5", "city = Bonn", "garden = True"]


def test_values_that_columns_share_evenly_are_shapley_values():
    from made_up_tasks import COLUMNS

    def simple(row):
        return (row["rooms"] * (3 if row["city"] == "Bonn" else 1) + row["garden"],)

    predictor = Made("columns", ["value"], simple, usual=USUAL)
    (row,) = explain(predictor, HOUSE).rows
    expected = exact_shapley(COLUMNS.inputs.split_parts(HOUSE, predictor), simple)
    np.testing.assert_allclose(row.attributions, expected, atol=1e-5)


def test_numbers_add_up_as_far_as_their_size_lets_them():
    big = Made("columns", ["value"], lambda row: (price(row)[0] * 1e4,), usual=USUAL)
    assert explain(big, HOUSE).rows[0].output[0] > 1e7
    (row,) = explain(houses(), HOUSE).rows
    assert check_additivity(replace(row, output=row.output + 0.1)).gap == pytest.approx(0.1)
    with pytest.raises(ExplanationError, match=r"'row-0'.*by 10,.*the same outputs each time"):
        check_additivity(replace(row, output=row.output + 10))


def test_equal_rows_are_explained_once_and_no_copy_is_scored_twice():
    predictor = houses()
    made = explain(predictor, HOUSE, dict(HOUSE), {**HOUSE, "rooms": 9.0})
    assert made.rows[0].attributions.tolist() == made.rows[1].attributions.tolist()
    digests = [digest_row(row) for row in predictor.asked]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("sizes", [(2, 3), (1, 1), (0, 4), (5, 0), (1, 6, 2), (0, 0)])
def test_a_joined_tree_has_its_trees_as_branches(sizes):
    tree = join_trees([balance_tree(size) for size in sizes])
    assert tree.leaves == sum(sizes)
    assert len(tree.children) == max(0, sum(sizes) - 1)
    starts = np.cumsum([0, *sizes]).tolist()
    for start, stop in itertools.pairwise(starts):
        assert start == stop or (start, stop) in tree.spans
    assert not tree.spans or tree.spans[-1] == (0, sum(sizes))


def test_a_table_of_pairs_is_explained_by_its_columns(tmp_path):
    columns = {"row_id": ["a", "b"], "question": ["who is it", "why"], "answer": ["it is me", ""]}
    source = write_table(tmp_path / "pairs", pa.table({**columns, "split": ["test", "test"]}))
    predictor = Made("two-texts", ["no", "yes"], overlap)
    given = {"model": "models:/pairs/1", "settings": ExplainSettings(rows=1)}
    done = explain_all(predictor, source, target=str(tmp_path / "all"), say=None, **given)
    table = read_table(done.table).filter(pa.compute.field("output_name") == "yes")
    assert table["input_column"].to_pylist() == ["question"] * 3 + ["answer"] * 3 + ["question"]
    assert table["part"].to_pylist() == ["who", "is", "it", "it", "is", "me", "why"]
    assert table["position"].to_pylist() == [0, 1, 2, 3, 4, 5, 0]
    made, _ = explain_table(predictor, source, mistakes=["b"], target=str(tmp_path / "some"), **given)
    assert [row.row_id for row in made.rows] == ["b", "a"]


def test_a_part_is_counted_with_its_like_in_its_own_column():
    predictor = Made("two-texts", ["no", "yes"], overlap)
    made = explain(predictor, ("It is", "is it"), ("is", "no. IT"))
    counts = {(effect.name, effect.column): effect.count for effect in made.effects("yes")}
    assert counts == {
        ("it", "question"): 1,
        ("is", "question"): 2,
        ("is", "answer"): 1,
        ("it", "answer"): 2,
        ("no", "answer"): 1,
    }
    effects = explain(houses(), HOUSE, {**HOUSE, "rooms": 9.0}).effects("value")
    assert {(effect.name, effect.count) for effect in effects} == {("rooms", 2), ("city", 2), ("garden", 2)}


MANY = Made("two-texts", ["no", "yes"], overlap)


@pytest.mark.parametrize(
    ("predictor", "rows", "written"),
    [
        (MANY, [PAIR, ("", ""), ("plain " * 250, "so")], ["question", "answer", "without any word 100.0%"]),
        (houses(), [HOUSE, {**HOUSE, "rooms": 1.0}], ["with usual values 2000", "red raises it, blue lowers it"]),
        (houses(), [{**HOUSE, "text": "near the river"}], ["river", "without any part 2000"]),
    ],
    ids=["two texts", "columns", "both"],
)
def test_pictures_show_texts_as_texts_and_columns_as_bars(predictor, rows, written):
    made = explain(predictor, *rows, settings=ExplainSettings(max_evals=20))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = [*map(make_row_figure, made.rows)]
        assert all(to_png(figure).startswith(b"\x89PNG") for figure in figures)
    texts = [text.get_text() for figure in figures for text in figure.texts]
    for words in written:
        assert any(words in text for text in texts), words


def test_shaps_plots_name_columns_and_the_words_of_each_text():
    import_shap()
    (house,) = explain(houses(), HOUSE).rows
    assert house.to_shap("value").feature_names == ["rooms = 3.5", "city = Bonn", "garden = True"]
    (pair,) = explain(Made("two-texts", ["no", "yes"], overlap), ("who is", "it is")).rows
    words = ["question: who", "question: is", "answer: it", "answer: is"]
    assert pair.to_shap("yes").feature_names == words


def test_rows_that_are_not_explained_are_refused_with_the_inputs_own_line():
    predictor = Made("shy", ["a", "b"], lambda row: (0.5, 0.5))
    with pytest.raises(
        ExplanationError, match=r"^Rows of this kind are not explained: they are nobody's business\.$"
    ):
        explain(predictor, "so good")


def test_flows_know_why_rows_are_not_explained_before_they_open_a_model():
    shy, other = (
        ModelVersion(name, 1, f"models:/{name}/1", "", "", "", (), {TASK: name}) for name in ("shy", "columns")
    )
    assert find_reason_not_explained(shy).endswith("nobody's business.")
    assert find_reason_not_explained(other) == ""


def test_the_command_says_why_rows_are_not_explained_before_it_opens_a_model(tmp_path):
    with untouched_environment():
        client = new_store(tmp_path).client()
        client.create_registered_model("secret")
        client.create_model_version("secret", "/nowhere", tags={TASK: "shy"})
        done = CliRunner().invoke(main, ["explain", "--model", "secret/1", "so good"])
    assert done.exit_code == 1
    assert done.stderr == (
        "Error: models:/secret/1: Rows of this kind are not explained: they are nobody's business.\n"
    )


def test_rows_without_gradients_are_refused_and_not_compared():
    predictor = houses()
    with pytest.raises(ExplanationError, match="'partition'"):
        explain(predictor, HOUSE, settings=ExplainSettings(method="gradient"))
    assert compare_methods(predictor, explain(predictor, HOUSE), settings=ExplainSettings()) is None


@pytest.mark.parametrize("task", ["one-number", "some-flags"])
def test_gradients_are_of_the_outputs_that_the_target_makes(tiny_model, task):
    import torch
    from made_up_tasks import ONE_NUMBER, SOME_FLAGS

    predictor = open_predictor(tiny_model)
    predictor.card = {**predictor.card, "task": task}
    text = "the film was bad and i found it so"
    (row,) = explain_rows(predictor, [("a", text)], settings=ExplainSettings(method="gradient", steps=200)).rows
    target = {"one-number": ONE_NUMBER, "some-flags": SOME_FLAGS}[task].target
    logits = torch.tensor(np.log(predictor.predict_outputs([text]).astype(np.float64)))
    size = max(1.0, float(abs(row.output).max()))
    assert row.output_kind == target.output_kind
    assert row.gap < 1e-3 * size
    assert (abs(row.attributions).max(axis=0) > 1e-3).all()
    # logits are known but for a constant, the same for both outputs
    if task == "one-number":
        made = target.activate_tensor(logits, {}).numpy()[0]
        np.testing.assert_allclose(np.diff(row.output), np.diff(made), rtol=1e-3)


def test_the_predictor_of_words_names_its_task():
    made = explain_rows(WordList(), [("a", "so good")], settings=ExplainSettings())
    assert made.rows[0].output_kind == "shares"
    assert made.rows[0].noun == "word"
