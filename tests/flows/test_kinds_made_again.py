"""Models of each kind made again, time after time, and beside them what differs when one thing is changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from clusters import cluster_of
from conftest import SETTINGS, finished
from fingerprints import take_fingerprint
from projects import Done, Project, as_csv, environment

from dlpipe.tables import TableVersion, read_table, table_at, write_table

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(3000)]

ROUNDS = 5
MODELS = ("tuned/1", "clustered/1", "frozen/1", "frozen/2", "plain/1", "resumed/1")
TORCHES = ("2.13.1", "2.14.1", "2.12.1")
"""Others than the pinned one; the first that can be installed is taken."""
TORCH_BYTES = 12 << 30
"""What an environment with one of them needs while it is made."""


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path, tiny_table: TableVersion) -> Project:
    """A project with models of a search, of one on two nodes, of kept features, of a killed and resumed run."""
    project = Project.make(tmp_path_factory.mktemp("kinds"))
    shutil.copytree(tiny_backbone, project.folder / "backbone")
    columns = read_table(tiny_table, columns=["text", "label"])
    rows = list(zip(columns["text"].to_pylist(), columns["label"].to_pylist(), strict=True))
    project.file("reviews.csv", as_csv(rows))
    project.file("many.csv", as_csv([(f"{text} {n}", label) for n in range(6) for text, label in rows]))
    project.file("quick.toml", SETTINGS)
    quick = ("--config", "settings", "quick.toml", "run")
    finished(project, *quick, "--model", "tuned")
    with cluster_of(2) as nodes:
        searched = finished(project, *quick, "--model", "clustered", "--ray-address", nodes.address)
    assert "2 trials, 2 at a time with 1 threads each" in searched.said
    frozen = (*quick, "--trials", "0", "--strategy", "freeze", "--model", "frozen", "--learning-rate")
    for rate in ("1e-2", "3e-2"):  # the second reads the features that the first has kept
        finished(project, *frozen, rate)
    plain = ("--trials", "0", "--model", "plain", "--backbone", "all-MiniLM-L6-v2", "--epochs", "2")
    finished(project, *quick, *plain, "--learning-rate", "2e-4")  # larger steps end elsewhere with other sums
    resume(project, quick)
    return project


def resume(project: Project, quick: tuple[str, ...]) -> Done:
    """Return the end of a run whose training was killed in its second epoch, and in its retry's first one."""
    data = ("--data", "many.csv", "--table", "many", "--model", "resumed")
    slow = (*quick, *data, "--trials", "0", "--epochs", "4", "--batch-size", "8", "--learning-rate", "1e-6")
    with project.running(*slow) as run:
        for attempt in range(2):
            run.wait_for_checkpoint(attempt=attempt)
            run.kill_task("train")
        killed = run.end()
    return finished(project, "resume", "--origin-run-id", killed.run_id)


