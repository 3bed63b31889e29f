"""`dlpipe reproduce` before it trains."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from made_up_lineage import History
from stores import untouched_environment

from dlpipe.cli import main


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "Name a model, or pass --all."),
        (["--all", "reviews"], "Name a model or pass --all, not both."),
    ],
)
def test_a_model_or_all_is_asked_for(words: list[str], problem: str) -> None:
    done = CliRunner().invoke(main, ["reproduce", *words])
    assert (done.exit_code, problem in done.stderr) == (2, True)


def test_of_a_pipeline_the_first_line_says_which_version_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with untouched_environment():
        history = History(tmp_path)
        history.register("TrainFlow/17", history.ingest("TrainFlow/17"))
        done, plain = (
            CliRunner().invoke(main, ["reproduce", f"{name}/1"]) for name in ("reviews-pipeline", "reviews")
        )
    told = "models:/reviews-pipeline/1 is made from models:/reviews/1, which is trained again"
    assert done.stderr.splitlines()[0].strip() == told
    assert "is made from" not in plain.stderr
