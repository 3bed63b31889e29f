"""Labels: one class has one spelling whatever file it came from, and a rare class can be learnt."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from dlpipe.cli import main
from dlpipe.errors import BadRows, BadSource, SchemaMismatch
from dlpipe.tables import Sources, append, describe_table, ingest, read_last_settings, read_table, write_table
from dlpipe.task.text_classification import TextClassData

FOLD = TextClassData(fold_labels=True)
TEXTS = [f"film number {number} was fine" for number in range(120)]


def write(path: Path, labels: list[Any], texts: list[str] = TEXTS) -> Path:
    """Write texts with labels in the kind that the ending names; in a CSV, a label stands as ``str`` gives it."""
    rows = list(zip(texts, labels, strict=False))
    if path.suffix == ".csv":
        lines = [f"{text},{'' if label is None else label}\n" for text, label in rows]
        path.write_text("review,sentiment\n" + "".join(lines), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"review": text, "sentiment": label}) + "\n" for text, label in rows))
    else:
        pq.write_table(
            pa.table({"review": [text for text, _ in rows], "sentiment": [label for _, label in rows]}), path
        )
    return path


def ingest_labels(path: Path, labels: list[Any], name: str, **settings: Any) -> Any:
    """Return what an ingest of the labels, in a file of this name, did."""
    source = write(path / name, labels * (len(TEXTS) // len(labels)))
    return ingest(Sources(data=source), path / "t", settings=TextClassData(**settings))


# --- one spelling


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("a.csv", [0, 1]),
        ("a.csv", ["0.0", "1.0"]),
        ("a.csv", ["0.0", "1"]),
        ("a.jsonl", [0, 1]),
        ("a.jsonl", [0.0, 1.0]),
        ("a.parquet", [0, 1]),
        ("a.parquet", [0.0, 1.0]),
        ("a.parquet", [Decimal(0), Decimal(1)]),
        ("a.parquet", [Decimal("0.00"), Decimal("1.00")]),
    ],
)
def test_a_whole_number_is_one_class_in_every_kind_of_file(tmp_path, name, labels):
    assert ingest_labels(tmp_path, labels, name).labels == ("0", "1")


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("a.csv", ["true", "false"]),
        ("a.csv", ["TRUE", "FALSE"]),
        ("a.csv", ["True", "False"]),
        ("a.jsonl", [True, False]),
        ("a.jsonl", ["true", "false"]),
        ("a.parquet", [True, False]),
    ],
)
def test_a_truth_value_is_one_class_in_every_kind_of_file(tmp_path, name, labels):
    assert ingest_labels(tmp_path, labels, name).labels == ("False", "True")


@pytest.mark.parametrize(
    "labels", [["1.0", "1.5", "2.0"], ["true", "false", "mixed"], ["01", "1.0"], ["-1", "+1"], ["1.0.0", "1"]]
)
def test_labels_that_are_not_all_numbers_or_truth_values_stay_as_they_stand(tmp_path, labels):
    assert ingest_labels(tmp_path, labels, "a.csv").labels == tuple(sorted(labels))


def test_the_same_frame_gives_the_same_rows_as_csv_and_as_parquet(tmp_path):
    labels = [None, *([1.0, 0.0] * 59), 1.0]
    made = [
        ingest(
            Sources(data=write(tmp_path / name, labels)),
            tmp_path / name.replace(".", "_"),
            settings=TextClassData(),
        ).table.digest
        for name in ("a.csv", "a.parquet")
    ]
    assert made[0] == made[1]


def test_a_decimal_that_is_no_whole_number_is_no_class(tmp_path):
    with pytest.raises(BadSource, match=r"holds numbers, not classes \(Decimal\('0.5'\) on row 1\)"):
        ingest_labels(tmp_path, [Decimal("0.5"), Decimal("1.5")], "a.parquet")


def test_files_of_other_kinds_make_the_same_classes_of_one_table(tmp_path):
    train = write(tmp_path / "train.csv", ["0.0", "1.0"] * 50, TEXTS)
    valid = write(tmp_path / "valid.parquet", [0, 1] * 5, [f"valid {text}" for text in TEXTS])
    test = write(tmp_path / "test.jsonl", [0, 1] * 5, [f"test {text}" for text in TEXTS])
    assert ingest(
        Sources(train=train, valid=valid, test=test), tmp_path / "t", settings=TextClassData()
    ).labels == ("0", "1")


# --- an append


@pytest.mark.parametrize(
    ("first", "name", "later"),
    [
        ([0, 1], "a.csv", ["0.0", "1.0"]),
        (["1.0", "1.5"], "a.parquet", [1.0]),
        ([True, False], "a.csv", ["true", "false"]),
        (["true", "false", "mixed"], "a.jsonl", [True, False]),
    ],
)
def test_appended_labels_are_written_as_the_table_has_them(tmp_path, first, name, later):
    source = "a.parquet" if first == [True, False] else "a.csv"
    before = ingest_labels(tmp_path, first, source)
    known = append(write(tmp_path / name, later * 3, [f"new {text}" for text in TEXTS]), tmp_path / "t")
    assert (known.new_rows, dict(known.bad_rows)) == (3 * len(later), {})
    assert set(read_table(known.table)["label"].to_pylist()) == set(before.labels)


@pytest.mark.parametrize("order", [("bool.jsonl", "bool.csv"), ("bool.csv", "bool.jsonl")])
def test_truth_values_meet_in_a_table_that_appends_have_made(tmp_path, order):
    for name in order:
        labels = [True, False] if name.endswith("jsonl") else ["true", "false"]
        source = write(tmp_path / name, labels, [f"{name} {text}" for text in TEXTS])
        done = append(source, tmp_path / "t", settings=TextClassData())
    assert sorted(read_table(done.table)["label"].to_pylist()) == ["False", "False", "True", "True"]


def test_labels_that_train_lacks_are_named_when_the_append_stops_and_when_it_does_not(tmp_path):
    ingest_labels(tmp_path, ["good", "bad"], "a.csv")
    texts = [f"new {text}" for text in TEXTS]
    with pytest.raises(BadRows, match=r"'Good' \(3 rows\), 'so so' \(1\); train has 'bad', 'good'") as stopped:
        append(write(tmp_path / "b.csv", ["Good", "Good", "Good", "so so"], texts), tmp_path / "t")
    assert "set fold_labels (--fold-labels true)" in str(stopped.value)
    done = append(write(tmp_path / "c.csv", ["good"] * 20 + ["so so"], texts), tmp_path / "t")
    told = "Rows set aside with label that the train split lacks: 1. 'so so' (1 row); train has 'bad', 'good'."
    assert any(note.startswith(told) for note in done.notes)


def test_the_command_names_such_labels_and_folds_those_that_look_alike(tmp_path):
    ingest_labels(tmp_path, ["good", "bad"], "a.csv")
    new = str(write(tmp_path / "b.csv", ["GOOD"], [f"new {text}" for text in TEXTS]))
    refused = CliRunner().invoke(main, ["append", str(tmp_path / "t"), new])
    assert refused.exit_code == 1
    assert "'GOOD' (1 row); train has 'bad', 'good'" in refused.output
    done = CliRunner().invoke(main, ["append", str(tmp_path / "t"), new, "--fold-labels", "true"])
    assert "1 new rows, 1 with a label" in done.stdout
    assert "made one class: 'GOOD' (1 row) and 'good' (0) as 'good'" in done.stderr


def test_an_append_goes_by_the_settings_of_the_last_ingest_and_not_of_the_first(tmp_path):
    for labels, settings in ((["good", "bad"], TextClassData()), (["good", "Bad"], FOLD)):
        ingest(Sources(data=write(tmp_path / "a.csv", labels * 60)), tmp_path / "t", settings=settings)
    new = write(tmp_path / "b.csv", ["GOOD"], [f"new {text}" for text in TEXTS])
    filled = write(tmp_path / "c.csv", [None, "Good"], ["still to be read", *TEXTS])
    append(filled, tmp_path / "t", settings=TextClassData(text_column="review", fold_labels=True))
    append(write(tmp_path / "c.csv", ["bad"], ["still to be read"]), tmp_path / "t", settings=FOLD)
    last = read_last_settings(str(tmp_path / "t"))
    assert (last.form, last.task, last.fold_labels) == (FOLD.form.forget_settings(), FOLD.task, True)
    assert append(new, tmp_path / "t").labelled_rows == 1


# --- labels that look alike


@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        (["good", "Good", "bad"], "'Good' (40 rows) and 'good' (40)"),
        (["so so", "so  so", "bad"], "'so  so' (40 rows) and 'so so' (40)"),
        (["caf\xe9", "cafe\u0301", "bar"], r"'cafe\u0301' (40 rows) and 'caf\xe9' (40)"),
        (["good", "good\u200b", "bad"], r"'good' (40 rows) and 'good\u200b' (40)"),
    ],
)
def test_labels_that_look_alike_are_named_and_one_class_if_asked_for(tmp_path, labels, shown):
    apart = ingest_labels(tmp_path, labels, "a.csv")
    assert len(apart.labels) == 3
    assert any(shown in note and "set fold_labels" in note for note in apart.notes)
    folded = ingest_labels(tmp_path, labels, "a.csv", fold_labels=True)
    assert folded.labels == tuple(sorted({labels[0], labels[2]} if "Good" not in labels else {"Good", "bad"}))
    assert any(shown in note and "made one class" in note for note in folded.notes)


def test_folded_labels_do_not_contradict_each_other(tmp_path):
    labels = ["good", "bad"] * 30
    source = write(tmp_path / "a.csv", [*labels, "GOOD"], [*TEXTS[:60], TEXTS[0].upper()])
    assert dict(ingest(Sources(data=source), tmp_path / "t", settings=TextClassData()).bad_rows) == {
        "conflicting labels": 2
    }
    assert dict(ingest(Sources(data=source), tmp_path / "t", settings=FOLD).bad_rows) == {}


def test_a_label_that_reads_like_a_missing_value_is_named(tmp_path):
    assert "'nan' (40 rows)" in ingest_labels(tmp_path, ["good", "bad", "nan"], "a.csv").notes[0]


def test_labels_without_a_doubt_need_no_note(tmp_path):
    assert ingest_labels(tmp_path, ["good", "bad"], "a.csv").notes == ()


# --- rare classes


def test_rare_classes_go_to_train_first_and_all_other_rows_stay(tmp_path):
    """Whatever texts a rare class has: twenty of them, one after another, and one that has two."""
    labels: list[Any] = ["good", "bad"] * 40
    plain = write(tmp_path / "plain.csv", labels)
    before = read_table(ingest(Sources(data=plain), tmp_path / "plain", settings=TextClassData()).table)
    splits = dict(zip(before["text"].to_pylist(), before["split"].to_pylist(), strict=True))
    moved = 0
    for number in range(80, 100):
        source = write(tmp_path / "a.csv", [*labels, "rare"], [*TEXTS[:80], TEXTS[number]])
        done = ingest(Sources(data=source), tmp_path / "t", settings=TextClassData())
        rows = read_table(done.table).to_pylist()
        assert [row["split"] for row in rows if row["label"] == "rare"] == ["train"]
        assert all(row["split"] == splits[row["text"]] for row in rows if row["label"] != "rare")
        assert any("'rare' (valid and test)" in note for note in done.notes)
        moved += any(note.startswith("Rare classes go to train first") for note in done.notes)
    assert 0 < moved < 20  # the others were there by their hash


def test_of_a_rare_class_only_the_text_that_is_nearest_to_train_is_moved(tmp_path):
    base, rare = write(tmp_path / "a.csv", ["good", "bad"] * 40), [f"rare {number}" for number in range(60)]
    all_rare = write(tmp_path / "b.csv", ["rare"] * 60, rare)
    rows = read_table(
        ingest(Sources(data=[base, all_rare]), tmp_path / "t", settings=TextClassData()).table
    ).to_pylist()
    in_test = [row["text"] for row in rows if row["label"] == "rare" and row["split"] == "test"][:4]
    twice = [*in_test, in_test[0].upper(), in_test[1].upper(), in_test[2].upper(), in_test[3].upper()]
    few = write(tmp_path / "b.csv", ["rare"] * 8, twice)
    done = ingest(Sources(data=[base, few]), tmp_path / "t", settings=TextClassData())
    rows = [row for row in read_table(done.table).to_pylist() if row["label"] == "rare"]
    in_train = [row["text"].lower() for row in rows if row["split"] == "train"]
    assert len(rows) == 8
    assert len(in_train) == 2
    assert len(set(in_train)) == 1  # a text and its repeat go together
    assert any("moved were 'rare' (2 rows)" in note for note in done.notes)


def test_a_new_table_of_appended_rows_can_be_trained_on_as_well(tmp_path):
    for start in range(0, 120, 4):
        append(
            write(tmp_path / "a.csv", ["good", "bad"] * 2, TEXTS[start : start + 4]),
            tmp_path / "t",
            settings=TextClassData(),
        )
    rows = read_table(append(tmp_path / "a.csv", tmp_path / "t").table).to_pylist()
    assert {row["label"] for row in rows if row["split"] == "train"} == {"good", "bad"}
    assert describe_table(tmp_path / "t").labels == ("bad", "good")


def test_an_ingest_without_the_class_of_appended_rows_keeps_one_of_them_in_train(tmp_path):
    """Rows that were appended stay; those of a class that the new sources lack may all be in test."""
    three = write(tmp_path / "a.csv", ["good", "bad", "rare"] * 40)
    ingest(Sources(data=three), tmp_path / "t", settings=TextClassData())
    append(write(tmp_path / "b.csv", ["rare"] * 40, [f"new {text}" for text in TEXTS]), tmp_path / "t")
    kept = read_table(append(tmp_path / "b.csv", tmp_path / "t").table).to_pylist()
    in_test = [row["text"] for row in kept if row["split"] == "test" and row["text"].startswith("new")]
    ingest(Sources(data=three), tmp_path / "u", settings=TextClassData())
    append(write(tmp_path / "b.csv", ["rare"] * 3, in_test[:3]), tmp_path / "u")
    two = write(tmp_path / "c.csv", ["good", "bad"] * 40)
    done = ingest(Sources(data=two), tmp_path / "u", settings=TextClassData())
    rare = [row["split"] for row in read_table(done.table).to_pylist() if row["label"] == "rare"]
    assert sorted(rare) == ["test", "test", "train"]
    assert not ingest(Sources(data=two), tmp_path / "u", settings=TextClassData()).new_version


def test_a_table_of_another_program_with_numbers_for_labels_is_no_table_to_train_on(tmp_path):
    columns = {"row_id": ["a"], "text": ["fine"], "label": [1], "split": ["train"]}
    write_table(tmp_path / "t", pa.table(columns))
    with pytest.raises(SchemaMismatch, match="its column 'label' holds values of type long"):
        describe_table(tmp_path / "t")


def test_a_class_that_given_splits_put_into_test_alone_is_refused_as_before(tmp_path):
    train = write(tmp_path / "train.csv", ["good", "bad"] * 50)
    test = write(tmp_path / "test.csv", ["good", "bad", "rare"], [f"test {text}" for text in TEXTS])
    with pytest.raises(BadRows, match="'test' has labels that train lacks: 'rare'"):
        ingest(Sources(train=train, test=test), tmp_path / "t", settings=TextClassData())


def test_a_table_of_earlier_days_keeps_its_digest(tmp_path):
    """The digest that the code before had, of rows in all three splits."""
    done = ingest_labels(tmp_path, ["good", "bad"], "a.csv")
    assert done.table.digest == "abfb82a25d6c3f8f37eb447e5e217ee5"
