"""The year 2026 of many deployments in simulated time, against due times that another library and counting find.

The scheduler is down at times, runs take longer than the time between them, deployments are suspended and deployed
anew, and nine time zones change their clocks. What runs when is compared with a model of the policies that knows
nothing of the code under test.
"""

from __future__ import annotations

import bisect
import heapq
import random
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cron_oracle import due_times

from dlpipe.orchestrator.decisions import decide
from dlpipe.orchestrator.deployments import NeededEvent, Policies, Schedule, Trigger, Version
from dlpipe.orchestrator.runs import Event, Run, RunAttempt
from dlpipe.orchestrator.state import State

pytestmark = pytest.mark.slow

HOUR, DAY = 3600.0, 86400.0
BEGIN = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
END = datetime(2027, 1, 1, tzinfo=UTC).timestamp()
ZONES = (
    *("Europe/Berlin", "America/New_York", "America/Santiago", "Australia/Lord_Howe", "Pacific/Chatham"),
    *("Africa/Cairo", "Asia/Kolkata", "America/Havana", "UTC"),
)
# as the deployment has it, and for croniter
LINES = (
    *(("30 2 * * *", "30 2 * * *"), ("0 0 * * *", "0 0 * * *"), ("5 1,2 * * *", "5 1,2 * * *")),
    *(("0 */8 * * *", "0 */8 * * *"), ("*/30 2 * * *", "*/30 2 * * *"), ("15 1-3/2 * * *", "15 1,3 * * *")),
    *(("0 0 ? * SUN *", "0 0 * * 0"), ("0 0 * * ? *", "0 0 * * *"), ("0 9 ? * 2-6 *", "0 9 * * 1-5")),
    *(("0 3 1,15 * ? *", "0 3 1,15 * *"), ("45 2 ? * 1#1 *", "45 2 * * 0#1"), ("30 23 L * ? *", "30 23 L * *")),
    *(("0 4 13 * 5", "0 4 13 * 5"), ("59 1 * MAR,OCT SUN", "59 1 * 3,10 0"), ("0 12 29 2 *", "0 12 29 2 *")),
)
FOLLOWED = 5
LONGEST = (0.5 * HOUR, 5 * HOUR, 30 * HOUR, 60 * HOUR)


@dataclass(frozen=True)
class Planned:
    """A deployment, how long its runs take at most, and when it was suspended."""

    name: str
    line: str
    unix: str
    zone: str
    policies: Policies
    longest: float
    suspended: tuple[float, float] = (END, END)

    def seconds(self, due: float) -> float:
        """How long the run of a due time takes."""
        return self.longest * (zlib.crc32(f"{self.name} {due:.0f}".encode()) % 1000) / 1000

    def version(self) -> Version:
        schedule = Schedule(self.line, self.zone if self.zone != "UTC" else "")
        return Version(
            self.name, 0, self.name, "c", "s", "d", "f", "p", {}, schedule=schedule, policies=self.policies
        )


Story = list[tuple[float, str, float]]
"""Of a deployment's runs: due, how it ended up, and when it began."""


@dataclass
class Year:
    """What happens: when the scheduler looks, and what people do."""

    plans: list[Planned]
    dues: dict[str, list[float]]
    looks: list[float]
    redeployed: dict[int, str] = field(default_factory=dict)


def make_year(seed: int, deployments: int) -> Year:
    draw = random.Random(seed)
    plans = [plan(draw, number) for number in range(deployments)]
    dues = {one.name: due_times(one.unix, one.zone, BEGIN, END) for one in plans}
    downtimes = sorted(
        (draw.uniform(BEGIN, END), draw.choice([120.0, HOUR, 9 * HOUR, 4 * DAY])) for _ in range(25)
    )
    # over changes of the clock in Europe and America
    downtimes += [(datetime(2026, 3, 29, 0, 30, tzinfo=UTC).timestamp(), 3 * HOUR)]
    downtimes += [(datetime(2026, 11, 1, 5, 15, tzinfo=UTC).timestamp(), 2 * HOUR)]
    looks = {due + draw.uniform(0.0, 40.0) for due in sorted({due for ones in dues.values() for due in ones})}
    looks |= {BEGIN + hour * HOUR + 1801.0 for hour in range(0, 8760, 3)}
    up = sorted(one for one in looks if not any(start <= one < start + long for start, long in downtimes))
    redeployed = {place: draw.choice(plans).name for place in draw.sample(range(len(up)), 60)}
    return Year(plans, dues, up, redeployed)


