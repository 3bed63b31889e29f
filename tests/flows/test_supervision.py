"""Runs of a deployed flow whose scheduler, keeper, launcher or tasks are killed, or which fail in several ways."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from projects import environment

from dlpipe.orchestrator.attempts import build_environment, describe_triggers, make_attempt
from dlpipe.orchestrator.ends import compute_backoff
from dlpipe.orchestrator.findings import judge
from dlpipe.orchestrator.interventions import stop, suspend_run
from dlpipe.orchestrator.keeper import find_processes
from dlpipe.orchestrator.processes import LauncherEnd, read_end
from dlpipe.orchestrator.runs import OPEN, Run
from dlpipe.orchestrator.scheduler import Scheduler
from dlpipe.orchestrator.state import State
from dlpipe.orchestrator.supervision import Supervisor

SHAPES = Path(__file__).with_name("shapes")
PATIENCE = 120.0
STEP_TIMES_OUT = """
import time
from metaflow.plugins.timeout_decorator import TimeoutDecorator
limit = TimeoutDecorator(attributes={"seconds": 1})
limit.init()
limit.logger = print
limit.task_pre_step("work", *[None] * 6, 0, 0, None, None)
time.sleep(30)
"""
HANG = "time.sleep(600)"
in_make_chaos = pytest.mark.chaos
"""`make test` has no room for these minutes; tests/chaos/scheduler.py does the same to many runs at a time."""


@dataclass(frozen=True)
class Production:
    """A folder in which flows are deployed and run, with a state of its own."""

    folder: Path
    state: State

    def deploy(self, flow: str, *words: str) -> None:
        done = subprocess.run(
            [sys.executable, flow, "--no-pylint", "local-scheduler", "create", "--backoff", "0.2s", *words],
            cwd=self.folder,
            env=environment({"DLPIPE_STATE": str(self.state.folder), "METAFLOW_USER": "tester"}),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def add(self, orders: str = "", deployment: str = "SteadyFlow") -> Run:
        """Return a new run whose step ``work`` does as ordered."""
        name = f"{uuid.uuid4()}.orders"
        (self.folder / name).write_text(orders)
        parameters = {"orders": name, "number": 21} if deployment == "SteadyFlow" else {}
        run, _ = self.state.add_run(
            deployment, cause="by hand", key=f"manual:{name}", due=time.time(), parameters=parameters
        )
        return run

    def order(self, run: Run, orders: str) -> None:
        (self.folder / run.parameters["orders"]).write_text(orders)

    def notes(self, run: Run) -> list[str]:
        """Return the steps that began or ended, in order."""
        file = self.folder / f"{run.number}.notes"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line.rpartition(" ")[0] for line in lines]

    def until(self, run: Run, seen: Callable[[Run], object]) -> Run:
        """Be the scheduler until a run is as wanted."""
        deadline = time.monotonic() + PATIENCE
        with Supervisor(self.state) as supervisor:
            while not seen(found := self.state.get_run(run.number)):
                assert time.monotonic() < deadline, found
                if found.status == "queued" or (found.status == "waiting" and found.not_before <= time.time()):
                    supervisor.start(run.number, time.time())
                supervisor.reconcile(time.time())
                time.sleep(0.05)
        return found

    def to_the_end(self, run: Run) -> Run:
        return self.until(run, lambda one: one.status in ("succeeded", "failed", "terminated"))

    def to_work(self, run: Run) -> Run:
        """Be the scheduler until the last attempt's step ``work`` has begun."""
        return self.until(run, lambda one: one.attempts and self.notes(run)[-1:] == ["work begins"])

    def processes(self, run: Run) -> list[int]:
        return find_processes(self.state.get_run(run.number).attempts[-1].token)

    def kill_all(self, run: Run) -> None:
        """Kill what a run is made of, as a power loss does."""
        attempt = self.state.get_run(run.number).attempts[-1]
        for pid in [keeper_of(attempt.token), *find_processes(attempt.token)]:
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    folder = tmp_path_factory.mktemp("production")
    for name in ("steady_flow.py", "epochs_flow.py"):
        shutil.copy(SHAPES / name, folder)
    state = State.open(folder / "state")
    made = Production(folder, state)
    made.deploy("steady_flow.py", "--resumes", "2")
    yield made
    for run in state.list_runs(status=["running"]):
        stop(state, run, time.time())
    state.close()


