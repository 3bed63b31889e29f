"""Delta tables by operation: write, read, versions, history, time travel, keys, storage that fails."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import boto3
import pyarrow as pa
import pytest
from click.testing import CliRunner
from disks import tiny_disk

from dlpipe.cli import main
from dlpipe.errors import (
    DlpipeError,
    SchemaMismatch,
    SettingError,
    StorageFull,
    StorageUnavailable,
    TableNotFound,
    TableVersionNotFound,
)
from dlpipe.tables import (
    Sources,
    commit_parts,
    delete_table,
    find_commit,
    find_rows,
    find_staged_parts,
    history,
    ingest,
    list_parts,
    locate,
    locate_features,
    read_table,
    stream_table,
    table_at,
    tables_root,
    write_table,
)
from dlpipe.tables._attempt import TABLE_CONFIGURATION
from dlpipe.task.text_classification import TextClassData


def reviews(*texts: str, label: str = "positive") -> pa.Table:
    return pa.table({"text": list(texts), "label": [label] * len(texts)})


def make_numbers(start: int, stop: int) -> pa.Table:
    return pa.table({"n": pa.array(range(start, stop), pa.int64())})


# --- write and read


def test_old_version_reads_back_unchanged_after_overwrite(tmp_path):
    path = tmp_path / "reviews"
    v0 = write_table(path, reviews("good", "bad"))
    v1 = write_table(path, reviews("other"), mode="overwrite")
    assert read_table(v0)["text"].to_pylist() == ["good", "bad"]
    assert read_table(v1)["text"].to_pylist() == ["other"]
    assert (v0.rows, v1.rows) == (2, 1)


def test_append_adds_rows_and_keeps_their_order(tmp_path):
    for start in range(0, 50, 5):
        version = write_table(tmp_path / "t", make_numbers(start, start + 5))
    assert (version.version, version.rows) == (9, 50)
    assert read_table(version)["n"].to_pylist() == list(range(50))


def test_rows_of_many_batches_and_files_come_back_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr("dlpipe.tables._write.FILE_BYTES", 20_000)
    rows = make_numbers(0, 60_000)
    version = write_table(tmp_path / "t", pa.RecordBatchReader.from_batches(rows.schema, rows.to_batches(700)))
    assert len(list((tmp_path / "t").glob("*.parquet"))) > 3
    assert read_table(version)["n"].to_pylist() == list(range(60_000))
    streamed = [n for batch in stream_table(version, batch_rows=999) for n in batch["n"].to_pylist()]
    assert streamed == list(range(60_000))


def test_digest_depends_on_content_and_order_only(tmp_path):
    rows = make_numbers(0, 30_000)
    whole = write_table(tmp_path / "a", rows)
    cut = write_table(tmp_path / "b", pa.RecordBatchReader.from_batches(rows.schema, rows.to_batches(123)))
    turned = write_table(tmp_path / "c", rows.take(list(range(29_999, -1, -1))))
    assert whole.digest == cut.digest != turned.digest
    assert len(whole.digest) <= 36


def test_nested_and_null_values_survive_and_count_in_the_digest(tmp_path):
    rows = pa.table({"label": ["a", None], "p": pa.array([[0.25, 0.75], None], pa.list_(pa.float32()))})
    other = rows.set_column(1, "p", pa.array([[0.25, 0.75], []], pa.list_(pa.float32())))
    version = write_table(tmp_path / "a", rows)
    assert read_table(version).to_pylist() == rows.to_pylist()
    assert write_table(tmp_path / "b", other).digest != version.digest


def test_only_asked_columns_and_split_are_read(tmp_path):
    rows = pa.table({"text": ["a", "b", "c"], "label": ["x", "y", "x"], "split": ["train", "test", "train"]})
    version = write_table(tmp_path / "t", rows)
    read = read_table(version, split="train", columns=["label", "text"])
    assert read.to_pydict() == {"label": ["x", "x"], "text": ["a", "c"]}
    assert read_table(version, split="valid").num_rows == 0


def test_unknown_column_or_split_says_which_there_are(tmp_path):
    version = write_table(tmp_path / "t", pa.table({"text": ["a"], "split": ["train"]}))
    with pytest.raises(SchemaMismatch, match="'t@v0' has no column 'label'; its columns are: text, split"):
        read_table(version, columns=["label"])
    with pytest.raises(SettingError, match="did you mean 'train'"):
        stream_table(version, split="trian")


def test_stream_gives_even_batches(tmp_path):
    version = write_table(tmp_path / "t", make_numbers(0, 10_000))
    assert [batch.num_rows for batch in stream_table(version, batch_rows=4000)] == [4000, 4000, 2000]


def test_empty_table_has_a_schema_and_no_batches(tmp_path):
    version = write_table(tmp_path / "t", make_numbers(0, 0))
    assert read_table(version).schema.names == ["n"]
    assert list(stream_table(version)) == []
    assert write_table(tmp_path / "t", make_numbers(0, 2)).rows == 2


def test_append_with_other_columns_is_refused_and_writes_nothing(tmp_path):
    write_table(tmp_path / "t", reviews("good"))
    before = sorted(os.listdir(tmp_path / "t"))
    with pytest.raises(
        SchemaMismatch, match=r"has the columns text \(string\), label.*; the rows have n \(int64\)"
    ):
        write_table(tmp_path / "t", make_numbers(0, 1))
    assert sorted(os.listdir(tmp_path / "t")) == before
    assert write_table(tmp_path / "t", make_numbers(0, 1), mode="overwrite").version == 1


def test_rows_that_fail_half_way_leave_no_version_and_no_file(tmp_path):
    write_table(tmp_path / "t", make_numbers(0, 1))

    def failing():
        yield from make_numbers(0, 20_000).to_batches(5000)
        raise ZeroDivisionError("model failed")

    reader = pa.RecordBatchReader.from_batches(make_numbers(0, 1).schema, failing())
    with pytest.raises(ZeroDivisionError):
        write_table(tmp_path / "t", reader)
    assert table_at(tmp_path / "t").version == 0
    assert len(list((tmp_path / "t").glob("*.parquet"))) == 1


@pytest.mark.parametrize("name", ["with space", "ünïcode", "a#b?c", "a+b,c=d"])
def test_any_name_works_for_a_table(tmp_path, name):
    version = write_table(tmp_path / name, make_numbers(0, 3), key={"a": "b"})
    assert (version.name, read_table(version).num_rows, len(history(version.path))) == (name, 3, 1)
    assert find_commit(tmp_path / name, {"a": "b"}) == version


def test_percent_sign_in_a_path_is_refused(tmp_path):
    with pytest.raises(SettingError, match="cannot hold '%'"):
        write_table(tmp_path / "50%20", make_numbers(0, 1))
    for name in ("y" * 300, "y\0"):
        with pytest.raises(SettingError, match="names of at most 200 bytes and no NUL"):
            write_table(tmp_path / name, make_numbers(0, 1))


def test_relative_names_live_under_the_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DLPIPE_TABLES", raising=False)
    assert tables_root() == str(tmp_path / "data/tables")
    assert locate("./here") == str(tmp_path / "here")
    monkeypatch.setenv("DLPIPE_TABLES", str(tmp_path / "elsewhere"))
    version = write_table("reviews", reviews("good"))
    assert version.path == str(tmp_path / "elsewhere/reviews")
    assert str(table_at("reviews")) == "reviews@v0"


@pytest.mark.parametrize("name", ["bad/na me", "na me", "50%", "a//b", "reviews@champion;x"])
def test_a_name_has_no_blanks_and_signs_but_a_path_may(name, tmp_path):
    with pytest.raises(SettingError, match="cannot name a table: use letters, digits"):
        locate(name)
    assert locate(f"{tmp_path}/na me") == f"{tmp_path}/na me"
    assert locate("films/été-2.1").endswith("/films/été-2.1")


# --- versions


def test_missing_version_says_which_there_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_table("./data/reviews", reviews("good"))
    with pytest.raises(TableVersionNotFound) as caught:
        table_at("./data/reviews", version=9)
    assert str(caught.value) == (
        "'data/reviews' has no version 9; its latest is 0. Pass a version from 0 to 0, or write a new one."
    )
    with pytest.raises(LookupError, match="has no version -1"):
        table_at("./data/reviews", version=-1)


def test_missing_table_says_which_tables_are_beside_it(tmp_path):
    write_table(tmp_path / "reviews", reviews("good"))
    with pytest.raises(TableNotFound, match=r"There is no table at '.*/review'; '.*' has the tables: reviews"):
        table_at(tmp_path / "review")
    assert not (tmp_path / "review").exists()


def test_file_or_plain_folder_is_not_a_table(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "folder").mkdir()
    with pytest.raises(TableNotFound, match="is a file, not a Delta table"):
        table_at(tmp_path / "notes.txt")
    with pytest.raises(TableNotFound, match="is a folder but not a Delta table"):
        table_at(tmp_path / "folder")


def test_nothing_is_written_into_a_folder_of_something_else(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"jpg")
    with pytest.raises(SchemaMismatch, match="exists and is not a Delta table"):
        write_table(tmp_path, reviews("good"))
    assert os.listdir(tmp_path) == ["holiday.jpg"]


def test_broken_log_is_one_clear_line(tmp_path):
    write_table(tmp_path / "t", reviews("good"))
    (tmp_path / "t/_delta_log/00000000000000000000.json").write_text("{rubbish")
    with pytest.raises(TableNotFound, match="cannot be opened as a Delta table") as caught:
        table_at(tmp_path / "t")
    assert "\n" not in str(caught.value)


def test_time_travel_finds_what_was_the_latest_then(tmp_path):
    path = tmp_path / "t"
    made = []
    for n in range(3):
        made.append(write_table(path, make_numbers(n, n + 1)))
        time.sleep(0.02)
    for version in made:
        assert table_at(path, timestamp=datetime.fromtimestamp(version.timestamp / 1000, UTC)) == version
    shown = history(path)[1]["time"]
    assert table_at(path, timestamp=shown) == made[1]
    assert table_at(path, timestamp=datetime.now(UTC) + timedelta(days=1)) == made[2]


def test_time_before_the_first_version_says_when_that_was(tmp_path):
    write_table(tmp_path / "t", make_numbers(0, 1))
    with pytest.raises(TableVersionNotFound, match=r"no version at 2020-01-01T00:00:00.000\+00:00; its first, 0"):
        table_at(tmp_path / "t", timestamp="2020-01-01")
    with pytest.raises(SettingError, match="'yesterday' is not a time"):
        table_at(tmp_path / "t", timestamp="yesterday")
    with pytest.raises(SettingError, match="Pass one of them"):
        table_at(tmp_path / "t", version=0, timestamp="2020-01-01")


def test_history_is_latest_first_and_carries_keys(tmp_path):
    write_table(tmp_path / "t", make_numbers(0, 4), key={"model": "m/1"})
    write_table(tmp_path / "t", make_numbers(4, 6))
    rows = history(tmp_path / "t")
    assert [(row["version"], row["rows"], row.get("key")) for row in rows] == [
        (1, 6, None),
        (0, 4, {"model": "m/1"}),
    ]


def test_table_of_another_writer_has_rows_and_a_digest(tmp_path):
    from deltalake import write_deltalake

    rows = pa.table({"text": ["a", "b", "c"], "label": ["x", "y", "x"]})
    write_deltalake(str(tmp_path / "t"), rows, partition_by=["label"])
    version = table_at(tmp_path / "t")
    assert version.rows == 3
    assert len(version.digest) == 32
    assert version == table_at(tmp_path / "t")
    assert read_table(version, columns=["text", "label"]).to_pydict() == {
        "text": ["a", "c", "b"],
        "label": ["x", "x", "y"],
    }
    with pytest.raises(SchemaMismatch, match="is partitioned"):
        write_table(tmp_path / "t", rows)


def test_nothing_expires_from_a_table(tmp_path):
    from deltalake import DeltaTable

    write_table(tmp_path / "t", make_numbers(0, 1))
    settings = DeltaTable(str(tmp_path / "t")).metadata().configuration
    assert settings["delta.enableExpiredLogCleanup"] == "false"


# --- keys


def test_same_key_is_written_once(tmp_path):
    key = {"model": "models:/m/1", "table": "reviews@v0"}
    first = write_table(tmp_path / "p", make_numbers(0, 3), key=key)
    again = write_table(tmp_path / "p", make_numbers(0, 3), key=dict(reversed(key.items())))
    assert again == first
    assert find_commit(tmp_path / "p", key) == first
    assert find_commit(tmp_path / "p", {"model": "models:/m/2"}) is None
    assert find_commit(tmp_path / "nowhere", key) is None


def test_key_is_found_cheaply_after_many_commits(tmp_path, monkeypatch):
    monkeypatch.setitem(TABLE_CONFIGURATION, "delta.checkpointInterval", "10")
    first = write_table(tmp_path / "p", make_numbers(0, 1), key={"n": "first"})
    for n in range(35):
        write_table(tmp_path / "p", make_numbers(n, n + 1), key={"n": str(n)})
    assert list((tmp_path / "p/_delta_log").glob("*.checkpoint.parquet"))
    started = time.perf_counter()
    assert find_commit(tmp_path / "p", {"n": "first"}) == first
    assert find_commit(tmp_path / "p", {"n": "20"}).version == 21
    assert time.perf_counter() - started < 2


def test_two_writers_with_one_key_make_one_commit(tmp_path):
    write_table(tmp_path / "p", make_numbers(0, 1))
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda _: write_table(tmp_path / "p", make_numbers(0, 9), key={"a": "b"}), range(6)))
    assert len(set(made)) == 1
    assert table_at(tmp_path / "p").rows == 10
    assert len(list((tmp_path / "p").glob("*.parquet"))) == 2


def test_concurrent_appends_all_arrive_with_exact_counts(tmp_path):
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda n: write_table(tmp_path / "p", make_numbers(n, n + 1)), range(18)))
    assert sorted(version.version for version in made) == list(range(18))
    assert all(version.rows == version.version + 1 for version in made)
    assert sorted(read_table(table_at(tmp_path / "p"))["n"].to_pylist()) == list(range(18))


def test_rows_of_a_writer_that_lost_a_race_are_found_at_its_own_commit(tmp_path, monkeypatch):
    """Another program's commit comes in between what a writer wrote and what it commits."""
    import dlpipe.tables._commit as committing

    path, commit = tmp_path / "t", committing.try_commit
    write_table(path, pa.table({"row_id": ["first"]}))

    def lose(*args, **options):
        monkeypatch.setattr(committing, "try_commit", commit)
        write_table(path, pa.table({"row_id": ["other"]}))
        return commit(*args, **options)

    monkeypatch.setattr(committing, "try_commit", lose)
    version = write_table(path, pa.table({"row_id": ["mine"]}), key={"of": "me"})
    found = {
        row_id: [row.version for row in find_rows(version, "row_id", row_id, columns=[])]
        for row_id in ("first", "other", "mine")
    }
    assert found == {"first": [0], "other": [1], "mine": [2]}
    assert [row.version for row in find_rows(version, "row_id", "mine", columns=[], added_by=2)] == [2]
    assert read_table(version)["row_id"].to_pylist() == ["first", "other", "mine"]
    assert len(list(path.glob("*.parquet"))) == 3


