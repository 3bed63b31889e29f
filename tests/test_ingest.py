"""Ingest: what becomes a data-set table, what goes to quarantine, what stops it."""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from disks import tiny_disk

from dlpipe.errors import BadRows, BadSource, SettingError, SourceNotFound, StorageFull
from dlpipe.settings import read_settings
from dlpipe.tables import Sources, append, history, ingest, read_table, table_at, write_table
from dlpipe.tables._rows import read_rows
from dlpipe.tables._sources import find_sources
from dlpipe.task.text_classification import TextClassData

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"

Rows = list[tuple[str | None, str | None]]


def make_rows(count: int, *, of: str = "film") -> Rows:
    return [(f"{of} number {n} was fine", "positive" if n % 2 else "negative") for n in range(count)]


def write_csv(path: Path, rows: Rows, *, header: tuple[str, str] = ("review", "sentiment")) -> Path:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows([header, *rows])
    path.write_text(written.getvalue(), encoding="utf-8")
    return path


def write_jsonl(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps({"review": text, "sentiment": label}) + "\n" for text, label in rows))
    return path


def to_arrow(rows: Rows) -> pa.Table:
    return pa.table({"review": [text for text, _ in rows], "sentiment": [label for _, label in rows]})


def write_parquet(path: Path, rows: Rows) -> Path:
    pq.write_table(to_arrow(rows), path)
    return path


def write_delta(path: Path, rows: Rows) -> Path:
    write_table(path, to_arrow(rows))
    return path


WRITERS = [(write_csv, "a.csv"), (write_jsonl, "a.jsonl"), (write_parquet, "a.parquet"), (write_delta, "a")]


def write_splits(folder: Path, train: Rows, valid: Rows, test: Rows) -> Sources:
    named = {"train": train, "valid": valid, "test": test}
    return Sources(**{name: write_csv(folder / f"{name}.csv", rows) for name, rows in named.items()})


def read_refusal(error: type[Exception], path: Path, table: Path, **settings) -> str:
    """Return what an ingest of one file says, after checking that it made no table."""
    with pytest.raises(error) as caught:
        ingest(Sources(data=path), table, settings=TextClassData(**settings))
    assert not table.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- formats


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (write_csv, "a.csv"),
        (write_jsonl, "a.jsonl"),
        (write_jsonl, "a.json"),
        (write_parquet, "a.parquet"),
        (write_delta, "a"),
    ],
)
def test_every_format_gives_the_same_table(tmp_path, write, name):
    rows = [*make_rows(40), ('He said "no",\nand — left\r\n', "negative")]
    expected = ingest(
        Sources(data=write_csv(tmp_path / "expected.csv", rows)), tmp_path / "expected", settings=TextClassData()
    )
    done = ingest(Sources(data=write(tmp_path / name, rows)), tmp_path / "reviews", settings=TextClassData())
    assert done.table.digest == expected.table.digest
    assert read_table(done.table)["text"].to_pylist() == [text for text, _ in rows]


def test_glob_reads_its_files_in_order_and_each_once(tmp_path):
    for part in range(3):
        write_csv(tmp_path / f"part{part}.csv", make_rows(20, of=f"film {part}"))
    done = ingest(
        Sources(data=[tmp_path / "part*.csv", tmp_path / "part1.csv"]),
        tmp_path / "reviews",
        settings=TextClassData(),
    )
    texts = read_table(done.table)["text"].to_pylist()
    assert len(texts) == 60
    assert [texts[0][:6], texts[20][:6], texts[40][:6]] == ["film 0", "film 1", "film 2"]


def test_bom_tabs_and_other_column_names_are_read(tmp_path):
    body = "id\tbody\tstars\n" + "".join(f"{n}\tbook {n}\t{n % 3}\n" for n in range(60))
    (tmp_path / "a.tsv").write_text(body, encoding="utf-8-sig")
    settings = TextClassData(text_column="body", label_column="stars")
    assert ingest(Sources(data=tmp_path / "a.tsv"), tmp_path / "t", settings=settings).labels == ("0", "1", "2")


