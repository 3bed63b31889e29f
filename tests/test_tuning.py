"""Tuning: real searches with Ray Tune on a backbone that trains in a moment."""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from searches import SETTINGS, SPACE, Search, processes_of_ray

from dlpipe.cluster import Cluster, start
from dlpipe.errors import SettingError, TrainingFailed
from dlpipe.tables import TableVersion, read_table, write_table
from dlpipe.task import Chance, find_task
from dlpipe.task.texts import TextTraining
from dlpipe.training import EpochScore, FolderCheckpoints
from dlpipe.tuning import Choices, Range, Trial, Tuned, TuningSettings, read_space, tune
from dlpipe.tuning.judging import judge_trials
from dlpipe.tuning.search import MAX_DEATHS

pytestmark = pytest.mark.slow


def test_search_tries_the_settings_as_they_stand_first(search: Search, tiny_settings: TextTraining) -> None:
    assert [trial.number for trial in search.tuned.trials] == [0, 1, 2, 3]
    first = search.tuned.trials[0]
    assert first.values == {"learning_rate": tiny_settings.learning_rate, "batch_size": tiny_settings.batch_size}
    assert all(trial.values[name] in spec for trial in search.tuned.trials for name, spec in SPACE.items())
    assert len({trial.values["learning_rate"] for trial in search.tuned.trials}) == 4


def test_best_values_feed_the_training(search: Search, tiny_settings: TextTraining) -> None:
    best = max(search.tuned.trials, key=lambda trial: trial.score)
    applied = search.tuned.apply(tiny_settings)
    assert search.tuned.best == best.values, search.tuned.note
    assert (applied.learning_rate, applied.batch_size) == (best.values["learning_rate"], best.values["batch_size"])
    assert (applied.epochs, applied.backbone) == (tiny_settings.epochs, tiny_settings.backbone)


def test_search_says_a_line_a_trial(search: Search) -> None:
    assert search.lines[0].startswith("4 trials, ")
    assert sorted(line.split(":")[0] for line in search.lines[1:-1]) == [f"trial {n}" for n in range(1, 5)]
    assert all("val_f1" in line for line in search.lines[1:-1])
    assert search.lines[-1] == f"search: {search.tuned.note}"