def plan(draw: random.Random, number: int) -> Planned:
    line, unix = LINES[number % len(LINES)]
    policies = Policies(
        overlap=draw.choice(["skip", "skip", "queue", "allow"]),
        missed=draw.choice(["once", "once", "all", "none"]),
        missed_limit=draw.choice([1, 3, 10]),
    )
    # a queue that runs cannot keep up with only grows
    longest = draw.choice(LONGEST[:2] if policies.overlap == "queue" else LONGEST)
    begin = draw.uniform(BEGIN, END)
    suspended = (begin, begin + draw.uniform(0, 40 * DAY)) if draw.random() < 0.3 else (END, END)
    return Planned(f"D{number:02}", line, unix, draw.choice(ZONES), policies, longest, suspended)


# -- what the code does ------------------------------------------------------------------------------------------


def play(year: Year, folder: Path) -> State:
    """Play the year with the real state and decisions; one commit a day, for the sake of speed."""
    state = State.open(folder)
    plans = {one.name: one for one in year.plans}
    for one in year.plans:
        state.deploy(one.version(), now=BEGIN)
    for one in year.plans[::FOLLOWED]:
        state.deploy(follower(one), now=BEGIN)
    going: list[tuple[float, int, str, float]] = []
    for day in days(year.looks):
        if len(going) % 5 == 0:  # a scheduler that was started anew knows only what is written
            state.close()
            state = State.open(folder)
        with state.transaction():
            for place, now in day:
                look(state, plans, going, now)
                if place in year.redeployed:
                    state.deploy(plans[year.redeployed[place]].version(), now=now)
    return state


def look(state: State, plans: dict[str, Planned], going: list[tuple[float, int, str, float]], now: float) -> None:
    for one in plans.values():
        begin, end = one.suspended
        if begin < END and state.get_deployment(one.name).suspended != (begin <= now < end):
            state.suspend(one.name, begin <= now < end, now=now)
    while going and going[0][0] <= now:
        _, number, name, due = heapq.heappop(going)
        state.set_status(number, "succeeded")
        if name in plans:
            state.publish(Event(f"{name} {due:.0f}", f"metaflow.{name}.end", {}, now))
    for run in decide(state, now, max_runs=10_000):
        state.add_attempt(run.number, RunAttempt(0, f"t{run.number}", "", started=now))
        seconds = plans[run.deployment].seconds(run.due) if run.deployment in plans else 0.0
        heapq.heappush(going, (now + seconds, run.number, run.deployment, run.due))


def follower(of: Planned) -> Version:
    """A flow that runs at the end of each run."""
    trigger = Trigger((NeededEvent(f"metaflow.{of.name}.end", kind="run", flow=of.name),))
    policies = Policies(overlap="queue")
    return Version(f"after-{of.name}", 0, "After", "c", "s", "d", "f", "p", {}, trigger=trigger, policies=policies)


def days(looks: list[float]) -> Iterator[list[tuple[int, float]]]:
    begin = 0
    while begin < len(looks):
        end = bisect.bisect(looks, looks[begin] + DAY)
        yield [(place, looks[place]) for place in range(begin, end)]
        begin = end


def story(runs: list[Run]) -> Story:
    return [(run.due, run.status, run.attempts[0].started if run.attempts else 0.0) for run in reversed(runs)]


# -- what it should do -------------------------------------------------------------------------------------------


