"""kill -9 of a run that scores or explains a table: its resumes end with the same rows and keep what was done."""

from __future__ import annotations

import random
import re
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from projects import Done, Project
from test_kills import wait_until_gone
from texts import BAD, GOOD, THINGS

from dlpipe.tables import TableVersion, history, read_table, table_at, write_table

pytestmark = pytest.mark.chaos  # `make test` has no room for two more minutes

ROWS = 80_000  # five parts to score; a part takes a second or so
EXPLAINED = 400  # two slices to explain of each part, as long


@dataclass(frozen=True)
class Use:
    """A flow that uses a model on the rows of a table: its command, and the rows that it has to do."""

    flow: str
    script: str
    step: str
    words: tuple[str, ...]
    split: str | None
    rows: int

    def killed(self, project: Project, target: Path, *words: str, pieces: int) -> Done:
        """Run the flow until so many pieces wait beside ``target``; then kill the launcher and its tasks."""
        with project.running(*words, flow=self.script) as run:
            run.wait_until(lambda: len(staged(target)) >= pieces, f"{pieces} pieces")
            run.signal(signal.SIGKILL)
            wait_until_gone(project)
            killed = run.end()
        assert killed.code == -signal.SIGKILL
        assert not (target / "_delta_log").exists()
        return killed

    def found_and_made(self, done: Done) -> tuple[int, int]:
        """Return how many rows the step said were there already, and how many it said it made."""
        said = "\n".join(done.of_task(self.step)).replace(",", "")
        (found,) = re.findall(rf": going on (\d+) of {self.rows} rows were there already$", said, re.MULTILINE)
        (made,) = re.findall(r": (\d+) rows in ", said)
        return int(found), int(made)


USES = {
    "score": Use("PredictFlow", "flows/predict_flow.py", "score", ("run",), None, ROWS),
    "explain": Use(
        "ExplainFlow",
        "flows/explain_flow.py",
        "explain",
        ("--config", "settings", "few.toml", "run", "--split", "valid"),
        "valid",
        EXPLAINED,
    ),
}


@pytest.fixture(scope="module")
def crowd(project: Project, first: Done) -> tuple[str, ...]:
    """A table that takes seconds to score, as options; a few of its rows, here and there, are explained."""
    chance, words = random.Random(0), [*GOOD, *BAD, *THINGS, "the", "was", "a"]
    columns = {
        "row_id": [f"{row:05}" for row in range(ROWS)],
        "text": [" ".join(chance.choices(words, k=20)) for _ in range(ROWS)],
        "split": ["train" if row % (ROWS // EXPLAINED) else "valid" for row in range(ROWS)],
    }
    write_table(project.tables / "crowd", pa.table(columns))
    project.file("few.toml", "[explanation]\nmax_evals = 150\nrows = 2\n")
    return ("--table", "crowd")


@pytest.mark.parametrize("name", USES)
def test_killed_run_and_its_killed_resume_go_on_and_end_with_the_same_rows(
    name: str, project: Project, crowd: tuple[str, ...]
) -> None:
    use = USES[name]
    whole, target = (project.tables / f"crowd_{name}_{end}" for end in ("whole", "killed"))
    undisturbed = project.python(use.script, *use.words, *crowd, "--target", whole.name)
    assert undisturbed.code == 0, undisturbed.said
    killed = use.killed(project, target, *use.words, *crowd, "--target", target.name, pieces=1)
    kept = staged(target)
    halfway = use.killed(project, target, "resume", "--origin-run-id", killed.run_id, pieces=len(kept) + 1)
    kept_then, there = staged(target), rows_in(target)
    resumed = project.python(use.script, "resume", "--origin-run-id", halfway.run_id)
    assert resumed.code == 0, resumed.said
    assert not resumed.of_task("start")
    assert use.found_and_made(resumed) == (there, use.rows - there)
    assert kept < kept_then < files(target.glob("*.parquet"))
    assert_same_rows(project, use, whole, target)
    assert project.python("-m", "dlpipe.cli", "bridge", "check", use.flow).said == "0 differences\n"


def assert_same_rows(project: Project, use: Use, whole: Path, target: Path) -> None:
    """Fail where the two tables differ, hold other rows than the data, or have more than one commit."""
    expected, made = table_at(whole), table_at(target)
    assert len(history(target)) == 1
    assert not list((target / "_staged").iterdir())
    assert answers_in(made).equals(answers_in(expected))
    data = read_table(table_at(project.tables / "crowd"), split=use.split, columns=["row_id"])
    assert read_table(made)["row_id"].unique().to_pylist() == data["row_id"].to_pylist()
    if use.step == "score":
        assert made.rows == use.rows


def answers_in(table: TableVersion) -> pa.Table:
    """Return what the table says, whenever it was made."""
    rows = read_table(table)
    return rows.drop_columns([name for name in ("scored_at",) if name in rows.column_names])


def staged(target: Path) -> set[tuple[int, int]]:
    """Return the pieces that wait for the commit, which gives the same files another name."""
    return files((target / "_staged").glob("*.parquet"))


def files(paths: Iterable[Path]) -> set[tuple[int, int]]:
    """Return what makes files the same ones under any name: the inode and when it was written."""
    return {(path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def rows_in(target: Path) -> int:
    """Return of how many rows the pieces are that wait for the commit."""
    return sum(len(pq.read_table(path)["row_id"].unique()) for path in (target / "_staged").glob("*.parquet"))
