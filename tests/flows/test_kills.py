"""Kills: what is lost is at most the epoch that a training was in, and nothing runs on."""

from __future__ import annotations

import re
import signal
import time

import pytest
from projects import Done, Project


def test_killed_training_goes_on_in_its_retry_and_again_in_a_resume(
    project: Project, slow: tuple[str, ...], worse: Done
) -> None:
    with project.running(*slow) as run:
        run.wait_for_checkpoint(attempt=0)
        run.kill_task("train")
        run.wait_for_checkpoint(attempt=1)
        run.kill_task("train")
        failed = run.end()
    assert failed.code == 1
    assert course(failed) == ["epoch 1/4", "going on after epoch 1", "epoch 2/4"]
    resumed = project.flow("resume", "--origin-run-id", failed.run_id)
    assert course(resumed) == ["going on after epoch 2", "epoch 3/4", "epoch 4/4"]
    assert_finished_like(worse, resumed)


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


def assert_finished_like(undisturbed: Done, resumed: Done) -> None:
    assert resumed.code == 0, resumed.said
    assert not resumed.of_task("start") + resumed.of_task("tune")
    assert re.search(r"Cloning previously run task \d+/start/", resumed.said)
    assert re.search(r"Cloning previously run task \d+/tune/", resumed.said)
    assert resumed.weights == undisturbed.weights
    for line in ("data", "model", "registered"):
        assert resumed.summary(line) == undisturbed.summary(line)
    assert resumed.summary("predictions") == "many_predictions@v0, 0 new rows"


def course(done: Done) -> list[str]:
    """Return the epochs that the training said it ended, and from where it went on."""
    return re.findall(r"\] (epoch \d/\d(?=  train_loss)|going on after epoch \d)", done.said)


def test_kill_or_ctrl_c_while_tuning_leaves_no_process(project: Project, quick: tuple[str, ...]) -> None:
    with project.running(*quick) as run:
        run.wait_until(lambda: trials(project), "trial")
        run.kill_task("tune")
        run.wait_for(r"Task is starting \(retry\)")
        run.kill_task("tune")  # the step is tried twice
        killed = run.end()
        # two idle agents of Ray take a minute to end themselves (a time limit inside Ray)
        wait_until_gone(project, but="Agent")
    with project.running("resume", "--origin-run-id", killed.run_id) as run:
        run.wait_until(lambda: trials(project), "trial")
        run.signal(signal.SIGINT)
        stopped = run.end()
        assert stopped.code == 1
        assert "Traceback" not in stopped.said
        wait_until_gone(project)


def test_killed_tuning_runs_no_finished_trial_again(project: Project, quick: tuple[str, ...]) -> None:
    with project.running(*quick, "--trials", "4") as run:
        run.wait_for(r"\] trial \d: ")
        run.kill_task("tune")
        run.wait_for(r"\d of them known")
        before = lines_of_trials(run.said)
        run.wait_until(lambda: len(lines_of_trials(run.said)) == len(before) + 4, "all trials")
        after = lines_of_trials(run.said)[len(before) :]
        run.signal(signal.SIGINT)
        run.end()
    assert before
    assert set(before) <= set(after)
    assert sorted(line.split(":")[0] for line in after) == [f"trial {number}" for number in range(1, 5)]


def lines_of_trials(said: str) -> list[str]:
    return re.findall(r"/tune/\d+ \(pid \d+\)\] (trial \d: .*)", said)


def trials(project: Project) -> list[str]:
    """Return Ray's workers that run a trial."""
    return [command for command in project.processes().values() if "ImplicitFunc" in command]


def wait_until_gone(project: Project, but: str = "nothing") -> None:
    """Fail if a process, but those whose command has ``but`` in it, lives longer than 20 seconds."""
    deadline = time.monotonic() + 20
    while left := [command for command in project.processes().values() if but not in command]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