@pytest.mark.parametrize("labels", [[0, 1], [False, True], [0.0, 1.0]])
def test_labels_that_are_numbers_or_truth_values_become_strings(tmp_path, labels):
    rows = pa.table({"review": [text for text, _ in make_rows(60)], "sentiment": labels * 30})
    pq.write_table(rows, tmp_path / "a.parquet")
    done = ingest(Sources(data=tmp_path / "a.parquet"), tmp_path / "t", settings=TextClassData())
    assert done.labels == tuple(str(int(v)) if isinstance(v, float) else str(v) for v in labels)


def test_long_text_is_read(tmp_path):
    rows = [*make_rows(40), ("very " * 50_000, "positive")]
    assert (
        ingest(
            Sources(data=write_csv(tmp_path / "a.csv", rows)), tmp_path / "t", settings=TextClassData()
        ).table.rows
        == 41
    )


# --- one commit, once


def test_commit_carries_sources_and_settings(tmp_path):
    path = write_csv(tmp_path / "a.csv", make_rows(40))
    ingest(Sources(data=path), tmp_path / "t", settings=TextClassData())
    (commit,) = history(tmp_path / "t")
    (source,) = commit["sources"]
    assert (source["name"], source["size"]) == (str(path), path.stat().st_size)
    assert len(source["sha256"]) == 64
    assert commit["settings"]["text_column"] == "review"


def test_same_content_makes_no_new_version(tmp_path):
    sources = Sources(data=write_csv(tmp_path / "a.csv", make_rows(40)))
    first = ingest(sources, tmp_path / "t", settings=TextClassData())
    again = ingest(sources, tmp_path / "t", settings=TextClassData())
    assert (first.new_version, again.new_version) == (True, False)
    assert again.table == first.table
    write_csv(tmp_path / "a.csv", make_rows(41))
    assert ingest(sources, tmp_path / "t", settings=TextClassData()).table.version == 1


def test_columns_are_those_that_the_house_agreed_on(tmp_path):
    rows = [*make_rows(30), ("Film  NUMBER 3 was fine", "positive")]
    done = ingest(Sources(data=write_csv(tmp_path / "a.csv", rows)), tmp_path / "t", settings=TextClassData())
    table = read_table(done.table)
    assert table.schema.names == ["row_id", "text", "label", "split"]
    ids = table["row_id"].to_pylist()
    assert len(set(ids)) == 31
    assert (len(ids[3]), ids[30]) == (16, f"{ids[3]}-2")
    assert table["split"][30] == table["split"][3]


