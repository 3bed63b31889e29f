"""What a step reports while it runs: the same points at any time, each once, and those of its artifact."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlpipe.bridge.marks import RunMarks
from dlpipe.bridge.points import find_points
from dlpipe.bridge.records import HeldRecord, Metric, RunRecord, find_differences
from dlpipe.bridge.reported import Reported, make_line
from dlpipe.bridge.sampling import Sampler
from dlpipe.bridge.series import INDEXES
from dlpipe.errors import MirrorIncomplete, SettingError
from dlpipe.flows import report_point, reporting

KEY = "Flow/1/train/2/0"
BEGIN, END = 1_000, 9_000


@dataclass(frozen=True)
class Score:
    epoch: int
    loss: float
    scores: dict[str, float] = field(default_factory=dict)
    note: str = "fine"


EPOCHS = [Score(epoch, 1 / epoch, {"f1": epoch / 10, "auc": np.float32(0.5)}) for epoch in (1, 2, 3)]


@pytest.fixture
def marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunMarks:
    """The marks of the run that this process works on a task of."""
    made = RunMarks("Flow/1", tmp_path / "Flow" / "1" / "_bridge")
    made.folder.mkdir(parents=True)
    monkeypatch.setattr(reporting, "_find_task", lambda: KEY)
    monkeypatch.setattr(reporting, "_known", {KEY: made})
    monkeypatch.setattr(reporting, "_counts", type(reporting._counts)())
    return made


def read(marks: RunMarks) -> Reported:
    found = Reported()
    found.add(marks.read_points(KEY))
    return found


def to_metrics(name: str, value: Any, reported: Reported) -> list[Metric]:
    """Return what the artifact ``name`` says when the attempt has ended."""
    found = find_points(name, value, set(reported.taken), reported.names).metrics
    return [Metric(key, number, END, step) for key, number, step in found]


def test_reported_points_are_those_of_the_artifact_with_the_time_at_which_they_were_reported(
    marks: RunMarks,
) -> None:
    for epoch in EPOCHS:
        report_point("epochs", epoch)
    reported = read(marks)
    merged, notes = reported.merge(to_metrics("epochs", EPOCHS, reported), BEGIN)
    assert merged == list(reported.metrics)
    assert notes == []
    assert {(metric.key, metric.step, metric.value) for metric in merged} == {
        (key, step, value) for key, value, step in find_points("epochs", EPOCHS).metrics
    }
    assert all(metric.time not in (BEGIN, END) for metric in merged)


def test_points_of_a_checkpoint_are_older_and_a_number_that_changed_stays_as_it_was_reported(
    marks: RunMarks,
) -> None:
    report_point("epochs", {"epoch": 2, "loss": 0.75})
    reported = read(marks)
    merged, notes = reported.merge(to_metrics("epochs", EPOCHS, reported), BEGIN)
    losses = {metric.step: (metric.value, metric.time) for metric in merged if metric.key == "epochs/loss"}
    assert losses == {1: (1.0, BEGIN), 2: (0.75, reported.metrics[0].time), 3: (1 / 3, END)}
    assert notes == ["epochs/loss: other numbers were reported than the artifact holds"]


def test_of_a_step_that_is_reported_twice_the_first_counts_and_the_artifact_does_not_count_anew(
    marks: RunMarks,
) -> None:
    pairs = [{"epoch": 1, "loss": 3.0}, {"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}]
    for record in pairs:
        report_point("epochs", record)
    reported = read(marks)
    merged, _ = reported.merge(to_metrics("epochs", pairs, reported), BEGIN)
    assert [(metric.step, metric.value) for metric in merged] == [(1, 3.0), (2, 1.0)]


def test_a_torn_line_is_read_when_it_is_whole_and_what_is_no_point_is_left_out(marks: RunMarks) -> None:
    whole = make_line("epochs", {"epoch": 1, "loss": 0.5}, BEGIN)
    reported = Reported()
    for part in (whole[:20], whole[20:-1], whole[-1:]):
        assert reported.metrics == ()
        marks.note_points(KEY, part)
        reported.add(marks.read_points(KEY, reported.read))
    assert reported.metrics == (Metric("epochs/loss", 0.5, BEGIN, 1),)
    odd = [b"[1]", b"{", b"\xff", b"[" * 100_000, b'{"name": 3, "time": 1, "record": {}}', b'{"name": "a"}']
    odd += [
        make_line(name, {"epoch": 1, "loss": 1.0, "api_token": 7}, BEGIN)[:-1] for name in ("_mine", "api_token")
    ]
    odd += [
        make_line("epochs", {"epoch": 1, "api_token": 7}, -3)[:-1],
        make_line("e", {"epoch": 1, "api_token": 7}),
    ]
    marks.note_points(KEY, b"\n".join(odd))
    reported.add(marks.read_points(KEY, reported.read))
    assert len(reported.metrics) == 1


def test_a_million_points_are_some_thousand(marks: RunMarks, monkeypatch: pytest.MonkeyPatch) -> None:
    written = [at for at in range(1_000_000) if reporting._is_due(KEY, "batches")]
    assert written[:1001] == [*range(1000), 1000]
    assert 5_000 < len(written) < 7_000
    monkeypatch.setattr("dlpipe.bridge.reported.MOST_POINTS", 5)
    for step in range(9):
        report_point("others", {"step": step, "loss": 1.0})
    reported = read(marks)
    assert len(reported.metrics) == 5
    assert "were reported: the rest is left out" in reported.merge([], BEGIN)[1][0]


def test_numbers_of_numpy_and_torch_are_numbers_and_the_rest_is_left_out(marks: RunMarks) -> None:
    import torch

    odd = {"nan": float("nan"), "text": "a", "flag": True, "list": [1.0], "none": None}
    report_point("batches", {"step": np.int64(3), "loss": torch.tensor(0.5), "rate": np.float32(0.25), **odd})
    assert {(metric.key, metric.value, metric.step) for metric in read(marks).metrics} == {
        ("batches/loss", 0.5, 3),
        ("batches/rate", 0.25, 3),
    }


@pytest.mark.parametrize("record", [{"loss": 0.5}, {"epoch": "1"}, {"epoch": -1}, {"epoch": 0.5}, {}, 3])
def test_a_record_without_a_place_is_named(record: Any) -> None:
    with pytest.raises(SettingError, match="needs one of epoch, step, iteration, fold in the record"):
        report_point("epochs", record)


def test_outside_a_task_nothing_is_reported_and_both_sides_mean_the_same_names() -> None:
    report_point("epochs", {"epoch": 1, "loss": 0.5})
    assert reporting._find_place() is None
    assert reporting.INDEXES == INDEXES


def test_no_link_leads_what_is_reported_elsewhere_and_a_training_goes_on(marks: RunMarks, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (marks.folder / "points").symlink_to(victim)
    report_point("epochs", {"epoch": 1, "loss": 0.5})
    with pytest.raises(MirrorIncomplete, match="is a link"):
        marks.note_points(KEY, b"x\n")
    assert list(victim.iterdir()) == []
    assert marks.read_points(KEY) == b""
    assert marks.list_reporting() == frozenset()


def test_a_point_that_is_held_at_another_time_is_no_difference() -> None:
    record = RunRecord(
        KEY, None, "train", "FINISHED", 0, 9, metrics=(Metric("loss", 0.5, 7, 1), Metric("f1", 1.0, 7))
    )
    held = HeldRecord(
        "id", None, "train", "FINISHED", 0, 9, {}, frozenset({Metric("loss", 0.5, 3, 1)}), {}, {}, frozenset()
    )
    found = [difference.what for difference in find_differences(record, held)]
    assert [what for what in found if what.startswith("metric")] == ["metric f1"]


def test_samples_of_a_task_count_its_children_and_are_numbered_by_its_age(marks: RunMarks) -> None:
    words = ("step", "train", "--run-id", "1", "--task-id", "2", "--retry-count", "0")
    code = "import os\nif os.fork(): print('forked', flush=True); os.wait()\nheld = b'x' * 2**26\nwhile True: pass"
    task = subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, start_new_session=True, text=True
    )
    try:
        assert task.stdout
        assert task.stdout.readline() == "forked\n"
        for sampler in (Sampler(marks, 0.2), Sampler(marks, 0.2)):  # the second goes on with the first one's
            for _ in range(2):
                sampler.sample()
                time.sleep(0.25)
    finally:
        os.killpg(task.pid, signal.SIGKILL)
        task.wait()
    found = read(marks).metrics
    steps = [metric.step for metric in found if metric.key == "system/memory_mb"]
    assert len(steps) == 4
    assert steps == sorted(steps)
    assert max(metric.value for metric in found if metric.key == "system/memory_mb") > 64
    assert [metric.value > 0 for metric in found if metric.key == "system/cpu_percentage"] == [True, True]


@pytest.mark.parametrize("given", ["often", 0.05, -1, float("nan"), [1]])
def test_an_interval_that_is_none_is_named(given: Any) -> None:
    import metaflow  # noqa: F401  # it loads the plugins itself

    from metaflow_extensions.dlpipe.plugins.mlflow_bridge import BadSetting, read_interval

    with pytest.raises(BadSetting, match="is no number of seconds"):
        read_interval(given)
    assert (read_interval(None), read_interval("1"), read_interval(0.5)) == (0, 1, 0.5)


def test_what_a_task_took_is_read_as_numbers_without_a_place(marks: RunMarks) -> None:
    import metaflow  # noqa: F401  # it loads the plugins itself

    from metaflow_extensions.dlpipe.plugins.mlflow_bridge import note_resources

    assert marks.read_resources(KEY) == b""
    note_resources(str(marks.folder), KEY)
    reported = Reported()
    reported.add_aside(marks.read_resources(KEY))
    found = {metric.key: metric.value for metric in reported.metrics}
    assert found.keys() == {"system/cpu_seconds", "system/peak_memory_mb"}
    assert all(value > 0 for value in found.values())
    assert json.loads(marks.read_resources(KEY))["name"] == "system"


def test_more_series_than_are_shown_take_none_of_the_others_with_them_wherever_a_reading_stops(
    marks: RunMarks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlpipe.bridge.reported.MOST_NAMES", 2)
    lines = [make_line("epochs", {"epoch": at, "loss": at, "f1": at, f"own_{at}": 1}, BEGIN) for at in range(4)]
    whole, parts = Reported(), Reported()
    whole.add(b"".join(lines))
    for line in lines:
        parts.add(line)
    expected = {(key, at) for key in ("epochs/loss", "epochs/f1") for at in range(4)}
    assert {(metric.key, metric.step) for metric in whole.metrics} == expected
    assert parts.metrics == whole.metrics
    assert parts.merge([], BEGIN)[1] == whole.merge([], BEGIN)[1] != []


def test_a_reported_number_that_is_not_finite_is_noted(marks: RunMarks) -> None:
    for epoch, loss in ((1, 0.5), (2, float("nan")), (3, float("-inf"))):
        report_point("epochs", {"epoch": epoch, "loss": loss, "scores": {"f1": np.float32("nan")}})
    reported = read(marks)
    assert [(metric.key, metric.step) for metric in reported.metrics] == [("epochs/loss", 1)]
    assert reported.merge([], BEGIN)[1] == [
        "epochs/scores/f1: 3 of the reported points are not finite",
        "epochs/loss: 2 of the reported points are not finite",
    ]
    with pytest.raises(SettingError, match="needs one of epoch"):
        report_point("epochs", {"epoch": float("nan"), "loss": 1.0})
