"""Forms of rows: several labels, numbers, pairs of texts, columns of a table; what becomes of them."""

from __future__ import annotations

import csv
import json
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from dlpipe.cli import main
from dlpipe.errors import BadRows, BadSource, SchemaMismatch, SettingError, TableNotFound, UnsupportedFeature
from dlpipe.tables import (
    TEXT_FORM,
    Column,
    FormSettings,
    Label,
    RowForm,
    Sources,
    append,
    check_inputs,
    check_sources,
    decode_texts,
    describe_table,
    history,
    ingest,
    read_form,
    read_last_settings,
    read_table,
    table_at,
    write_table,
)
from dlpipe.tables._splits import choose_split
from dlpipe.task.text_classification import TextClassData

TEXT = Column("text", "review", "text", setting="text_column")
LABELS = RowForm((TEXT,), Label(("genres",), "labels"))
NUMBERS = RowForm((TEXT,), Label(("stars",), "number"))
PAIRS = RowForm(
    (
        Column("text", "first", "text", setting="text_column"),
        Column("other", "second", "text", setting="other_column"),
    ),
    Label(("same",), "class"),
)
TABULAR = RowForm(
    (
        Column("age", "age", "number", optional=True, setting="number_columns"),
        Column("height", "height in m", "number", setting="number_columns"),
        Column("town", "town", "category", optional=True, setting="category_columns"),
        Column("colour", "colour", "category", setting="category_columns"),
        Column("note", "note", "text", optional=True, setting="text_column"),
    ),
    Label(("kind",), "class"),
)
NAMES = ("train", "valid", "test")
GENRES = ("drama", "war", "comedy")


def make_settings(form: RowForm, **settings: Any) -> FormSettings:
    return FormSettings(rows=form, task_name="made-up", **settings)


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> Path:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


