"""Rows that were appended stay through an ingest, whatever another program committed to the table in between."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from dlpipe.tables import (
    TEXT_FORM,
    Column,
    FormSettings,
    Ingest,
    Label,
    RowForm,
    Sources,
    append,
    describe_table,
    history,
    ingest,
    read_table,
    table_at,
)

SETTINGS = FormSettings(rows=TEXT_FORM)
CLAIMS = FormSettings(rows=RowForm((Column("text", "text", "text"),), Label(("paid",), "class")))
NEW = ("one", "two")


def write_csv(path: Path, texts: Iterable[str], label: str = "label") -> str:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", label), *((text, "ab"[len(text) % 2]) for text in texts)])
    return str(path)


def number_texts(count: int) -> list[str]:
    return [f"text number {'x' * (number % 2)}{number}" for number in range(count)]


def ingest_texts(table: Path, count: int, settings: FormSettings = SETTINGS) -> Ingest:
    label = settings.form.label.sources[0]
    file = write_csv(table.with_suffix(".csv"), number_texts(count), label)
    return ingest(Sources(data=file), table, settings=settings)


def append_texts(table: Path, *texts: str) -> None:
    append(write_csv(table.with_name(f"{texts[0]}.csv"), texts), table, settings=SETTINGS)


def read_texts(table: Path) -> list[str]:
    return sorted(read_table(table_at(table))["text"].to_pylist())


@pytest.fixture
def table(tmp_path) -> Path:
    """A table of 60 rows of an ingest and two that were appended."""
    path = tmp_path / "texts"
    ingest_texts(path, 60)
    append_texts(path, *NEW)
    return path


def vacuum(table: Path) -> None:
    DeltaTable(table).vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)


def restore(table: Path) -> None:
    append_texts(table, "three")
    DeltaTable(table).restore(1)


def restore_by_time(table: Path) -> None:
    # delta-rs goes by the time of the file, a millisecond or more after the one that the commit has in it
    written = (table / "_delta_log" / f"{1:020}.json").stat().st_mtime
    made = datetime.fromtimestamp(written, UTC) + timedelta(milliseconds=2)
    time.sleep(0.02)
    ingest_texts(table, 50)
    DeltaTable(table).restore(made)


def delete(table: Path) -> None:
    DeltaTable(table).delete("text = 'text number 0'")


def merge(table: Path) -> None:
    rows = read_table(table_at(table)).slice(0, 1)
    rows = rows.set_column(rows.schema.get_field_index("label"), "label", pa.array(["b"]))
    terms = DeltaTable(table).merge(rows, "s.row_id = t.row_id", source_alias="s", target_alias="t")
    terms.when_matched_update_all().when_not_matched_insert_all().execute()


@pytest.mark.parametrize(
    "commit",
    [
        lambda table: DeltaTable(table).optimize.compact(),
        lambda table: DeltaTable(table).alter.set_table_properties({"delta.appendOnly": "false"}),
        vacuum,
        restore,
        restore_by_time,
        delete,
        merge,
    ],
    ids=["optimize", "properties", "vacuum", "restore", "restore by time", "delete", "merge"],
)
def test_what_was_appended_stays_whatever_another_program_committed(table: Path, commit: Callable) -> None:
    commit(table)
    done = ingest_texts(table, 60)
    assert (done.table.rows, done.appended_rows) == (62, 2)
    assert read_texts(table) == sorted([*number_texts(60), *NEW])
    fewer = ingest_texts(table, 50)
    assert (fewer.table.rows, fewer.appended_rows) == (52, 2)
    assert not [note for note in (*done.notes, *fewer.notes) if "told" in note]


def test_rows_that_a_compaction_put_in_another_order_are_known_by_their_ids(table: Path) -> None:
    append_texts(table, "three")
    append_texts(table, "four")
    DeltaTable(table).optimize.compact()
    assert read_table(table_at(table))["text"].to_pylist()[:60] != number_texts(60)
    assert describe_table(table).appended_rows == 4
    append_texts(table, "five")
    assert describe_table(table).appended_rows == 5
    DeltaTable(table).optimize.compact()
    append_texts(table, "six")
    done = ingest_texts(table, 50)
    assert done.appended_rows == 6
    assert read_texts(table) == sorted([*number_texts(50), *NEW, "three", "four", "five", "six"])


def test_a_label_that_is_filled_in_puts_the_appended_rows_last_again(table: Path, tmp_path: Path) -> None:
    for text in ("three", "four"):
        (tmp_path / "bare.csv").write_text(f"text\n{text}\n")
        append(str(tmp_path / "bare.csv"), table)
    DeltaTable(table).optimize.compact()
    append_texts(table, "three", "five")
    assert read_table(table_at(table))["text"].to_pylist()[:60] == number_texts(60)
    assert history(table)[0]["ingested"] == 60
    assert ingest_texts(table, 50).appended_rows == 5


def test_where_nobody_can_tell_any_more_all_rows_stay_and_a_line_says_so(table: Path) -> None:
    DeltaTable(table).optimize.compact()
    vacuum(table)
    done = ingest_texts(table, 50)
    assert (done.table.rows, done.appended_rows) == (62, 12)
    assert [note for note in done.notes if "can no longer be told" in note and "all 12 rows stay" in note]


@pytest.mark.parametrize("settings", [SETTINGS, CLAIMS], ids=["texts", "another form"])
def test_a_log_without_its_first_commits_drops_no_row(tmp_path: Path, settings: FormSettings) -> None:
    table = tmp_path / "texts"
    ingest_texts(table, 60, settings)
    append(write_csv(tmp_path / "new.csv", NEW, settings.form.label.sources[0]), table)
    DeltaTable(table).alter.set_table_properties({"delta.appendOnly": "false"})
    DeltaTable(table).create_checkpoint()
    for number in (0, 1):
        (table / f"_delta_log/{number:020}.json").unlink()
    done = ingest_texts(table, 50, settings)
    assert (done.table.rows, done.appended_rows) == (62, 12)
    assert [note for note in done.notes if "can no longer be told" in note]


def test_what_is_appended_to_a_table_of_another_program_stays(tmp_path: Path) -> None:
    ingest_texts(tmp_path / "own", 60)
    write_deltalake(tmp_path / "texts", read_table(table_at(tmp_path / "own")))
    append_texts(tmp_path / "texts", *NEW)
    append_texts(tmp_path / "texts", "three")
    assert ingest_texts(tmp_path / "texts", 50).appended_rows == 3
    assert read_texts(tmp_path / "texts") == sorted([*number_texts(50), *NEW, "three"])


def test_rows_of_a_restored_form_are_those_that_stay(tmp_path: Path) -> None:
    """A commit that a restore took back says nothing of the rows."""
    table = tmp_path / "texts"
    ingest_texts(table, 60)
    append_texts(table, *NEW)
    form = RowForm((Column("words", "text", "text"),), Label(("label",), "class"))
    ingest_texts(table, 60, FormSettings(rows=form))
    DeltaTable(table).restore(1)
    assert ingest_texts(table, 50).appended_rows == 2
