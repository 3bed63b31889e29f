"""Three rows of a real training, with what it predicted and explained, are forgotten; the rest is unchanged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from commands import dlpipe
from conftest import SETTINGS
from forgetting_kills import forget_until, start
from projects import Project, as_csv, environment
from searching import search_files

from dlpipe.tables import find_rows, read_table, table_at

ROWS = 3000
RARE = 40


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Path, tiny_table) -> Project:
    """A whole run on 3,000 rows; those with words that nobody else has have wrong labels, and so are mistakes."""
    made = Project.make(tmp_path_factory.mktemp("forgetting"))
    shutil.copytree(tiny_backbone, made.folder / "backbone")
    columns = read_table(tiny_table, columns=["text", "label"]).to_pydict()
    rows = [(f"{text} {n}", label) for n in range(12) for text, label in zip(*columns.values(), strict=True)]
    rows = rows[: ROWS - RARE]
    names = (f"mx{chr(97 + n // 26)}{chr(97 + n % 26)}quozzle" for n in range(RARE))
    rows += [(f"a good film said {name} indeed", "negative") for name in names]
    made.file("reviews.csv", as_csv(rows))
    made.file("quick.toml", SETTINGS)
    done = made.flow("--config", "settings", "quick.toml", "run", "--trials", "0", "--epochs", "2")
    assert done.code == 0, done.said
    return made


@pytest.mark.long
def test_three_rows_of_three_thousand_are_forgotten_everywhere_also_after_kills(trained, monkeypatch):
    monkeypatch.chdir(trained.folder)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    tables = trained.tables
    explained = read_table(table_at(str(tables / "reviews_explanations")), columns=["row_id"])[
        "row_id"
    ].to_pylist()
    rows = {row["row_id"]: row for row in read_table(table_at(str(tables / "reviews"))).to_pylist()}
    rare = {row_id for row_id, row in rows.items() if "quozzle" in row["text"]}
    learnt = sorted(row_id for row_id in rare if rows[row_id]["split"] == "train")
    asked = [*dict.fromkeys(row_id for row_id in explained if row_id in rare)][:1]
    asked += [row_id for row_id in learnt if row_id not in asked][: 3 - len(asked)]
    words = [rows[row_id]["text"].split()[4] for row_id in asked]
    assert len(rows) == ROWS
    assert len(asked) == 3
    found = {name.split("/")[0] for name in search_files(trained.folder, words)}
    assert found >= {".metaflow", "data", "mlartifacts", "reviews.csv"}

    kept, count = trained.folder.with_name("kept"), trained.folder.with_name("count")
    shutil.copytree(trained.folder, kept)
    command = [*(f"reviews#{row_id}" for row_id in asked), "--apply", "--purge", "--yes"]
    assert start(forget_until, command, 0, count) == 0
    check_end(trained, asked, words, rows)
    changes = int(count.read_text())
    for number in (changes // 3, 3 * changes // 4):
        for path in trained.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(kept, trained.folder, dirs_exist_ok=True)
        assert start(forget_until, command, number, count) == 9
        assert start(forget_until, command, 0, count) == 0
        check_end(trained, asked, words, rows)
    said = ask(trained, "lineage", "check")
    assert "0 dangling, 0 missing, 0 differs" in said
    assert "0 differences" in ask(trained, "bridge", "check", "TrainFlow")
    assert "forgotten since" in ask(trained, "models", "show", "reviews/1")
    assert "positive" in ask(trained, "predict", "--model", "models:/reviews/1", "a good film", "what a bad film")


def ask(project: Project, *words: str) -> str:
    done = dlpipe(*words, folder=project.folder, environment=environment())
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check_end(project: Project, asked: list[str], words: list[str], rows: dict[str, dict[str, object]]) -> None:
    """See that nothing is left of some rows, and all of the others."""
    assert search_files(project.folder, [*words, *asked], skip=["reviews.csv"]) == {}
    tables = project.tables
    left = read_table(table_at(str(tables / "reviews"))).to_pylist()
    assert left == [row for row_id, row in rows.items() if row_id not in asked]
    predicted = read_table(table_at(str(tables / "reviews_predictions")), columns=["row_id"])["row_id"].to_pylist()
    assert sorted(predicted) == sorted(row["row_id"] for row in left)
    (first,) = find_rows(table_at(str(tables / "reviews_predictions")), "row_id", predicted[0], columns=["row_id"])
    assert first.version == 0  # that brought it, and not the one that took others out
