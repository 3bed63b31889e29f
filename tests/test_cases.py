"""The small inputs on which dlpipe went wrong, in ../shared/cases: each is read right or refused with one line.

Every file, table and flow of that folder has to stand in one of the tables here.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dlpipe.cli import main
from dlpipe.errors import BadRows, DlpipeError
from dlpipe.inference.cleaning import Cleaning, clean
from dlpipe.tables import (
    Sources,
    append,
    check_text,
    decode_texts,
    ingest,
    read_table,
    table_at,
)
from dlpipe.task.text_classification import TextClassData

TESTS = Path(__file__).resolve().parent
CASES = TESTS.parents[1] / "shared/cases"
OUTSIDE = ("README.md", "delta", "flows")
"""What is no input file: the description, and the two folders that have tables of their own here."""

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is not beside this checkout")


@dataclass(frozen=True)
class Taken:
    """What an ingest has to make of a file."""

    labels: tuple[str, ...]
    rows: int = 250
    bad: dict[str, int] = field(default_factory=dict)
    note: str = ""
    """A part of what is said of it; nothing is said where this is empty."""
    settings: dict[str, Any] = field(default_factory=dict)
    same_as: str = ""
    """Another file with the same rows."""

    def __call__(self, path: Path, folder: Path) -> None:
        done = take(path, folder / "t", **self.settings)
        assert (done.labels, done.table.rows, dict(done.bad_rows)) == (self.labels, self.rows, self.bad)
        assert any(self.note in note for note in done.notes) if self.note else not done.notes
        assert min(done.split_rows.values()) > 0
        if self.same_as:
            assert take(CASES / self.same_as, folder / "other").table.digest == done.table.digest


def take(path: Path, table: Path, **settings: Any) -> Any:
    """Return what an ingest of a file did."""
    return ingest(Sources(data=path), table, settings=TextClassData(**settings))


def all_of(*checks: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
    """Return a check that does several, each in a folder of its own."""

    def check(path: Path, folder: Path) -> None:
        for number, one in enumerate(checks):
            one(path, folder / str(number))

    return check


def asks_for_cp1252(path: Path, folder: Path) -> None:
    with pytest.raises(BadRows, match="It is likely cp1252: pass --encoding cp1252") as refused:
        take(path, folder / "t")
    assert "\n" not in str(refused.value)


def meets_the_other_spelling(path: Path, folder: Path, *, other: str) -> None:
    """Both files are appended to a new table, in either order: two classes, no bad row."""
    for first, then in ((path, CASES / other), (CASES / other, path)):
        table = folder / first.name
        append(first, table, settings=TextClassData())
        done = append(then, table)
        assert (done.new_rows, done.labelled_rows, dict(done.bad_rows)) == (2, 2, {})
        assert sorted(read_table(done.table)["label"].to_pylist()) == ["False", "False", "True", "True"]


def is_added_to(path: Path, folder: Path, *, table: str) -> None:
    """No class is unknown to a table that another file made, and the rows without a label have none there."""
    before = take(CASES / table, folder / "t")
    done = append(path, folder / "t", settings=TextClassData())
    assert dict(done.bad_rows) == {}
    assert set(read_table(done.table)["label"].to_pylist()) - {None} == set(before.labels)


def stops_predict_with_one_line(path: Path, folder: Path) -> None:
    told = CliRunner().invoke(main, ["predict", "--model", "reviews"], input=path.read_bytes())
    assert (told.exit_code, told.stdout, told.stderr.count("\n")) == (1, "", 1)
    assert "Standard input, line 1 is no utf-8" in told.stderr
    assert "--encoding" in told.stderr


def is_cleaned_and_kept(path: Path, folder: Path) -> None:
    """The table has the rows as they stand; the pipeline answers those that are empty after its clean-up."""
    rows = read_table(take(path, folder / "t").table)["text"].to_pylist()
    statuses = {text: clean(text, Cleaning())[1] for text in rows}
    assert set(statuses.values()) == {"ok", "empty", "no letters"}
    assert {statuses[text] for text in ("<br><br />", "<!-- nothing -->", "\u200b\u200b", "\ufeff")} == {"empty"}


TWO = ("negative", "positive")
NUMBERS = ("0", "1")
FILES: dict[str, Callable[[Path, Path], None]] = {
    "bad_bytes.txt": stops_predict_with_one_line,
    "bool.jsonl": partial(meets_the_other_spelling, other="bool_lower.csv"),
    "bool_lower.csv": partial(meets_the_other_spelling, other="bool.jsonl"),
    "clean_empty.csv": all_of(Taken(TWO, rows=257), is_cleaned_and_kept),
    "decimal_label.parquet": Taken(NUMBERS, same_as="lab_int.csv"),
    "float_new.csv": all_of(
        Taken(NUMBERS, rows=245, bad={"missing label": 5}, same_as="float_new.parquet"),
        partial(is_added_to, table="lab_int.csv"),
    ),
    "float_new.parquet": all_of(
        Taken(NUMBERS, rows=245, bad={"missing label": 5}), partial(is_added_to, table="lab_int.csv")
    ),
    "hive": Taken(TWO),
    "imbalance.csv": Taken(("common", "rare"), rows=1000),
    "lab_case.csv": all_of(
        Taken(("Negative", "Positive", *TWO), note="'negative' (66 rows) and 'Negative' (34)"),
        Taken(TWO, note="were made one class", settings={"fold_labels": True}),
    ),
    "lab_int.csv": Taken(NUMBERS),
    "lab_nonorm.csv": all_of(
        Taken(("bar", "cafe\u0301", "caf\xe9"), note=r"'cafe\u0301' (75 rows) and 'caf\xe9' (75)"),
        Taken(("bar", "caf\xe9"), note="were made one class", settings={"fold_labels": True}),
    ),
    "latin1.csv": all_of(asks_for_cp1252, Taken(TWO, settings={"encoding": "cp1252"})),
    "one_row_class.csv": Taken(("negative", "neutral", "positive"), rows=251, note="'neutral' (valid and test)"),
    "rows.jsonl.gz": Taken(TWO, same_as="semicolon.csv"),
    "semicolon.csv": Taken(TWO, note="is read with the separator ';'"),
    "utf16.csv": Taken(TWO, note="is read as utf-16", same_as="semicolon.csv"),
}


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_read_right_or_refused_with_one_line(name, tmp_path):
    FILES[name](CASES / name, tmp_path)


# --- tables


def has_all_texts(path: Path, text: str = "text") -> None:
    rows = read_table(table_at(path)).to_pydict()
    assert len(set(rows[text])) == 250
    assert rows[text][0] == "the film was good"


def is_ingested(path: Path, folder: Path) -> None:
    has_all_texts(path, "review")
    assert take(path, folder / "t").labels == TWO


def has_texts_of_bytes(path: Path, folder: Path) -> None:
    version = table_at(path)
    check_text(version)
    assert decode_texts(read_table(version), of=version)["text"].to_pylist() == ["a good film", "bad"]


def is_refused(path: Path, folder: Path, *, told: str) -> None:
    with pytest.raises(DlpipeError, match=told) as refused:
        check_text(table_at(path))
    assert "\n" not in str(refused.value)


TABLES: dict[str, Callable[[Path, Path], None]] = {
    "binary_text": has_texts_of_bytes,
    "colmap": is_ingested,
    "future": partial(is_refused, told="needs what dlpipe does not read of Delta: someNewFeature"),
    "int_text": partial(is_refused, told="holds values of type long, not text"),
    "text_renamed": lambda path, folder: has_all_texts(path),
    "v3_text_renamed": lambda path, folder: has_all_texts(path),
}


@pytest.mark.parametrize("name", TABLES)
def test_each_table_of_another_program_is_read_right_or_refused_with_one_line(name, tmp_path):
    TABLES[name](CASES / "delta" / name, tmp_path)


# --- flows

DEPLOYED: dict[str, tuple[str, str]] = {
    "allof_flow": (
        "test_events.py",
        "test_an_event_that_does_not_fit_neither_replaces_a_good_one_nor_uses_up_the_pair",
    ),
    "argoev": ("test_events.py", "test_metaflows_event_reaches_the_scheduler_of_this_machine"),
    "cond_flow": ("flows/test_bridge_shapes.py", "test_the_artifacts_are_the_same"),
    "ev1_flow": ("test_events.py", "test_lists_texts_and_odd_characters_arrive_as_words"),
    "foreach200": ("flows/test_local_scheduler.py", "test_parameters_are_those_of_create"),
    "hook_pass": (
        "flows/test_supervision.py",
        "test_exit_hooks_are_called_at_the_end_of_the_run_and_not_of_each_attempt",
    ),
    "hook_sleep": (
        "flows/test_supervision.py",
        "test_exit_hooks_are_called_at_the_end_of_the_run_and_not_of_each_attempt",
    ),
    "params_flow": ("flows/test_local_scheduler.py", "test_parameters_are_those_of_create"),
    "sleep_flow": (
        "flows/test_supervision.py",
        "test_a_suspended_run_ends_the_step_that_has_begun_and_begins_no_other",
    ),
    "xss_flow": ("test_page.py", "test_what_others_wrote_is_text_and_no_markup"),
}
"""Flows for the local scheduler, and the test that holds what each has shown.