@dataclass
class Model:
    """One deployment by its policies alone."""

    plan: Planned
    dues: list[float]
    until: float = BEGIN
    was_suspended: bool = False
    going: list[tuple[float, float, float]] = field(default_factory=list)
    queue: deque[float] = field(default_factory=deque)
    told: dict[float, tuple[str, float]] = field(default_factory=dict)

    def look(self, now: float) -> None:
        self.end(now)
        suspended = self.plan.suspended[0] <= now < self.plan.suspended[1]
        if suspended or self.was_suspended:
            self.was_suspended = suspended
            self.until = now
        place = bisect.bisect(self.dues, self.until)
        if place < len(self.dues) and self.dues[place] <= now:
            self.fire(self.dues[place : bisect.bisect(self.dues, now)], now)
            self.until = now
        self.start(now)

    def end(self, now: float) -> None:
        for one in [one for one in self.going if one[0] <= now]:
            self.going.remove(one)
            self.told[one[1]] = ("succeeded", one[2])

    def fire(self, passed: list[float], now: float) -> None:
        policies = self.plan.policies
        late = [due for due in passed if due <= now - 60.0]
        in_time = passed[len(late) :]
        if policies.missed == "all":
            self.queue += late[-policies.missed_limit :]
        elif policies.missed == "once" and not in_time:
            in_time = late[-1:]
        for due in in_time:
            if policies.overlap == "skip" and (self.queue or self.going):
                self.told[due] = ("skipped", 0.0)
            else:
                self.queue.append(due)

    def start(self, now: float) -> None:
        while self.queue and (not self.going or self.plan.policies.overlap == "allow"):
            due = self.queue.popleft()
            self.going.append((now + self.plan.seconds(due), due, now))

    def story(self) -> Story:
        told = {**self.told, **{due: ("running", started) for _, due, started in self.going}}
        told |= dict.fromkeys(self.queue, ("queued", 0.0))
        return [(due, *told[due]) for due in sorted(told)]


def expected(year: Year) -> dict[str, Story]:
    models = [Model(one, year.dues[one.name]) for one in year.plans]
    for now in year.looks:
        for one in models:
            one.look(now)
    return {one.plan.name: one.story() for one in models}


# -- both --------------------------------------------------------------------------------------------------------


def compare(year: Year, folder: Path) -> dict[str, int]:
    """Compare the year, run by run; return how often what happened."""
    state = play(year, folder)
    counts = dict.fromkeys(("due", "fired", "skipped", "late", "dropped"), 0)
    stories = expected(year)
    for one in year.plans:
        runs = state.list_runs(deployment=one.name)
        assert story(runs) == stories[one.name], one
        counts["due"] += len(year.dues[one.name])
        counts["fired"] += sum(run.status != "skipped" for run in runs)
        counts["skipped"] += sum(run.status == "skipped" for run in runs)
        counts["late"] += sum(bool(run.attempts) and run.attempts[0].started > run.due + 60 for run in runs)
        counts["dropped"] += len(set(year.dues[one.name]) - {run.due for run in runs})
    for one in year.plans[::FOLLOWED]:
        ended = [run for run in state.list_runs(deployment=one.name) if run.status == "succeeded"]
        followed = state.list_runs(deployment=f"after-{one.name}")
        assert sorted(run.key for run in followed) == sorted(f"event:{one.name} {run.due:.0f}" for run in ended)
    return counts


def test_a_year_of_twenty_deployments_fires_exactly_what_is_due(tmp_path: Path) -> None:
    counts = compare(make_year(2026, 20), tmp_path)
    assert counts["due"] > 4_000
    assert min(counts.values()) > 50  # nothing was compared in vain


@pytest.mark.chaos
@pytest.mark.parametrize("seed", [2026, *range(10)])
def test_years_of_fifty_deployments_fire_exactly_what_is_due(seed: int, tmp_path: Path) -> None:
    compare(make_year(seed, 50), tmp_path)
