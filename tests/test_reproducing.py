"""Making a model again: what differs is named, and the outcome follows from it."""

from __future__ import annotations

import io
import json
import math
import os
import tarfile
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pytest
from texts import reviews, write_csv

from dlpipe.errors import NotReproducible
from dlpipe.machine import has_fast_bf16
from dlpipe.registry import ModelVersion
from dlpipe.reproducing.apart import Apart
from dlpipe.reproducing.code import TrainingCode, compare_packages, unpack
from dlpipe.reproducing.differences import Difference, compare_domains, compare_rows
from dlpipe.reproducing.origin import Changes, Origin
from dlpipe.reproducing.outcome import judge
from dlpipe.reproducing.process import build_environment
from dlpipe.reproducing.reproduction import choose_settings
from dlpipe.tables import Sources, TableVersion, ingest, read_table, table_at, write_table
from dlpipe.task import Evaluation
from dlpipe.task.text_classification import TextClassData
from dlpipe.training import Domain, FolderCheckpoints, fit

DOMAIN = Domain(2, "AVX512", "a processor", "cpu", "32", "3.11.7", {"torch": "2.13.0"})


def make_origin(table: TableVersion, **more: object) -> Origin:
    tags = {"delta.digest": table.digest, "dlpipe.task": "text-classification"}
    version = ModelVersion("reviews", 1, "models:/reviews/1", "0" * 64, "", "", tags=tags)
    made = Origin(version, "TrainFlow/1/train/3", table, {"epochs": 2, "threads": 0}, DOMAIN, False, True)
    return replace(made, **more)  # type: ignore[arg-type]


def test_each_file_of_code_that_differs_is_a_line_with_its_place(tmp_path: Path) -> None:
    then, now = tmp_path / "then", tmp_path / "now"
    for folder in (then, now):
        (folder / "training").mkdir(parents=True)
        (folder / "same.py").write_text("a = 1\n")
        (folder / "training" / "loop.py").write_text("a = 1\nb = 2\nc = 3\n")
    (now / "training" / "loop.py").write_text("a = 1\nb = 3\nc = 3\n")
    (now / "new.py").write_text("x\ny\n")
    assert list(compare_packages(then, now)) == [
        "dlpipe/new.py from line 1: 2 added, 0 gone",
        "dlpipe/training/loop.py from line 2: 1 added, 1 gone",
    ]


def test_rows_that_were_added_and_gone_are_counted(tmp_path: Path) -> None:
    rows = reviews()
    source, path = tmp_path / "rows.csv", str(tmp_path / "table")

    def keep(chosen: list[tuple[str, str]]) -> TableVersion:
        return ingest(Sources(data=str(write_csv(source, chosen))), path, settings=TextClassData()).table

    first, second = keep(rows[:-1]), keep(rows[1:])
    origin = make_origin(first)
    assert list(compare_rows(origin, table_at(path, version=0))) == []
    (found,) = compare_rows(origin, second)
    ids = [read_table(version, columns=["row_id"])["row_id"].to_pylist() for version in (first, second)]
    (gone,), (added,) = set(ids[0]) - set(ids[1]), set(ids[1]) - set(ids[0])
    words = f"1 added (table@v1#{added}), 1 gone (table@v0#{gone})"
    assert str(found) == f"rows: table@v1 instead of table@v0: {words}"
    (found,) = compare_rows(make_origin(replace(first, digest="f" * 64)), first)
    assert "has other rows now" in str(found)


def test_a_row_with_another_label_or_split_is_named(tmp_path: Path) -> None:
    rows = [{"row_id": f"a{n}", "text": f"word {n}", "label": "x", "split": "train"} for n in range(9)]
    others = [{**rows[0], "label": "y"}, *({**row, "split": "test"} for row in rows[1:6]), *rows[6:]]
    then, now, turned = (
        write_table(tmp_path / "table", pa.Table.from_pylist(made), mode="overwrite")
        for made in (rows, others, rows[::-1])
    )
    (found,) = compare_rows(make_origin(then), now)
    assert found.words == "table@v1 instead of table@v0: 1 with another label (table@v1#a0), 5 in another split"
    (found,) = compare_rows(make_origin(then), turned)
    assert found.words == "table@v2 instead of table@v0: the same rows, written otherwise"


def test_other_threads_packages_and_variables_are_named() -> None:
    other = replace(DOMAIN, threads=3, packages={"torch": "2.13.1"}, variables={"MKL_CBWR": "AVX2"})
    assert [str(found) for found in compare_domains(DOMAIN, other)] == [
        "domain: threads 3, it was 2",
        "domain: torch 2.13.1, it was 2.13.0",
        "domain: MKL_CBWR AVX2, it was not set",
    ]
    assert not list(compare_domains(None, other))


def score(value: float, low: float = math.nan, high: float = math.nan) -> Evaluation:
    return Evaluation({"accuracy": value}, {"accuracy": (low, high)}, (), 100, (), "accuracy")


