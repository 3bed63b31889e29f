"""Features once: what a training reads is computed once, kept beside its table, and never stale or damaged."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from deltalake import DeltaTable

from dlpipe.errors import TableVersionNotFound
from dlpipe.tables import TableVersion, mirror_version, read_table, table_at, write_table
from dlpipe.task import array_cache, find_task
from dlpipe.task.array_cache import cache_arrays
from dlpipe.task.texts import TextTraining, find_backbone
from dlpipe.task.texts.encoding import SplitEncoder, compute_embeddings
from dlpipe.training import fit
from dlpipe.training.data import prepare_data

KEY = {"kind": "tokens", "split": "train", "table": {"version": 0}}


@pytest.fixture
def table(tiny_table: TableVersion, tmp_path: Path) -> TableVersion:
    """A copy of the table that has nothing kept beside it."""
    return write_table(str(tmp_path / "tables" / "reviews"), read_table(tiny_table))


def list_entries(table: TableVersion) -> list[str]:
    """Return the names of the entries beside the table, without the hash of their keys."""
    folder = Path(table.path).parent / "_features" / table.name
    return sorted(entry.name.rsplit("-", 1)[0] for entry in folder.glob("*"))


def make_encoder(table: TableVersion, settings: TextTraining, max_length: int = 32) -> SplitEncoder:
    return SplitEncoder(table, find_backbone(settings.backbone), max_length)


def test_a_frozen_training_embeds_each_split_once(table: TableVersion, tiny_settings: TextTraining) -> None:
    frozen = replace(tiny_settings, strategy="freeze", epochs=1)
    first = fit(table, settings=frozen, say=None)
    kinds = ["v0-train-embeddings", "v0-train-tokens", "v0-valid-embeddings", "v0-valid-tokens"]
    assert list_entries(table) == kinds
    before = list_files(table)
    again = fit(table, settings=replace(frozen, learning_rate=1e-3), say=None)
    assert list_files(table) == before
    assert again.model.digest != first.model.digest
    assert fit(table, settings=frozen, say=None).model.digest == first.model.digest


def list_files(table: TableVersion) -> dict[str, int]:
    """Return the kept files with the times at which they were written."""
    folder = Path(table.path).parent / "_features"
    return {str(file): file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


def test_embeddings_are_what_the_trained_model_sees(table: TableVersion, tiny_settings: TextTraining) -> None:
    import torch

    from dlpipe.task.texts.model import TOKENIZER
    from dlpipe.task.texts.network import restore_network
    from dlpipe.task.texts.tokens import TextTokenizer

    model = fit(table, settings=replace(tiny_settings, strategy="freeze"), say=None).model
    texts = read_table(table, split="valid")["text"].to_pylist()
    kept_ones = make_encoder(table, tiny_settings, model.max_length).embed("valid").vectors
    network = restore_network(model)
    encoded = TextTokenizer(model.files[TOKENIZER].decode(), max_length=model.max_length)(texts)
    with torch.inference_mode():
        alone = [
            network.pool_states(**encoded.pad_tensors(np.array([row])))[0].numpy() for row in range(len(texts))
        ]
    np.testing.assert_allclose(kept_ones, alone, atol=1e-6)


def test_embeddings_do_not_depend_on_the_number_of_threads(
    table: TableVersion, tiny_settings: TextTraining
) -> None:
    read = make_encoder(table, tiny_settings)
    on_one, on_two = (
        compute_embeddings(read.tokenize("train"), read.backbone, threads=threads, say=print) for threads in (1, 2)
    )
    assert np.array_equal(on_one, on_two)


def test_embeddings_belong_to_how_they_were_computed(
    table: TableVersion, tiny_settings: TextTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_encoder(table, tiny_settings).embed("valid")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    make_encoder(table, tiny_settings).embed("valid")
    assert list_entries(table) == ["v0-valid-embeddings", "v0-valid-embeddings", "v0-valid-tokens"]


@pytest.mark.parametrize("change", ["backbone", "tokenizer", "max_length", "table"])
def test_whatever_changes_the_values_makes_another_entry(
    change: str, table: TableVersion, tiny_settings: TextTraining, tmp_path: Path
) -> None:
    backbone = tmp_path / "backbone"
    shutil.copytree(tiny_settings.backbone, backbone)
    settings = replace(tiny_settings, backbone=str(backbone))
    before = make_encoder(table, settings).embed("valid").vectors
    length = 32
    if change == "backbone":
        scale_weights(backbone / "model.safetensors")
    elif change == "tokenizer":
        tokenizer = json.loads((backbone / "tokenizer.json").read_text())
        vocab = tokenizer["model"]["vocab"]
        vocab["good"], vocab["bad"] = vocab["bad"], vocab["good"]
        (backbone / "tokenizer.json").write_text(json.dumps(tokenizer))
    elif change == "max_length":
        length = 4
    else:
        table = write_table(table.path, read_table(table).slice(3), mode="overwrite")
    after = make_encoder(table, settings, length).embed("valid").vectors
    assert before.shape != after.shape or not np.allclose(before, after)


def scale_weights(file: Path) -> None:
    from safetensors.numpy import load_file, save_file

    save_file({name: value * 1.5 for name, value in load_file(file).items()}, file, metadata={"format": "pt"})


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-8])


@pytest.mark.parametrize("damage", [flip_a_bit, cut, Path.unlink, lambda file: file.write_bytes(b"")])
@pytest.mark.parametrize("name", ["*.npy", array_cache.MANIFEST])
def test_a_damaged_entry_is_made_again(damage: Callable[[Path], None], name: str, tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> dict[str, np.ndarray]:
        made.append(1)
        return {"ids": np.arange(1000, dtype=np.int32), "offsets": np.array([0, 1000])}

    def arrays() -> dict[str, np.ndarray]:
        return cache_arrays(str(tmp_path / "reviews"), KEY, make, say=print)

    arrays()
    arrays()
    assert len(made) == 1
    damage(next((tmp_path / "_features").rglob(name)))
    assert np.array_equal(arrays()["ids"], np.arange(1000))
    assert len(made) == 2
    arrays()
    assert len(made) == 2


def test_arrays_come_from_the_disk_without_copying_and_cannot_be_written(tmp_path: Path) -> None:
    made = cache_arrays(str(tmp_path / "reviews"), KEY, lambda: {"ids": np.arange(9)}, say=print)["ids"]
    assert type(made) is np.ndarray
    assert type(made.base).__name__ == "memmap"
    assert not made.flags.writeable


def test_a_writer_that_is_killed_leaves_no_entry(tmp_path: Path) -> None:
    program = f"""
        import numpy as np
        from dlpipe.task.array_cache import cache_arrays
        ids = np.arange(3_000_000)
        for version in range(10_000):
            key = {{"kind": "tokens", "split": "train", "table": {{"version": version}}}}
            cache_arrays({str(tmp_path / "reviews")!r}, key, lambda: {{"ids": ids}}, say=print)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)])
    folder = tmp_path / "_features" / "reviews"
    while len(list(folder.glob("*"))) < 4:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for version in range(6):
        key = {**KEY, "table": {"version": version}}
        ids = cache_arrays(str(tmp_path / "reviews"), key, lambda: {"ids": np.arange(3_000_000)}, say=print)["ids"]
        assert np.array_equal(ids, np.arange(3_000_000))


