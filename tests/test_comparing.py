"""`dlpipe compare`: two versions of a small model on the same rows, against a computation written out here."""

from __future__ import annotations

import json
import math
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from stores import make_scores, new_store, untouched_environment
from texts import reviews, write_csv

from dlpipe.bridge.attempts import TaskAttempt
from dlpipe.bridge.outcomes import RunOutcome, _list_steps
from dlpipe.bridge.records import Model
from dlpipe.bridge.snapshots import RunSnapshot
from dlpipe.cli import main
from dlpipe.comparing import make_page, make_sections, to_plain
from dlpipe.comparing.code import CodeChange, CodeState, compare_code
from dlpipe.comparing.comparison import Comparison
from dlpipe.comparing.data import compare_contents, read_rows
from dlpipe.comparing.pairs import ComparedRows, Outputs, compare_pair
from dlpipe.comparing.sides import Score, Side, TableRef, fill_from_run
from dlpipe.evaluation import LabelledRows, ModelOutputs, RowComparison, compare_outputs
from dlpipe.evaluation.paired import compute_paired_interval
from dlpipe.inference import load_predictor, score
from dlpipe.registry import ModelVersion, log_and_register, resolve
from dlpipe.tables import Sources, TableVersion, ingest, read_table, table_at, write_table
from dlpipe.task import Target, find_task, open_predictor
from dlpipe.task.text_classification import TextClassData
from dlpipe.task.texts import TextModel


def tilt(model: TextModel, table: TableVersion, share: float) -> TextModel:
    """Return ``model`` with a head that leans: this share of one label's rows gets the other one."""
    from safetensors.numpy import load, save

    texts = read_table(table, columns=["text"])["text"].to_pylist()
    outputs = open_predictor(model).predict_outputs(texts).astype(float)
    odds = np.sort(np.log(outputs[:, 1] / outputs[:, 0]))
    side = -odds[odds < 0] if share > 0 else -odds[odds > 0]
    tensors = load(model.files["model.safetensors"])
    tensors["head.bias"][1] += np.quantile(side, abs(share) if share > 0 else 1 - abs(share))
    return TextModel({**model.files, "model.safetensors": save(tensors)})


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> list[TableVersion]:
    """Two versions of a table; the second has 30 rows less, and 20 others in every split."""
    folder, made = tmp_path_factory.mktemp("compared"), []
    rows = reviews()
    for name, some in (
        ("old", rows),
        ("new", [*rows[30:], *((f"{text} again", label) for text, label in rows[30:50])]),
    ):
        source = write_csv(folder / f"{name}.csv", some)
        made.append(ingest(Sources(data=str(source)), str(folder / "reviews"), settings=TextClassData()).table)
    return made


@pytest.fixture(scope="module")
def store(tmp_path_factory, tiny_model, tables):
    """``reviews`` in three versions: 1 and 2 from the old table, 3 from the new one; ``films`` from another."""
    folder = tmp_path_factory.mktemp("store")
    with untouched_environment():
        made = new_store(folder)
        register("reviews", tilt(tiny_model, tables[0], 0.4), tables[0], {"epochs": 1, "dropout": 0.1})
        register("reviews", tilt(tiny_model, tables[0], -0.2), tables[0], {"epochs": 3, "dropout": 0.1})
        register("reviews", tilt(tiny_model, tables[0], 0.1), tables[1], {"epochs": 1, "dropout": 0.2})
        other = write_table(
            str(folder / "films"), pa.table({"row_id": ["a"], "text": ["x"], "label": ["positive"]})
        )
        register("films", tilt(tiny_model, tables[0], -0.4), other, {"epochs": 1})
        yield made


def register(name: str, model: TextModel, table: TableVersion, params: dict[str, float]) -> None:
    tags = {"delta.table": table.path, "delta.version": str(table.version), "git.commit": "unknown"}
    scores = make_scores(accuracy=0.5)
    log_and_register(model, name=name, example=["a good film"], params=params, scores=scores, tags=tags)


def dlpipe(*words: str):
    return CliRunner().invoke(main, list(words))