def test_trials_are_stopped_by_the_best_of_the_earlier_batches_alone(search: Search) -> None:
    trials, batch = search.tuned.trials, SETTINGS.batch
    for trial in trials:
        earlier = sorted(other.scores[0].score for other in trials[: trial.number // batch * batch])
        middle = (earlier[(len(earlier) - 1) // 2] + earlier[len(earlier) // 2]) / 2 if earlier else -math.inf
        assert len(trial.scores) == (1 if trial.scores[0].score < middle else 2)


def test_search_leaves_no_process_and_sends_no_statistics(search: Search) -> None:
    from ray._common.usage import usage_lib

    assert search.left == []
    assert not usage_lib.usage_stats_enabled()


def test_when_all_trials_fail_the_first_error_is_said(
    tiny_table: TableVersion, tiny_settings: TextTraining, tmp_path: Path
) -> None:
    others = processes_of_ray()
    with pytest.raises(TrainingFailed, match="all 1 trials failed; the first with: BackboneNotFound: backbone"):
        tune(
            tiny_table,
            space=SPACE,
            settings=replace(SETTINGS, trials=1),
            training=replace(tiny_settings, backbone=str(tmp_path)),
        )
    assert processes_of_ray() == others


# -- searches that share one Ray; those above start it themselves -------------------------------------------------


@pytest.fixture(scope="module")
def here() -> Iterator[Cluster]:
    """Ray on this machine, with a place for two trials at a time."""
    with start(2) as started:
        yield started


def one_place(cluster: Cluster) -> Cluster:
    """Return the cluster as one where trials run one after the other, in the same process."""
    return replace(cluster, node_cores=(1,))


def test_trials_that_need_not_wait_for_each_other_give_the_same_however_many_run_at_once(
    here: Cluster, tiny_table: TableVersion, tiny_settings: TextTraining
) -> None:
    given = {"space": SPACE, "settings": replace(SETTINGS, trials=3, epochs=1), "training": tiny_settings}
    lines: list[str] = []
    first, again = (
        tune(tiny_table, cluster=cluster, say=lines.append, **given) for cluster in (here, one_place(here))
    )
    assert [line for line in lines if line.startswith("3 trials, ")] == [
        f"3 trials, {places} at a time with 1 threads each" for places in (2, 1)
    ]
    assert [(trial.values, trial.score) for trial in first.trials] == [
        (trial.values, trial.score) for trial in again.trials
    ]
    assert first.best == again.best


def test_a_failed_trial_is_a_result_and_not_the_end(
    here: Cluster, tiny_table: TableVersion, tiny_settings: TextTraining, tmp_path: Path
) -> None:
    lines: list[str] = []
    tuned = tune(
        tiny_table,
        space={"backbone": Choices((str(tmp_path), tiny_settings.backbone))},
        settings=TuningSettings(trials=4),
        training=replace(tiny_settings, backbone=str(tmp_path)),
        say=lines.append,
        cluster=one_place(here),
    )
    assert tuned.best == {"backbone": tiny_settings.backbone}
    failed = tuned.trials[0]
    assert (failed.score, failed.scores) == (-math.inf, ())
    assert failed.error is not None
    assert failed.error.startswith(f"BackboneNotFound: backbone '{tmp_path}' has no config.json")
    assert f"trial 1: backbone {tmp_path}: failed: {failed.error}" in lines


def test_a_trial_whose_process_dies_is_tried_again_and_in_the_end_a_result(
    here: Cluster, tiny_table: TableVersion, tiny_settings: TextTraining, tmp_path: Path
) -> None:
    from ray.tune import Callback

    table = write_table(str(tmp_path / "reviews"), read_table(tiny_table))
    backbone = tmp_path / "backbone"
    shutil.copytree(tiny_settings.backbone, backbone)
    kept = FolderCheckpoints(tmp_path / "kept")
    deaths: list[int] = []
    wanted = {0: 1, 1: MAX_DEATHS + 1}

    class Killer(Callback):
        """Takes away what no trial needs; kills the first trial's process once, the second one's always."""

        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            if backbone.exists():
                self.numbers = {made.trial_id: number for number, made in enumerate(trials)}
                backbone.rename(tmp_path / "away")
                Path(table.path).rename(tmp_path / "gone")

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
        ) -> None:
            number = self.numbers.setdefault(trial.trial_id, len(self.numbers))
            if result["epoch"] == 2 and deaths.count(number) < wanted.get(number, 0):
                deaths.append(number)
                os.kill(result["pid"], signal.SIGKILL)

    def search(cluster: Cluster, *callbacks: Callback) -> Tuned:
        return tune(
            table,
            space={"learning_rate": Range(1e-3, 1e-2)},
            settings=TuningSettings(trials=3, epochs=3, grace_epochs=3, searcher="random"),
            training=replace(tiny_settings, strategy="freeze", backbone=str(backbone)),
            say=lines.append,
            callbacks=callbacks,
            checkpoints=kept,
            cluster=cluster,
        )

    lines: list[str] = []
    tuned = search(here, Killer())
    assert {number: deaths.count(number) for number in wanted} == wanted
    assert [trial.number for trial in tuned.trials] == [0, 1, 2]
    assert [[score.epoch for score in trial.scores] for trial in tuned.trials] == [[1, 2, 3], [1, 2], [1, 2, 3]]
    first, second, third = (trial.error for trial in tuned.trials)
    assert (first, third) == (None, None)
    assert second is not None
    assert second.startswith("the process of the trial ended: ")
    (tmp_path / "gone").rename(table.path)
    assert search(one_place(here)) == tuned  # the same to the last digit of the seconds: nothing was trained again
    assert lines[5] == lines[0].replace("2 at a time", "1 at a time") + ", 3 of them known"
    assert sorted(lines[6:]) == sorted(lines[1:5])


@pytest.mark.long
def test_a_search_killed_in_an_odd_temporary_folder_ends_like_an_undisturbed_one_and_repeats_no_finished_trial(
    search: Search, here: Cluster, tiny_table: TableVersion, tiny_settings: TextTraining, tmp_path: Path
) -> None:
    program = """
        import sys, pickle
        from pathlib import Path
        from dlpipe.training import FolderCheckpoints
        from dlpipe.tuning import tune
        table, space, settings, training = pickle.loads(Path(sys.argv[1]).read_bytes())
        kept = FolderCheckpoints(Path(sys.argv[2]))
        tune(table, space=space, settings=settings, training=training, checkpoints=kept)
    """
    kept = FolderCheckpoints(tmp_path / "kept")
    (tmp_path / "given").write_bytes(pickle.dumps((tiny_table, SPACE, SETTINGS, tiny_settings)))
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "given"), str(tmp_path / "kept")]
    long = tmp_path / ("grün & weiß " * 9)  # no socket of Ray's could have such a name
    long.mkdir()
    with subprocess.Popen(command, env={**os.environ, "TMPDIR": str(long)}, start_new_session=True) as process:
        while not kept.latest():
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    latest = kept.latest()
    assert latest
    recorded = json.loads((latest / "trials.json").read_text())
    assert 0 < len(recorded) < 4
    lines: list[str] = []
    settings = {"space": SPACE, "settings": SETTINGS, "training": tiny_settings, "checkpoints": kept}
    tuned = tune(tiny_table, say=lines.append, cluster=one_place(here), **settings)
    assert lines[0].endswith(f", {len(recorded)} of them known")
    for record in recorded:
        assert [score.to_record() for score in tuned.trials[record["number"]].scores] == record["scores"]
    assert tuned.best == search.tuned.best
    assert [(trial.values, trial.score) for trial in tuned.trials] == [
        (trial.values, trial.score) for trial in search.tuned.trials
    ]


def chance(rows: Sequence[int]) -> Chance:
    """Return what guessing gives on so many rows of each class."""
    return find_task().target.measure_chance(np.repeat(np.arange(len(rows)), rows))


def tried(*scores: float, **more: Any) -> list[Trial]:
    """Return trials of these scores; the first is that of the settings as they stand."""
    epochs = [(EpochScore(1, 0.0, {"val_loss": 0.0, "val_f1": score}, "val_f1", 0.0, 0.0),) for score in scores]
    return [Trial(number, {"dropout": number / 10}, scores_of, None) for number, scores_of in enumerate(epochs)]


@pytest.mark.parametrize(
    ("scores", "rows", "kept", "note"),
    [
        ((0.52, 0.55, 0.58, 0.51), (147, 147), True, "kept: trial 3 is 0.060 better, and chance alone gives 0.08"),
        ((0.52, 0.55, 0.70, 0.51), (147, 147), False, "trial 3 is 0.180 better than the settings as they stand"),
        ((0.48, 0.52, 0.51), (147, 147), True, "no trial is better than guessing, whose macro F1 is 0.500"),
        ((0.17, 0.31), (50,) * 6, False, "trial 2 is 0.140 better"),
        ((0.17, 0.20), (50,) * 6, True, "no trial is better than guessing, whose macro F1 is 0.167"),
        ((0.80, 0.95), (297, 3), True, "chance alone gives 0.2"),  # three rows of a class say nothing
        ((0.90, 0.80), (147, 147), True, "the settings as they stand (trial 1) are the best of 2"),
    ],
)
def test_a_search_that_finds_no_more_than_chance_keeps_the_settings_and_says_so(
    scores: tuple[float, ...], rows: tuple[int, ...], kept: bool, note: str
) -> None:
    found = judge_trials(tried(*scores), {"dropout": 0.0}, chance=chance(rows), confidence=0.95)
    assert (found.values == {"dropout": 0.0}) is kept
    assert note in found.note
    best = max(range(len(scores)), key=scores.__getitem__)
    assert judge_trials(tried(*scores), {"dropout": 0.0}, chance=chance(rows), confidence=0).values == {
        "dropout": best / 10
    }


def test_settings_outside_the_space_are_not_gone_back_to() -> None:
    found = judge_trials(tried(0.84, 0.85), {"dropout": 0.7}, chance=chance((150, 150)), confidence=0.95)
    assert found.values == {"dropout": 0.1}
    assert "trial 2 is the best, but the trials do not differ: they lie 0.010 apart" in found.note


def test_a_relative_range_follows_the_strategy_and_the_option() -> None:
    toml = tomllib.loads("learning_rate = { low = 0.5, high = 2.5, log = true, relative = true }")
    for training, expected in (
        (TextTraining(), Range(1e-4, 5e-4, log=True)),
        (TextTraining(strategy="freeze"), Range(5e-3, 2.5e-2, log=True)),
        (TextTraining(learning_rate=1e-3), Range(5e-4, 2.5e-3, log=True)),
    ):
        assert read_space(toml, where="[search_space]", training=training) == {"learning_rate": expected}
    for wrong in ({"backbone": {"low": 1, "high": 2, "relative": True}}, {"epochs": {"low": 1, "relative": True}}):
        with pytest.raises(SettingError, match=r"\[search_space\] (backbone|epochs)"):
            read_space(wrong, where="[search_space]")


def test_no_trials_or_no_space_is_no_search_and_no_ray(tiny_table: TableVersion) -> None:
    program = """
        import sys
        from dlpipe.tuning import Choices, Tuned, TuningSettings, tune
        from dlpipe.task.texts import TextTraining
        for trials, space in ((0, {"seed": Choices((1,))}), (3, {})):
            found = tune(None, space=space, settings=TuningSettings(trials=trials), training=TextTraining())
            assert found == Tuned((), {}) and found.apply(TextTraining()) == TextTraining()
        assert not {"ray", "optuna", "torch"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", "if True:" + program], check=True)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 0, 3, 2)])
def test_asha_decides_the_same_whichever_trial_reports_first(order: tuple[int, ...]) -> None:
    from ray.tune.schedulers import TrialScheduler

    from dlpipe.tuning.asha import BatchedASHA

    scheduler = BatchedASHA(TuningSettings(epochs=4, batch=2), "val_f1")
    trials = [SimpleNamespace(trial_id=f"t{number}") for number in range(4)]
    for trial in trials:
        scheduler.on_trial_add(None, trial)
    scores = [0.6, 0.8, 0.65, 0.75]
    decided = {
        number: scheduler.on_trial_result(None, trials[number], {"epoch": 1, "val_f1": scores[number]})
        for number in order
    }
    go, stop = TrialScheduler.CONTINUE, TrialScheduler.STOP
    assert [decided[number] for number in range(4)] == [go, go, stop, go]
    assert scheduler.on_trial_result(None, trials[3], {"epoch": 3, "val_f1": 0.0}) == go  # no rung


def test_space_of_a_settings_file_is_read() -> None:
    assert {"learning_rate": Range(1e-5, 1e-2, log=True), "batch_size": Choices((16, 32))} == SPACE


@pytest.mark.parametrize(
    ("toml", "space"),
    [
        ("batch_size = { low = 8.0, high = 64 }", {"batch_size": Range(8, 64)}),
        ("weight_decay = { low = 0, high = 1 }", {"weight_decay": Range(0.0, 1.0)}),
        ("learning_rate = { choices = [1, 1e-3] }", {"learning_rate": Choices((1.0, 1e-3))}),
    ],
)
def test_values_are_drawn_as_the_setting_takes_them(toml: str, space: dict[str, object]) -> None:
    assert repr(read_space(tomllib.loads(toml), where="[search_space]")) == repr(space)


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("learning_rat = { low = 1e-5, high = 1e-3 }", "no setting 'learning_rat'; did you mean 'learning_rate'"),
        ("learning_rate = { lo = 1e-5, high = 1e-3 }", "no setting 'lo'; did you mean 'low'"),
        ("learning_rate = { low = 1e-3, high = 1e-3 }", "low .* must be below high"),
        ("learning_rate = { low = 0, high = 1e-3, log = true }", "above 0 with log"),
        ("learning_rate = { low = 1e-5, high = 3 }", "learning_rate = 3 is refused"),
        ("learning_rate = { low = 1e-5 }", "high .* required"),
        ("batch_size = { low = 8.5, high = 64 }", "batch_size = 8.5 is refused"),
        ("batch_size = { choices = [] }", "at least 1 item"),
        ("batch_size = { choices = [16, 0] }", "batch_size = 0 is refused"),
        ("batch_size = { choices = 16 }", "choices = 16 is refused"),
        ("batch_size = 16", "batch_size = 16; write { low = ..., high = ... } or { choices"),
    ],
)
def test_a_search_space_that_cannot_be_searched_says_why(toml: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        read_space(tomllib.loads(toml), where="[search_space]")