def test_failure_after_the_commit_does_not_lose_it(tmp_path, monkeypatch):
    monkeypatch.setitem(TABLE_CONFIGURATION, "delta.checkpointInterval", "5")
    path = tmp_path / "t"
    for n in range(4):
        write_table(path, make_numbers(n, n + 1))
    # the fifth commit makes a checkpoint, which cannot be written over a folder
    (path / "_delta_log/00000000000000000004.checkpoint.parquet").mkdir()
    version = write_table(path, make_numbers(4, 5))
    assert (version.version, version.rows) == (4, 5)
    shutil.rmtree(path / "_delta_log/00000000000000000004.checkpoint.parquet")
    assert read_table(version)["n"].to_pylist() == [0, 1, 2, 3, 4]


# --- memory, killed writers, full disks


def start_child(code: str, *arguments: object, **options) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], text=True, **options)


def make_random_texts(rows: int) -> pa.RecordBatchReader:
    schema = pa.schema([("text", pa.string())])
    texts = ([os.urandom(500).hex() for _ in range(2000)] for _ in range(rows // 2000))
    return pa.RecordBatchReader.from_batches(schema, (pa.record_batch({"text": part}) for part in texts))


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
def test_streaming_does_not_grow_with_the_table(tmp_path):
    code = """if True:
        import re, sys
        from dlpipe.tables import stream_table, table_at
        rows = 0
        for batch in stream_table(table_at(sys.argv[1]), columns=["text"], batch_rows=2048):
            rows += batch.num_rows
        # not getrusage: its peak is inherited from the process that started this one
        peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())
        print(rows, int(peak[1]) // 1024)
        """
    peaks = {}
    for rows in (30_000, 150_000):
        version = write_table(tmp_path / str(rows), make_random_texts(rows))
        done = start_child(code, version.path, stdout=subprocess.PIPE).communicate()[0].split()
        assert int(done[0]) == rows
        peaks[rows] = int(done[1])
    # the larger table holds 120 MB more text
    assert peaks[150_000] - peaks[30_000] < 40, peaks


def test_writer_killed_at_any_moment_leaves_whole_versions_only(tmp_path):
    code = """if True:
        import sys, pyarrow as pa
        from dlpipe.tables import write_table
        print("ready", flush=True)
        while True:
            write_table(sys.argv[1], pa.table({"n": list(range(1000))}))
        """
    for pause in (0.0, 0.03, 0.3):
        writer = start_child(code, tmp_path / "t", stdout=subprocess.PIPE)
        writer.stdout.readline()
        time.sleep(pause)
        writer.kill()
        writer.wait()
    version = write_table(tmp_path / "t", pa.table({"n": list(range(1000))}))
    assert version.rows == 1000 * (version.version + 1) == read_table(version).num_rows


def test_full_disk_says_so_and_leaves_no_new_version(tmp_path):
    with tiny_disk(tmp_path / "disk") as disk:
        write_table(disk / "t", reviews("good"))
        before = sorted(os.listdir(disk / "t"))
        texts = [os.urandom(100).hex() for _ in range(20_000)]
        with pytest.raises(StorageFull, match=r"No space is left on the device of '.*/disk/t'; nothing was"):
            write_table(disk / "t", reviews(*texts))
        assert sorted(os.listdir(disk / "t")) == before
        assert read_table(table_at(disk / "t"))["text"].to_pylist() == ["good"]


def test_disk_that_fills_at_the_log_leaves_no_new_version(tmp_path):
    with tiny_disk(tmp_path / "disk") as disk:
        write_table(disk / "t", reviews("good"))
        with (disk / "filler").open("wb") as filler:
            # room for the data file (1 page), not for the commit behind it
            filler.truncate(0)
            free = shutil.disk_usage(disk).free
            filler.write(b"x" * (free - 4096))
        with pytest.raises(StorageFull):
            write_table(disk / "t", reviews("bad"))
        (disk / "filler").unlink()
        assert table_at(disk / "t").version == 0
        assert len(list((disk / "t").glob("*.parquet"))) == 1


# --- S3


MOTO = """if True:
    import sys, threading
    from moto.server import ThreadedMotoServer
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    print("port", server.get_host_and_port()[1], flush=True)
    threading.Event().wait()
    """


@pytest.fixture(scope="module")
def s3_port():
    pytest.importorskip("moto")
    # in a process of its own: delta-rs holds the GIL while it writes, a server in this one could not answer
    server = start_child(MOTO, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    port = next(line.split()[1] for line in server.stdout if line.startswith("port"))
    yield port
    server.kill()
    server.wait()


@pytest.fixture
def bucket(s3_port, monkeypatch):

    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3_port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="tables")
    return "s3://tables"


def test_tables_live_in_s3(bucket, monkeypatch):
    monkeypatch.setenv("DLPIPE_TABLES", bucket)
    v0 = write_table("reviews", reviews("good", "bad"), key={"a": "b"})
    v1 = write_table("reviews", reviews("other"), mode="overwrite")
    assert v0.path == "s3://tables/reviews"
    assert read_table(v0)["text"].to_pylist() == ["good", "bad"]
    assert [batch.num_rows for batch in stream_table(v1)] == [1]
    assert find_commit("reviews", {"a": "b"}) == v0
    assert table_at("reviews", timestamp=history("reviews")[1]["time"]) == v0
    with pytest.raises(TableVersionNotFound, match="'s3://tables/reviews' has no version 9"):
        table_at("reviews", version=9)
    with pytest.raises(TableNotFound, match="'s3://tables/none' is not a Delta table"):
        table_at("none")


def test_a_table_in_s3_is_ingested_into_another(bucket):
    texts = [f"film number {n} was fine" for n in range(60)]
    write_table("s3://tables/raw", pa.table({"review": texts, "sentiment": ["good", "bad"] * 30}))
    done = ingest(Sources(data="s3://tables/raw"), "s3://tables/films", settings=TextClassData())
    assert read_table(done.table)["text"].to_pylist() == texts
    assert history("s3://tables/films")[0]["sources"][0]["name"] == "raw@v0"
    assert not ingest(Sources(data="s3://tables/raw"), "s3://tables/films", settings=TextClassData()).new_version


def dlpipe(*words):
    return CliRunner().invoke(main, ["tables", *words])


def list_keys(prefix: str) -> list[str]:
    return [
        entry["Key"]
        for entry in boto3.client("s3").list_objects_v2(Bucket="tables", Prefix=prefix).get("Contents", [])
    ]


def test_tables_in_s3_are_listed_shown_exported_and_deleted(bucket, monkeypatch, tmp_path):
    monkeypatch.setenv("DLPIPE_TABLES", f"{bucket}/room")
    monkeypatch.setenv("DLPIPE_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert "No tables yet" in dlpipe().stderr
    write_table("reviews", reviews("good", "fine"))
    made = write_table("reviews", reviews("dull", label="negative"))
    write_table("old/films", make_numbers(0, 3))
    write_table("reviews_predictions", make_numbers(0, 1), key={"source": made.path, "source_version": "1"})
    rows = json.loads(dlpipe("--json").stdout)
    assert [(row["table"], row["version"], row["rows"]) for row in rows] == [
        ("old/films", 0, 3),
        ("reviews", 1, 3),
        ("reviews_predictions", 0, 1),
    ]
    shown = json.loads(dlpipe("show", "reviews", "--where", "label = 'negative'", "--json").stdout)
    assert ([row["text"] for row in shown["first_rows"]], shown["changed"]["added"]) == (["dull"], 1)
    assert dlpipe("export", "reviews", "out.csv", "--version", "0").exit_code == 0
    assert (tmp_path / "out.csv").read_text().splitlines()[1:] == ["good,positive", "fine,positive"]
    asked = dlpipe("delete", "reviews")
    assert (asked.exit_code, "Pass --yes" in asked.stderr) == (1, True)
    assert "reviews_predictions  computed from its version 1" in asked.stderr
    assert table_at("reviews") == made
    for name in ("old", "none"):
        assert "is not a Delta table" in dlpipe("delete", name, "--yes").stderr
    for name in ("reviews", "reviews_predictions"):
        key = f"{locate_features(f'room/{name}')}/v0-train/words"
        boto3.client("s3").put_object(Bucket="tables", Key=key, Body=b"a fine film")
    assert dlpipe("delete", "reviews", "--yes").exit_code == 0
    assert list_keys("room/reviews/") == []
    assert list_keys("room/_features/") == ["room/_features/reviews_predictions/v0-train/words"]
    assert [row["table"] for row in json.loads(dlpipe("--json").stdout)] == ["old/films", "reviews_predictions"]
    write_table("reviews_predictions/inner", make_numbers(0, 1))
    inside = dlpipe("delete", "reviews_predictions", "--yes")
    assert "another table in its folder, 'inner'" in inside.stderr


KILLED_IN_S3 = """
import sys
from deltalake.fs import DeltaStorageHandler
from stores import kill_before_call
from dlpipe.tables import delete_table
kill_before_call(int(sys.argv[1]), DeltaStorageHandler, ["delete_file"])
delete_table("s3://tables/killed")
"""


@pytest.mark.parametrize("moment", [1, 2, 3, 4, 6])
def test_a_deletion_that_is_killed_in_s3_leaves_the_table_or_none_that_can_be_read(bucket, moment):
    from deltalake import DeltaTable

    for start in range(3):
        made = write_table("s3://tables/killed", make_numbers(start, start + 1))
    if moment == 4:
        DeltaTable(made.path).create_checkpoint()
    killed = start_child(KILLED_IN_S3, moment, env={**os.environ, "PYTHONPATH": os.path.dirname(__file__)})
    assert killed.wait(60) == -signal.SIGKILL
    assert list_keys("killed/")
    with contextlib.suppress(DlpipeError):
        assert read_table(table_at("s3://tables/killed"))["n"].to_pylist() == [0, 1, 2]
    delete_table("s3://tables/killed")
    assert list_keys("killed/") == []
    assert write_table("s3://tables/killed", make_numbers(7, 8)).version == 0


def test_concurrent_appends_in_s3_lose_nothing(bucket):
    code = """if True:
        import sys, pyarrow as pa
        from dlpipe.tables import write_table
        for n in range(3):
            write_table("s3://tables/many", pa.table({"n": [int(sys.argv[1]) * 3 + n]}))
        """
    writers = [start_child(code, number) for number in range(2)]
    assert [writer.wait(50) for writer in writers] == [0, 0]
    version = table_at("s3://tables/many")
    assert (version.version, version.rows) == (5, 6)
    assert sorted(read_table(version)["n"].to_pylist()) == list(range(6))


def test_parts_in_s3_are_staged_by_several_processes_and_committed_once(bucket):
    code = """if True:
        import sys, pyarrow as pa
        from dlpipe.tables import commit_parts, read_part, stage_part, table_at, list_parts
        parts = list_parts(table_at("s3://tables/numbers"), rows=10)
        for part in parts[int(sys.argv[1]) :: 2]:
            stage_part("s3://tables/copies", read_part(part), key={"a": "b"}, part=part.number, cut=part.cut)
        """
    for start in range(0, 40, 10):
        source = write_table("s3://tables/numbers", make_numbers(start, start + 10))
    stagers = [start_child(code, number) for number in range(2)]
    assert [stager.wait(50) for stager in stagers] == [0, 0]
    cut = list_parts(source, rows=10)[0].cut
    assert find_staged_parts("s3://tables/copies", key={"a": "b"}, cut=cut) == {0, 1, 2, 3}
    version = commit_parts("s3://tables/copies", key={"a": "b"}, parts=4, cut=cut)
    assert read_table(version)["n"].to_pylist() == list(range(40))
    assert find_staged_parts("s3://tables/copies", key={"a": "b"}, cut=cut) == frozenset()
    assert find_commit("s3://tables/copies", {"a": "b"}) == version


def test_vacuum_in_s3_is_said_like_any_other(bucket):
    from deltalake import DeltaTable

    version = write_table("s3://tables/gone", make_numbers(0, 1))
    write_table("s3://tables/gone", make_numbers(0, 2), mode="overwrite")
    stream = stream_table(version)
    DeltaTable(version.path).vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    with pytest.raises(TableVersionNotFound, match="'gone@v0' can no longer be read"):
        next(stream)


def test_s3_that_does_not_answer_says_so_in_time(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    started = time.perf_counter()
    with pytest.raises(StorageUnavailable, match=r"s3://tables/reviews .*: nothing answers there") as caught:
        table_at("s3://tables/reviews")
    assert time.perf_counter() - started < 15
    assert "\n" not in str(caught.value)


def test_missing_bucket_says_so(bucket):
    with pytest.raises(StorageUnavailable, match=r"s3://no-such-bucket/t .*: there is no such bucket"):
        write_table("s3://no-such-bucket/t", reviews("good"))


def test_commit_carries_json_that_other_tools_can_read(tmp_path):
    write_table(tmp_path / "t", make_numbers(0, 1), key={"model": "m"})
    log = (tmp_path / "t/_delta_log/00000000000000000000.json").read_text().splitlines()
    info = next(json.loads(line)["commitInfo"] for line in log if "commitInfo" in line)
    assert json.loads(info["dlpipe.key"]) == {"model": "m"}