def test_run_ends_once_and_its_end_is_an_event(production: Production) -> None:
    run = production.to_the_end(production.add())
    (attempt,) = run.attempts
    assert (run.status, attempt.outcome, attempt.exit_code) == ("succeeded", "succeeded", 0)
    assert production.notes(run) == ["start begins", "work begins", "work ends", "end begins"]
    event = production.state.list_events_after(0)[-1][1]
    assert event.name == "metaflow.SteadyFlow.end"
    assert event.payload["pathspec"] == f"SteadyFlow/{attempt.metaflow_run}/end/3"
    assert Path(attempt.folder, "log").read_text().endswith("Done!\n")


def test_exit_hooks_are_called_at_the_end_of_the_run_and_not_of_each_attempt(production: Production) -> None:
    shutil.copy(SHAPES / "hooked_flow.py", production.folder)
    production.deploy("hooked_flow.py")
    run = production.add(deployment="HookedFlow")
    scheduler, deadline = Scheduler(production.state, max_runs=1), time.monotonic() + PATIENCE
    while production.state.get_run(run.number).status in OPEN or production.state.list_hooks():
        assert time.monotonic() < deadline
        scheduler.tick()
        time.sleep(0.05)
    scheduler.close()
    done = production.state.get_run(run.number)
    assert [one.outcome for one in done.attempts] == ["failed", "succeeded"]
    assert (production.folder / "hooks.txt").read_text() == "success True\n"


FROM_PYTHON = """
import json, sys, time
from dataclasses import replace

from metaflow import DeployedFlow
from dlpipe.errors import SettingError
from dlpipe.orchestrator.attempts import make_attempt
from dlpipe.orchestrator.state import State

state, number = State.open(), int(sys.argv[1])
triggered = DeployedFlow.get_triggered_local_scheduler_run("SteadyFlow", f"ls-{number}")
seen = [[triggered.run.id, triggered.run.finished]]
attempt = make_attempt(state, state.get_run(number), time.time())
state.add_attempt(number, attempt)  # its launcher has not come to Metaflow yet
seen.append([triggered.run.id, triggered.run.finished])
state.set_attempt(number, replace(attempt, ended=time.time(), outcome="lost", began=False))
state.set_status(number, "failed", reason="its processes were killed")
seen.append([triggered.run.id, triggered.run.finished])
flow = DeployedFlow.from_local_scheduler("SteadyFlow")
refused = []
for wrong in ({"states": ["Error"]}, {"limit": -1}):
    try:
        flow.list_runs(**wrong)
    except SettingError as error:
        refused.append(str(error))
print(json.dumps({
    "seen": seen,
    "successful": triggered.run.successful,
    "finished_at": triggered.run.finished_at is not None,
    "runs": [one.id for one in triggered.runs],
    "failed": [one.number for one in flow.list_runs(states=["FAILED"])],
    "refused": refused,
}))
"""