def write_jsonl(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> Path:
    path.write_text("\n".join(json.dumps(dict(zip(header, row, strict=True))) for row in rows))
    return path


def make_genres(number: int) -> list[str]:
    """A film has each genre or not: some have none."""
    return [genre for at, genre in enumerate(GENRES) if number >> at & 1]


def make_films(count: int = 160) -> list[tuple[str, list[str]]]:
    return [(f"film number {number}", make_genres(number)) for number in range(count)]


def make_rated(count: int = 120) -> list[tuple[str, float]]:
    return [(f"film number {number}", (number % 7) / 2) for number in range(count)]


def make_people(count: int = 120) -> list[list[Any]]:
    return [
        [
            number % 50 or None,
            1.5 + number / 1000,
            ("Bonn", None, "Rome")[number % 3],
            "red",
            None,
            "ab"[number % 2],
        ]
        for number in range(count)
    ]


def read_by_text(version: Any, column: str = "label") -> dict[str, Any]:
    rows = read_table(version).to_pydict()
    return dict(zip(rows["text"], rows[column], strict=True))


# --- several labels


def write_list_column(path: Path) -> tuple[Path, RowForm]:
    names = {"review": [text for text, _ in make_films()], "genres": [labels for _, labels in make_films()]}
    pq.write_table(pa.table(names), path / "a.parquet")
    return path / "a.parquet", LABELS


def write_json_lists(path: Path) -> tuple[Path, RowForm]:
    return write_jsonl(path / "a.jsonl", ("review", "genres"), make_films()), LABELS


def write_separated(path: Path) -> tuple[Path, RowForm]:
    rows = [(text, "|".join(labels) or "[]") for text, labels in make_films()]
    return write_csv(path / "a.csv", ("review", "genres"), rows), LABELS


def write_json_in_csv(path: Path) -> tuple[Path, RowForm]:
    rows = [(text, json.dumps(labels)) for text, labels in make_films()]
    return write_csv(path / "a.csv", ("review", "genres"), rows), LABELS


def write_flags(path: Path) -> tuple[Path, RowForm]:
    rows = [(text, *(int(genre in labels) for genre in GENRES)) for text, labels in make_films()]
    return write_csv(path / "a.csv", ("review", *GENRES), rows), replace(LABELS, label=Label(GENRES, "labels"))


def write_flags_as_truth(path: Path) -> tuple[Path, RowForm]:
    rows = [(text, *(genre in labels for genre in GENRES)) for text, labels in make_films()]
    return write_jsonl(path / "a.jsonl", ("review", *GENRES), rows), replace(LABELS, label=Label(GENRES, "labels"))


KINDS = [
    write_list_column,
    write_json_lists,
    write_separated,
    write_json_in_csv,
    write_flags,
    write_flags_as_truth,
]


@pytest.mark.parametrize("write", KINDS, ids=[write.__name__ for write in KINDS])
def test_several_labels_are_read_from_each_kind_of_column(tmp_path, write):
    source, form = write(tmp_path)
    check_sources(Sources(data=source), tmp_path / "t", settings=make_settings(form))
    done = ingest(Sources(data=source), tmp_path / "t", settings=make_settings(form))
    assert read_by_text(done.table) == {text: sorted(labels) for text, labels in make_films()}
    assert dict(done.table.columns)["label"] == "array"
    assert done.labels == ("comedy", "drama", "war")
    assert (sum(done.split_rows.values()), done.bad_rows) == (160, {})
    counts = [done.profile["labels"][split] for split in ("train", "valid", "test")]
    assert sum(count["drama"] for count in counts) == 80
    assert read_form(done.table) == form
    assert not ingest(Sources(data=source), tmp_path / "t", settings=make_settings(form)).new_version


def test_the_same_labels_in_another_order_are_the_same(tmp_path):
    rows = [*make_films(), ("Film  number 3", ["war", "drama"]), ("FILM NUMBER 3", ["drama", "war", "war"])]
    done = ingest(
        Sources(data=write_jsonl(tmp_path / "a.jsonl", ("review", "genres"), rows)),
        tmp_path / "t",
        settings=make_settings(LABELS),
    )
    assert (done.bad_rows, done.profile["repeated_texts"]) == ({}, 2)
    rows.append(("film number 3", ["war"]))
    source = write_jsonl(tmp_path / "b.jsonl", ("review", "genres"), rows)
    done = ingest(Sources(data=source), tmp_path / "t", settings=make_settings(LABELS))
    assert done.bad_rows == {"conflicting labels": 4}
    assert set(read_table(done.quarantine)["label"].to_pylist()) == {'["drama", "war"]', '["war"]'}


def test_a_rare_label_goes_to_train_with_its_row(tmp_path):
    source = write_jsonl(tmp_path / "a.jsonl", ("review", "genres"), make_films())
    placed = read_by_text(
        ingest(Sources(data=source), tmp_path / "t", settings=make_settings(LABELS)).table, "split"
    )
    text = next(text for text, split in placed.items() if split == "test")
    rows = [(film, [*labels, "noir", "mystery"] if film == text else labels) for film, labels in make_films()]
    source = write_jsonl(tmp_path / "b.jsonl", ("review", "genres"), rows)
    done = ingest(Sources(data=source), tmp_path / "t", settings=make_settings(LABELS))
    assert read_by_text(done.table, "split") == {**placed, text: "train"}
    assert any(note.startswith("Rare labels go to train first") for note in done.notes)
    assert any(
        "Labels that a split has no row of" in note and "'noir' (valid and test)" in note for note in done.notes
    )


def test_labels_that_no_row_of_train_has_are_refused(tmp_path):
    given = {
        name: write_jsonl(tmp_path / f"{name}.jsonl", ("review", "genres"), rows)
        for name, rows in (
            ("train", make_films(40)),
            ("valid", [(f"valid {text}", labels) for text, labels in make_films(20)]),
            ("test", [(f"test {text}", [*labels, "noir"]) for text, labels in make_films(20)]),
        )
    }
    with pytest.raises(BadRows, match="'test' has labels that train lacks: 'noir'"):
        ingest(Sources(**given), tmp_path / "t", settings=make_settings(LABELS))


def test_rows_that_all_have_the_same_labels_are_refused(tmp_path):
    source = write_jsonl(tmp_path / "a.jsonl", ("review", "genres"), [(text, ["war"]) for text, _ in make_films()])
    with pytest.raises(BadRows, match="160 good rows have the labels 'war': there is nothing to tell apart"):
        ingest(Sources(data=source), tmp_path / "t", settings=make_settings(LABELS))


@pytest.mark.parametrize(
    ("cells", "is_good"),
    [
        ([Decimal("1.00"), Decimal("0.00")], True),
        ([1.0, 0.0], True),
        ([1, 0], True),
        ([True, False], True),
        (["TRUE", " false"], True),
        ([Decimal("1.50"), Decimal("0.00")], False),
        ([2, 0], False),
    ],
)
def test_columns_of_0_and_1_may_be_numbers_of_every_type(tmp_path, cells, is_good):
    form = RowForm((TEXT,), Label(("war", "drama"), "labels"))
    table = pa.table({"review": ["a", "b"], "war": pa.array(cells), "drama": pa.array(cells[::-1])})
    pq.write_table(table, tmp_path / "a.parquet")
    if is_good:
        done = append(tmp_path / "a.parquet", tmp_path / "t", settings=make_settings(form))
        assert read_table(done.table)["label"].to_pylist() == [["war"], ["drama"]]
    else:
        with pytest.raises(BadRows, match="neither a list nor 0 and 1"):
            append(tmp_path / "a.parquet", tmp_path / "t", settings=make_settings(form))


def test_labels_that_are_none_are_bad_rows(tmp_path):
    header, rows = (
        ("review", *GENRES),
        [(text, *(int(g in labels) for g in GENRES)) for text, labels in make_films()],
    )
    odd = [("two", 2, 0, 1), ("half", 1, "", 0)]
    source = write_csv(tmp_path / "a.csv", header, [*rows, *odd])
    done = ingest(
        Sources(data=source),
        tmp_path / "t",
        settings=make_settings(replace(LABELS, label=Label(GENRES, "labels"))),
    )
    assert done.bad_rows == {"labels that are neither a list nor 0 and 1": 1, "missing label": 1}
    assert "drama: 2, war: 0, comedy: 1" in read_table(done.quarantine)["label"].to_pylist()
    broken = write_csv(
        tmp_path / "b.csv",
        ("review", "genres"),
        [*((t, "|".join(g) or "[]") for t, g in make_films()), ("a", "[x")],
    )
    assert sum(ingest(Sources(data=broken), tmp_path / "u", settings=make_settings(LABELS)).bad_rows.values()) == 1


def test_labels_that_look_alike_are_made_one(tmp_path):
    rows = [
        (text, [label.upper() if at % 9 == 1 else label for label in labels])
        for at, (text, labels) in enumerate(make_films())
    ]
    source = write_jsonl(tmp_path / "a.jsonl", ("review", "genres"), rows)
    apart = ingest(Sources(data=source), tmp_path / "t", settings=make_settings(LABELS))
    assert len(apart.labels) > 3
    assert any("'DRAMA'" in note for note in apart.notes)
    folded = ingest(Sources(data=source), tmp_path / "t", settings=make_settings(LABELS, fold_labels=True))
    assert read_by_text(folded.table) == {text: sorted(labels) for text, labels in make_films()}


def test_several_labels_are_appended_and_filled_in(tmp_path):
    source, table = write_jsonl(tmp_path / "a.jsonl", ("review", "genres"), make_films()), tmp_path / "t"
    ingest(Sources(data=source), table, settings=make_settings(LABELS))
    new = [
        ("new one", None),
        ("new two", ["war", "drama"]),
        ("film number 3", ["drama", "war"]),
        ("new three", []),
    ]
    done = append(write_jsonl(tmp_path / "b.jsonl", ("review", "genres"), new), table)
    assert (done.new_rows, done.labelled_rows, done.known_rows) == (3, 2, 1)
    late = write_csv(tmp_path / "c.csv", ("review", "genres"), [("new one", "comedy|war")])
    assert append(late, table).filled_labels == 1
    rows = read_by_text(table_at(table))
    assert (rows["new one"], rows["new two"], rows["new three"]) == (["comedy", "war"], ["drama", "war"], [])
    odd = [*((f"more {at}", ["war"]) for at in range(30)), ("odd", ["noir"]), ("film number 1", ["war"])]
    done = append(write_jsonl(tmp_path / "d.jsonl", ("review", "genres"), odd), table)
    assert done.bad_rows == {"label that the train split lacks": 1, "conflicting labels": 1}
    found = describe_table(table)
    assert (found.labels, found.appended_rows, found.unlabelled_rows) == (("comedy", "drama", "war"), 33, 0)
    again = ingest(Sources(data=source), table, settings=make_settings(LABELS))
    assert (again.appended_rows, again.table.rows) == (33, 193)
    assert read_by_text(again.table)["new one"] == ["comedy", "war"]


# --- numbers


def test_numbers_are_labels(tmp_path):
    rows = [*make_rated(), ("none", ""), ("not yet", "n/a"), ("word", "good"), ("far", "inf")]
    done = ingest(
        Sources(data=write_csv(tmp_path / "a.csv", ("review", "stars"), rows)),
        tmp_path / "t",
        settings=make_settings(NUMBERS),
    )
    assert read_by_text(done.table) == dict(make_rated())
    assert dict(done.table.columns)["label"] == "double"
    assert done.bad_rows == {"missing label": 2, "label that is no number": 2}
    assert read_table(done.quarantine)["label"].to_pylist() == [None, None, "good", "inf"]
    assert (done.labels, sum(done.split_rows.values())) == ((), 120)
    assert done.profile["labels"] == {"train": {}, "valid": {}, "test": {}}
    assert done.profile["numbers"]["train"]["max"] == 3.0
    assert any("2. 'good': write numbers with a point" in note for note in done.notes)
    # no class goes to train first: the hash alone decides
    texts = TextClassData(text_column="review", label_column="kind")
    other = write_csv(
        tmp_path / "b.csv", ("review", "kind"), [(text, at % 2) for at, (text, _) in enumerate(make_rated())]
    )
    placed = read_by_text(ingest(Sources(data=other), tmp_path / "u", settings=texts).table, "split")
    assert read_by_text(done.table, "split") == placed


@pytest.mark.parametrize(
    "rows", [[(text, number) for text, number in make_rated()], [(t, str(n)) for t, n in make_rated()]]
)
def test_numbers_are_read_from_json_as_numbers_and_as_text(tmp_path, rows):
    source = write_jsonl(tmp_path / "a.jsonl", ("review", "stars"), rows)
    assert read_by_text(
        ingest(Sources(data=source), tmp_path / "t", settings=make_settings(NUMBERS)).table
    ) == dict(make_rated())


def test_a_decimal_comma_is_read_where_commas_separate_nothing(tmp_path):
    lines = [f"{text};{str(number).replace('.', ',')}" for text, number in make_rated()]
    (tmp_path / "a.csv").write_text("\n".join(["review;stars", *lines, "film 1,5 of 2;1,25"]))
    done = ingest(Sources(data=tmp_path / "a.csv"), tmp_path / "t", settings=make_settings(NUMBERS))
    assert read_by_text(done.table) == {**dict(make_rated()), "film 1,5 of 2": 1.25}
    with_commas = [(text, str(number).replace(".", ",")) for text, number in make_rated()]
    source = write_csv(tmp_path / "b.csv", ("review", "stars"), with_commas)
    with pytest.raises(BadRows, match="'0,0': write numbers with a point"):
        ingest(Sources(data=source), tmp_path / "u", settings=make_settings(NUMBERS))


def test_a_number_without_end_is_a_bad_row(tmp_path):
    rows = [*make_rated(), ("a long one", 10**400)]
    done = ingest(
        Sources(data=write_jsonl(tmp_path / "a.jsonl", ("review", "stars"), rows)),
        tmp_path / "t",
        settings=make_settings(NUMBERS),
    )
    assert done.bad_rows == {"label that is no number": 1}


def test_one_number_for_all_is_refused_and_another_number_is_a_conflict(tmp_path):
    source = write_csv(tmp_path / "a.csv", ("review", "stars"), [(text, 3.5) for text, _ in make_rated()])
    with pytest.raises(BadRows, match=r"have the number 3\.5 as label: there is nothing to learn"):
        ingest(Sources(data=source), tmp_path / "t", settings=make_settings(NUMBERS))
    rows = [*make_rated(), ("Film number 4", 1), ("film number 5", "2.50")]
    source = write_csv(tmp_path / "b.csv", ("review", "stars"), rows)
    done = ingest(Sources(data=source), tmp_path / "t", settings=make_settings(NUMBERS))
    assert done.bad_rows == {"conflicting labels": 2}


def test_dates_are_no_numbers(tmp_path):
    days = pa.array(range(120), pa.date32())
    pq.write_table(pa.table({"review": [text for text, _ in make_rated()], "stars": days}), tmp_path / "a.parquet")
    with pytest.raises(BadSource, match=r"label column 'stars' .* holds values of type date, not numbers"):
        ingest(Sources(data=tmp_path / "a.parquet"), tmp_path / "t", settings=make_settings(NUMBERS))


def test_numbers_are_appended_and_filled_in(tmp_path):
    source, table = write_csv(tmp_path / "a.csv", ("review", "stars"), make_rated()), tmp_path / "t"
    ingest(Sources(data=source), table, settings=make_settings(NUMBERS))
    new = [
        ("new one", ""),
        ("new two", "17.25"),
        ("film number 4", "2.0"),
        *((f"more {at}", at) for at in range(20)),
    ]
    done = append(write_csv(tmp_path / "b.csv", ("review", "stars"), [*new, ("film number 5", "0")]), table)
    assert (done.new_rows, done.labelled_rows, done.known_rows) == (22, 21, 1)
    assert done.bad_rows == {"conflicting labels": 1}
    assert append(write_csv(tmp_path / "c.csv", ("review", "stars"), [("new one", 4)]), table).filled_labels == 1
    rows = read_by_text(table_at(table))
    assert (rows["new one"], rows["new two"]) == (4.0, 17.25)
    assert set(read_by_text(table_at(table), "split").values()) == {"train", "valid", "test"}
    found = describe_table(table)
    assert (found.labels, sum(found.split_rows.values())) == ((), 142)
    assert ingest(Sources(data=source), table, settings=make_settings(NUMBERS)).table.rows == 142


# --- pairs


def test_pairs_are_the_same_only_as_pairs(tmp_path):
    rows = [(f"question {at}", f"question {at % 9}", "yes" if at % 9 == at % 5 else "no") for at in range(200)]
    twice = [("question 7", "Question  7", "no"), ("question 7", "something else", "yes")]
    header = ("first", "second", "same")
    done = ingest(
        Sources(data=write_csv(tmp_path / "a.csv", header, [*rows, *twice])),
        tmp_path / "t",
        settings=make_settings(PAIRS),
    )
    assert [name for name, _ in done.table.columns] == ["row_id", "text", "other", "label", "split"]
    assert (done.table.rows, done.profile["repeated_texts"], done.labels) == (202, 1, ("no", "yes"))
    assert "words" in done.profile
    assert "characters" not in done.profile
    odd = write_csv(tmp_path / "b.csv", header, [*rows, ("question 1", "", "no"), ("", "question 1", "no")])
    done = ingest(Sources(data=odd), tmp_path / "t", settings=make_settings(PAIRS))
    assert done.bad_rows == {"empty text": 2}
    kept = read_table(done.quarantine)
    assert kept.column_names == ["source", "line", "reason", "text", "other", "label", "split"]
    assert kept.select(["text", "other"]).to_pylist() == [
        {"text": "question 1", "other": ""},
        {"text": "", "other": "question 1"},
    ]
    done = append(write_csv(tmp_path / "c.csv", header, [*rows[:3], ("new", "question 1", "yes")]), tmp_path / "t")
    assert (done.new_rows, done.known_rows) == (1, 3)
    assert dict(describe_table(tmp_path / "t").split_rows) == count_by_split(tmp_path / "t")


def count_by_split(table: Path) -> dict[str, int]:
    splits = read_table(table_at(table))["split"].to_pylist()
    return {split: splits.count(split) for split in ("train", "valid", "test")}


def test_the_columns_of_a_form_are_named_where_one_is_missing(tmp_path):
    source = write_csv(tmp_path / "a.csv", ("first", "b", "same"), [("a", "b", "c")])
    with pytest.raises(BadSource) as caught:
        ingest(Sources(data=source), tmp_path / "t", settings=make_settings(PAIRS))
    assert "has no column 'second'; its columns are: 'first', 'b', 'same'" in str(caught.value)
    named = "Set text_column, other_column and label_column (--text-column, --set data.other_column=..., --label-"
    assert named in str(caught.value)
    numbers = write_csv(
        tmp_path / "b.csv", ("first", "second", "same"), [("a text", at, at % 2) for at in range(40)]
    )
    with pytest.raises(
        BadSource, match=r"other column 'second' .* holds numbers, not text .*\(--set data.other_column=...\)"
    ):
        ingest(Sources(data=numbers), tmp_path / "t", settings=make_settings(PAIRS))


# --- numbers, categories and a text


def test_columns_of_numbers_categories_and_a_text_are_read(tmp_path):
    header = ("age", "height in m", "town", "colour", "note", "kind")
    rows = [*make_people(), [3, 1.9, "Bonn", "red", "A text beside it", "a"]]
    done = ingest(
        Sources(data=write_csv(tmp_path / "a.csv", header, rows)),
        tmp_path / "csv",
        settings=make_settings(TABULAR),
    )
    table = read_table(done.table)
    assert [str(kind) for kind in table.schema.types] == ["string", "double", "double", *["string"] * 5]
    first = table.slice(0, 1).to_pylist()[0]
    assert (first["age"], first["height"], first["town"], first["colour"], first["note"]) == (
        None,
        1.5,
        "Bonn",
        "red",
        None,
    )
    assert (done.bad_rows, done.labels) == ({}, ("a", "b"))
    columns = {name: [row[at] for row in rows] for at, name in enumerate(header)}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    write_jsonl(tmp_path / "a.jsonl", header, rows)
    for name in ("a.parquet", "a.jsonl"):
        assert (
            ingest(
                Sources(data=tmp_path / name), tmp_path / name[2:], settings=make_settings(TABULAR)
            ).table.digest
            == done.table.digest
        )
    odd = [["old", 1.5, "Bonn", "red", "", "a"], [3, "", "Bonn", "red", "", "a"], [3, 1.5, "Bonn", " ", "", "a"]]
    done = ingest(
        Sources(data=write_csv(tmp_path / "b.csv", header, [*rows, *odd])),
        tmp_path / "csv",
        settings=make_settings(TABULAR),
    )
    assert done.bad_rows == {"missing value": 2, "value that is no number": 1}
    kept = read_table(done.quarantine).to_pylist()
    assert [(row["age"], row["height"], row["colour"]) for row in kept] == [
        ("old", "1.5", "red"),
        ("3.0", None, "red"),
        ("3.0", "1.5", None),
    ]
    new = write_csv(
        tmp_path / "c.csv", header[:-1], [[3, "1.90", "Bonn", "red", "a TEXT beside it"], [4, 1.9, "", "red", ""]]
    )
    done = append(new, tmp_path / "csv")
    assert (done.new_rows, done.labelled_rows, done.known_rows) == (1, 0, 1)
    assert describe_table(tmp_path / "csv").unlabelled_rows == 1
    again = ingest(Sources(data=tmp_path / "a.csv"), tmp_path / "csv", settings=make_settings(TABULAR))
    assert (again.appended_rows, again.unlabelled_rows) == (1, 1)


def test_a_row_of_nothing_but_missing_values_is_bad(tmp_path):
    form = RowForm(tuple(replace(column, optional=True) for column in TABULAR.inputs), TABULAR.label)
    header = ("age", "height in m", "town", "colour", "note", "kind")
    rows = [*make_people(), ["", "", "", "", "", "a"], [0, "", "", "", "", "a"], ["1,5", "", "", "", "", "b"]]
    done = ingest(
        Sources(data=write_csv(tmp_path / "a.csv", header, rows)), tmp_path / "t", settings=make_settings(form)
    )
    assert done.bad_rows == {"missing value": 1, "value that is no number": 1}
    assert any("'1,5': write numbers with a point" in note for note in done.notes)


def test_rows_without_a_text_have_no_lengths(tmp_path):
    form = RowForm(TABULAR.inputs[:2], TABULAR.label)
    header = ("age", "height in m", "kind")
    rows = [[at, 1 + at / 100, "ab"[at % 2]] for at in range(100)]
    done = ingest(
        Sources(data=write_csv(tmp_path / "a.csv", header, rows)), tmp_path / "t", settings=make_settings(form)
    )
    assert not {"words", "characters"} & set(done.profile)
    assert (
        dict(describe_table(tmp_path / "t").split_rows) == dict(done.split_rows) == count_by_split(tmp_path / "t")
    )


def test_different_things_may_have_the_same_inputs(tmp_path):
    rows = [[at % 3, 1.5, "Bonn", "red", "", "ab"[at % 2]] for at in range(60)]
    rows += [[at, 1.5, "Rome", "red", "", "ab"[at % 2]] for at in range(60)]
    header = ("age", "height in m", "town", "colour", "note", "kind")
    source, form = write_csv(tmp_path / "a.csv", header, rows), replace(TABULAR, repeats=True)
    with pytest.raises(BadRows, match="60 with conflicting labels"):
        ingest(Sources(data=source), tmp_path / "t", settings=make_settings(TABULAR))
    done = ingest(Sources(data=source), tmp_path / "t", settings=make_settings(form))
    assert (done.table.rows, done.bad_rows, done.profile["repeated_texts"]) == (120, {}, 57)
    assert read_form(done.table).repeats
    given = {name: write_csv(tmp_path / f"{name}.csv", header, rows[at::3]) for at, name in enumerate(NAMES)}
    assert ingest(Sources(**given), tmp_path / "u", settings=make_settings(form)).leaked_rows == 0
    again = append(
        write_csv(tmp_path / "b.csv", header, [*rows, [99, 1.5, "Rome", "red", "", "b"]]), tmp_path / "t"
    )
    assert (again.new_rows, again.known_rows, again.bad_rows) == (1, 120, {})


def test_things_with_the_same_inputs_go_to_train_together(tmp_path):
    """One of them is the only row of its class, which the hash had put into test."""
    form = RowForm((Column("age", "age", "number"),), TABULAR.label, repeats=True)
    settings = make_settings(form)
    age = next(
        at for at in range(400) if choose_split("data", form.identify((float(at),)), {"data"}, settings) == "test"
    )
    rows = [[at, "ab"[at % 2]] for at in range(200)] + [[age, "rare"], [age, "a"], [age, "b"]]
    source = write_csv(tmp_path / "a.csv", ("age", "kind"), rows)
    done = ingest(Sources(data=source), tmp_path / "t", settings=settings)
    same = [row for row in read_table(done.table).to_pylist() if row["age"] == age]
    assert len(same) == (4 if age < 200 else 3)
    assert {row["split"] for row in same} == {"train"}
    assert [note for note in done.notes if note.endswith("moved were 'rare' (1 row).")]


# --- the quarantine of any form


@pytest.mark.parametrize(
    ("names", "called"),
    [
        (("Source", "Line", "REASON"), ("input_Source", "input_Line", "input_REASON")),
        (("source", "input_source", "INPUT_line"), ("input_source", "input_input_source", "INPUT_line")),
        (("input_source", "Source", "note"), ("input_source", "input_input_Source", "note")),
    ],
)
def test_inputs_that_are_called_as_columns_of_the_quarantine_have_another_name_there(tmp_path, names, called):
    form = RowForm(tuple(Column(name, name, "category") for name in names), Label(("kind",), "class"))
    rows = [(f"a{at}", "b", "c", "xy"[at % 2]) for at in range(60)]
    source = write_csv(tmp_path / "a.csv", (*names, "kind"), [*rows, ("1", "2", "3", "")])
    done = ingest(Sources(data=source), tmp_path / "t", settings=make_settings(form))
    (bad,) = read_table(done.quarantine).to_pylist()
    assert (bad["source"], bad["line"], bad["reason"]) == (str(source), 62, "missing label")
    assert sorted(bad[name] for name in called) == ["1", "2", "3"]


def test_columns_that_differ_only_in_case_are_refused_before_delta_does(tmp_path):
    with pytest.raises(SchemaMismatch, match="cannot have the columns 'town' and 'Town'"):
        write_table(tmp_path / "t", pa.table({"town": ["Bonn"], "Town": ["Rome"]}))
    assert not (tmp_path / "t").exists()


# --- what a table remembers


def test_a_table_remembers_its_form(tmp_path):
    source = write_csv(
        tmp_path / "a.csv", ("review", "sentiment"), [(f"t {at}", "ab"[at % 2]) for at in range(60)]
    )
    done = ingest(Sources(data=source), tmp_path / "t", settings=TextClassData())
    assert read_form(done.table) == TextClassData().form
    (commit,) = history(tmp_path / "t")
    assert (commit["task"], commit["form"]["inputs"][0]["source"]) == ("text-classification", "review")
    rows = read_table(done.table)
    assert read_form(write_table(tmp_path / "t", rows)) == TextClassData().form
    other = write_table(tmp_path / "t", rows.select(["row_id", "text"]), mode="overwrite")
    with pytest.raises(SchemaMismatch, match="does not say what its rows are"):
        read_form(other)
    assert read_form(write_table(tmp_path / "plain", rows)) == TEXT_FORM
    assert read_last_settings(str(tmp_path / "plain")) == FormSettings(rows=TEXT_FORM.forget_settings())


@pytest.mark.parametrize(
    "change",
    [
        lambda form: form["inputs"][0].update(language="en"),
        lambda form: form["inputs"][0].update(kind="image"),
        lambda form: form["label"].update(kind="boxes"),
        lambda form: form["label"].update(weights=[1]),
        lambda form: form.update(groups=[]),
        lambda form: form.pop("label"),
    ],
)
def test_a_form_that_a_newer_dlpipe_wrote_is_one_line(tmp_path, change):
    rows = [(f"t {at}", "ab"[at % 2]) for at in range(60)]
    source = write_csv(tmp_path / "a.csv", ("review", "sentiment"), rows)
    ingest(Sources(data=source), tmp_path / "t", settings=TextClassData())
    more = write_csv(tmp_path / "b.csv", ("review", "sentiment"), [("more", "a")])
    append(more, tmp_path / "t")
    for log in (tmp_path / "t" / "_delta_log").glob("*.json"):
        actions = [json.loads(line) for line in log.read_text().splitlines()]
        for info in (action["commitInfo"] for action in actions if "commitInfo" in action):
            form = json.loads(info["dlpipe.form"])
            change(form)
            info["dlpipe.form"] = json.dumps(form)
        log.write_text("".join(f"{json.dumps(action)}\n" for action in actions))
    for act in (
        lambda: append(more, tmp_path / "t"),
        lambda: describe_table(tmp_path / "t"),
        # it would take the appended row for one of another table
        lambda: ingest(Sources(data=source), tmp_path / "t", settings=TextClassData()),
    ):
        with pytest.raises(UnsupportedFeature, match=r"'t@v1' was written by a newer dlpipe .* Update") as told:
            act()
        assert "\n" not in str(told.value)
    assert table_at(tmp_path / "t").version == 1


def test_rows_of_another_form_are_not_appended(tmp_path):
    source = write_csv(tmp_path / "a.csv", ("review", "stars"), make_rated())
    ingest(Sources(data=source), tmp_path / "t", settings=make_settings(NUMBERS))
    texts = TextClassData(label_column="stars")
    with pytest.raises(SchemaMismatch, match=r"text \(text\) and label \(number\); those to add have text"):
        append(source, tmp_path / "t", settings=texts)
    with pytest.raises(TableNotFound, match="pass the settings of a task"):
        append(source, tmp_path / "new")
    # an ingest makes them the content: what was appended with another label is not carried over
    append(write_csv(tmp_path / "b.csv", ("review", "stars"), [("new", "1.5")]), tmp_path / "t")
    halves = write_csv(
        tmp_path / "c.csv", ("review", "stars"), [(text, int(stars > 1)) for text, stars in make_rated()]
    )
    done = ingest(Sources(data=halves), tmp_path / "t", settings=texts)
    assert (done.labels, done.appended_rows, done.table.rows) == (("0", "1"), 0, 120)


def test_a_column_of_the_files_is_named_on_the_command_line(tmp_path):
    rows = [(f"question {at}", f"answer {at % 9}", "yes" if at % 2 else "no") for at in range(80)]
    ingest(
        Sources(data=write_csv(tmp_path / "a.csv", ("first", "second", "same"), rows)),
        tmp_path / "t",
        settings=make_settings(PAIRS),
    )
    new = str(write_csv(tmp_path / "b.csv", ("a", "b"), [("one", "two")]))
    given = ["append", str(tmp_path / "t"), new, "--text-column", "a"]
    done = CliRunner().invoke(main, [*given, "--column", "other=b"])
    assert "1 new rows, 0 with a label" in done.stdout
    for words, message in (
        (["--column", "third=b"], "no column 'third'"),
        (["--column", "other"], "write COLUMN=NAME"),
        ([], "has no column 'second'; its columns are: 'a', 'b'."),
        ([], "Say with --column COLUMN=NAME what the file calls it, or rename the column."),
        (["--column", "other=b", "--label-column", "sme"], "has no column 'sme'"),  # a named label has to be there
        (["--column", "other=b", "--number-columns", "b"], "leave out --number-columns, and say with --column"),
        (["--column", "other=b", "--task", "text-regression"], "is there already"),
    ):
        refused = CliRunner().invoke(main, [*given, *words])
        assert refused.exit_code == 1
        assert message in refused.output


def test_a_new_table_of_columns_is_made_by_an_append_that_names_them(tmp_path):
    rows = [(at / 7, "ab"[at % 2], at % 3) for at in range(30)]
    words = [
        "append",
        str(tmp_path / "t"),
        str(write_csv(tmp_path / "a.csv", ("age", "town", "class"), rows)),
        "--new",
    ]
    tabular = [*words, "--task", "tabular-classification"]
    for given, message in (
        ([*words, "--number-columns", "age"], "has no --number-columns; tabular-classification has (--task)"),
        (tabular, "Name them with --number-columns or --category-columns or --text-column"),
        ([*tabular, "--number-columns", "age,height"], "has no column 'height'"),
    ):
        refused = CliRunner().invoke(main, given)
        assert refused.exit_code == 1
        assert message in refused.output
    named = ["--number-columns", "age", "--category-columns", "town", "--label-column", "class"]
    done = CliRunner().invoke(main, [*tabular, *named])
    assert "30 new rows, 30 with a label" in done.output
    assert read_table(table_at(tmp_path / "t")).column_names == ["row_id", "age", "town", "label", "split"]


def test_a_single_row_to_learn_from_is_refused(tmp_path):
    files = {
        split: write_csv(tmp_path / f"{split}.csv", ("review", "stars"), [(f"text {stars}", stars)])
        for stars, split in enumerate(("train", "valid", "test"))
    }
    with pytest.raises(
        BadRows, match=r"^The split 'train' has 1 row: nothing can be learnt from that\. Add rows\."
    ):
        ingest(Sources(**files), tmp_path / "t", settings=make_settings(NUMBERS))


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (RowForm((), Label(("a",), "class")), "needs an input and a label"),
        (RowForm((Column("split", "b", "text"),), Label(("a",), "class")), "cannot be called 'split'"),
        (
            RowForm((Column("mean radius", "b", "number"),), Label(("a",), "class")),
            "cannot be called 'mean radius'",
        ),
        (RowForm((TEXT, replace(TEXT, name="Text", source="b")), Label(("a",), "class")), "more than their case"),
        (RowForm((TEXT,), Label(("a", "b"), "class")), "stands in one column"),
        (RowForm((TEXT,), Label(("review",), "number")), "Text and label are the same column, 'review'"),
    ],
)
def test_a_form_that_no_table_can_have_is_refused(tmp_path, form, words):
    with pytest.raises(SettingError, match=words):
        ingest(Sources(data="a.csv"), tmp_path / "t", settings=make_settings(form))