def reproduce(
    project: Project, *words: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dlpipe.cli", "reproduce", *words]
    given = environment(dict(env or {}))
    return subprocess.run(command, cwd=project.folder, env=given, capture_output=True, text=True, check=False)


def read_outcomes(said: str) -> list[tuple[str, str]]:
    """Return model and outcome of each record that was printed."""
    found = json.loads(said)
    records: list[dict[str, Any]] = found if isinstance(found, list) else [found]
    return [(record["model"].removeprefix("models:/"), record["outcome"]) for record in records]


def test_models_of_every_kind_are_the_same_each_time(kinds: Project) -> None:
    before, outcomes = take_fingerprint(kinds.folder), Counter[tuple[str, str]]()
    for _ in range(ROUNDS):
        done = reproduce(kinds, "--all", "--json")
        outcomes.update(read_outcomes(done.stdout))
    assert outcomes == {(model, "same"): ROUNDS for model in MODELS}
    assert take_fingerprint(kinds.folder) == before


@pytest.mark.parametrize("answers", ["predictions", "explanations"])
def test_tables_of_answers_mean_the_models_of_every_kind(answers: str, kinds: Project) -> None:
    done = reproduce(kinds, f"reviews_{answers}", "--json")
    assert sorted(read_outcomes(done.stdout)) == sorted((model, "same") for model in MODELS[:-1])
    assert [answer["outcome"] for record in json.loads(done.stdout) for answer in record["answers"]] == [
        "same"
    ] * len(MODELS[:-1])
    assert read_outcomes(reproduce(kinds, f"many_{answers}", "--json").stdout) == [("resumed/1", "same")]


# -- one thing changed -------------------------------------------------------------------------------------------

Check = Callable[..., dict[str, Any]]


@pytest.fixture(params=["tuned/1", "frozen/2", "plain/1"])
def check(request: pytest.FixtureRequest, kinds: Project) -> Check:
    """What makes a model again with something changed: exit code, outcome and record have to agree."""

    def run(*words: str, env: Mapping[str, str] | None = None, learns_otherwise: bool) -> dict[str, Any]:
        done = reproduce(kinds, request.param, *words, "--json", env=env)
        assert done.returncode in (0, 3, 4), done.stderr
        record: dict[str, Any] = json.loads(done.stdout)
        assert record["outcome"] == {0: "same", 3: "equivalent", 4: "different"}[done.returncode]
        is_same = record["weights"]["now"] == record["weights"]["registered"]
        assert is_same == (done.returncode == 0)
        assert (record["largest_difference"]["weight"] == 0) == is_same
        assert done.returncode == 4 if learns_otherwise else done.returncode in (0, 3)
        print(
            request.param,
            *words,
            *(env or {}),
            record["outcome"],
            record["largest_difference"],
            record["agreement"],
        )
        return record

    return run


def test_one_thread_more_is_named(check: Check) -> None:
    record = check("--threads", "3", learns_otherwise=False)
    (found,) = record["differences"]
    assert (found["kind"], found["what"].rpartition(",")[0]) == ("domain", "threads 3")


@pytest.mark.parametrize("variable", ["ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"])
def test_instructions_of_an_older_processor_are_named(variable: str, check: Check) -> None:
    import torch

    usual = torch.backends.cpu.get_cpu_capability()
    if usual not in ("AVX512", "AVX2"):
        pytest.skip(f"torch's kernels have nothing below {usual} here")
    lower = {"AVX512": "avx2", "AVX2": "default"}[usual]
    value = lower if variable == "ATEN_CPU_CAPABILITY" else {"avx2": "AVX2", "default": "SSE41"}[lower]
    record = check(env={variable: value}, learns_otherwise=False)
    found = {each["what"] for each in record["differences"]}
    also = {f"capability {lower.upper()}, it was {usual}"} if variable == "ATEN_CPU_CAPABILITY" else set()
    assert found == {f"{variable} {value}, it was not set", *also}


def test_one_setting_is_named(check: Check) -> None:
    record = check("--set", "weight_decay=0.3", learns_otherwise=True)
    (found,) = record["differences"]
    assert (found["kind"], found["what"].rpartition(",")[0]) == ("settings", "weight_decay 0.3")


def test_one_row_is_named(check: Check, kinds: Project) -> None:
    first = table_at(kinds.tables / "reviews", version=0)
    rows = read_table(first).to_pylist()
    changed = next(row for row in rows if row["split"] == "train")
    changed["label"] = "negative" if changed["label"] == "positive" else "positive"
    import pyarrow as pa

    second = write_table(first.path, pa.Table.from_pylist(rows, read_table(first).schema), mode="overwrite")
    record = check("--version", str(second.version), learns_otherwise=True)
    (found,) = record["differences"]
    words = f"{second} instead of reviews@v0: 1 with another label ({second}#{changed['row_id']})"
    assert (found["kind"], found["what"]) == ("rows", words)


def test_one_line_of_code_is_named(check: Check, tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    shutil.copytree(root / "dlpipe", tmp_path / "dlpipe", ignore=shutil.ignore_patterns("__pycache__"))
    file = tmp_path / "dlpipe" / "training" / "optimizer.py"
    lines = file.read_text().splitlines()
    (at,) = [number for number, line in enumerate(lines) if "max_norm: float = 1.0" in line]
    lines[at] = lines[at].replace("1.0", "0.1")
    file.write_text("\n".join(lines) + "\n")
    record = check("--code", "here", env={"PYTHONPATH": str(tmp_path)}, learns_otherwise=True)
    (found,) = record["differences"]
    words = f"dlpipe/training/optimizer.py from line {at + 1}: 1 added, 1 gone"
    assert (found["kind"], found["what"]) == ("code", words)


@pytest.fixture(scope="module")
def other_torch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A folder with another version of torch and what it needs, for the path of Python."""
    place = tmp_path_factory.mktemp("torch")
    if shutil.disk_usage(place).free < TORCH_BYTES:
        pytest.skip(f"another torch needs {TORCH_BYTES >> 30} GB of disk while it is installed")
    refused = ""
    for version in TORCHES:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", str(place)]
        done = subprocess.run([*command, f"torch=={version}"], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            yield version, place
            shutil.rmtree(place)
            return
        said = [line for line in done.stderr.splitlines() if "WARNING: Location" not in line]
        refused = said[-1] if said else f"pip ended with {done.returncode}"
    pytest.skip(f"pip finds no other torch, of {', '.join(TORCHES)}: {refused}")


def test_another_torch_is_named(other_torch: tuple[str, Path], check: Check) -> None:
    version, place = other_torch
    record = check(env={"PYTHONPATH": os.fspath(place)}, learns_otherwise=False)
    (found,) = [each["what"] for each in record["differences"] if each["what"].startswith("torch ")]
    assert found.rpartition(",")[0] == f"torch {version}"


# -- forgotten rows: the last, since they take rows out -----------------------------------------------------------


def test_a_model_that_learnt_from_forgotten_rows_says_so_and_after_a_purge_cannot_be_made_again(
    kinds: Project,
) -> None:
    rows = read_table(table_at(kinds.tables / "reviews", version=0), split="train", columns=["row_id"])
    asked = ("forget", f"reviews#{rows['row_id'][0].as_py()}", "--apply", "--yes")
    for more, code in ((), 0), (("--purge",), 1):
        forgotten = kinds.python("-m", "dlpipe.cli", *asked, *more)
        assert forgotten.code == 0, forgotten.said
        done = reproduce(kinds, "tuned/1")
        assert done.returncode == code, done.stdout + done.stderr
        first, *_, last = done.stderr.splitlines()
        assert first.strip().startswith("models:/tuned/1 was trained on 1 row forgotten since (record ")
        if code:
            assert "rows of it were forgotten on request" in last
            assert last.endswith("With --version N a model is trained on the rows of another.")
        else:
            assert "note: it was trained on 1 row forgotten since (record " in done.stdout
            assert done.stdout.startswith("The same weights, bit for bit: ")
    latest = table_at(kinds.tables / "reviews").version
    record = json.loads(reproduce(kinds, "tuned/1", "--version", str(latest), "--json").stdout)
    (found,) = record["differences"]
    assert found["what"].startswith(
        f"reviews@v{latest} instead of reviews@v0: 250 rows, whose files were removed, and "
    )
    assert any("lost files: the new model is measured on the test rows" in note for note in record["notes"])
