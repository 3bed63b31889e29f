"""Decisions: what due times and events become, for each policy, whatever the clock does."""

from __future__ import annotations

import dataclasses
import itertools
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dlpipe.orchestrator.decisions import decide, find_cycle
from dlpipe.orchestrator.deployments import NeededEvent, Policies, Schedule, Trigger, Version
from dlpipe.orchestrator.matching import find_misfits
from dlpipe.orchestrator.runs import Event, Run, RunAttempt
from dlpipe.orchestrator.state import State

HOUR = 3600.0
BEGIN = datetime(2026, 6, 1, 12, 30, tzinfo=UTC).timestamp()
HOURLY = Schedule("0 * * * *")


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State.open(tmp_path / "state")


def deploy(state: State, name: str = "A", *, now: float = BEGIN, policies: Any = None, **values: Any) -> Version:
    version = Version(name, 0, values.pop("flow", name), "code", "flow.py", "d", "/srv", "python", {}, **values)
    return state.deploy(dataclasses.replace(version, policies=Policies(**(policies or {}))), now=now)


def at(*parts: int) -> float:
    """A moment of June 2026: day, hour, minute, second."""
    return datetime(2026, 6, *parts, tzinfo=UTC).timestamp()


def dues(state: State, *, name: str = "A", status: str = "") -> list[str]:
    """Due times of a deployment's runs, the oldest first."""
    return [
        datetime.fromtimestamp(run.due, UTC).strftime("%d %H:%M")
        for run in reversed(state.list_runs(deployment=name))
        if not status or run.status == status
    ]


def begin(state: State, run: Run) -> None:
    state.add_attempt(run.number, RunAttempt(len(run.attempts), f"t{run.number}", "f"))


def end(state: State, run: Run, status: Any = "succeeded") -> None:
    state.set_status(run.number, status)


def tick(state: State, now: float, *, max_runs: int = 100) -> list[Run]:
    """Decide, and begin what may start."""
    started = decide(state, now, max_runs=max_runs)
    for run in started:
        begin(state, run)
    return started


def publish(state: State, name: str, at: float, **payload: Any) -> Event:
    event = Event(f"{name}-{at}-{len(state.list_events_after(0))}", name, payload, at)
    assert state.publish(event)
    return event


# -- due times ---------------------------------------------------------------------------------------------------


def test_a_due_time_is_one_run_that_says_when_on_the_clock_of_its_schedule(state: State) -> None:
    deploy(state, schedule=Schedule("0 15 * * ? *", "Europe/Berlin"))
    assert decide(state, at(1, 12, 59, 59), max_runs=4) == []
    (run,) = decide(state, at(1, 13), max_runs=4)
    assert run.cause == "schedule 2026-06-01T15:00:00+02:00"
    assert run.key == "schedule:2026-06-01T13:00:00Z"
    assert (run.due, run.status, run.version) == (at(1, 13), "queued", 1)
    # as long as it was not begun, it may be
    assert decide(state, at(1, 13, 0, 1), max_runs=4) == [run]
    begin(state, run)
    assert decide(state, at(1, 13, 0, 2), max_runs=4) == []
    assert dues(state) == ["01 13:00"]


def test_a_new_deployment_and_one_let_go_on_make_nothing_up(state: State) -> None:
    deploy(state, schedule=HOURLY, policies={"missed": "all"})
    state.suspend("A", True, now=BEGIN)
    assert tick(state, at(1, 20, 0, 5)) == []
    state.suspend("A", False, now=at(1, 20, 0, 10))
    assert tick(state, at(1, 20, 30)) == []
    assert [run.due for run in tick(state, at(1, 21))] == [at(1, 21)]


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        ({"missed": "none"}, []),
        ({"missed": "once"}, ["01 18:00"]),
        ({"missed": "all"}, [f"01 {hour}:00" for hour in range(13, 19)]),
        ({"missed": "all", "missed_limit": 2}, ["01 17:00", "01 18:00"]),
    ],
)
def test_the_policy_says_what_is_made_up_after_downtime(
    state: State, policies: dict[str, Any], expected: list[str]
) -> None:
    deploy(state, schedule=HOURLY, policies=policies)
    tick(state, at(1, 18, 20))
    assert dues(state) == expected
    for later in range(3):
        tick(state, at(1, 18, 21 + later))
    assert dues(state) == expected
    tick(state, at(1, 19))
    assert dues(state) == [*expected, "01 19:00"]


