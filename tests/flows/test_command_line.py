"""What is put right before Metaflow reads a command line of a flow."""

from __future__ import annotations

from pathlib import Path

import metaflow.cli  # it loads the plugins itself
import pytest

from dlpipe.errors import RunNotFound, SettingError
from dlpipe.flows.command_line import prepare, separate_origin
from metaflow_extensions.dlpipe.plugins import launch_check


@pytest.mark.parametrize("command", ["run", "create", "launch"])
def test_runs_are_kept_beside_tables_and_models_and_that_is_said(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".metaflow").mkdir()
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    prepare("TrainFlow", ["train_flow.py", command])
    assert (tmp_path / "project/.metaflow").is_dir()
    assert f"{tmp_path / '.metaflow'} are another project's" in capsys.readouterr().err
    prepare("TrainFlow", ["train_flow.py", command])
    assert capsys.readouterr().err == ""


def test_other_commands_and_other_places_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["card", "list"], ["--datastore-root=/x", "run"], ["--metadata", "service", "run"]):
        prepare("TrainFlow", ["train_flow.py", *words])
    assert list(tmp_path.iterdir()) == []


def test_the_run_to_resume_is_a_word_of_its_own() -> None:
    assert separate_origin(["resume", "--origin-run-id=17"]) == ["resume", "--origin-run-id", "17"]


def test_settings_that_are_changed_one_by_one_are_one_value() -> None:
    words = ["train_flow.py", "run", "--set", "training.warmup=0.2", "--set=gate.metric=macro_f1"]
    prepare("TrainFlow", words)
    assert words[2:] == ["--set", "training.warmup=0.2; gate.metric=macro_f1"]
    words = ["train_flow.py", "--datastore", "s3", "argo-workflows", "trigger", "--set"]
    prepare("TrainFlow", words)
    assert words[-1] == "--set"


def test_an_empty_run_to_resume_is_one_line() -> None:
    for words in (["resume", "--origin-run-id", ""], ["resume", "--origin-run-id="]):
        with pytest.raises(RunNotFound, match="is empty"):
            prepare("TrainFlow", words)


def test_metaflow_prints_a_glob_with_its_asterisk(capsys: pytest.CaptureFixture[str]) -> None:
    launch_check.keep_asterisks()
    metaflow.cli.print_metaflow_exception(launch_check.CannotBegin("a glob such as 'data/*.csv'"))
    assert "a glob such as 'data/*.csv'" in capsys.readouterr().err


@pytest.mark.parametrize("limit", ["max_workers", "max_num_splits", "max_log_size"])
def test_a_limit_of_nothing_is_refused_before_a_run(limit: str) -> None:
    with pytest.raises(SettingError, match="0 is too low: give 1 or more"):
        launch_check.check_limits({"max_workers": 16, limit: 0})
