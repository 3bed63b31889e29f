"""Making a model again: what differs is named, and the outcome follows from it."""

from __future__ import annotations

import io
import json
import math
import os
import re
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from disks import tiny_disk
from texts import reviews, write_csv

from dlpipe.errors import NotReproducible, StorageFull
from dlpipe.machine import has_fast_bf16
from dlpipe.registry import ModelVersion
from dlpipe.reproducing.answers import compare_columns
from dlpipe.reproducing.apart import Apart
from dlpipe.reproducing.code import TrainingCode, compare_packages, unpack, unpack_code
from dlpipe.reproducing.differences import Difference, compare_domains, compare_rows
from dlpipe.reproducing.disk import explain_full_disk
from dlpipe.reproducing.explanations import measure_gap
from dlpipe.reproducing.origin import Changes, Origin
from dlpipe.reproducing.outcome import judge
from dlpipe.reproducing.process import build_environment
from dlpipe.reproducing.reproduction import choose_settings
from dlpipe.scratch import open_scratch
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
    DeltaTable(then.path).vacuum(0, dry_run=False, enforce_retention_duration=False)
    (gone,) = compare_rows(make_origin(then), turned)
    assert gone.words == "table@v2 instead of table@v0: 9 rows, whose files were removed, and 9 rows now"
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
    apart = None if now is None else Apart(score(0.9, 0.85, 0.95), score(now), tiny_table, output=0.01)
    differences = tuple(Difference(kind, "x") for kind in kinds)  # type: ignore[arg-type]
    done = judge(make_origin(tiny_table), "1" * 64, differences, apart, code="the code", seconds=1.0)
    assert (done.outcome, done.exit_code) == (outcome, exit_code)
    assert json.loads(json.dumps(done.to_plain()))["outcome"] == outcome
    assert ("nothing that was recorded differs" in done.notes) == (not kinds)


def test_a_version_without_an_interval_is_never_called_equivalent(tiny_table: TableVersion) -> None:
    differences = (Difference("domain", "threads 3, it was 2"),)
    for then in (score(0.9), None):
        apart = Apart(then, score(0.9), tiny_table)
        done = judge(make_origin(tiny_table), "1" * 64, differences, apart, code="", seconds=1)
        assert done.outcome == "different"
        assert "NaN" not in json.dumps(done.to_plain())
    assert "the files of the registered model cannot be read: only its scores are compared" in done.notes


@pytest.mark.parametrize(
    ("then", "now", "alike"),
    [
        (0.5, math.nan, 0),
        (math.nan, 0.5, 0),
        ([0.5, 0.25], [0.5, math.nan], 0),
        ([0.5, 0.25], [0.5], 0),
        (math.inf, 0.5, 0),
        (math.nan, math.nan, 1),
        ([math.inf, math.nan], [math.inf, math.nan], 1),
    ],
)
def test_a_number_and_none_are_not_the_same_answer(then: object, now: object, alike: int) -> None:
    assert compare_columns(pa.table({"score": [then]}), pa.table({"score": [now]})) == (alike, 0.0)
    if isinstance(then, float) and isinstance(now, float):
        assert measure_gap([0.1, then], [0.1, now]) == (0.0 if alike else math.inf)


def test_that_rows_were_forgotten_since_is_noted(tiny_table: TableVersion) -> None:
    origin = make_origin(tiny_table)
    forgotten = '{"at": "2026-11-29T02:00:00+00:00", "rows": {"train": 2}}'
    tags = {**origin.version.tags, "dlpipe.forgotten.ab12": forgotten}
    marked = replace(origin, version=replace(origin.version, tags=tags))
    notes = [judge(each, "1" * 64, (), None, code="", seconds=1).notes for each in (origin, marked)]
    assert notes == [(), ("it was trained on 2 rows forgotten since (record ab12, 2026-11-29)",)]


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
    assert (made["DLPIPE_TABLES"], made["TMPDIR"]) == (str(tmp_path / "tables"), str(tmp_path))
    assert "ATEN_CPU_CAPABILITY" not in build_environment(make_origin(tiny_table), code, tmp_path)
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")  # whoever sets it wants to see what it changes
    assert build_environment(older, code, tmp_path)["ATEN_CPU_CAPABILITY"] == "default"


def make_member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


