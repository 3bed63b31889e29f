"""How long runs may take, how many may wait, which goes first, and runs that are suspended."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from schedulers import deployed, run_when, scheduling, succeeds, triggered

from dlpipe.cli import main
from dlpipe.errors import QueueFull, RunEnded
from dlpipe.orchestrator.decisions import decide
from dlpipe.orchestrator.deployments import NeededEvent, Policies, Trigger
from dlpipe.orchestrator.limits import RUN_TIMED_OUT
from dlpipe.orchestrator.runs import Event, RunAttempt
from dlpipe.orchestrator.state import State
from dlpipe.orchestrator.supervision import Supervisor

HANGS = succeeds("import time; time.sleep(60)")
ABORTS = succeeds("os.abort()")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[State]:
    monkeypatch.setenv("DLPIPE_STATE", str(tmp_path / "state"))
    with contextlib.closing(State.open()) as made:
        yield made


def dlpipe(*words: str) -> Result:
    return CliRunner().invoke(main, words)


# -- time --------------------------------------------------------------------------------------------------------


def test_a_run_is_stopped_at_the_limit_of_all_of_it_and_not_resumed(state: State) -> None:
    deployed(state, "Hangs", HANGS, policies=Policies(run_time_limit=1.5, time_limit=50, backoff=0.1))
    deployed(state, "Aborts", ABORTS, policies=Policies(run_time_limit=6.0, resumes=100, backoff=0.4))
    with scheduling(state.folder):
        began = time.time()
        hangs = run_when(state, triggered(state, "Hangs"), "failed")
        assert time.time() - began < 20
        aborts = run_when(state, triggered(state, "Aborts"), "failed")
    assert [(one.outcome, one.reason) for one in hangs.attempts] == [("timed out", RUN_TIMED_OUT)]
    assert hangs.reason == RUN_TIMED_OUT
    # what fails again and again is not resumed beyond it, though a hundred resumes are allowed
    assert 2 <= len(aborts.attempts) <= 8
    assert aborts.attempts[-1].started < aborts.attempts[0].started + 6.0
    assert "the run's time is up" in aborts.reason or aborts.reason == RUN_TIMED_OUT


def test_a_run_that_waits_ends_when_its_time_is_up_and_begins_anew_when_a_person_resumes_it(state: State) -> None:
    deployed(state, "A", HANGS, policies=Policies(run_time_limit=60))
    number = triggered(state, "A")
    state.add_attempt(number, RunAttempt(0, "t0", str(state.folder / "no"), started=1000.0), deadline=1060.0)
    state.set_status(number, "waiting", not_before=1059.0)
    with Supervisor(state) as supervisor:
        supervisor.reconcile(1059.0)
        assert state.get_run(number).status == "waiting"
        supervisor.reconcile(1060.0)
        ended = state.get_run(number)
        assert ended.status == "failed"
        assert ended.reason.endswith("; not resumed: the time limit of the whole run is up")
        state.resume_run(number)
        supervisor.reconcile(2000.0)
    assert (state.get_run(number).status, state.get_run(number).deadline) == ("waiting", 0.0)


# -- queues ------------------------------------------------------------------------------------------------------


def test_what_comes_while_the_queue_is_full_is_skipped_and_says_so(state: State) -> None:
    policies = Policies(overlap="queue", queue_limit=2)
    deployed(state, "A", HANGS, trigger=Trigger((NeededEvent("go"),)), policies=policies)
    for number in range(4):
        state.publish(Event(str(number), "go", {}, time.time()))
        decide(state, time.time(), max_runs=0)
    assert [run.status for run in state.list_runs()] == ["skipped", "skipped", "queued", "queued"]
    assert state.list_runs()[0].reason == "the queue is full: 2 runs wait in it"
    assert "A does not run: its queue is full" in dlpipe("event", "publish", "go").stderr


def test_a_run_by_hand_is_refused_while_the_queue_is_full(state: State) -> None:
    from dlpipe.orchestrator.interventions import check_queue

    version = deployed(state, "A", HANGS, policies=Policies(queue_limit=1))
    check_queue(state, version)
    triggered(state, "A")
    with pytest.raises(QueueFull, match="1 runs of A are queued already, as many as may be"):
        check_queue(state, version)


def test_a_higher_priority_goes_first_where_there_is_no_room_for_all(state: State) -> None:
    for name, priority in (("Low", -1), ("Usual", 0), ("High", 7)):
        deployed(state, name, HANGS, policies=Policies(priority=priority))
        triggered(state, name)
    assert [run.deployment for run in decide(state, time.time(), max_runs=2)] == ["High", "Usual"]
    assert [run.deployment for run in decide(state, time.time(), max_runs=9)] == ["High", "Usual", "Low"]


# -- suspended runs ----------------------------------------------------------------------------------------------


def test_a_suspended_run_begins_nothing_and_those_behind_it_go_first(state: State) -> None:
    deployed(state, "A", HANGS)
    first, second = triggered(state, "A", "1"), triggered(state, "A", "2")
    assert "it begins no further step" in dlpipe("runs", "suspend", str(first)).stderr
    assert [run.number for run in decide(state, time.time(), max_runs=1)] == [second]
    with Supervisor(state) as supervisor:
        assert supervisor.start(first, time.time()).status == "queued"
    assert "queued, suspended" in dlpipe("runs").stdout
    assert f"`dlpipe runs unsuspend {first}` lets it go on" in dlpipe("runs", "resume", str(first)).stderr
    rows = json.loads(dlpipe("runs", "--json").stdout)
    assert [row["suspended"] for row in rows] == [False, True]
    dlpipe("runs", "unsuspend", str(first))
    assert [run.number for run in decide(state, time.time(), max_runs=1)] == [first]


def test_a_suspended_run_that_goes_on_gives_its_room_to_others_and_its_launcher_is_told(state: State) -> None:
    deployed(state, "A", HANGS)
    deployed(state, "B", HANGS)
    running, other = triggered(state, "A"), triggered(state, "B")
    folder = state.folder / "runs" / "1" / "0"
    folder.mkdir(parents=True)
    state.add_attempt(running, RunAttempt(0, "t", str(folder), started=time.time()))
    assert decide(state, time.time(), max_runs=1) == []
    dlpipe("runs", "suspend", str(running))
    assert (folder / "suspended").exists()
    assert [run.number for run in decide(state, time.time(), max_runs=1)] == [other]
    dlpipe("runs", "unsuspend", str(running))
    assert not (folder / "suspended").exists()


def test_an_ended_run_is_not_suspended_and_a_resumed_one_is_not_any_more(state: State) -> None:
    deployed(state, "A", HANGS)
    number = triggered(state, "A")
    state.suspend_run(number, True)
    state.set_status(number, "failed")
    with pytest.raises(RunEnded, match="failed already"):
        state.suspend_run(number, False)
    state.resume_run(number)
    assert not state.get_run(number).suspended
