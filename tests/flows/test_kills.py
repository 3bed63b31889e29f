"""Kills: what is lost is at most the epoch that a training was in, and nothing runs on."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Collection
from dataclasses import replace

import pytest
from projects import Done, Project

from dlpipe.evaluation import evaluate_model
from dlpipe.tables import table_at
from dlpipe.task import open_predictor
from dlpipe.training import fit


def test_killed_training_goes_on_in_its_retry_and_again_in_a_resume(
    project: Project, killed: Done, worse: Done
) -> None:
    assert killed.code == 1
    assert course(killed) == ["epoch 1/4", "going on after epoch 1", "epoch 2/4"]
    assert course(worse) == ["going on after epoch 2", "epoch 3/4", "epoch 4/4"]
    assert_repeats_no_step(worse)
    used = project.run(worse.run_id).data.training
    settings, table = replace(used, backbone=str(project.folder / used.backbone)), project.tables / "many"
    undisturbed = fit(table_at(table), settings=settings, say=None).model
    assert worse.weights == undisturbed.digest
    scored = evaluate_model(open_predictor(undisturbed), table_at(table), seed=used.seed)
    assert worse.summary("model") == f"{scored.line()}, {scored.line('macro_f1')}"


def test_runs_are_compared_with_what_they_reached(
    project: Project, first: Done, killed: Done, worse: Done
) -> None:
    compare = ("-m", "dlpipe.cli", "compare", first.run_id)
    done = project.each(
        {
            "killed": (*compare, killed.run_id, "--json"),
            "worse": (*compare, f"TrainFlow/{worse.run_id}", "--table", "reviews", "--json"),
        }
    )
    assert {name: one.code for name, one in done.items()} == {"killed": 0, "worse": 0}, done
    found = json.loads(done["killed"].said)
    good, bad = found["sides"]
    assert (good["status"], bad["scores"], bad["model"]) == ("finished", {}, None)
    assert bad["status"] in ("killed", "failed")
    assert bad["notes"][-1].endswith("it had finished start, tune")
    assert found["settings"]["training/learning_rate"][1] == "1e-06"
    assert bad["epochs"] in (1, 2)  # killed about when the second one ended
    assert found["pairs"][0]["problem"].startswith(
        f"TrainFlow/{killed.run_id} has no model here: it registered none"
    )
    found = json.loads(done["worse"].said)
    both = [project.run(one.run_id).data for one in (first, worse)]
    for side, data in zip(found["sides"], both, strict=True):
        accuracy = side["scores"]["accuracy"]
        assert [accuracy["value"], accuracy["low"], accuracy["high"]] == [
            data.evaluation.metrics["accuracy"],
            *data.evaluation.intervals["accuracy"],
        ]
        assert (side["epochs"], side["best_epoch"]) == (len(data.epoch_scores), data.best_epoch)
        losses = [[score.epoch, score.scores["val_loss"]] for score in data.epoch_scores]
        assert side["curves"]["epoch_scores/val_loss"] == losses
    pair = found["pairs"][0]["comparison"]
    assert pair["metrics"]["accuracy"]["verdict"] == "worse"
    assert pair["lost"] > pair["won"]


@pytest.mark.chaos  # `make test` has no room for two more minutes
def test_killed_run_goes_on_in_a_resume_of_a_killed_resume(
    project: Project, slow: tuple[str, ...], worse: Done
) -> None:
    with project.running(*slow) as run:
        run.wait_for_checkpoint(attempt=0)
        run.signal(signal.SIGKILL)
        killed = run.end()
    assert course(killed) == ["epoch 1/4"]
    with project.running("resume", "--origin-run-id", killed.run_id) as run:
        run.wait_for(r"/train/\d+ \(pid \d+\)\] Task is starting")
        run.signal(signal.SIGKILL)
        halfway = run.end()
    resumed = project.flow("resume", "--origin-run-id", halfway.run_id)
    assert course(resumed) == ["going on after epoch 1", "epoch 2/4", "epoch 3/4", "epoch 4/4"]
    assert_finished_like(worse, resumed)


def assert_repeats_no_step(resumed: Done) -> None:
    assert resumed.code == 0, resumed.said
    assert not resumed.of_task("start") + resumed.of_task("tune")
    assert re.search(r"Cloning previously run task \d+/start/", resumed.said)
    assert re.search(r"Cloning previously run task \d+/tune/", resumed.said)


def assert_finished_like(undisturbed: Done, resumed: Done) -> None:
    assert_repeats_no_step(resumed)
    assert resumed.weights == undisturbed.weights
    for line in ("data", "model", "registered"):
        assert resumed.summary(line) == undisturbed.summary(line)
    assert resumed.summary("predictions") == "many_predictions@v0, 0 new rows"


def course(done: Done) -> list[str]:
    """Return the epochs that the training said it ended, and from where it went on."""
    return re.findall(r"\] (epoch \d/\d(?=  train_loss)|going on after epoch \d)", done.said)


@pytest.mark.long
def test_killed_tuning_runs_no_finished_trial_again_and_neither_kill_nor_ctrl_c_leaves_a_process(
    project: Project, quick: tuple[str, ...]
) -> None:
    with project.running(*quick, "--trials", "4") as run:
        run.wait_for(r"\] trial \d: ")
        run.wait_until(lambda: trials(project), "trial")
        killed, beside = run.task("tune"), project.processes()
        tuning = {pid for pid, command in beside.items() if pid != run.process.pid and "follow" not in command}
        # two idle agents of Ray take a minute to end themselves (a time limit inside Ray)
        agents = {pid for pid in tuning if "Agent" in beside[pid]}
        run.kill_task("tune")
        wait_until_gone(project, among=tuning - agents)
        finished = lines_of_trials(run.said, of=killed)
        run.wait_for(rf"\b{len(finished)} of them known")
        again = run.task("tune")
        run.wait_until(lambda: set(finished) <= set(lines_of_trials(run.said, of=again)), "finished trials")
        run.wait_until(lambda: trials(project), "trial")
        run.signal(signal.SIGINT)
        stopped = run.end()
        wait_until_gone(project, but=agents)
    assert stopped.code == 1
    assert "Traceback" not in stopped.said
    names = [line.partition(":")[0] for line in lines_of_trials(stopped.said, of=again)]
    assert len(set(names)) == len(names)


def lines_of_trials(said: str, *, of: int) -> list[str]:
    """Return what the process ``of`` said of finished trials."""
    return re.findall(rf"/tune/\d+ \(pid {of}\)\] (trial \d: .*)", said)


def trials(project: Project) -> list[str]:
    """Return Ray's workers that run a trial."""
    return [command for command in project.processes().values() if "ImplicitFunc" in command]


def wait_until_gone(project: Project, *, among: Collection[int] | None = None, but: Collection[int] = ()) -> None:
    """Fail if a process, but some or of some, lives longer than 20 seconds."""
    deadline = time.monotonic() + 20
    while left := {
        pid: command
        for pid, command in project.processes().items()
        if pid not in but and (among is None or pid in among)
    }:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