@pytest.mark.parametrize(("missed", "expected"), [("none", 1), ("once", 1), ("all", 7)])
def test_a_due_time_just_now_makes_up_for_late_ones_if_one_is_enough(
    state: State, missed: str, expected: int
) -> None:
    deploy(state, schedule=HOURLY, policies={"missed": missed, "overlap": "queue"})
    tick(state, at(1, 19, 0, 30))
    assert len(dues(state)) == expected
    assert dues(state)[-1] == "01 19:00"


def test_a_minute_behind_is_late(state: State) -> None:
    deploy(state, schedule=HOURLY, policies={"missed": "none"})
    tick(state, at(1, 13, 0, 59))
    tick(state, at(1, 14, 1, 0))
    assert dues(state) == ["01 13:00"]


def test_made_up_runs_wait_for_each_other_and_are_not_skipped(state: State) -> None:
    deploy(state, schedule=HOURLY, policies={"missed": "all", "overlap": "skip"})
    (first,) = tick(state, at(1, 15, 20))
    assert tick(state, at(1, 15, 21)) == []
    end(state, first)
    (second,) = tick(state, at(1, 15, 22))
    assert (first.due, second.due) == (at(1, 13), at(1, 14))
    assert dues(state, status="skipped") == []


def test_years_of_downtime_are_dealt_with_at_once(state: State) -> None:
    deploy(state, schedule=Schedule("* * * * *"), policies={"missed": "all", "missed_limit": 3})
    tick(state, BEGIN + 3 * 365 * 24 * HOUR + 59.5 * 60)
    # three late ones, and the one of this minute
    assert len(state.list_runs()) == 4


# -- clocks that jump --------------------------------------------------------------------------------------------


def test_a_clock_that_jumps_back_fires_nothing_twice(state: State) -> None:
    deploy(state, schedule=HOURLY, policies={"overlap": "allow"})
    for hour in (13, 14, 15):
        tick(state, at(1, hour))
    for minute in range(0, 240, 7):
        tick(state, at(1, 12, 30) + minute * 60.0)
    assert dues(state) == ["01 13:00", "01 14:00", "01 15:00", "01 16:00"]


def test_a_skipped_time_stays_skipped_when_the_clock_jumps_back(state: State) -> None:
    deploy(state, schedule=HOURLY)
    (run,) = tick(state, at(1, 13))
    tick(state, at(1, 14))
    end(state, run)
    tick(state, at(1, 13, 30))
    tick(state, at(1, 14))
    assert [run.status for run in state.list_runs()] == ["skipped", "succeeded"]


def test_a_clock_that_was_years_ahead_for_a_moment_stops_no_schedule(state: State) -> None:
    deploy(state, schedule=HOURLY, policies={"overlap": "allow"})
    ahead = at(1, 13, 20) + 4 * 365 * 24 * HOUR
    tick(state, ahead)
    assert len(state.list_runs()) == 1
    tick(state, at(1, 13, 21))
    tick(state, at(1, 14))
    tick(state, at(1, 15))
    assert dues(state)[1:] == ["01 14:00", "01 15:00"]


def test_no_run_waits_for_years_because_the_clock_was_ahead(state: State) -> None:
    deploy(state, policies={"backoff": 60.0})
    run, _ = state.add_run("A", cause="by hand", key="manual:1", due=BEGIN)
    begin(state, run)
    state.set_status(run.number, "waiting", not_before=BEGIN + 365 * 24 * HOUR)
    assert [one.number for one in decide(state, BEGIN, max_runs=1)] == [run.number]


# -- overlap, and the machine ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["queued", "running", "waiting"])
def test_overlap_skip_notes_the_due_time_and_why(state: State, status: Any) -> None:
    deploy(state, schedule=HOURLY)
    (run,) = decide(state, at(1, 13), max_runs=4)
    state.set_status(run.number, status, not_before=at(2, 0) if status == "waiting" else 0.0)
    decide(state, at(1, 14), max_runs=4)
    skipped = state.list_runs()[0]
    assert (skipped.status, skipped.reason) == ("skipped", "run 1 goes on")
    end(state, run)
    assert [one.due for one in decide(state, at(1, 15), max_runs=4)] == [at(1, 15)]