def test_concurrent_ingests_of_one_source_make_one_version(tmp_path):
    path = write_csv(tmp_path / "a.csv", make_rows(3000))
    code = """if True:
        import sys
        from dlpipe.tables import *
        from dlpipe.task.text_classification import TextClassData
        print(ingest(Sources(data=sys.argv[1]), sys.argv[2], settings=TextClassData()).new_version)
        """
    runs = [
        subprocess.Popen([sys.executable, "-c", code, path, tmp_path / "t"], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert sorted(run.communicate()[0].strip() for run in runs) == ["False", "False", "True"]
    assert table_at(tmp_path / "t").version == 0


def test_killed_ingest_leaves_the_old_version_or_the_new_one(tmp_path):
    old = ingest(
        Sources(data=write_csv(tmp_path / "a.csv", make_rows(40))), tmp_path / "t", settings=TextClassData()
    ).table
    path = write_csv(tmp_path / "b.csv", [*make_rows(4000), ("", "positive")])
    code = """if True:
        import sys
        from dlpipe.tables import *
        from dlpipe.task.text_classification import TextClassData
        import deltalake, pyarrow.dataset, pyarrow.parquet
        print("ready", flush=True)
        ingest(Sources(data=sys.argv[1]), sys.argv[2], settings=TextClassData())
        """
    for pause in (0.05, 0.12, 0.2):
        run = subprocess.Popen([sys.executable, "-c", code, path, tmp_path / "t"], stdout=subprocess.PIPE)
        run.stdout.readline()
        time.sleep(pause)
        run.send_signal(signal.SIGKILL)
        run.wait()
        latest = table_at(tmp_path / "t")
        assert read_table(latest).num_rows == latest.rows
        assert latest == old or latest.rows == 4000
    assert ingest(Sources(data=path), tmp_path / "t", settings=TextClassData()).table.version == 1


# --- splits


def test_hash_split_never_parts_duplicates_and_is_stable_when_data_grows(tmp_path):
    small = make_rows(300)
    first = read_table(
        ingest(Sources(data=write_csv(tmp_path / "a.csv", small)), tmp_path / "t", settings=TextClassData()).table
    )
    grown = [*make_rows(200, of="book"), *small, *((text.upper(), label) for text, label in small)]
    second = read_table(
        ingest(Sources(data=write_csv(tmp_path / "a.csv", grown)), tmp_path / "t", settings=TextClassData()).table
    )
    before = dict(zip(first["text"].to_pylist(), first["split"].to_pylist(), strict=True))
    after = dict(zip(second["text"].to_pylist(), second["split"].to_pylist(), strict=True))
    assert all(after[text] == split == after[text.upper()] for text, split in before.items())


def test_shares_of_the_hash_split_are_those_asked_for(tmp_path):
    path = write_csv(tmp_path / "a.csv", make_rows(4000))
    settings = TextClassData(valid_share=0.2, test_share=0.3)
    done = ingest(Sources(train=path), tmp_path / "t", settings=settings)
    assert done.split_rows["test"] == pytest.approx(1200, abs=90)
    assert done.split_rows["valid"] == pytest.approx(800, abs=80)


def test_given_splits_are_honoured_and_leaks_are_dropped_from_train(tmp_path):
    train, valid, test = make_rows(40, of="a"), make_rows(10, of="b"), make_rows(10, of="c")
    leaking = write_splits(tmp_path, [*train, *valid[:2], *test[:3]], [*valid, test[5]], test)
    done = ingest(leaking, tmp_path / "t", settings=TextClassData())
    assert dict(done.split_rows) == {"train": 40, "valid": 10, "test": 10}
    assert done.leaked_rows == done.profile["leaked_rows"] == 6
    assert read_table(done.table, split="test")["text"].to_pylist() == [text for text, _ in test]


def test_valid_is_taken_from_train_when_only_test_is_given(tmp_path):
    train, test = (
        write_csv(tmp_path / "a.csv", make_rows(1000)),
        write_csv(tmp_path / "b.csv", make_rows(100, of="b")),
    )
    done = ingest(Sources(train=train, test=test), tmp_path / "t", settings=TextClassData())
    assert done.split_rows["test"] == 100
    assert done.split_rows["valid"] == pytest.approx(100, abs=40)
    assert done.split_rows["train"] + done.split_rows["valid"] == 1000


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"data": "a", "train": "b"}, "--data, --train-data do not go together"),
        ({"test": "a"}, "--test-data without --train-data"),
        ({"valid": "a", "test": "b"}, "--valid-data, --test-data without --train-data"),
        ({"train": "a", "valid": "b"}, "without --test-data leave nothing to test on"),
        ({}, "No source is given. Pass --data"),
    ],
)
def test_unclear_sources_are_refused(tmp_path, given, message):
    with pytest.raises(SettingError, match=message):
        ingest(Sources(**given), tmp_path / "t", settings=TextClassData())


def test_settings_are_checked(tmp_path):
    with pytest.raises(SettingError, match="did you mean 'text_column'"):
        read_settings(TextClassData, {"text_colum": "a"}, where="[tables]")
    with pytest.raises(SettingError, match="max_bad_share = 3"):
        read_settings(TextClassData, {"max_bad_share": 3}, where="[tables]")
    with pytest.raises(SettingError, match="Text and label are the same column"):
        ingest(Sources(data="a.csv"), tmp_path / "t", settings=TextClassData(label_column="review"))


# --- quarantine