def compared(*words: str) -> dict:
    done = dlpipe("compare", *words, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture
def somewhere(tmp_path, monkeypatch) -> Path:
    """A folder without runs of Metaflow, and no repository."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_paired_interval_is_that_of_a_reference_computation(store, tables, somewhere):
    found = compared("reviews/1", "reviews/2", "--rows", "1000")
    pair = found["pairs"][0]["comparison"]
    test = read_table(tables[0], split="test")
    truth = np.array(test["label"].to_pylist())
    first, second = (
        np.array(predictor.labels)[predictor.predict_outputs(test["text"].to_pylist()).argmax(axis=1)] == truth
        for predictor in (load_predictor("reviews/1"), load_predictor("reviews/2"))
    )
    rows = len(truth)
    # a thousand times: the same rows, drawn with replacement, for both models
    drawn = np.random.default_rng(0).integers(0, rows, size=(1000, rows))
    differences = [second[some].mean() - first[some].mean() for some in drawn]
    accuracy = pair["metrics"]["accuracy"]
    assert accuracy["value"] == pytest.approx(second.mean() - first.mean())
    assert accuracy["interval"] == pytest.approx(np.percentile(differences, [2.5, 97.5]), abs=1e-12)
    alone = [np.percentile([one[some].mean() for some in drawn], [2.5, 97.5]) for one in (first, second)]
    assert accuracy["first_interval"] == pytest.approx(alone[0], abs=1e-12)
    width = accuracy["interval"][1] - accuracy["interval"][0]
    assert width < np.ptp(alone[0]) + np.ptp(alone[1])
    assert min(pair["won"], pair["lost"]) > 0
    assert (pair["rows"], pair["won"], pair["lost"]) == (rows, (~first & second).sum(), (first & ~second).sum())
    assert (pair["both"], pair["neither"]) == ((first & second).sum(), (~first & ~second).sum())
    tail = [math.comb(pair["won"] + pair["lost"], count) for count in range(min(pair["won"], pair["lost"]) + 1)]
    assert pair["p_value"] == pytest.approx(min(1.0, 2 * sum(tail) / 2 ** (pair["won"] + pair["lost"])))
    ids = test["row_id"].to_pylist()
    assert {row["row_id"] for row in pair["won_rows"]} == {ids[at] for at in np.flatnonzero(~first & second)}
    by_class = {group["group"]: group for group in pair["groups"]}
    for label in ("negative", "positive"):
        mine = truth == label
        group = by_class[label]
        assert group["first_recall"] == pytest.approx(first[mine].mean())
        assert group["difference"] == pytest.approx(second[mine].mean() - first[mine].mean())
        assert (group["rows"], group["won"]) == (mine.sum(), (~first & second & mine).sum())
        of_class = [[some[mine[some]] for some in drawn], compute_newcombe(first[mine], second[mine])]
        ends = np.percentile([second[some].mean() - first[some].mean() for some in of_class[0]], [2.5, 97.5])
        wider = (min(ends[0], of_class[1][0]), max(ends[1], of_class[1][1]))
        assert group["interval"] == pytest.approx(wider, abs=1e-9)
        assert group["interval"][1] - group["interval"][0] < 1.5 * (ends[1] - ends[0])


def compute_newcombe(first, second) -> tuple[float, float]:
    """Method 10 of Newcombe (1998) from the four counts, written out as the paper has it."""
    both, lost = (first & second).sum(), (first & ~second).sum()
    won, neither = (~first & second).sum(), (~first & ~second).sum()
    rows, z = len(first), 1.959963984540054

    def wilson(right):
        middle, half = 2 * right + z * z, z * math.sqrt(z * z + 4 * right * (1 - right / rows))
        return (middle - half) / (2 * (rows + z * z)), (middle + half) / (2 * (rows + z * z))

    (low, high), (low_2, high_2) = wilson(both + won), wilson(both + lost)
    one, other = (both + won) / rows, (both + lost) / rows
    product = (both + won) * (lost + neither) * (both + lost) * (won + neither)
    apart = both * neither - won * lost
    apart = max(apart - rows / 2, 0) if apart > 0 else apart
    link = apart / math.sqrt(product) if product else 0
    down = (one - low) ** 2 - 2 * link * (one - low) * (high_2 - other) + (high_2 - other) ** 2
    up = (high - one) ** 2 - 2 * link * (high - one) * (other - low_2) + (other - low_2) ** 2
    return one - other - math.sqrt(down), one - other + math.sqrt(up)


def test_newcombes_interval_is_that_of_the_papers_own_table():
    # Newcombe (1998), table II, method 10: 36, 12, 2, 0 rows
    first, second = np.repeat([1.0, 1.0, 0.0], [36, 12, 2]), np.repeat([1.0, 0.0, 1.0], [36, 12, 2])
    low, high = compute_paired_interval(second, first)
    assert (round(low, 4), round(high, 4)) == (0.0569, 0.3404)


@pytest.mark.parametrize(("rows", "wins"), [(1, 0), (4, 0), (4, 4), (200, 4)])
def test_a_class_of_few_rows_does_not_look_certain(rows, wins):
    """Where all go one way a bootstrap knows no other; four rows of 200 that are won prove nothing either."""
    labels, truth = ("many", "few"), ["many"] * 300 + ["few"] * rows
    right = np.array([[1.0, 0.0]] * 300 + [[0.0, 1.0]] * rows)
    worse = right.copy()
    worse[300 : 300 + wins] = [1.0, 0.0]
    given = LabelledRows([str(at) for at in range(len(truth))], ["x"] * len(truth), truth)
    both = (ModelOutputs(some, labels, {}) for some in (worse, right))
    few = next(group for group in compare_outputs(*both, given, task=find_task()).groups if group.group == "few")
    assert (few.rows, few.won, few.difference.value) == (rows, wins, pytest.approx(wins / rows))
    low, high = few.interval
    assert low <= few.difference.value <= high
    assert high - low > 1 / rows
    assert few.difference.verdict == "unclear"
    if rows == 4:
        assert high - low > 0.5


@pytest.mark.parametrize(("won", "verdict"), [(5, "unclear"), (6, "better")])
def test_a_model_is_better_where_interval_and_exact_test_agree(won, verdict):
    """Of five rows won and none lost nearly every resample has some, and chance does as much once in 16 times."""
    truth = ["a", "b"] * 144
    right = np.array([[0.9, 0.1], [0.1, 0.9]] * 144)
    worse = right.copy()
    worse[:won] = worse[:won, ::-1]
    rows = LabelledRows([str(at) for at in range(288)], ["x"] * 288, truth)
    made = compare_outputs(
        ModelOutputs(worse, ("a", "b"), {}), ModelOutputs(right, ("a", "b"), {}), rows, task=find_task()
    )
    assert (made.won, made.lost) == (won, 0)
    assert made.deciding.interval[0] > 0
    assert (made.p_value < 0.05) == (verdict == "better")
    assert {made.metrics[name].verdict for name in ("accuracy", "macro_f1")} == {verdict}
    assert made.metrics["log_loss"].verdict == "better"  # no row needs to turn for it
    card = RowComparison("share of right rows", won / 288, made.deciding.interval, 288, won, 0)
    assert (card.is_better, "chance alone" in card.line()) == (
        (True, False) if verdict == "better" else (None, True)
    )


def test_the_interval_of_a_class_holds_what_is_true_at_any_number_of_rows():
    random = np.random.default_rng(5)
    for rows in (5, 12, 40):
        held = 0
        for _ in range(400):
            hard = random.random(rows)
            # 85 % and 75 % right, mostly on the same rows
            first, second = (hard < 0.75).astype(float), (hard < 0.85).astype(float)
            swap = random.random(rows) < 0.1
            first[swap], second[swap] = second[swap], first[swap]
            low, high = compute_paired_interval(first, second)
            held += low <= 0.1 * 0.8 <= high
        assert held / 400 > 0.93, (rows, held)


def test_macro_f1_is_compared_on_the_same_resamples():
    random, target, labels = np.random.default_rng(1), find_task().target, ("a", "b", "c")
    truth = [labels[at] for at in random.integers(0, 3, 120)]
    one, other = (random.dirichlet(np.ones(3), 120) for _ in range(2))
    rows = LabelledRows([str(at) for at in range(120)], ["x"] * 120, truth)
    made = compare_outputs(
        ModelOutputs(one, labels, {}), ModelOutputs(other, labels, {}), rows, task=find_task(), seed=3
    )
    codes = np.array([labels.index(label) for label in truth])

    def macro_f1(outputs, some):
        true, said = codes[some], outputs.argmax(axis=1)[some]
        scores = [
            2 * ((true == at) & (said == at)).sum() / ((true == at).sum() + (said == at).sum()) for at in range(3)
        ]
        return np.mean(scores)

    drawn = np.random.default_rng(3).integers(0, 120, size=(1000, 120))
    differences = [macro_f1(other, some) - macro_f1(one, some) for some in drawn]
    assert made.metrics["macro_f1"].interval == pytest.approx(np.percentile(differences, [2.5, 97.5]), abs=1e-9)
    assert target.headline == made.headline == "accuracy"


TARGETS = {
    "text-classification": (["a", "b"], lambda random: ["a" if at else "b" for at in random.integers(0, 2, 40)]),
    "text-multilabel": (["a", "b"], lambda random: [["a", "b"][: at or 1] for at in random.integers(0, 3, 40)]),
    "text-regression": (["value"], lambda random: random.normal(size=40).tolist()),
}


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_resamples_as_the_protocol_does_and_reads_back_what_it_wrote(name):
    random, target = np.random.default_rng(0), find_task(name).target
    names, make_labels = TARGETS[name]
    labels, outputs = make_labels(random), random.dirichlet(np.ones(2), 40)[:, : len(names)].astype(np.float32)
    decision = {"thresholds": {"a": 0.4, "b": 0.6}, "halfwidth": 0.5, "coverage": 0.9}
    counts = random.multinomial(40, np.full(40, 1 / 40), size=3).T.astype(float)
    given = {"names": names, "decision": decision}
    fast = target.resample_metrics(counts, outputs, labels, **given)
    slow = Target.resample_metrics(target, counts, outputs, labels, **given)
    assert {metric: values.tolist() for metric, values in fast.items()} == {
        metric: pytest.approx(values.tolist(), nan_ok=True) for metric, values in slow.items()
    }
    card = {"labels": names, "decision": decision}
    columns = target.make_prediction_columns(outputs, card)
    kept = pa.Table.from_arrays(columns, names=[field for field, _ in target.list_prediction_fields()])
    assert np.allclose(target.read_outputs(kept, names), outputs)
    errors = target.measure_row_errors(outputs, labels, **given)
    if target.has_right_rows:
        assert (errors == 0).mean() == pytest.approx(target.measure_accuracy(outputs, labels, card))
    else:
        assert errors.mean() == pytest.approx(slow["mae"].mean(), rel=0.5)
    rows = LabelledRows([str(at) for at in range(40)], ["x"] * 40, labels)
    both = (ModelOutputs(some, names, decision) for some in (outputs, outputs[::-1]))
    made = compare_outputs(*both, rows, task=find_task(name), resamples=50)
    assert made.won + made.lost + made.both + made.neither == 40
    assert made.deciding.value == made.deciding.second - made.deciding.first
    assert {group.group: group.rows for group in made.groups} == Counter(
        group for label in labels for group in target.list_groups(label)
    )
    assert all(row.label and row.first != row.second for row in made.won_rows)


def test_numbers_are_closer_and_not_right(somewhere):
    task, labels = find_task("text-regression"), [1.0, 2.0, 3.0, 4.0]
    rows = LabelledRows(list("abcd"), list("wxyz"), labels)
    one, other = (np.array(values)[:, None] for values in ([1.5, 2.0, 2.0, 4.0], [1.1, 2.0, 3.5, 4.2]))
    made = compare_outputs(
        ModelOutputs(one, ("value",), {}), ModelOutputs(other, ("value",), {}), rows, task=task, shown=1
    )
    assert (made.headline, made.won, made.lost, made.both, made.p_value) == ("mae", 2, 1, 1, None)
    assert made.deciding.value == pytest.approx(np.mean([0.1, 0, 0.5, 0.2]) - np.mean([0.5, 0, 1, 0]))
    assert made.deciding.lower_is_better
    assert [row.row_id for row in made.won_rows] == ["c"]  # the errors differ most there


def test_predictions_that_are_kept_are_used_where_they_hold_all_rows(store, tables, somewhere, tiny_model):
    version = resolve("reviews/2")
    kept = f"{tables[0].path}_predictions"
    predictor = load_predictor(version.uri)

    def where_from() -> list[str]:
        notes = compared("reviews/1", "reviews/2")["pairs"][0]["notes"]
        return [note.partition(": ")[2] for note in notes if note.startswith("predictions of")]

    score(predictor, tables[0], model=version, target=kept, split="valid", say=None)
    assert where_from() == ["made now, by torch"] * 2
    score(predictor, tables[0], model=version, target=kept, split="test", say=None)
    assert where_from() == ["made now, by torch", f"kept in {table_at(kept)}, by torch"]
    # of other weights under the same name, nothing is taken
    stale = replace(version, digest="0" * 64)
    from dlpipe.comparing.kept import read_kept

    ids = read_table(tables[0], split="test", columns=["row_id"])["row_id"].to_pylist()
    asked = {"target": find_task().target, "names": predictor.labels}
    assert read_kept(stale, tables[0], ids, **asked) is None
    outputs, _ = read_kept(version, tables[0], ids, **asked)
    texts = read_table(tables[0], split="test", columns=["text"])["text"].to_pylist()
    assert np.allclose(outputs, predictor.predict_outputs(texts), atol=1e-5)


def test_settings_data_and_rows_that_a_model_learnt_from(store, tables, somewhere):
    found = compared("reviews/1", "reviews/3")
    assert found["settings"] == {"dropout": ["0.1", "0.2"]}
    assert found["same_settings"] == 1
    (table,) = found["tables"]
    splits = [Counter(read_table(version)["split"].to_pylist()) for version in tables]
    assert (table["versions"], table["rows"]) == ([0, 1], [version.rows for version in tables])
    assert [dict(some) for some in table["splits"]] == splits
    change = table["changes"][1]
    assert (change["added"], change["gone"], change["moved"], change["relabelled"]) == (20, 30, 0, 0)
    assert found["pairs"][0]["table"] == "reviews@v1"
    # rows that one of them learnt from prove nothing
    leaked = compared("reviews/1", "reviews/2", "--split", "all")["pairs"][0]
    learnt = sum(splits[0][name] for name in ("train", "valid"))
    assert leaked["comparison"]["rows"] == splits[0]["test"]
    assert f"left out: {learnt} rows that reviews v1 learnt from" in leaked["notes"]
    asked = compared("reviews/1", "reviews/2", "--split", "train")["pairs"][0]
    assert asked["comparison"]["rows"] == splits[0]["train"]


def test_tables_fit_a_terminal_and_a_page_needs_nothing_else(store, somewhere):
    done = dlpipe("compare", "reviews/1", "reviews/2", "reviews/3", "--rows", "2", "--html", "page.html")
    assert done.exit_code == 0, done.output
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert done.stdout.startswith("reviews v2 against reviews v1: accuracy ")
    page = Path("page.html").read_text()
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count('<svg class="bar') == 14  # five metrics and two classes of each pair


def test_what_a_text_says_is_no_part_of_the_page():
    side = Side("a", "<b>a</b>", scores={"accuracy": Score(0.5)}, curves={"epochs/val_loss": ((1, 0.5), (2, 0.4))})
    other = replace(side, name="b", notes=("<i>\u202e",))
    page = make_page(Comparison((side, other), {}, 0, 0, (), (CodeChange("<u>"),), {}, {}, ()))
    assert "&lt;b&gt;a&lt;/b&gt;" in page
    assert "&lt;i&gt;\\u202e" in page
    assert page.count("<polyline") == 2


MISTAKES = {
    "one alone": (["reviews/1"], "Name at least two runs or model versions"),
    "the same twice": (
        ["reviews/3", "reviews@challenger"],
        "'reviews/3' and 'reviews@challenger' are both reviews v3.",
    ),
    "a model that is gone": (["reviews/1", "reviews/9"], "'reviews' has no version 9; it has 1, 2, 3."),
    "a model that never was": (
        ["reviews/1", "revues"],
        "No model 'revues' is registered; there are films, reviews.",
    ),
    "a run that is gone": (["reviews/1", "17"], "Metaflow has no run '17' here; its latest: "),
    "a table that is none": (["reviews/1", "reviews/2", "--table", "revues"], "since there is no table at"),
    "a page in no folder": (["reviews/1", "reviews/2", "--html", "no/page.html"], "--html no/page.html cannot be"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_cannot_be_compared_is_said_in_one_line(name, store, somewhere):
    words, message = MISTAKES[name]
    done = dlpipe("compare", *words)
    if name == "a table that is none":  # the rest of the comparison stands
        assert done.exit_code == 0
        assert message in " ".join(done.stdout.split())
        return
    assert done.exit_code == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_models_without_rows_in_common_are_compared_otherwise(store, somewhere):
    found = compared("reviews/1", "films/1")
    assert found["pairs"][0]["comparison"] is None
    assert "different tables, reviews@v0 and films@v0: they have no rows in common" in found["pairs"][0]["problem"]
    assert found["scores"]["accuracy"][1]["value"] == 0.5
    named = compared("reviews/1", "films/1", "--table", found["tables"][0]["path"], "--version", "0")
    assert named["pairs"][0]["comparison"]["rows"] > 20


def test_models_for_different_tasks_are_not_compared_row_by_row():
    outputs, versions = Outputs(), [ModelVersion(name, 1, f"models:/{name}/1", "", "", "") for name in ("a", "b")]
    outputs.cards |= {"models:/a/1": {"task": "text-classification"}, "models:/b/1": {"task": "text-regression"}}
    sides = [Side(version.uri, str(version), model=version) for version in versions]
    pair = compare_pair(*sides, ComparedRows(), outputs)
    assert pair.comparison is None
    assert pair.problem == (
        "models:/a/1 is a model for text-classification, models:/b/1 is one for text-regression"
    )


def test_steps_that_a_resumed_run_took_over_have_no_time_of_their_own():
    steps = {"train": {"type": "linear", "next": ["end"]}, "end": {"type": "end", "next": []}}
    train = TaskAttempt("Flow/2/train/1", 0, 5, 6, "FINISHED", origin="Flow/1/train/1")
    tasks = (train, TaskAttempt("Flow/2/end/2", 0, 1000, 3000, "FINISHED"))
    snapshot = RunSnapshot("Flow/2", 0, (), (), {"steps": steps}, {}, None, False, tasks)
    assert [(step.step, step.seconds) for step in _list_steps(snapshot)] == [("train", None), ("end", 2.0)]


def test_a_side_without_a_model_says_why_and_what_to_do(store):
    failed = RunOutcome("FailFlow/1", "FAILED", 0, 1, failure="end failed")
    gone = replace(failed, pathspec="TrainFlow/2", status="FINISHED", models=(Model("reviews", 9, "made"),))
    sides = [fill_from_run(Side(run.pathspec, run.pathspec), run, named=True) for run in (failed, gone)]
    first, second = (compare_pair(side, sides[0], ComparedRows(), Outputs()).problem for side in sides)
    assert first == (
        "FailFlow/1 has no model here: it registered none and used none. Resume it, or name a run that finished"
    )
    assert second == (
        "TrainFlow/2 has no model here: models:/reviews/9 is gone ('reviews' has no version 9; it has 1, 2, 3. "
        "`dlpipe models` lists them). Name a version that is registered, or train again"
    )
    comparison = Comparison(tuple(sides), {}, 0, 0, (), (CodeChange("the same"),), {}, {}, ())
    notes = make_sections(comparison)[0].notes
    assert "FailFlow and TrainFlow are different flows: only what both have is compared." in notes


def test_the_lines_between_two_commits_are_counted(tmp_path):
    def git(*words: str) -> str:
        me = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.run(
            ["git", *me, *words], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout

    git("init", "-q")
    commits = []
    for text in ("one\ntwo\n", "one\nthree\nfour\n"):
        (tmp_path / "flow.py").write_text(text)
        git("add", ".")
        git("commit", "-qm", "x")
        commits.append(CodeState(git("rev-parse", "HEAD").strip()))
    change = compare_code(*commits, folder=tmp_path)
    assert (change.added, change.removed, [file.path for file in change.files]) == (2, 1, ["flow.py"])
    loose = replace(commits[0], uncommitted="true", uncommitted_lines=4)
    assert compare_code(commits[0], loose, folder=tmp_path).words == (
        f"the same commit {commits[0].commit[:12]}; the second with uncommitted changes of 4 lines"
    )
    missing = CodeState("0" * 40)
    assert "has not both commits" in compare_code(commits[0], missing, folder=tmp_path).words
    assert "no commits of git" in compare_code(commits[0], CodeState("--output=x"), folder=tmp_path).words
    assert compare_code(CodeState(package="a"), CodeState(package="b")).words == "other code packages, no commit"
    assert compare_code(CodeState(), commits[0]).words == "not known: the first names no commit"


def test_a_version_of_a_table_that_is_gone_is_said(tables):
    gone = read_rows(TableRef(tables[0].path, 9))
    assert isinstance(gone, str)
    assert compare_contents(gone, {}).problem == gone
    assert to_plain(compare_contents({"a": ("", "1")}, {}))["gone_by_split"] == {"no split": 1}