def test_overlap_queue_runs_one_after_the_other(state: State) -> None:
    deploy(state, schedule=HOURLY, policies={"overlap": "queue"})
    (first,) = tick(state, at(1, 13))
    assert tick(state, at(1, 14)) == tick(state, at(1, 15)) == []
    state.set_status(first.number, "waiting", not_before=at(1, 15, 10))
    assert tick(state, at(1, 15, 5)) == []
    assert [one.number for one in tick(state, at(1, 15, 10))] == [first.number]
    end(state, first, "failed")
    (second,) = tick(state, at(1, 15, 20))
    end(state, second)
    assert [one.due for one in (second, *tick(state, at(1, 15, 30)))] == [at(1, 14), at(1, 15)]


def test_overlap_allow_runs_all_at_once_within_the_machine(state: State) -> None:
    deploy(state, schedule=HOURLY, policies={"overlap": "allow"})
    started = [run.due for hour in (13, 14, 15) for run in tick(state, at(1, hour), max_runs=2)]
    assert started == [at(1, 13), at(1, 14)]
    end(state, state.get_run(1))
    assert [run.due for run in tick(state, at(1, 15, 1), max_runs=2)] == [at(1, 15)]


def test_the_machine_takes_the_oldest_of_all_deployments(state: State) -> None:
    for name, minute in (("A", 30), ("B", 10), ("C", 20)):
        deploy(state, name, schedule=Schedule(f"{minute} 13 * * *"), policies={"missed": "all"})
    started = tick(state, at(1, 13, 40), max_runs=2)
    assert [run.deployment for run in started] == ["B", "C"]
    assert tick(state, at(1, 13, 41), max_runs=2) == []
    end(state, started[1])
    assert [run.deployment for run in tick(state, at(1, 13, 42), max_runs=2)] == ["A"]


def test_runs_by_hand_are_never_skipped_and_start_while_suspended(state: State) -> None:
    deploy(state, schedule=HOURLY)
    state.suspend("A", True, now=BEGIN)
    for key in ("manual:1", "manual:2"):
        state.add_run("A", cause="by hand", key=key, due=BEGIN)
    (first,) = tick(state, BEGIN)
    assert tick(state, BEGIN + 1) == []
    end(state, first)
    assert len(tick(state, BEGIN + 2)) == 1


def test_a_run_that_is_to_be_stopped_does_not_start(state: State) -> None:
    deploy(state)
    run, _ = state.add_run("A", cause="by hand", key="manual:1", due=BEGIN)
    state.request_stop(run.number)
    assert decide(state, BEGIN, max_runs=1) == []


def test_a_run_of_a_deleted_deployment_is_still_resumed(state: State) -> None:
    deploy(state)
    run, _ = state.add_run("A", cause="by hand", key="manual:1", due=BEGIN)
    begin(state, run)
    state.set_status(run.number, "waiting", not_before=BEGIN + 30)
    state.delete("A")
    assert decide(state, BEGIN + 29, max_runs=1) == []
    assert [one.number for one in decide(state, BEGIN + 30, max_runs=1)] == [run.number]