@pytest.mark.parametrize(
    ("kinds", "now", "outcome", "exit_code"),
    [
        (["domain"], None, "same", 0),
        (["code"], None, "same", 0),
        (["domain"], 0.91, "equivalent", 3),
        (["domain"], 0.80, "different", 4),
        (["domain", "settings"], 0.91, "different", 4),
        (["code"], 0.91, "different", 4),
        (["rows"], 0.91, "different", 4),
        ([], 0.91, "different", 4),
    ],
)
def test_other_weights_are_equivalent_only_where_they_were_computed_elsewhere_and_score_alike(
    kinds: list[str], now: float | None, outcome: str, exit_code: int, tiny_table: TableVersion
) -> None:
    apart = None if now is None else Apart(score(0.9, 0.85, 0.95), score(now), output=0.01)
    differences = tuple(Difference(kind, "x") for kind in kinds)  # type: ignore[arg-type]
    done = judge(make_origin(tiny_table), "1" * 64, differences, apart, code="the code", seconds=1.0)
    assert (done.outcome, done.exit_code) == (outcome, exit_code)
    assert json.loads(json.dumps(done.to_plain()))["outcome"] == outcome
    assert ("nothing that was recorded differs" in done.notes) == (not kinds)


def test_a_version_without_an_interval_is_never_called_equivalent(tiny_table: TableVersion) -> None:
    differences = (Difference("domain", "threads 3, it was 2"),)
    for then in (score(0.9), None):
        apart = Apart(then, score(0.9))
        done = judge(make_origin(tiny_table), "1" * 64, differences, apart, code="", seconds=1)
        assert done.outcome == "different"
        assert "NaN" not in json.dumps(done.to_plain())
    assert "the files of the registered model cannot be read: only its scores are compared" in done.notes


def test_a_training_is_given_the_threads_and_precision_of_its_domain(tiny_table: TableVersion) -> None:
    origin = make_origin(tiny_table)
    assert choose_settings(origin, Changes()) == {"epochs": 2, "threads": 2, "precision": "32"}
    assert choose_settings(origin, Changes(threads=1, settings={"epochs": "3"})) == {
        "epochs": 3,
        "threads": 1,
        "precision": "32",
    }
    unknown = choose_settings(replace(origin, domain=None), Changes())
    assert unknown == {"epochs": 2, "threads": 0}


def test_instructions_of_an_older_processor_are_kept_to(
    tiny_table: TableVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlpipe.reproducing.process.read_cpu_features", lambda: frozenset({"avx2", "avx512f"}))
    code = TrainingCode("the code", (tmp_path,))
    older = make_origin(tiny_table, domain=replace(DOMAIN, capability="AVX2", variables={"MKL_CBWR": "AVX2"}))
    made = build_environment(older, code, tmp_path)
    assert (made["ATEN_CPU_CAPABILITY"], made["ONEDNN_MAX_CPU_ISA"], made["MKL_CBWR"]) == ("avx2", "AVX2", "AVX2")
    assert made["PYTHONPATH"].split(os.pathsep)[0] == str(tmp_path)
    assert not [name for name in made if name.startswith("MLFLOW_") and name != "MLFLOW_TRACKING_URI"]
    assert made["DLPIPE_TABLES"] == str(tmp_path / "tables")
    assert "ATEN_CPU_CAPABILITY" not in build_environment(make_origin(tiny_table), code, tmp_path)
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")  # whoever sets it wants to see what it changes
    assert build_environment(older, code, tmp_path)["ATEN_CPU_CAPABILITY"] == "default"


def test_kept_code_that_leads_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("../outside.py")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    for content in (packed.getvalue(), b"no archive"):
        with pytest.raises(NotReproducible, match="cannot be unpacked"):
            unpack(content, tmp_path / "code")
    assert not (tmp_path / "outside.py").exists()


def test_a_training_notes_each_domain_that_it_was_computed_in(tiny_table, tiny_settings, tmp_path: Path) -> None:
    checkpoints = FolderCheckpoints(tmp_path)
    fitted = fit(tiny_table, settings=tiny_settings, checkpoints=checkpoints, say=None)
    assert (fitted.domain.threads, fitted.earlier_domains) == (1, ())
    assert fitted.domain.precision == ("bf16" if has_fast_bf16() else "32")
    assert {"torch", "numpy", "dlpipe"} <= set(fitted.domain.packages)
    newest = checkpoints.latest()
    assert newest is not None
    elsewhere = {**asdict(fitted.domain), "threads": 7}
    (newest / "domains.json").write_text(json.dumps([elsewhere]))
    resumed = fit(tiny_table, settings=tiny_settings, checkpoints=checkpoints, say=None)
    assert resumed.resumed_after == 2
    assert [domain.threads for domain in resumed.earlier_domains] == [7]
    assert resumed.domain == fitted.domain