def test_each_kind_of_bad_row_goes_to_quarantine_with_its_reason(tmp_path):
    good = "".join(f"film number {n},{'good' if n % 2 else 'bad'}\n" for n in range(60)).encode()
    bad = b"  ,good\nno label,\nwas caf\xe9,bad\nsame text,good\nSame  TEXT,bad\n"
    (tmp_path / "a.csv").write_bytes(b"review,sentiment\n" + good + bad)
    done = ingest(Sources(data=tmp_path / "a.csv"), tmp_path / "t", settings=TextClassData())
    assert done.table.rows == 60
    assert dict(done.bad_rows) == {
        "conflicting labels": 2,
        "empty text": 1,
        "missing label": 1,
        "undecodable bytes": 1,
    }
    kept = read_table(done.quarantine).to_pylist()
    assert [(row["line"], row["reason"], row["text"]) for row in kept] == [
        (62, "empty text", "  "),
        (63, "missing label", "no label"),
        (64, "undecodable bytes", "was caf\\xe9"),
        (65, "conflicting labels", "same text"),
        (66, "conflicting labels", "Same  TEXT"),
    ]
    assert kept[0]["source"] == str(tmp_path / "a.csv")
    assert done.profile["bad_examples"]["undecodable bytes"]["place"] == f"'{tmp_path / 'a.csv'}' line 64"


def test_line_numbers_count_lines_inside_texts_too(tmp_path):
    rows = [("two\nlines", "positive"), ("", "negative"), *make_rows(40)]
    done = ingest(Sources(data=write_csv(tmp_path / "a.csv", rows)), tmp_path / "t", settings=TextClassData())
    assert read_table(done.quarantine)["line"].to_pylist() == [4]


def test_bad_rows_of_a_file_whose_name_is_no_utf8_go_to_quarantine(tmp_path):
    source = write_csv(tmp_path / os.fsdecode(b"caf\xe9.csv"), [*make_rows(60), ("no label", "")])
    done = ingest(Sources(data=source), tmp_path / "t", settings=TextClassData())
    (bad,) = read_table(done.quarantine).to_pylist()
    assert (Path(bad["source"]).name, bad["text"]) == (r"caf\xe9.csv", "no label")


@pytest.mark.parametrize("write", [write_jsonl, write_parquet, write_delta])
def test_nulls_go_to_quarantine(tmp_path, write):
    rows = [*make_rows(40), (None, "positive"), ("no label", None)]
    done = ingest(
        Sources(data=write(tmp_path / f"a.{write.__name__[6:]}", rows)), tmp_path / "t", settings=TextClassData()
    )
    assert dict(done.bad_rows) == {"empty text": 1, "missing label": 1}
    assert read_table(done.quarantine)["line"].to_pylist() == [41, 42]


def test_parquet_text_that_is_no_utf8_goes_to_quarantine(tmp_path):
    texts = pa.array([*(text.encode() for text, _ in make_rows(40)), b"caf\xe9"]).view(pa.string())
    labels = [*(label for _, label in make_rows(40)), "positive"]
    pq.write_table(pa.table({"review": texts, "sentiment": labels}), tmp_path / "a.parquet")
    done = ingest(Sources(data=tmp_path / "a.parquet"), tmp_path / "t", settings=TextClassData())
    assert dict(done.bad_rows) == {"undecodable bytes": 1}


def test_quarantine_follows_its_source_and_is_not_written_twice(tmp_path):
    sources = Sources(data=write_csv(tmp_path / "a.csv", [*make_rows(40), ("", "positive")]))
    first, again = (
        ingest(sources, tmp_path / "t", settings=TextClassData()),
        ingest(sources, tmp_path / "t", settings=TextClassData()),
    )
    assert str(first.quarantine) == str(again.quarantine) == "t_quarantine@v0"
    write_csv(tmp_path / "a.csv", make_rows(40))
    mended = ingest(sources, tmp_path / "t", settings=TextClassData())
    assert (mended.quarantine.version, mended.quarantine.rows, mended.new_version) == (1, 0, False)
    assert ingest(sources, tmp_path / "u", settings=TextClassData()).quarantine is None


