"""The files that the bridge keeps beside a run: written where they belong, whatever stands there."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from dlpipe.bridge import marks, where
from dlpipe.bridge.marks import RunMarks
from dlpipe.bridge.runs import MetaflowRun
from dlpipe.errors import MirrorIncomplete, RunNotFound

KEPT = '{"run_id": "kept"}'


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder of somebody else, with files of the names that the bridge uses."""
    folder = tmp_path / "victim"
    folder.mkdir()
    for name in ("mlflow.json", "writer", "launcher", "behind.json", "uncommitted.diff"):
        (folder / name).write_text(KEPT)
    return folder


@pytest.fixture(params=["run", "_bridge", "each file"])
def mark(request: pytest.FixtureRequest, tmp_path: Path, victim: Path) -> RunMarks:
    """The marks of a run that lead to the victim by a link."""
    run = tmp_path / "Flow" / "1"
    run.parent.mkdir()
    if request.param == "run":
        victim.rename(tmp_path / "_bridge")
        victim.mkdir()
        (tmp_path / "_bridge").rename(victim / "_bridge")
        run.symlink_to(victim)
    elif request.param == "_bridge":
        run.mkdir()
        (run / "_bridge").symlink_to(victim)
    else:
        (run / "_bridge").mkdir(parents=True)
        for file in victim.iterdir():
            (run / "_bridge" / file.name).symlink_to(file)
        for name in ("uses", "mirror.lock"):
            (run / "_bridge" / name).symlink_to(victim / f"{name}.made")
    return RunMarks("Flow/1", run / "_bridge")


def test_no_link_leads_the_marks_of_a_run_elsewhere(mark: RunMarks, victim: Path) -> None:
    for write in (
        mark.hold,
        lambda: mark.note_where({"run_id": "new"}),
        lambda: mark.take_over("me"),
        lambda: mark.note_uses("step/1/0"),
        lambda: mark.mirror_lock().__enter__(),
    ):
        with pytest.raises(MirrorIncomplete, match="is a link"):
            write()
    mark.set_behind("no answer")
    assert mark.where() == {}
    assert mark.diff() == b""
    assert mark.uses() == frozenset()
    found = [path for path in victim.rglob("*") if path.is_file()]
    assert len(found) == 5
    assert {path.read_text() for path in found} == {KEPT}


def test_a_launcher_killed_while_it_leaves_its_marks_has_not_said_that_mlflow_has_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    mark = RunMarks("Flow/1", tmp_path / "Flow" / "1" / "_bridge")
    monkeypatch.setattr(marks, "write_file", killed)
    with pytest.raises(KeyboardInterrupt):
        mark.hold()
    assert mark.launcher() == "unknown"
    monkeypatch.undo()
    # its own name for the module: files are locked while they are written, too
    monkeypatch.setattr(marks, "fcntl", SimpleNamespace(**{**vars(fcntl), "flock": killed}))
    with pytest.raises(KeyboardInterrupt):
        mark.hold()
    assert mark.behind()


def test_a_run_without_a_task_is_read_when_its_launcher_has_gone_or_it_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from metaflow.plugins.datastores.local_storage import LocalStorage

    monkeypatch.setattr(LocalStorage, "datastore_root", str(tmp_path))
    now = time.time_ns() // 1000
    young, old = now, now - 31_000_000
    for number in (young, old):
        folder = tmp_path / "Flow" / str(number) / "_meta"
        folder.mkdir(parents=True)
        said = {"run_number": str(number), "flow_id": "Flow", "ts_epoch": number // 1000}
        (folder / "_self.json").write_text(json.dumps(said))
    with pytest.raises(RunNotFound, match="has only just begun"):  # its first task says when it began
        MetaflowRun(f"Flow/{young}").read()
    assert MetaflowRun(f"Flow/{old}").read().status == "KILLED"
    held = marks.find_marks(f"Flow/{young}").hold()
    with pytest.raises(RunNotFound, match="has only just begun"):
        MetaflowRun(f"Flow/{young}").read()
    held.close()
    assert MetaflowRun(f"Flow/{young}").read().status == "KILLED"


def test_a_pipe_among_the_marks_holds_nobody_up(tmp_path: Path) -> None:
    mark = RunMarks("Flow/1", tmp_path / "_bridge")
    mark.folder.mkdir()
    for name in ("launcher", "mlflow.json", "uncommitted.diff"):
        os.mkfifo(mark.folder / name)
    assert mark.launcher() == "unknown"
    assert mark.where() == {}
    assert mark.diff() == b""


@pytest.mark.parametrize("given", ["", "/", "Flow/", "/1"])
def test_where_wants_a_run(given: str) -> None:
    with pytest.raises(RunNotFound, match="is no run"):
        where(given)


def test_a_mark_that_is_nested_without_end_is_none(tmp_path: Path) -> None:
    mark = RunMarks("Flow/1", tmp_path)
    for name in ("mlflow.json", "behind.json"):
        (tmp_path / name).write_text("[" * 100_000)
    assert mark.where() == {}
    assert mark.problem() == "unknown"
