"""The log of requests: each that was answered is in its Delta table exactly once, whatever happens."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from buckets import s3_server
from deltalake import DeltaTable
from disks import tiny_disk
from power import record, states_after
from serving_kills import MODELS, make_entry

from dlpipe.errors import StorageFull, TableNotFound
from dlpipe.serving import request_log
from dlpipe.serving.journal import Writer, find_journals, list_all_files, make_line
from dlpipe.serving.log_commits import adopt_journals, commit_files
from dlpipe.serving.log_rows import REFUSED, digest_text, dump, encode_entry, make_request_rows, name_table, to_day
from dlpipe.serving.logged import read_logged
from dlpipe.serving.request_log import RequestLog
from dlpipe.serving.settings import LogSettings
from dlpipe.serving.usage import sum_usage
from dlpipe.settings import read_settings
from dlpipe.tables import append_by_day, list_days, locate, read_table, table_at, tidy_days, write_table

KILLS = Path(__file__).with_name("serving_kills.py")


@pytest.fixture(autouse=True)
def tables(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DLPIPE_TABLES", str(tmp_path / "tables"))
    return tmp_path / "tables"


def rows_of(table: str) -> list[dict]:
    return read_table(table_at(table)).to_pylist()


def count_rows(table: str) -> int:
    try:
        return table_at(table).rows
    except TableNotFound:
        return 0


def started(**settings) -> tuple[RequestLog, list[str]]:
    said: list[str] = []
    log = RequestLog(LogSettings(**settings), say=said.append)
    log.start()
    return log, said


def test_a_request_becomes_a_row_for_each_of_its_rows():
    log, said = started(texts=True)
    entry = make_entry("reviews", 2)
    log.write([entry])
    log.close()
    first, second = rows_of("reviews_requests")
    assert (first["request_id"], first["row"], second["row"], first["rows"]) == (entry.request_id, 0, 1, 2)
    assert (first["text"], first["text_sha256"]) == ("a fine film", digest_text("a fine film"))
    assert json.loads(first["answer"]) == {"predicted": "positive", "probability": 0.9}
    assert first["arrived"].timestamp() == pytest.approx(entry.arrived, abs=1e-5)
    assert (first["day"], first["tokens"], first["key"]) == (f"{first['arrived']:%Y-%m-%d}", 3, "k1")
    assert not said
    assert not list_all_files(log.root)


def test_texts_reach_no_disk_unless_the_setting_says_so(tables):
    log, _ = started()
    log.write([make_entry("reviews", 1)])
    (file,) = list_all_files(log.root)
    assert b"fine film" not in file.path.read_bytes()
    log.close()
    (row,) = rows_of("reviews_requests")
    assert (row["text"], row["text_sha256"]) == (None, digest_text("a fine film"))
    assert not any(b"fine film" in path.read_bytes() for path in tables.rglob("*") if path.is_file())


def test_neither_messages_nor_explanations_bring_a_text_to_the_disk(tables):
    log, _ = started()
    bad, explained = make_entry("reviews", 0), make_entry("reviews", 1)
    for entry, name, value in (
        (bad, "status", 400),
        (bad, "error", "Row 0 is no pair of texts: 'a fine film'."),
        (explained, "kind", "explain"),
        (explained, "records", [{"words": ["a", "fine film"]}]),
    ):
        object.__setattr__(entry, name, value)
    log.write([bad, explained])
    log.close()
    assert "Texts are not kept" in rows_of("reviews_requests")[0]["error"]
    assert rows_of("reviews_requests")[1]["answer"] is None
    assert not any(b"fine film" in path.read_bytes() for path in tables.rglob("*") if path.is_file())


def test_entries_of_one_call_are_one_write_for_each_model_and_refused_ones_share_a_table():
    log, _ = started()
    log.write([make_entry(model, 1) for model in MODELS] + [make_entry("no such model", 0, version=0)])
    log.close()
    assert [len(rows_of(name_table(model, "_requests"))) for model in MODELS] == [1, 1]
    (refused,) = rows_of(REFUSED)
    assert (refused["model"], refused["version"], refused["rows"], refused["tokens"]) == ("no such model", 0, 0, 0)


def test_whatever_is_in_an_entry_is_written():
    odd = {"half": "\ud800", "big": 2**70, "set": {1}, "nan": float("nan"), 3: (1, 2)}
    line = dump([odd, "a\nb"])
    assert b"\n" not in line
    assert json.loads(line)[0] == {"half": "\ufffd", "big": str(2**70), "set": "{1}", "nan": None, "3": [1, 2]}
    assert make_request_rows([encode_entry(make_entry("re\udcffviews", 1), texts=True)]).num_rows == 1


def test_a_torn_line_is_dropped_and_the_others_are_read():
    root = find_journals()
    writer = Writer(root)
    appender = writer.begin("reviews_requests")
    whole = [make_line(encode_entry(make_entry("reviews", 1), texts=True)) for _ in range(3)]
    appender.append(whole[0] + whole[1][:-20] + b"\n" + b"\0" * 100 + b"\n" + whole[2] + whole[0][:30])
    assert len(appender.file.read()) == 2
    writer.close()


@pytest.mark.slow
def test_an_answered_request_is_committed_by_the_next_process_and_the_folder_goes():
    program = (
        "import os, sys\nsys.path.insert(0, sys.argv[1])\n"
        "from serving_kills import make_entry\nfrom dlpipe.serving.request_log import RequestLog\n"
        "from dlpipe.serving.settings import LogSettings\n"
        "log = RequestLog(LogSettings(flush_seconds=3600))\nlog.start()\nlog.write([make_entry('reviews', 2)])\n"
        "print('written', flush=True)\nsys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(KILLS.parent)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"written\n"
    log, _ = started()
    assert len(list_all_files(log.root)) == 1  # it lives: its journal is its own
    process.send_signal(signal.SIGKILL)
    process.communicate()
    adopt_journals(log.root)
    assert len(rows_of("reviews_requests")) == 2
    log.close()
    assert not list(log.root.iterdir())


def test_a_file_that_is_committed_and_not_removed_is_not_committed_again(monkeypatch):
    log, _ = started(flush_seconds=3600)
    log.write([make_entry("reviews", 1)])
    (file,) = list_all_files(log.root)
    content = file.path.read_bytes()
    log.flush()
    file.path.write_bytes(content)  # as if the process had been killed between the commit and the removal
    commit_files([file])
    assert len(rows_of("reviews_requests")) == 1
    assert not file.path.exists()
    log.close()


def test_the_log_is_committed_every_few_seconds_by_itself():
    log, _ = started(flush_seconds=0.1)
    for number in range(3):
        log.write([make_entry("reviews", 1)])
        deadline = time.monotonic() + 60
        while count_rows("reviews_requests") <= number:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    log.close()
    assert len(rows_of("reviews_requests")) == 3


def test_the_first_commit_imports_nothing(tables):
    program = (
        "import sys\n"
        "from dlpipe.serving.entries import Entry, make_request_id\n"
        "from dlpipe.serving.request_log import RequestLog\n"
        "from dlpipe.serving.settings import LogSettings\n"
        "log = RequestLog(LogSettings(flush_seconds=3600))\n"
        "log.start()\n"
        "what = 'predict', 'reviews', 1, 'd1', 'torch', 'champion', '', 200, '', 1.5e9, 1.5\n"
        "log.record(Entry(make_request_id(1.5e9), *what, [3], ['a fine film'], [{'predicted': 'positive'}]))\n"
        "before = set(sys.modules)\n"
        "log.flush()\n"
        "heavy = 'pyarrow', 'deltalake', 'pandas'\n"
        "print([name for name in set(sys.modules) - before if name.startswith(heavy)])\n"
        "log.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", done.stdout
    assert count_rows("reviews_requests") == 1


def test_a_full_disk_is_said_once_and_requests_are_refused_or_answered_as_the_setting_says(tmp_path):
    with tiny_disk(tmp_path / "disk") as disk:
        said: list[str] = []
        log = RequestLog(LogSettings(when_full="refuse", flush_seconds=3600), root=disk / "log", say=said.append)
        log.start()
        log.write([make_entry("reviews", 1)])
        filler = disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 4096)
        many = [make_entry("reviews", 1) for _ in range(100)]
        for _ in range(3):
            with pytest.raises(StorageFull, match="cannot be written"):
                log.write(many)
        assert len(said) == 1
        assert "requests are refused" in said[0]
        assert "cannot be written" in log.trouble
        object.__setattr__(log.settings, "when_full", "answer")
        log.write(many)
        assert log.lost == 100
        filler.unlink()
        last = make_entry("reviews", 1)
        log.write([last])
        assert said[1:] == ["The log of requests is written again; 100 requests so far are not in it."]
        assert log.trouble == ""
        log.close()
    rows = rows_of("reviews_requests")
    assert len(rows) == 2  # nothing of those that were refused
    assert rows[1]["request_id"] == last.request_id


def test_a_table_that_cannot_be_written_keeps_requests_in_the_journals_and_is_said_once():
    write_table("reviews_requests", pa.table({"text": ["a table of somebody"]}))
    log, said = started(flush_seconds=0.05)
    log.write([make_entry("reviews", 1), make_entry("tickets", 1)])
    deadline = time.monotonic() + 30
    while not said and time.monotonic() < deadline:
        time.sleep(0.05)
    log.close()
    assert "stay in" in said[0]
    assert list_all_files(log.root)
    assert len(rows_of("tickets_requests")) == 1  # one table's trouble is not another's


def test_another_program_that_compacts_the_log_costs_no_row():
    log, said = started(flush_seconds=3600)
    for _ in range(4):
        log.write([make_entry("reviews", 2)])
        log.flush()
    table = DeltaTable(locate("reviews_requests"))
    table.optimize.compact()
    table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    log.write([make_entry("reviews", 2)])
    assert read_logged("reviews_requests").num_rows == 10
    log.close()
    places = [(row["request_id"], row["row"]) for row in rows_of("reviews_requests")]
    assert len(places) == len(set(places)) == 10
    assert (sum_usage([])[0].calls, said) == (5, [])


def test_old_days_go_by_the_setting_and_usage_of_other_days_stays():
    log, _ = started(keep_days=2)
    log.write([make_entry("reviews", 1)])
    log.close()
    day = 86400
    assert tidy_days("reviews_requests", keep_days=2, now=time.time() + day) is None
    gone = tidy_days("reviews_requests", keep_days=2, now=time.time() + 2 * day)
    assert gone is not None
    assert gone.rows == 0


def test_days_end_also_where_nobody_asks_any_more_and_tables_of_others_are_left_alone():
    old = make_entry("reviews", 1)
    object.__setattr__(old, "arrived", time.time() - 10 * 86400)
    log, _ = started()
    log.write([old])
    log.close()
    mine = pa.table({"day": ["2020-01-01"], "text": ["mine"]})
    append_by_day("my_requests", mine)
    log, _ = started(keep_days=3)
    deadline = time.monotonic() + 60
    while count_rows("reviews_requests") and time.monotonic() < deadline:
        time.sleep(0.1)
    log.close()
    assert count_rows("reviews_requests") == 0
    assert count_rows("my_requests") == 1


def write_somebodys(name: str) -> None:
    write_table(f"{name}_requests", pa.table({"text": ["a table of somebody"]}))


def leave_journal(model: str, root: Path) -> None:
    """Leave a journal as a process that was killed does."""
    writer = Writer(root)
    appender = writer.begin(f"{model}_requests")
    appender.append(make_line(encode_entry(make_entry(model, 1), texts=False)))
    appender.close()
    os.close(writer._lock)


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def list_days_of(table: str) -> list[str]:
    return list_days(table_at(table)) if count_rows(table) else []


@pytest.fixture
def often(monkeypatch) -> None:
    """Have the log look for what others left each moment."""
    for name in ("ADOPT_SECONDS", "RETRY_SECONDS", "SYNC_SECONDS"):
        monkeypatch.setattr(request_log, name, 0.1)


def test_a_table_in_trouble_keeps_no_other_from_ending_its_days_and_no_journal_from_its_table(often, monkeypatch):
    monkeypatch.setattr(request_log, "TIDY_SECONDS", 0.1)
    write_somebodys("reviews")
    log, _ = started(flush_seconds=0.05, keep_days=3)
    log.write([make_entry("reviews", 1)])
    wait_for(lambda: log.trouble != "")
    old = make_entry("tickets", 1)
    object.__setattr__(old, "arrived", time.time() - 10 * 86400)
    leave_journal("claims", log.root)
    log.write([old, make_entry("tickets", 1)])
    wait_for(lambda: count_rows("claims_requests") == 1)
    wait_for(lambda: list_days_of("tickets_requests") == [to_day(time.time())])
    log.close()


def test_a_dead_process_whose_requests_cannot_be_committed_is_said_once_and_stays_trouble(often, tmp_path):
    write_somebodys("reviews")
    leave_journal("reviews", find_journals())
    log, said = started(flush_seconds=0.05)
    seen = []
    for _ in range(20):
        time.sleep(0.05)
        seen.append(bool(log.trouble))
    assert all(seen)
    assert len(said) == 1
    assert "of processes that have ended stay in" in said[0]
    Path(locate("reviews_requests")).rename(tmp_path / "away")
    wait_for(lambda: not log.trouble)
    log.close()
    assert said[1:] == ["Requests of processes that have ended are committed."]
    assert count_rows("reviews_requests") == 1


def test_settings_are_checked():
    assert read_settings(LogSettings, {"texts": True, "keep_days": 30}, where="[serving.log]").keep_days == 30
    with pytest.raises(ValueError, match="when_full"):
        read_settings(LogSettings, {"when_full": "stop"}, where="[serving.log]")


@pytest.mark.slow
def test_with_tables_on_s3_journals_are_in_the_state_folder(tmp_path, monkeypatch):
    with s3_server() as server:
        for name, value in server.variables(DLPIPE_TABLES="s3://my-bucket/tables").items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("DLPIPE_STATE", str(tmp_path / "state"))
        log, said = started()
        for _ in range(3):
            log.write([make_entry("reviews", 2)])
            log.flush()
        log.write([make_entry("reviews", 1)])
        (file,) = list_all_files(log.root)
        assert tmp_path / "state" in file.path.parents
        assert sum_usage([])[0].rows == 7
        log.close()
        assert not said
        assert count_rows("reviews_requests") == 7
        day = 86400
        tidied = tidy_days("reviews_requests", now=time.time() + day)
        assert tidied is not None
        assert len(rows_of("reviews_requests")) == 7
        tidy_days("reviews_requests", now=time.time() + 2 * day, keep_days=1)
        assert count_rows("reviews_requests") == 0


POWER = """
import os, sys, time
os.environ["DLPIPE_TABLES"] = sys.argv[1] + "/tables"
sys.path.insert(0, sys.argv[2])
from serving_kills import make_entry
from dlpipe.serving.request_log import RequestLog
from dlpipe.serving.settings import LogSettings
log = RequestLog(LogSettings(flush_seconds=3600))
log.start()
for number in range(6):
    entries = [make_entry("reviews", 1) for _ in range(30)]
    log.write(entries)
    if number % 2:
        log.flush()
    else:
        log._sync()
    for entry in entries:
        mark(entry.request_id)
"""


@pytest.mark.slow
def test_after_a_power_cut_all_that_was_synced_or_committed_is_there_once(tmp_path, monkeypatch):
    root, scratch = tmp_path / "disk", tmp_path / "scratch"
    root.mkdir()
    scratch.mkdir()
    ops = record(root, POWER, KILLS.parent, scratch=scratch)
    for folder, marks in states_after(ops, root, scratch, moments=12):
        monkeypatch.setenv("DLPIPE_TABLES", str(folder / "tables"))
        log, said = started()
        log.close()
        assert not said
        assert not list_all_files(log.root)
        rows = rows_of("reviews_requests") if count_rows("reviews_requests") else []
        there = [row["request_id"] for row in rows]
        assert len(there) == len(set(there))
        assert not set(marks) - set(there)


@pytest.mark.slow
def test_every_answered_request_is_there_once_after_20_kills_at_random_moments(tmp_path):
    seed = int(time.time()) % 100_000
    command = [sys.executable, str(KILLS), "--rounds", "20", "--seed", str(seed), "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=os.environ, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["written"] > 100