def test_too_many_bad_rows_stop_the_ingest_and_stay_to_be_looked_at(tmp_path):
    path = write_csv(tmp_path / "a.csv", [*make_rows(8), ("", "positive"), ("a", ""), ("b", "")])
    message = read_refusal(BadRows, path, tmp_path / "t")
    assert "3 of 11 rows are bad, more than max_bad_share=0.1 allows: 2 with missing label (first: " in message
    assert f"'{path}' line 11); 1 with empty text (first: '{path}' line 10)" in message
    assert "'t_quarantine@v0'" in message
    assert message.endswith("Mend the source, or raise max_bad_share (--set data.max_bad_share=...).")
    assert read_table(table_at(tmp_path / "t_quarantine"))["reason"].to_pylist()[0] == "empty text"


# --- bad input: one line that names the place, and no version


def test_missing_file_suggests_the_nearest(tmp_path):
    write_csv(tmp_path / "movies.csv", make_rows(10))
    message = read_refusal(SourceNotFound, tmp_path / "movie.csv", tmp_path / "t")
    assert f"There is no file '{tmp_path}/movie.csv'; did you mean '{tmp_path}/movies.csv'?" in message
    assert "there is no folder" in read_refusal(SourceNotFound, tmp_path / "no/where.csv", tmp_path / "t")