def test_two_writers_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    program = f"""
        import numpy as np
        from dlpipe.task.array_cache import cache_arrays
        table = {str(tmp_path / "reviews")!r}
        for version in range(20):
            key = {{"kind": "tokens", "split": "train", "table": {{"version": version}}}}
            made = cache_arrays(table, key, lambda: {{"ids": np.arange(version, 99_999)}}, say=print)
            assert np.array_equal(made["ids"], np.arange(version, 99_999))
    """
    writers = [subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)]) for _ in range(2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert not list(tmp_path.rglob(f"{array_cache.HALF}*"))


def test_where_nothing_can_be_kept_a_line_says_so(tmp_path: Path) -> None:
    (tmp_path / "_features").write_text("in the way")
    lines: list[str] = []
    made = cache_arrays(str(tmp_path / "reviews"), KEY, lambda: {"ids": np.arange(9)}, say=lines.append)
    assert made["ids"].tolist() == list(range(9))
    assert len(lines) == 1
    assert lines[0].startswith(f"features cannot be kept in {tmp_path}/_features/reviews/v0-train-tokens-")


def test_what_is_kept_is_no_table(
    table: TableVersion, tiny_settings: TextTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from dlpipe.cli import main

    prepare_data(table, tiny_settings, task=find_task())
    monkeypatch.setenv("DLPIPE_TABLES", str(Path(table.path).parent))
    rows = json.loads(CliRunner().invoke(main, ["tables", "--json"]).output)
    assert [row["table"] for row in rows] == ["reviews"]


# in a process of its own: delta-rs holds the GIL while it writes, a server in this one could not answer
SERVER = """
    import threading
    from moto.server import ThreadedMotoServer
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    print("port", server.get_host_and_port()[1], flush=True)
    threading.Event().wait()
"""


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of an S3 server on loopback."""
    import boto3

    command = [sys.executable, "-c", textwrap.dedent(SERVER)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        port = next(line.split()[1] for line in server.stdout if line.startswith("port"))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
            monkeypatch.setenv(name, "us-east-1")
        boto3.client("s3").create_bucket(Bucket="bucket")
        yield "s3://bucket"
        server.kill()


def test_features_of_a_table_in_an_object_store_are_kept_there(bucket: str, tiny_table: TableVersion) -> None:
    made: list[int] = []

    def make() -> dict[str, np.ndarray]:
        made.append(1)
        return {"ids": np.arange(100_000), "empty": np.empty((0, 3), np.float32)}

    for _ in range(2):
        arrays = cache_arrays(f"{bucket}/tables/reviews", KEY, make, say=print)
        assert arrays["ids"].sum() == sum(range(100_000))
        assert arrays["empty"].shape == (0, 3)
    assert len(made) == 1
    import boto3

    client = boto3.client("s3")
    keys = [entry["Key"] for entry in client.list_objects_v2(Bucket="bucket")["Contents"]]
    assert all(key.startswith("tables/_features/reviews/v0-train-tokens-") for key in keys)
    (ids,) = [key for key in keys if "ids-" in key]
    client.put_object(Bucket="bucket", Key=ids, Body=b"damaged")
    assert cache_arrays(f"{bucket}/tables/reviews", KEY, make, say=print)["ids"].sum() == sum(range(100_000))
    assert len(made) == 2


def test_a_training_on_a_mirror_keeps_nothing_beside_the_table(
    table: TableVersion, tiny_settings: TextTraining, tmp_path: Path
) -> None:
    frozen = replace(tiny_settings, strategy="freeze", epochs=1)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    write_table(table.path, read_table(table).slice(9), mode="overwrite")
    mirror = mirror_version(table, folder)
    assert (str(mirror), mirror.digest) == (str(table), table.digest)
    there = fit(mirror, settings=frozen, say=None)
    assert (list_entries(table), len(list_entries(mirror))) == ([], 4)
    assert there.model.digest == fit(table, settings=frozen, say=None).model.digest


def test_a_version_without_its_files_has_no_mirror(table: TableVersion, tmp_path: Path) -> None:
    write_table(table.path, read_table(table).slice(9), mode="overwrite")
    DeltaTable(table.path).vacuum(0, dry_run=False, enforce_retention_duration=False)
    with pytest.raises(TableVersionNotFound, match="removed by another program, by a vacuum"):
        mirror_version(table, tmp_path)


def test_the_mirror_of_a_table_in_an_object_store_is_a_copy_of_the_version(
    bucket: str, tiny_table: TableVersion, tmp_path: Path
) -> None:
    rows = read_table(tiny_table)
    first = write_table(f"{bucket}/tables/reviews", rows)
    write_table(first.path, rows.slice(9), mode="overwrite")
    mirror = mirror_version(first, tmp_path)
    assert read_table(mirror).equals(rows)
    assert table_at(mirror.path, version=0).digest == first.digest
    assert len(list((tmp_path / "reviews").glob("*.parquet"))) == 1