flows/test_case_flows.py deploys all of them, and runs those that take seconds.
"""
MIRRORED: dict[str, tuple[str, str]] = {
    "catch_flow": (
        "flows/test_bridge_shapes.py",
        "test_an_exception_that_was_caught_is_shown_where_a_person_sees_it",
    ),
    "client_cache_flow": (
        "flows/test_bridge_bad_input.py",
        "test_what_others_read_does_not_disturb_the_bridge_and_it_leaves_no_cache",
    ),
    "logsize_flow": (
        "flows/test_bridge_bad_input.py",
        "test_what_others_read_does_not_disturb_the_bridge_and_it_leaves_no_cache",
    ),
    "resume_metadata_flow": (
        "flows/test_bridge_logging.py",
        "test_the_marks_say_where_a_run_stands_and_metaflows_tags_and_metadata_stay_as_they_were",
    ),
    "tag_race_flow": (
        "flows/test_bridge_logging.py",
        "test_the_marks_say_where_a_run_stands_and_metaflows_tags_and_metadata_stay_as_they_were",
    ),
}
"""Flows that the bridge disturbed, and the test that holds that it does not."""


def test_each_file_table_and_flow_of_the_folder_is_tried():
    assert {entry.name for entry in CASES.iterdir()} == {*FILES, *OUTSIDE}
    assert {entry.name for entry in (CASES / "delta").iterdir()} == set(TABLES)
    assert {entry.stem for entry in (CASES / "flows").glob("*.py")} == {*DEPLOYED, *MIRRORED}


@pytest.mark.parametrize("name", [*DEPLOYED, *MIRRORED])
def test_the_test_that_holds_what_a_flow_has_shown_exists(name):
    file, test = {**DEPLOYED, **MIRRORED}[name]
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