def test_glob_without_a_match_says_what_is_there(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    message = read_refusal(SourceNotFound, tmp_path / "*.csv", tmp_path / "t")
    assert f"No file matches '{tmp_path}/*.csv'; '{tmp_path}' holds notes.txt" in message


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_empty_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    assert f"'{tmp_path}/{name}' is empty" in read_refusal(BadSource, tmp_path / name, tmp_path / "t")


def test_file_with_a_header_only_has_no_rows(tmp_path):
    assert "has no rows" in read_refusal(BadSource, write_csv(tmp_path / "a.csv", []), tmp_path / "t")


def test_unreadable_file_is_named(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 but not really")
    assert "a.parquet' is not a readable Parquet file" in read_refusal(
        BadSource, tmp_path / "a.parquet", tmp_path / "t"
    )
    (tmp_path / "a.csv").write_bytes(b"review,sentiment\n\0\0\0")
    assert "a.csv' holds zero bytes" in read_refusal(BadSource, tmp_path / "a.csv", tmp_path / "t")
    (tmp_path / "a.docx").write_bytes(b"PK")
    assert "a.docx' has an unknown ending. Known: .csv" in read_refusal(
        BadSource, tmp_path / "a.docx", tmp_path / "t"
    )


def test_file_without_permission_is_named(tmp_path):
    path = write_csv(tmp_path / "a.csv", make_rows(10))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("root reads every file")
    assert "cannot be read: Permission denied" in read_refusal(BadSource, path, tmp_path / "t")


def test_dangling_link_is_named(tmp_path):
    (tmp_path / "a.csv").symlink_to(tmp_path / "gone.csv")
    assert "a.csv' cannot be read: No such file" in read_refusal(BadSource, tmp_path / "a.csv", tmp_path / "t")


@pytest.mark.parametrize(("write", "name"), WRITERS)
def test_missing_column_names_the_ones_there_are(tmp_path, write, name):
    path = write(tmp_path / name, make_rows(10))
    message = read_refusal(BadSource, path, tmp_path / "t", text_column="text")
    assert f"'{path}' has no column 'text'; its columns are: 'review', 'sentiment'." in message
    assert "--text-column" in message


def test_column_that_stands_twice_is_refused(tmp_path):
    path = write_csv(tmp_path / "a.csv", make_rows(10), header=("review", "review"))
    assert "has two columns 'review'" in read_refusal(BadSource, path, tmp_path / "t")


def test_numeric_text_column_is_refused(tmp_path):
    path = write_csv(tmp_path / "a.csv", [(str(n * 1.5), "ab"[n % 2]) for n in range(20)])
    message = read_refusal(BadSource, path, tmp_path / "t")
    assert f"The text column 'review' of '{path}' holds numbers, not text ('0.0' on line 2)" in message
    pq.write_table(pa.table({"review": [1, 2], "sentiment": ["a", "b"]}), tmp_path / "a.parquet")
    assert "holds numbers, not text (1 on row 1)" in read_refusal(
        BadSource, tmp_path / "a.parquet", tmp_path / "t"
    )


def test_label_column_of_measurements_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"review": "good", "sentiment": 0.73}\n')
    message = read_refusal(BadSource, tmp_path / "a.jsonl", tmp_path / "t")
    assert "The label column 'sentiment' of" in message
    assert "(0.73 on line 1)" in message


@pytest.mark.parametrize(
    ("body", "line"),
    [('good,a\n"never closed,b\nfine,a\n', 3), ('"closed" too early,a\n', 2), ('good,a\n"spans\nlines" x,b\n', 3)],
)
def test_broken_quote_names_the_line_where_it_opens(tmp_path, body, line):
    (tmp_path / "a.csv").write_text("review,sentiment\n" + body)
    message = read_refusal(BadSource, tmp_path / "a.csv", tmp_path / "t")
    assert f"a.csv' has a broken quote or row that starts on line {line}: " in message


def test_wrong_number_of_fields_names_the_line(tmp_path):
    (tmp_path / "a.csv").write_text("review,sentiment\ngood,a\n\nwell, not so good,b\n")
    assert "a.csv' line 4 has 3 fields, the header has 2" in read_refusal(
        BadSource, tmp_path / "a.csv", tmp_path / "t"
    )


def test_broken_json_names_the_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"review": "good", "sentiment": "a"}\n{"review": \n')
    assert "a.jsonl' line 2 is not JSON" in read_refusal(BadSource, tmp_path / "a.jsonl", tmp_path / "t")
    (tmp_path / "a.json").write_text('[{"review": "good", "sentiment": "a"}]')
    assert "line 1 holds a JSON list, not an object" in read_refusal(
        BadSource, tmp_path / "a.json", tmp_path / "t"
    )


def test_folder_that_is_no_table_is_refused_as_a_source(tmp_path):
    (tmp_path / "folder").mkdir()
    message = read_refusal(BadSource, tmp_path / "folder", tmp_path / "t")
    assert "is a folder but not a Delta table (it has no _delta_log). Pass a file, or a glob" in message


def test_single_class_is_refused(tmp_path):
    path = write_csv(tmp_path / "a.csv", [(f"film {n}", "good") for n in range(40)])
    message = read_refusal(BadRows, path, tmp_path / "t")
    assert "All 40 good rows have the label 'good'" in message
    assert "nothing to tell apart" in message


def test_label_in_test_that_train_lacks_is_named(tmp_path):
    test = [*make_rows(10, of="c"), ("so so", "mixed")]
    with pytest.raises(BadRows, match="'test' has labels that train lacks: 'mixed'; train has 'negative'"):
        ingest(
            write_splits(tmp_path, make_rows(40), make_rows(10, of="b"), test),
            tmp_path / "t",
            settings=TextClassData(),
        )
    assert not (tmp_path / "t").exists()


def test_split_without_rows_says_what_to_do(tmp_path):
    message = read_refusal(BadRows, write_csv(tmp_path / "a.csv", make_rows(4)), tmp_path / "t")
    assert "4 good rows leave none for the split 'valid' (valid_share=0.1, test_share=0.2" in message
    assert "raise valid_share (--set data.valid_share=...)" in message
    assert "pass --valid-data" in message


def test_table_path_that_is_something_else_is_left_alone(tmp_path):
    path = write_csv(tmp_path / "a.csv", make_rows(40))
    with pytest.raises(ValueError, match="exists and is not a Delta table"):
        ingest(Sources(data=path), path, settings=TextClassData())
    with pytest.raises(ValueError, match="exists and is not a Delta table"):
        ingest(Sources(data=path), tmp_path, settings=TextClassData())
    assert os.listdir(tmp_path) == ["a.csv"]


def test_bad_source_leaves_the_table_as_it_was(tmp_path):
    path = write_csv(tmp_path / "a.csv", make_rows(40))
    before = ingest(Sources(data=path), tmp_path / "t", settings=TextClassData()).table
    path.write_text("review,sentiment\n" + '"broken\n')
    with pytest.raises(BadSource):
        ingest(Sources(data=path), tmp_path / "t", settings=TextClassData())
    assert table_at(tmp_path / "t") == before


def call_after(monkeypatch, name: str, change: Callable[[], object]) -> None:
    """Let ``change`` happen each time after the function ``name`` is called, as another program may do."""
    module, _, function = name.rpartition(".")
    called = getattr(importlib.import_module(module), function)

    def call(*given: Any, **named: Any) -> Any:
        returned = called(*given, **named)
        change()
        return returned

    monkeypatch.setattr(name, call)


@pytest.mark.parametrize(
    "change",
    [
        lambda written: written.replace("film", "game"),  # of the same length
        lambda written: f"{written}one more at the end,positive\n",
        lambda written: written[: written.rindex("film")],
        lambda written: "",
    ],
)
@pytest.mark.parametrize("moment", ["_sources._hash_file", "_passes.find_leaks"])
def test_a_source_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch, change, moment):
    path = write_csv(tmp_path / "a.csv", make_rows(40))
    before = ingest(Sources(data=path), tmp_path / "t", settings=TextClassData()).table
    written = path.read_text()
    write_csv(path, make_rows(50))
    call_after(monkeypatch, f"dlpipe.tables.{moment}", lambda: path.write_text(change(written)))
    with pytest.raises(BadSource):
        ingest(Sources(data=path), tmp_path / "t", settings=TextClassData())
    assert table_at(tmp_path / "t") == before