def test_a_decision_that_is_undone_is_made_again(state: State) -> None:
    deploy(state, schedule=HOURLY)
    publish(state, "drift", BEGIN)

    def crash() -> None:
        with state.transaction():
            assert decide(state, at(1, 13), max_runs=1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crash()
    assert state.list_runs() == []
    assert len(decide(state, at(1, 13, 0, 1), max_runs=1)) == 1


def test_a_quiet_moment_writes_nothing(state: State) -> None:
    deploy(state, schedule=HOURLY, trigger=Trigger((NeededEvent("drift"),)))
    other = State.open(state.folder)
    before = other.get_data_version()
    decide(state, at(1, 12, 45), max_runs=1)
    assert other.get_data_version() == before


# -- events ------------------------------------------------------------------------------------------------------


def listening(state: State, name: str = "A", *needed: NeededEvent, **values: Any) -> None:
    reset = {key: values.pop(key) for key in ("reset_at", "reset_timezone") if key in values}
    deploy(state, name, trigger=Trigger(needed, **reset), **values)


def test_an_event_is_one_run_with_the_parameters_that_it_maps(state: State) -> None:
    listening(state, "A", NeededEvent("drift", {"Rows": "n", "label": "why"}), parameter_names=("rows", "label"))
    event = publish(state, "drift", BEGIN + 5, n=3, label="not mapped")
    publish(state, "other", BEGIN + 6)
    (run,) = decide(state, BEGIN + 9, max_runs=4)
    assert (run.cause, run.key, run.due) == ("event drift", f"event:{event.id}", BEGIN + 5)
    assert run.parameters == {"rows": 3}
    assert run.events == (event,)
    begin(state, run)
    assert decide(state, BEGIN + 10, max_runs=4) == []
    assert len(state.list_runs()) == 1


def test_an_event_alone_without_mapping_gives_parameters_of_its_names_as_on_argo(state: State) -> None:
    listening(state, "A", NeededEvent("drift"), parameter_names=("rows", "Label", "other"))
    publish(state, "drift", BEGIN, rows=3, label="x", unknown=1, other=None)
    (run,) = decide(state, BEGIN, max_runs=4)
    assert run.parameters == {"rows": 3, "Label": "x"}


def test_the_end_of_a_flow_gives_no_parameters_and_says_whose(state: State) -> None:
    listening(state, "B", NeededEvent("metaflow.A.end", kind="run", flow="A"), parameter_names=("run_id",))
    publish(state, "metaflow.A.end", BEGIN, flow_name="A", run_id="ls-1-aa")
    (run,) = decide(state, BEGIN, max_runs=4)
    assert run.parameters == {}
    assert run.cause == "end of A/ls-1-aa"


def test_every_deployment_that_waits_for_an_event_runs_once_for_each(state: State) -> None:
    for name in ("A", "B"):
        listening(state, name, NeededEvent("drift"), policies={"overlap": "allow"})
    deploy(state, "C", schedule=HOURLY)
    for _ in range(3):
        publish(state, "drift", BEGIN)
    for later in range(3):
        tick(state, BEGIN + later)
    assert [(name, len(state.list_runs(deployment=name))) for name in "ABC"] == [("A", 3), ("B", 3), ("C", 0)]


def test_suspended_and_later_deployments_are_not_reached(state: State) -> None:
    listening(state, "A", NeededEvent("drift"))
    state.suspend("A", True, now=BEGIN)
    publish(state, "drift", BEGIN)
    listening(state, "B", NeededEvent("drift"))
    assert decide(state, BEGIN + 1, max_runs=4) == []
    publish(state, "drift", BEGIN + 2)
    state.suspend("A", False, now=BEGIN + 3)
    assert [run.deployment for run in decide(state, BEGIN + 4, max_runs=4)] == ["B"]


def test_an_event_reaches_a_deployment_that_was_deployed_anew_meanwhile(state: State) -> None:
    listening(state, "A", NeededEvent("drift"))
    publish(state, "drift", BEGIN)
    listening(state, "A", NeededEvent("drift"))
    (run,) = decide(state, BEGIN + 1, max_runs=4)
    assert run.version == 2


def test_a_trigger_of_several_events_waits_for_all_and_takes_the_newest_of_each(state: State) -> None:
    first, second = NeededEvent("a", {"x": "v"}), NeededEvent("b", {"y": "v"})
    listening(state, "A", first, second, parameter_names=("x", "y"))
    publish(state, "a", BEGIN, v=1)
    newest = publish(state, "a", BEGIN + 1, v=2)
    assert decide(state, BEGIN + 1, max_runs=4) == []
    completing = publish(state, "b", BEGIN + 2, v=3)
    (run,) = tick(state, BEGIN + 2)
    assert run.events == (newest, completing)
    assert run.parameters == {"x": 2, "y": 3}
    assert (run.cause, run.due) == ("event a, event b", BEGIN + 2)
    # all of them are used up
    end(state, run)
    publish(state, "b", BEGIN + 3)
    assert tick(state, BEGIN + 3) == []
    publish(state, "a", BEGIN + 4)
    assert len(tick(state, BEGIN + 4)) == 1


@pytest.mark.parametrize(
    ("zone", "hours", "runs"), [("", 11.4, 1), ("", 11.5, 0), ("Asia/Tokyo", 2.4, 1), ("Asia/Tokyo", 2.5, 0)]
)
def test_an_incomplete_set_of_events_is_forgotten_at_its_time(
    state: State, zone: str, hours: float, runs: int
) -> None:
    # 12:30 is 11.5 hours before midnight in UTC and 2.5 in Tokyo
    listening(state, "A", NeededEvent("a"), NeededEvent("b"), reset_at="0 0 * * *", reset_timezone=zone)
    publish(state, "a", BEGIN)
    decide(state, BEGIN, max_runs=4)
    publish(state, "b", BEGIN + hours * HOUR)
    assert len(decide(state, BEGIN + 50 * HOUR, max_runs=4)) == runs
    publish(state, "a", BEGIN + hours * HOUR + 1)
    assert len(decide(state, BEGIN + 51 * HOUR, max_runs=4)) == 1


def test_held_events_are_forgotten_when_the_trigger_changes(state: State) -> None:
    listening(state, "A", NeededEvent("a"), NeededEvent("b"))
    publish(state, "a", BEGIN)
    decide(state, BEGIN, max_runs=4)
    listening(state, "A", NeededEvent("a"), NeededEvent("c"))
    publish(state, "c", BEGIN + 1)
    assert decide(state, BEGIN + 1, max_runs=4) == []


def test_events_meet_the_overlap_policy_as_due_times_do(state: State) -> None:
    for name in ("skip", "queue", "allow"):
        listening(state, name, NeededEvent("drift"), policies={"overlap": name})
    for later in range(2):
        publish(state, "drift", BEGIN + later)
        tick(state, BEGIN + later)
    statuses = {
        name: sorted(run.status for run in state.list_runs(deployment=name)) for name in ("skip", "queue", "allow")
    }
    assert statuses == {
        "skip": ["running", "skipped"],
        "queue": ["queued", "running"],
        "allow": ["running", "running"],
    }


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("int", [3, "3", -1], ["x", True, 3.5, "3.5", [1], {}]),
        ("float", [3, 3.5, "3.5", "1e3"], ["x", [1]]),
        ("bool", [True, "false", 1, "yes"], ["x", 2, {}]),
        ("str", ["x", 3, 2.5, True], [[1], {"a": 1}]),
        ("JSON", [{"a": 1}, [1], "[1]", 3, '"x"'], ["x", "{a: 1}"]),
        ("", ["x", [1]], []),
    ],
)
def test_a_value_that_does_not_fit_its_parameter_skips_the_run(
    state: State, kind: str, good: list[Any], bad: list[Any]
) -> None:
    types = {"rows": kind} if kind else {}
    policies = {"overlap": "allow"}
    listening(state, "A", NeededEvent("e"), parameter_names=("rows",), parameter_types=types, policies=policies)
    for value in [*good, *bad]:
        publish(state, "e", BEGIN, rows=value)
    decide(state, BEGIN, max_runs=100)
    runs = state.list_runs()[::-1]
    assert [run.status for run in runs] == ["queued"] * len(good) + ["skipped"] * len(bad)
    assert all(f"the parameter rows is of type {kind}" in run.reason for run in runs[len(good) :])