def test_a_triggered_run_has_its_newest_metaflow_run_and_never_none_again(production: Production) -> None:
    run = production.add("raise ConnectionError('the server is away')")
    first = production.until(run, lambda one: one.status == "waiting").attempts[0].metaflow_run
    done = subprocess.run(
        [sys.executable, "-c", FROM_PYTHON, str(run.number)],
        cwd=production.folder,
        env=environment({"DLPIPE_STATE": str(production.state.folder), "METAFLOW_USER": "tester"}),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["seen"] == [[first, False], [first, False], [first, True]]
    assert (seen["successful"], seen["finished_at"], seen["runs"]) == (False, True, [first])
    assert run.number in seen["failed"]
    status, limit = seen["refused"]
    assert status.startswith("No run is 'Error': a run is queued, running,")
    assert limit == "--limit is -1: give a number from 1 on, or 0 for all runs."


def test_what_may_pass_is_resumed_after_a_pause_and_finished_steps_are_kept(production: Production) -> None:
    run = production.add("raise ConnectionError('the server is away')")
    waiting = production.until(run, lambda one: one.status == "waiting")
    assert waiting.reason == "work: ConnectionError: the server is away"
    assert 0.1 < waiting.not_before - waiting.attempts[0].ended < 30
    production.order(run, "")
    done = production.to_the_end(run)
    assert (done.status, [one.outcome for one in done.attempts]) == ("succeeded", ["failed", "succeeded"])
    assert done.attempts[1].origin == done.attempts[0].metaflow_run
    assert production.notes(run) == ["start begins", "work begins", "work begins", "work ends", "end begins"]


def test_what_is_the_codes_is_left_for_a_person_to_resume(production: Production) -> None:
    run = production.to_the_end(production.add("raise ValueError('two\\nlines')"))
    assert (run.status, run.reason, len(run.attempts)) == ("failed", "work: ValueError: two lines", 1)
    assert (run.attempts[0].step, run.attempts[0].outcome) == ("work", "failed")
    production.order(run, "")
    production.state.set_status(run.number, "waiting", reason="resumed by hand")  # as `dlpipe runs resume` does
    assert production.to_the_end(run).status == "succeeded"
    assert production.notes(run).count("start begins") == 1


@in_make_chaos
def test_killed_task_is_resumed_as_often_as_the_policy_says(production: Production) -> None:
    run = production.to_the_end(production.add("os.kill(os.getpid(), 9)"))
    assert (run.status, [one.outcome for one in run.attempts]) == ("failed", ["killed"] * 3)
    assert run.reason == "work: the task work/2 was killed"
    assert production.notes(run) == ["start begins", *["work begins"] * 3]


def test_run_whose_processes_are_all_killed_goes_on_where_it_was(production: Production) -> None:
    run = production.add(HANG)
    production.to_work(run)
    production.kill_all(run)
    production.order(run, "")
    done = production.to_the_end(run)
    assert [one.outcome for one in done.attempts] == ["lost", "succeeded"]
    assert production.notes(run) == ["start begins", "work begins", "work begins", "work ends", "end begins"]


@in_make_chaos
def test_task_that_outlives_its_launcher_is_ended_before_the_resume(production: Production) -> None:
    run = production.add("time.sleep(5)")
    production.to_work(run)
    (first,) = production.state.get_run(run.number).attempts
    orphans = production.processes(run)
    for pid in [keeper_of(first.token), launcher_of(first.token)]:
        os.kill(pid, signal.SIGKILL)
    production.order(run, "")
    done = production.to_the_end(run)
    assert [one.outcome for one in done.attempts] == ["lost", "succeeded"]
    assert len(orphans) >= 2
    time.sleep(max(0.0, first.started + 9 - time.time()))  # when the orphan would have ended
    assert production.notes(run).count("work ends") == 1


def test_run_that_was_killed_before_its_first_task_begins_anew(production: Production) -> None:
    run = production.add()
    production.until(run, lambda one: one.status == "running")
    production.kill_all(run)
    done = production.to_the_end(run)
    assert done.status == "succeeded"
    assert [(one.outcome, one.origin) for one in done.attempts] == [("lost", ""), ("succeeded", "")]
    assert not done.attempts[0].began


@in_make_chaos
def test_resume_that_was_killed_before_its_first_task_is_no_origin(production: Production) -> None:
    run = production.add(HANG)
    production.to_work(run)
    production.kill_all(run)
    production.order(run, "")
    production.until(run, lambda one: len(one.attempts) == 2)
    production.kill_all(run)
    done = production.to_the_end(run)
    assert [one.outcome for one in done.attempts] == ["lost", "lost", "succeeded"]
    assert done.attempts[2].origin == done.attempts[0].metaflow_run
    assert production.notes(run).count("start begins") == 1


def test_run_goes_on_while_no_scheduler_lives_and_the_next_one_finds_its_end(production: Production) -> None:
    run = production.add()
    production.until(run, lambda one: one.status == "running")
    attempt = production.state.get_run(run.number).attempts[0]
    wait_until(lambda: read_end(Path(attempt.folder)))
    done = production.to_the_end(run)
    assert (done.status, len(done.attempts)) == ("succeeded", 1)


def test_end_that_nobody_saw_is_asked_of_metaflow(production: Production) -> None:
    run = production.add("time.sleep(1)")
    production.to_work(run)
    attempt = production.state.get_run(run.number).attempts[0]
    os.kill(keeper_of(attempt.token), signal.SIGKILL)
    wait_until(lambda: not find_processes(attempt.token))
    Path(attempt.folder, "end").unlink()
    done = production.to_the_end(run)
    assert (done.status, len(done.attempts), done.attempts[0].exit_code) == ("succeeded", 1, None)
    event = production.state.list_events_after(0)[-1][1]
    assert event.payload["pathspec"] == f"SteadyFlow/{attempt.metaflow_run}/end/3"


def test_attempt_that_was_noted_but_never_started_is_started(production: Production) -> None:
    run = production.add()
    production.state.add_attempt(run.number, make_attempt(production.state, run, time.time()))
    done = production.to_the_end(run)
    assert (done.status, len(done.attempts)) == ("succeeded", 1)


def test_run_is_stopped_with_all_of_its_processes(production: Production) -> None:
    run = production.add(HANG)
    production.to_work(run)
    token = production.state.get_run(run.number).attempts[0].token
    stop(production.state, run, time.time())
    done = production.to_the_end(run)
    assert (done.status, done.attempts[0].outcome) == ("terminated", "terminated")
    assert find_processes(token) == []


def test_a_suspended_run_ends_the_step_that_has_begun_and_begins_no_other(production: Production) -> None:
    run = production.add("time.sleep(1)")
    production.to_work(run)
    suspend_run(production.state, production.state.get_run(run.number), True)
    production.until(run, lambda _: production.notes(run)[-1:] == ["work ends"])
    held = time.monotonic() + 2.5
    production.until(run, lambda _: time.monotonic() > held)
    assert production.notes(run)[-1] == "work ends"
    suspend_run(production.state, production.state.get_run(run.number), False)
    done = production.to_the_end(run)
    assert (done.status, len(done.attempts), production.notes(run)[-1]) == ("succeeded", 1, "end begins")


def test_a_steps_own_timeout_is_not_resumed_on_top_of_its_retries(production: Production) -> None:
    run = production.to_the_end(production.add(STEP_TIMES_OUT))
    assert (run.status, len(run.attempts)) == ("failed", 1)
    assert run.reason == "work: TimeoutException: Step work timed out after 0 hours, 0 minutes, 1 seconds"


def test_run_that_waits_is_stopped(production: Production) -> None:
    run = production.add()
    stop(production.state, run, time.time())
    assert production.state.get_run(run.number).status == "terminated"


@in_make_chaos
def test_time_limit_is_kept_when_the_keeper_was_killed_too(production: Production) -> None:
    production.deploy("steady_flow.py", "--resumes", "1", "--time-limit", "8s")
    run = production.add(HANG)
    production.until(run, lambda one: one.status == "running")
    os.kill(keeper_of(production.state.get_run(run.number).attempts[0].token), signal.SIGKILL)
    waiting = production.until(run, lambda one: one.status == "waiting")
    assert waiting.attempts[0].outcome == "timed out"
    assert waiting.reason.endswith("stopped at its time limit")
    production.order(run, "")
    assert production.to_the_end(run).status == "succeeded"


def test_other_packages_than_those_of_create_are_refused_if_the_policy_says_so(production: Production) -> None:
    version = production.state.get_deployment("SteadyFlow").version
    changed = replace(
        version,
        packages={**version.packages, "metaflow-gone": "1.0"},
        policies=replace(version.policies, changed_environment="refuse"),
    )
    production.state.deploy(changed, now=time.time())
    run = production.to_the_end(production.add())
    assert (run.status, run.attempts) == ("failed", ())
    assert run.reason == "the Python packages are not those of `create`: metaflow-gone 1.0 is gone"


def test_training_goes_on_from_its_checkpoint(production: Production) -> None:
    production.deploy("epochs_flow.py")
    code = Path(production.state.get_deployment("EpochsFlow").version.code)
    assert {path.name for path in code.glob("*.py")} >= {"epochs_flow.py", "steady_flow.py"}
    assert (code / ".mf_code/dlpipe/flows/checkpoints.py").is_file()
    assert not (code / "state").exists()  # it is beside the flow, and has the code of all versions
    (production.folder / "wait").touch()
    run = production.add(deployment="EpochsFlow")
    epochs = production.folder / "epochs"
    production.until(run, lambda _: epochs.exists() and " 4\n" in epochs.read_text())
    production.kill_all(run)
    (production.folder / "wait").unlink()
    done = production.to_the_end(run)
    first, second = (one.metaflow_run for one in done.attempts)
    assert done.status == "succeeded"
    assert epochs.read_text().splitlines() == [
        *(f"{first} {epoch}" for epoch in (1, 2, 3, 4)),
        *(f"{second} {epoch}" for epoch in (4, 5)),
    ]


# -- without a flow ----------------------------------------------------------------------------------------------

NOTHING = {
    "finished": False,
    "end_pathspec": "",
    "began": True,
    "step": "",
    "task": "",
    "error_type": "",
    "may_pass": True,
    "reason": "",
}


@pytest.mark.parametrize(
    ("code", "seen", "outcome", "may_pass"),
    [
        (0, {}, "succeeded", False),
        (None, {}, "lost", True),
        (None, {"finished": True}, "succeeded", False),
        (1, {"finished": True}, "succeeded", False),
        (-9, {"error_type": "builtins.ValueError", "may_pass": False}, "killed", True),
        (1, {"error_type": "builtins.ValueError", "may_pass": False}, "failed", False),
        (1, {"error_type": "builtins.TimeoutError", "may_pass": True}, "failed", True),
        (1, {"step": "work"}, "killed", True),
        (1, {}, "failed", False),
    ],
)
def test_outcome_follows_from_the_exit_code_and_what_metaflow_knows(
    tmp_path: Path, code: int | None, seen: dict[str, object], outcome: str, may_pass: bool
) -> None:
    found = judge(LauncherEnd(code, 0.0), {**NOTHING, **seen}, tmp_path)
    assert (found.outcome, found.may_pass) == (outcome, may_pass)


def test_launcher_that_fails_before_any_task_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(
        "Metaflow\n2026-01-02 03:04:05.678 Internal error:\nNo module named 'x'\n    ^^^\n"
    )
    assert judge(LauncherEnd(1, 0.0), NOTHING, tmp_path).reason == "No module named 'x'"
    (tmp_path / "log").write_text("    Step failure:\n    Step work (task-id 3) failed.\n")
    killed = judge(LauncherEnd(1, 0.0), NOTHING, tmp_path)
    assert (killed.outcome, killed.step, killed.reason) == ("killed", "work", "the task work/3 was killed")
    (tmp_path / "log").write_text("OSError: [Errno 28] No space left on device\n")
    assert judge(LauncherEnd(1, 0.0), NOTHING, tmp_path).may_pass


def test_pauses_double_up_to_an_hour(production: Production) -> None:
    version = production.state.get_version("SteadyFlow", 1)
    assert [compute_backoff(version, number) for number in (1, 2, 3, 20)] == [0.2, 0.4, 0.8, 3600.0]


def test_environment_leads_a_flow_nowhere_else(production: Production, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("METAFLOW_RUN_NUMBER", "METAFLOW_HOME", "PYTHONPATH", "_DLPIPE_ATTEMPT"):
        monkeypatch.setenv(name, "elsewhere")
    run = production.add()
    version = production.state.get_version("SteadyFlow", 1)
    found = build_environment(version, run, make_attempt(production.state, run, 0.0))
    assert "elsewhere" not in found.values()
    assert found["PYTHONPATH"].startswith(version.code)
    assert found["METAFLOW_PRODUCTION_TOKEN"] == version.token
    assert describe_triggers(version, run) == []


def keeper_of(token: str) -> int:
    return _marked(f"_DLPIPE_KEEPER={token}")


def launcher_of(token: str) -> int:
    (found,) = [pid for pid in find_processes(token) if os.getsid(pid) == pid]
    return found


def _marked(mark: str) -> int:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                return int(entry.name)
        except OSError:
            continue
    raise AssertionError(f"no process has {mark}")


def wait_until(seen: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.02)