@pytest.mark.parametrize(
    "member",
    [
        make_member("../outside.py"),
        make_member("dlpipe/../../outside.py"),
        make_member("link", tarfile.SYMTYPE, "../outside.py"),
        make_member("link", tarfile.SYMTYPE, "/etc/passwd"),
        make_member("link", tarfile.LNKTYPE, "../outside.py"),
        make_member("device", tarfile.CHRTYPE),
        make_member("device", tarfile.BLKTYPE),
        make_member("pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda member: f"{member.name} {member.linkname}",
)
def test_kept_code_that_leads_out_of_its_folder_is_refused(member: tarfile.TarInfo, tmp_path: Path) -> None:
    with pytest.raises(NotReproducible, match="cannot be unpacked"):
        unpack(pack(make_member("dlpipe/__init__.py"), member), tmp_path / "code")
    assert [path.name for path in tmp_path.iterdir()] == ["code"]
    assert not any(path.name in ("link", "device", "pipe") for path in tmp_path.rglob("*"))


def test_kept_code_with_absolute_paths_stays_in_its_folder(tmp_path: Path) -> None:
    unpack(pack(make_member(str(tmp_path / "outside.py"))), tmp_path / "code")
    assert [path.name for path in tmp_path.iterdir()] == ["code"]


def test_kept_code_that_is_damaged_anywhere_is_refused_in_a_line(tmp_path: Path) -> None:
    whole = pack(*(make_member(f"dlpipe/{number}.py") for number in range(5)))
    refused = 0
    for at in range(0, len(whole), 3):
        for content in (whole[:at], whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :]):
            try:
                unpack(content, tmp_path / f"{at}-{len(content)}")
            except NotReproducible:
                refused += 1
    assert refused > len(whole) / 3
    for content in (b"", b"no archive"):
        with pytest.raises(NotReproducible, match="cannot be unpacked"):
            unpack(content, tmp_path / "code")


def pack(*members: tarfile.TarInfo) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for member in members:
            content = os.urandom(40) if member.isreg() else b""
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def test_kept_code_for_which_there_is_no_space_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        tiny_disk(tmp_path / "disk") as disk,
        pytest.raises(StorageFull, match="set TMPDIR to a folder on another"),
    ):
        unpack(pack(*(make_member(f"dlpipe/{number}.py") for number in range(400))), disk / "code")
    with tiny_disk(tmp_path / "full") as full:
        (full / "rest").write_bytes(bytes(2**20 - 4096 * 2))
        monkeypatch.setattr("tempfile.tempdir", str(full))
        with pytest.raises(StorageFull, match=re.escape(str(full))), explain_full_disk(), open_scratch() as folder:
            (folder / "model").write_bytes(bytes(2**20))
        assert [path.name for path in full.iterdir()] == ["rest"]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What commits files, by their names, to the repository of the working folder."""
    folder = tmp_path / "repository"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name, value in {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}.items():
        monkeypatch.setenv(name, value)
    git("init", "--quiet")

    def commit(**files: str) -> str:
        for name, content in files.items():
            file = folder / name.replace("__", "/") / "code.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        git("add", ":/")
        git("-c", "user.name=ana", "-c", "user.email=ana@localhost", "commit", "--quiet", "--message", "Code")
        return git("rev-parse", "HEAD")

    return commit


def git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.strip()


def test_without_a_package_the_commit_is_taken_and_nothing_else(
    repository: Callable[..., str], tiny_table: TableVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, last = repository(dlpipe="a = 1\n", flows="f = 1\n"), repository(dlpipe="a = 2\n")
    monkeypatch.chdir(tmp_path / "repository" / "flows")
    (tmp_path / "repository" / "dlpipe" / "code.py").write_text("a = 3  # not committed\n")

    def take(commit: str, uncommitted: str, name: str) -> TrainingCode:
        origin = make_origin(tiny_table, has_records=False)
        tags = {**origin.version.tags, "git.commit": commit, "git.uncommitted": uncommitted}
        return unpack_code(replace(origin, version=replace(origin.version, tags=tags)), tmp_path / name)

    found = take(first, "false", "code")
    assert (str(found.words), found.package) == (f"the commit {first[:12]}", tmp_path / "code" / "dlpipe")
    assert (found.package / "code.py").read_text() == "a = 1\n"
    (line,) = compare_packages(found.package, take(last, "false", "last").package)
    assert line == "dlpipe/code.py from line 1: 1 added, 1 gone"
    refusals = [(last, "true"), (last, "unknown"), ("0" * 40, "false"), ("unknown", "false"), ("--help", "false")]
    for number, (commit, uncommitted) in enumerate(refusals):
        with pytest.raises(NotReproducible, match=r"was not kept: .* With --code here"):
            take(commit, uncommitted, f"refused-{number}")
    git("rm", "--quiet", "-r", "--force", ":/dlpipe")
    with pytest.raises(NotReproducible, match=r"In the commit .* there is no dlpipe"):
        take(repository(flows="f = 2\n"), "false", "none")


def test_what_a_newer_dlpipe_notes_of_a_domain_is_passed_over() -> None:
    (tag,) = DOMAIN.to_tags()
    newer = {**asdict(DOMAIN), "stepping": 7}
    assert Domain.from_tags({tag: json.dumps(newer)}) == DOMAIN
    del newer["threads"]
    assert Domain.from_tags({tag: json.dumps(newer)}) is None


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
