"""Tables of days: appended to, compacted and cut off, by several processes at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from dlpipe.errors import MarkMoved, SchemaMismatch
from dlpipe.tables import (
    Mark,
    append_by_day,
    find_first_kept_day,
    read_mark,
    read_table,
    stream_table,
    table_at,
    tidy_days,
    write_table,
)

NOON = datetime(2026, 2, 2, 12, tzinfo=UTC).timestamp()
APPENDER = """
import sys, pyarrow as pa
from dlpipe.tables import Mark, append_by_day
table, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
for number in range(count):
    rows = pa.table({"day": ["2026-02-02"], "asked": [f"{name}-{number}"]})
    append_by_day(table, rows, marks=[Mark(name, number - 1 if number else None, number)])
    print(number, flush=True)
"""


def asked(*values: int, day: str = "2026-02-02") -> pa.Table:
    return pa.table({"day": [day] * len(values), "asked": list(values)})


def data_files(table: Path) -> list[str]:
    return sorted(name for name in os.listdir(table) if name.endswith(".parquet"))


def test_rows_come_back_with_their_day_and_to_other_readers_of_delta(tmp_path):
    version = append_by_day(tmp_path / "t", pa.concat_tables([asked(1, 2), asked(3, day="2026-02-01")]))
    assert read_table(version).sort_by("asked").to_pydict() == {
        "day": ["2026-02-02", "2026-02-02", "2026-02-01"],
        "asked": [1, 2, 3],
    }
    assert [batch["asked"].to_pylist() for batch in stream_table(version, where="day = '2026-02-01'")] == [[3]]
    other = DeltaTable(str(tmp_path / "t"))
    assert other.metadata().partition_columns == ["day"]
    assert [file["num_records"] for file in pa.table(other.get_add_actions()).to_pylist()] in ([1, 2], [2, 1])


def test_a_mark_that_another_moved_refuses_the_rows(tmp_path):
    append_by_day(tmp_path / "t", asked(1), marks=[Mark("w", None, 0)])
    with pytest.raises(MarkMoved):
        append_by_day(tmp_path / "t", asked(1), marks=[Mark("w", None, 0)])
    assert table_at(tmp_path / "t").rows == 1
    assert len(data_files(tmp_path / "t")) == 1


def test_plain_rows_and_days_do_not_mix(tmp_path):
    append_by_day(tmp_path / "days", asked(1))
    write_table(tmp_path / "plain", asked(1))
    with pytest.raises(SchemaMismatch, match="partitioned"):
        write_table(tmp_path / "days", asked(1))
    with pytest.raises(SchemaMismatch, match="is not partitioned by 'day'"):
        append_by_day(tmp_path / "plain", asked(1))


def test_small_files_become_one_and_old_ones_are_deleted_an_hour_later(tmp_path):
    table = tmp_path / "t"
    for number in range(9):
        append_by_day(table, asked(number), marks=[Mark("w", number - 1 if number else None, number)])
    before = table_at(table)
    tidied = tidy_days(table, now=NOON)
    assert tidied is not None
    assert (tidied.rows, len(DeltaTable(str(table)).file_uris())) == (9, 1)
    assert sorted(read_table(tidied)["asked"].to_pylist()) == list(range(9))
    assert read_table(before).num_rows == 9  # whoever reads it goes on
    assert tidy_days(table, now=NOON + 60) is None
    assert len(data_files(table)) == 10
    tidy_days(table, now=NOON + 3601)
    assert len(data_files(table)) == 1
    assert read_mark(table, "w") == 8
    append_by_day(table, asked(9), marks=[Mark("w", 8, 9)])
    assert read_table(table_at(table)).num_rows == 10


def test_days_that_are_over_go_and_the_others_stay(tmp_path):
    table = tmp_path / "t"
    append_by_day(table, pa.concat_tables([asked(1, 2), asked(3, day="2026-02-01"), asked(4, day="2026-01-31")]))
    tidied = tidy_days(table, keep_days=2, now=NOON)
    assert tidied is not None
    assert tidied.rows == 3
    assert sorted(read_table(tidied)["asked"].to_pylist()) == [1, 2, 3]
    assert str(find_first_kept_day(table)) == "2026-02-01"
    tidy_days(table, keep_days=2, now=NOON + 3601)
    assert len(data_files(table)) == 2  # the rows of that day are on the disk no more
    everything = tidy_days(table, keep_days=1, now=NOON + 30 * 86400)
    assert everything is not None
    assert everything.rows == 0
    assert tidy_days(tmp_path / "none", keep_days=1) is None


def test_another_program_that_compacts_does_no_harm_and_its_files_go_as_well(tmp_path):
    table = tmp_path / "t"
    for number in range(4):
        append_by_day(table, pa.concat_tables([asked(number), asked(number, day="2026-01-01")]))
    DeltaTable(str(table)).optimize.compact()
    append_by_day(table, asked(4))
    append_by_day(table, asked(5))
    assert read_table(table_at(table)).num_rows == 10
    tidied = tidy_days(table, keep_days=2, now=NOON + 86400)
    assert tidied is not None
    assert sorted(read_table(tidied)["asked"].to_pylist()) == [0, 1, 2, 3, 4, 5]
    assert len(DeltaTable(str(table)).file_uris()) == 1
    tidy_days(table, keep_days=2, now=NOON + 86400 + 3601)
    assert len(list(table.rglob("*.parquet"))) == 1
    DeltaTable(str(table)).optimize.z_order(["asked"])
    assert append_by_day(table, asked(6)).rows == 7


@pytest.mark.slow
def test_two_append_and_two_tidy_at_the_same_time_and_no_row_is_lost_or_doubled(tmp_path):
    table, count = tmp_path / "t", 25
    tidier = (
        "import sys, time\nfrom dlpipe.tables import tidy_days\n"
        "for hour in range(1000):\n    tidy_days(sys.argv[1], now=time.time() + 4000 * hour)\n"
    )
    append_by_day(table, asked().cast(pa.schema([("day", pa.string()), ("asked", pa.string())])))
    tidiers = [subprocess.Popen([sys.executable, "-c", tidier, str(table)]) for _ in range(2)]
    appenders = [
        subprocess.Popen([sys.executable, "-c", APPENDER, str(table), name, str(count)], stdout=subprocess.PIPE)
        for name in ("a", "b")
    ]
    try:
        assert [process.wait(300) for process in appenders] == [0, 0]
        assert [process.poll() for process in tidiers] == [None, None]
    finally:
        for process in (*tidiers, *appenders):
            process.kill()
            process.wait()
    expected = sorted(f"{name}-{number}" for name in ("a", "b") for number in range(count))
    assert sorted(read_table(table_at(table))["asked"].to_pylist()) == expected


@pytest.mark.slow
def test_a_tidying_that_is_killed_leaves_every_row_once(tmp_path):
    table = tmp_path / "t"
    for number in range(12):
        append_by_day(table, asked(number))
    program = "import sys\nfrom dlpipe.tables import tidy_days\nprint(1, flush=True)\ntidy_days(sys.argv[1])"
    for moment in range(6):
        process = subprocess.Popen([sys.executable, "-c", program, str(table)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.03 * moment)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert sorted(read_table(table_at(table))["asked"].to_pylist()) == list(range(12))


@pytest.mark.slow
def test_commits_of_more_than_a_week_ago_leave_the_log_and_the_marks_stay(tmp_path):
    table = tmp_path / "t"
    for number in range(105):  # delta-rs writes a checkpoint each hundred
        append_by_day(table, asked(number), marks=[Mark("w", number - 1 if number else None, number)])
    old = time.time() - 9 * 86400
    for file in (table / "_delta_log").iterdir():
        os.utime(file, (old, old))
    tidy_days(table)
    assert len(list((table / "_delta_log").iterdir())) < 15
    append_by_day(table, asked(105), marks=[Mark("w", 104, 105)])
    assert sorted(read_table(table_at(table))["asked"].to_pylist()) == list(range(106))
    assert read_mark(table, "w") == 105