def test_a_source_that_grows_while_it_is_appended_adds_nothing(tmp_path, monkeypatch):
    path = write_csv(tmp_path / "a.csv", make_rows(40))
    before = ingest(Sources(data=path), tmp_path / "t", settings=TextClassData()).table
    new = write_csv(tmp_path / "new.csv", [("first", "positive")])
    with monkeypatch.context() as patch:
        call_after(patch, "dlpipe.tables._sources._hash_file", lambda: write_csv(new, make_rows(3, of="game")))
        with pytest.raises(BadSource, match=r"was changed while it was read \(.*new\.csv.\); nothing was"):
            append(new, tmp_path / "t")
    assert table_at(tmp_path / "t") == before
    assert append(new, tmp_path / "t").new_rows == 3


def test_a_source_that_is_replaced_while_its_lines_are_read_is_refused(tmp_path):
    path = write_csv(tmp_path / "a.csv", make_rows(40))
    (source,) = find_sources({"data": (str(path),)})
    rows = read_rows(source, TextClassData())
    next(rows)
    path.unlink()
    with pytest.raises(BadSource, match="was changed while it was read"):
        list(rows)


def test_full_disk_leaves_the_table_as_it_was_or_none(tmp_path):
    path = write_csv(tmp_path / "a.csv", make_rows(40))
    with tiny_disk(tmp_path / "disk") as disk:
        before = ingest(Sources(data=path), disk / "t", settings=TextClassData()).table
        write_csv(path, [(os.urandom(200).hex(), "ab"[n % 2]) for n in range(8000)])
        for name in ("t", "new"):
            with pytest.raises(StorageFull, match="No space is left on the device of"):
                ingest(Sources(data=path), disk / name, settings=TextClassData())
        assert table_at(disk / "t") == before
        assert not list((disk / "new").glob("_delta_log/*.json"))
        assert not (disk / "t_quarantine").exists()


# --- real text


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data is not beside this checkout")
def test_real_snippets_come_in_whole(tmp_path):
    files = {split: REAL / f"snippets/movies_{split}.csv" for split in ("train", "valid", "test")}
    done = ingest(Sources(**files), tmp_path / "movies", settings=TextClassData())
    assert dict(done.split_rows) == {"train": 6000, "valid": 800, "test": 800}
    assert (done.leaked_rows, dict(done.bad_rows), done.labels) == (0, {}, ("negative", "positive"))
    assert done.profile["words"]["max"] == 51


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data is not beside this checkout")
def test_real_reviews_of_another_domain_are_hash_split(tmp_path):
    done = ingest(
        Sources(data=REAL / "snippets/amazon_shifted.csv"), tmp_path / "amazon", settings=TextClassData()
    )
    labels = Counter(read_table(done.table)["label"].to_pylist())
    assert sum(labels.values()) + sum(done.bad_rows.values()) == 2977
    assert set(labels) == {"negative", "positive"}