def test_an_event_without_a_value_for_a_required_parameter_skips_the_run_and_says_why(state: State) -> None:
    listening(state, "A", NeededEvent("e", {"rows": "n"}), parameter_names=("rows",), required=("rows",))
    listening(state, "B", NeededEvent("e"), parameter_names=("rows",), required=("rows",), parameters={"rows": 3})
    event = publish(state, "e", BEGIN, rows=3)
    decide(state, BEGIN, max_runs=4)
    (skipped,), (ran,) = state.list_runs(deployment="A"), state.list_runs(deployment="B")
    assert skipped.status == "skipped"
    assert skipped.reason == "event 'e' has no field 'n', which the parameter rows needs"
    assert ran.status == "queued"
    assert list(find_misfits(state, event)) == [("A", skipped.reason)]


# -- cycles ------------------------------------------------------------------------------------------------------


def after(name: str, *flows: str, **values: Any) -> Version:
    needed = tuple(NeededEvent(f"metaflow.{flow}.end", kind="run", flow=flow) for flow in flows)
    trigger = Trigger(needed) if needed else None
    return Version(name, 1, name.split(".")[-1], "c", "s", "d", "f", "p", {}, trigger=trigger, **values)


def test_flows_that_start_each_other_in_a_circle_are_found() -> None:
    line = [after("A"), after("B", "A"), after("C", "B", "A")]
    assert find_cycle(line) == []
    cycle = find_cycle([after("A", "C"), *line[1:], after("D", "C")])
    assert cycle[0] == cycle[-1]
    assert {(one, then) for one, then in itertools.pairwise(cycle)} <= {
        ("A", "B"),
        ("B", "C"),
        ("C", "A"),
        ("A", "C"),
    }
    assert find_cycle([after("A", "A")]) == ["A", "A"]


def test_a_flow_of_another_project_or_branch_is_another_flow() -> None:
    prod = after("p.prod.A", "p.prod.B", project="p", branch="prod")
    test = after("p.test.B", "p.test.A", project="p", branch="test")
    assert find_cycle([prod, test]) == []
    assert find_cycle([prod, after("p.prod.B", "p.prod.A", project="p", branch="prod")])
