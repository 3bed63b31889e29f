"""Parts of tables: cutting, reading while others compact and vacuum, staging, and one commit for all of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from disks import tiny_disk

from dlpipe.errors import PartsMissing, SchemaMismatch, SettingError, StorageFull, TableVersionNotFound
from dlpipe.tables import (
    commit_parts,
    find_commit,
    find_staged_parts,
    history,
    list_parts,
    read_part,
    read_table,
    stage_part,
    stream_table,
    table_at,
    write_table,
)

KEY = {"model": "models:/m/1", "source": "reviews@v0"}


def numbered(start: int, stop: int) -> pa.Table:
    return pa.table({"n": pa.array(range(start, stop), pa.int64())})


def numbers(version) -> list[int]:
    return read_table(version)["n"].to_pylist()


def staged_files(path: Path) -> list[str]:
    return sorted(os.listdir(path / "_staged"))


# --- cutting and reading


@pytest.mark.parametrize("rows", [1, 8_192, 20_000, 65_536])
def test_parts_give_every_row_once_and_in_order(tmp_path, rows):
    write_table(tmp_path / "t", numbered(0, 30_000))
    version = write_table(tmp_path / "t", numbered(30_000, 30_010))
    parts = list_parts(version, rows=rows)
    assert [n for part in parts for n in read_part(part)["n"].to_pylist()] == list(range(30_010))
    assert [part.number for part in parts] == list(range(len(parts)))
    assert sum(part.rows for part in parts) == 30_010
    assert parts == list_parts(table_at(tmp_path / "t"), rows=rows)


def test_small_files_share_a_part(tmp_path):
    for start in range(0, 50, 10):
        version = write_table(tmp_path / "t", numbered(start, start + 10))
    parts = list_parts(version, rows=25)
    assert [part.rows for part in parts] == [20, 20, 10]
    assert len(parts[0].groups) == 2
    assert read_part(parts[1])["n"].to_pylist() == list(range(20, 40))


def test_long_texts_make_smaller_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("dlpipe.tables._parts.PART_BYTES", 2**20)
    rows = pa.table({"text": [os.urandom(50).hex() for _ in range(3 * 8_192)]})
    assert [part.rows for part in list_parts(write_table(tmp_path / "t", rows))] == [8_192] * 3


def test_one_huge_row_group_of_another_program_is_one_part(tmp_path):
    write_deltalake(str(tmp_path / "t"), numbered(0, 50_000))
    (part,) = list_parts(table_at(tmp_path / "t"), rows=1_000)
    assert read_part(part).num_rows == 50_000


def test_a_part_gives_the_columns_and_the_split_that_are_asked_for(tmp_path):
    rows = pa.table({"text": ["a", "b", "c"], "label": ["x"] * 3, "split": ["train", "test", "train"]})
    (part,) = list_parts(write_table(tmp_path / "t", rows))
    assert read_part(part, columns=["text"], split="train").to_pydict() == {"text": ["a", "c"]}
    assert read_part(part, columns=["text"], split="valid").num_rows == 0
    with pytest.raises(SchemaMismatch, match="has no column 'txt'"):
        read_part(part, columns=["txt"])
    with pytest.raises(SettingError, match="A part of 0 rows"):
        list_parts(part.version, rows=0)


def test_parts_of_a_partitioned_table_have_its_partition_column(tmp_path):
    write_deltalake(
        str(tmp_path / "t"), pa.table({"n": [1, 2, 3], "kind": ["a", "b", "a"]}), partition_by=["kind"]
    )
    parts = list_parts(table_at(tmp_path / "t"), rows=1)
    assert [read_part(part).to_pydict() for part in parts] == [
        {"n": [1, 3], "kind": ["a", "a"]},
        {"n": [2], "kind": ["b"]},
    ]


# --- a table that others compact and vacuum


@pytest.fixture
def in_files(tmp_path):
    """Four files of 10 rows."""
    for start in range(0, 40, 10):
        version = write_table(tmp_path / "t", numbered(start, start + 10))
    return version


def vacuum(version) -> None:
    table = DeltaTable(version.path)
    assert table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)


def test_compaction_meanwhile_changes_no_row(in_files):
    parts, stream = list_parts(in_files, rows=10), stream_table(in_files, batch_rows=5)
    found = [*read_part(parts[0])["n"].to_pylist()]
    streamed = [*next(stream)["n"].to_pylist()]
    DeltaTable(in_files.path).optimize.compact()
    found += [n for part in parts[1:] for n in read_part(part)["n"].to_pylist()]
    streamed += [n for batch in stream for n in batch["n"].to_pylist()]
    assert found == streamed == list(range(40))
    assert sorted(numbers(table_at(in_files.path))) == list(range(40))


def test_vacuum_meanwhile_is_one_clear_line_and_never_wrong_rows(in_files):
    parts, stream = list_parts(in_files, rows=10), stream_table(in_files, batch_rows=5)
    assert next(stream)["n"].to_pylist() == list(range(5))
    DeltaTable(in_files.path).optimize.compact()
    vacuum(in_files)
    gone = r"'t@v3' can no longer be read: .* vacuum. The latest version of '.*/t' is \d; read that one.$"
    seen = []
    with pytest.raises(TableVersionNotFound, match=gone) as caught:
        seen.extend(n for batch in stream for n in batch["n"].to_pylist())
    assert seen == list(range(5, 5 + len(seen)))
    assert "\n" not in str(caught.value)
    for ask in (lambda: read_part(parts[1]), lambda: read_table(in_files), lambda: list_parts(in_files)):
        with pytest.raises(TableVersionNotFound, match=gone):
            ask()
    now = table_at(in_files.path)
    assert sorted(n for part in list_parts(now) for n in read_part(part)["n"].to_pylist()) == list(range(40))


def test_table_that_was_made_anew_is_not_taken_for_the_old_one(in_files):
    parts = list_parts(in_files, rows=10)
    shutil.rmtree(in_files.path)
    for start in range(4):
        write_table(in_files.path, numbered(start, start + 10))
    with pytest.raises(TableVersionNotFound, match="was made anew by another program"):
        read_part(parts[0])


def test_table_that_was_removed_is_said_to_be_gone(in_files):
    parts = list_parts(in_files, rows=10)
    shutil.rmtree(in_files.path)
    with pytest.raises(LookupError, match="There is no table at"):
        read_part(parts[0])


# --- staging and committing


def test_parts_staged_in_any_order_are_one_commit_in_their_order(tmp_path):
    before = write_table(tmp_path / "p", numbered(0, 10))
    for part in (2, 0, 1):
        stage_part(tmp_path / "p", numbered(10 * part + 10, 10 * part + 20), key=KEY, part=part)
    assert find_staged_parts(tmp_path / "p", key=KEY) == {0, 1, 2}
    assert table_at(tmp_path / "p") == before
    version = commit_parts(tmp_path / "p", key=KEY, parts=3)
    assert numbers(version) == list(range(40))
    assert (version.version, version.rows) == (1, 40)
    assert history(tmp_path / "p")[0]["key"] == KEY
    assert version == table_at(tmp_path / "p") == find_commit(tmp_path / "p", KEY)
    assert staged_files(tmp_path / "p") == []
    assert commit_parts(tmp_path / "p", key=KEY, parts=3) == version


def test_digest_does_not_depend_on_who_staged_when(tmp_path):
    for name, order in (("a", (0, 1)), ("b", (1, 0, 1))):
        for part in order:
            stage_part(tmp_path / name, numbered(part, part + 5), key=KEY, part=part)
    reader = pa.RecordBatchReader.from_batches(numbered(0, 1).schema, numbered(0, 5).to_batches(2))
    stage_part(tmp_path / "c", reader, key=KEY, part=0)
    stage_part(tmp_path / "c", numbered(1, 6), key=KEY, part=1)
    made = [commit_parts(tmp_path / name, key=KEY, parts=2) for name in "abc"]
    assert len({version.digest for version in made}) == 1
    stage_part(tmp_path / "d", numbered(7, 9), key=KEY, part=0)
    assert commit_parts(tmp_path / "d", key=KEY, parts=1).digest != made[0].digest


def test_other_keys_and_other_cuts_do_not_mix(tmp_path):
    other = {**KEY, "model": "models:/m/2"}
    stage_part(tmp_path / "p", numbered(0, 1), key=KEY, part=0, cut="a")
    stage_part(tmp_path / "p", numbered(5, 9), key=KEY, part=0, cut="b")
    stage_part(tmp_path / "p", numbered(9, 10), key=other, part=1)
    assert find_staged_parts(tmp_path / "p", key=KEY, cut="b") == {0}
    assert find_staged_parts(tmp_path / "p", key=KEY) == frozenset()
    assert numbers(commit_parts(tmp_path / "p", key=KEY, parts=1, cut="b")) == [5, 6, 7, 8]
    assert find_staged_parts(tmp_path / "p", key=KEY, cut="a") == frozenset()
    assert find_staged_parts(tmp_path / "p", key=other) == {1}


def test_missing_parts_are_named_and_nothing_is_committed(tmp_path):
    stage_part(tmp_path / "p", numbered(0, 1), key=KEY, part=1)
    with pytest.raises(PartsMissing, match=r"2 of 3 parts for '.*/p' are not staged: 0, 2. Stage them"):
        commit_parts(tmp_path / "p", key=KEY, parts=3)
    assert not (tmp_path / "p/_delta_log").exists()
    assert find_staged_parts(tmp_path / "p", key=KEY) == {1}


def test_parts_without_rows_keep_the_columns_and_leave_no_file(tmp_path):
    stage_part(tmp_path / "p", numbered(0, 0), key=KEY, part=0)
    version = commit_parts(tmp_path / "p", key=KEY, parts=1)
    assert (version.rows, version.columns) == (0, (("n", "long"),))
    assert list((tmp_path / "p").glob("*.parquet")) == []


def test_columns_that_do_not_fit_are_refused_before_and_at_the_commit(tmp_path):
    write_table(tmp_path / "p", numbered(0, 1))
    with pytest.raises(SchemaMismatch, match=r"has the columns n \(int64\); the rows have m \(int64\)"):
        stage_part(tmp_path / "p", pa.table({"m": [1]}), key=KEY, part=0)
    stage_part(tmp_path / "new", numbered(0, 1), key=KEY, part=0)
    stage_part(tmp_path / "new", pa.table({"m": [1]}), key=KEY, part=1)
    with pytest.raises(SchemaMismatch, match="differ in their columns: one has n, another m"):
        commit_parts(tmp_path / "new", key=KEY, parts=2)
    assert sorted(os.listdir(tmp_path / "new")) == ["_staged"]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/holiday.jpg").write_bytes(b"jpg")
    with pytest.raises(SchemaMismatch, match="is not a Delta table"):
        stage_part(tmp_path / "photos", numbered(0, 1), key=KEY, part=0)
    assert os.listdir(tmp_path / "photos") == ["holiday.jpg"]


def test_rows_that_stop_half_way_are_not_staged(tmp_path):
    def rows():
        yield from numbered(0, 20_000).to_batches()
        raise RuntimeError("power cut")

    reader = pa.RecordBatchReader.from_batches(numbered(0, 0).schema, rows())
    with pytest.raises(RuntimeError, match="power cut"):
        stage_part(tmp_path / "p", reader, key=KEY, part=0)
    assert find_staged_parts(tmp_path / "p", key=KEY) == frozenset()


def test_damaged_part_is_noticed_removed_and_can_be_staged_again(tmp_path):
    for part in (0, 1):
        stage_part(tmp_path / "p", numbered(part, part + 1), key=KEY, part=part)
    damaged = tmp_path / "p/_staged" / staged_files(tmp_path / "p")[1]
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(PartsMissing, match="was damaged"):
        commit_parts(tmp_path / "p", key=KEY, parts=2)
    assert find_staged_parts(tmp_path / "p", key=KEY) == {0}
    stage_part(tmp_path / "p", numbered(1, 2), key=KEY, part=1)
    assert numbers(commit_parts(tmp_path / "p", key=KEY, parts=2)) == [0, 1]


def test_vacuum_of_the_target_leaves_what_is_staged(tmp_path):
    version = write_table(tmp_path / "p", numbered(0, 1))
    stage_part(tmp_path / "p", numbered(1, 2), key=KEY, part=0)
    write_table(tmp_path / "p", numbered(5, 6), mode="overwrite")
    options = {"retention_hours": 0, "enforce_retention_duration": False, "dry_run": False}
    assert DeltaTable(version.path).vacuum(full=True, **options)
    assert numbers(commit_parts(tmp_path / "p", key=KEY, parts=1)) == [5, 1]


def test_what_was_left_long_ago_is_removed_by_a_later_commit(tmp_path):
    for name in ("old", "new"):
        stage_part(tmp_path / "p", numbered(0, 1), key={"of": name}, part=0)
    half = tmp_path / "p/_staged/half.parquet.tmp"
    half.write_bytes(b"PAR1")
    stem = next(name for name in staged_files(tmp_path / "p") if name != half.name)
    for file in (half, tmp_path / "p/_staged" / stem):
        os.utime(file, times=(time.time() - 8 * 86_400,) * 2)
    stage_part(tmp_path / "p", numbered(0, 1), key=KEY, part=0)
    commit_parts(tmp_path / "p", key=KEY, parts=1)
    (left,) = staged_files(tmp_path / "p")
    assert left not in (half.name, stem)


def test_full_disk_stages_nothing(tmp_path):
    with tiny_disk(tmp_path / "disk") as disk:
        rows = pa.table({"text": [os.urandom(100).hex() for _ in range(20_000)]})
        with pytest.raises(StorageFull):
            stage_part(disk / "p", rows, key=KEY, part=0)
        assert staged_files(disk / "p") == []


# --- many at once


def test_many_committers_of_one_key_make_one_commit(tmp_path):
    def stage_and_commit(worker: int):
        for part in range(worker % 3, 3):
            stage_part(tmp_path / "p", numbered(part, part + 1), key=KEY, part=part)
        for _ in range(200):
            try:
                return commit_parts(tmp_path / "p", key=KEY, parts=3)
            except PartsMissing:
                time.sleep(0.01)
        return None

    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(stage_and_commit, range(6)))
    assert len(set(made)) == 1
    assert numbers(made[0]) == [0, 1, 2]
    assert len(history(tmp_path / "p")) == 1
    assert len(list((tmp_path / "p").glob("*.parquet"))) == 3


DYING = """if True:
    import os, signal, sys
    import deltalake, pyarrow as pa, pyarrow.dataset, pyarrow.fs, pyarrow.parquet
    from dlpipe.errors import TableNotFound
    from dlpipe.tables import commit_parts, stage_part, find_staged_parts, table_at
    path = sys.argv[1]

    def die_at(line):
        def count(frame, event, arg):
            nonlocal line
            if "/dlpipe/tables/" not in frame.f_code.co_filename:
                return None
            line -= event == "line"
            if line < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return count
        sys.settrace(count)

    def next_number():
        try:
            return table_at(path).version + 1
        except TableNotFound:
            return 0

    def stage_and_commit():
        n = next_number()
        if n:  # as a scoring that is asked for again does
            commit_parts(path, key={"n": str(n - 1)}, parts=3)
        key = {"n": str(n)}
        for part in {0, 1, 2} - find_staged_parts(path, key=key):
            stage_part(path, pa.table({"n": [n * 3 + part] * 10}), key=key, part=part)
        commit_parts(path, key=key, parts=3)

    last = 10**9
    for line in [*range(0, int(sys.argv[2]), 11), last]:
        # delta-rs starts threads, which a fork would lose: only the children use it
        if not (child := os.fork()):
            die_at(line)
            stage_and_commit()
            os._exit(0)
        ended = os.waitpid(child, 0)[1]
        print("killed" if ended else "done")
    """


def test_killed_at_any_line_neither_loses_nor_repeats_a_part(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", DYING, str(tmp_path / "p"), "1000"], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    ends = done.stdout.split()
    assert ends.count("killed") > 30
    assert ends[-1] == "done"
    latest = table_at(tmp_path / "p")
    assert numbers(latest) == [n for n in range(3 * (latest.version + 1)) for _ in range(10)]
    assert latest.rows == 30 * (latest.version + 1)
    assert staged_files(tmp_path / "p") == []
    assert len(list((tmp_path / "p").glob("*.parquet"))) == 3 * (latest.version + 1)


def test_committed_file_is_plain_parquet_with_small_row_groups(tmp_path):
    stage_part(tmp_path / "p", numbered(0, 20_000), key=KEY, part=0)
    commit_parts(tmp_path / "p", key=KEY, parts=1)
    (file,) = (tmp_path / "p").glob("*.parquet")
    assert pq.ParquetFile(file).metadata.num_row_groups == 3
