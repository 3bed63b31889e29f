"""What is put right before Metaflow reads a command line of a flow."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from projects import FLOWS


@pytest.fixture
def beginnings(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    monkeypatch.syspath_prepend(str(FLOWS))
    import beginnings

    yield beginnings
    sys.modules.pop("beginnings", None)


@pytest.mark.parametrize("command", ["run", "create", "launch"])
def test_runs_are_kept_beside_tables_and_models_and_that_is_said(
    beginnings, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".metaflow").mkdir()
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    beginnings.prepare("TrainFlow", ["train_flow.py", command])
    assert (tmp_path / "project/.metaflow").is_dir()
    assert f"{tmp_path / '.metaflow'} are another project's" in capsys.readouterr().err
    beginnings.prepare("TrainFlow", ["train_flow.py", command])
    assert capsys.readouterr().err == ""


def test_other_commands_and_other_places_are_left_alone(
    beginnings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["card", "list"], ["--datastore-root=/x", "run"], ["--metadata", "service", "run"]):
        beginnings.prepare("TrainFlow", ["train_flow.py", *words])
    assert list(tmp_path.iterdir()) == []


def test_the_run_to_resume_is_a_word_of_its_own(beginnings) -> None:
    assert beginnings.separated(["resume", "--origin-run-id=17"]) == ["resume", "--origin-run-id", "17"]