def test_inputs_that_another_program_wrote_are_read_or_refused(tmp_path):
    rows = pa.table({"text": [b"caf\xc3\xa9"], "other": ["a"], "n": pa.array([1], pa.int32())})
    version = write_table(tmp_path / "t", rows)
    number = Column("n", "n", "number")
    check_inputs(version, [*PAIRS.inputs, number])
    read = decode_texts(read_table(version), of=version)
    assert read.to_pylist() == [{"text": "café", "other": "a", "n": 1}]
    with pytest.raises(SchemaMismatch, match="no column 'third'"):
        check_inputs(version, [Column("third", "third", "text")])
    with pytest.raises(SchemaMismatch, match="type string, not numbers"):
        check_inputs(version, [replace(number, name="other")])
    with pytest.raises(SchemaMismatch, match=r"type integer, not text.*\(--set data\.other_column=\.\.\.\)"):
        check_inputs(version, [replace(PAIRS.inputs[1], name="n")])


# --- memory


@pytest.mark.parametrize("form", [LABELS, NUMBERS], ids=["labels", "numbers"])
def test_an_ingest_of_any_form_holds_a_few_dozen_bytes_of_a_row(tmp_path, form):
    words, peaks = "of a film that nobody has seen " * 12, []
    for rows in (200, 6_000, 12_000):
        label = ["|".join(make_genres(at)) or "[]" if form is LABELS else at / 8 for at in range(rows)]
        made = [(f"{at} {words}", label[at]) for at in range(rows)]
        source = write_csv(tmp_path / f"{rows}.csv", ("review", form.label.sources[0]), made)
        del made, label
        tracemalloc.start()
        ingest(Sources(data=source), tmp_path / str(rows), settings=make_settings(form))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[2] - peaks[1]) / 6_000 < 250
