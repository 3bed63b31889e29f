"""What deciding costs, without processes: 200 deployments, 1,000 due runs a day, a clock that is an argument.

A month is played in one process: at each due time, decisions are made, runs begin and end. Reported are the time
of the processor for a decision when nothing is due and for a due run with all its notes in the state, their share
of a core (a look a second, 1,000 runs a day), and memory. ``scheduler_idle.py`` measures the scheduler's process.

    python tests/bench/scheduler.py
    python tests/bench/scheduler.py --days 2
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from resident import read_resident

from dlpipe.orchestrator.decisions import decide
from dlpipe.orchestrator.deployments import Policies, Schedule, Version
from dlpipe.orchestrator.runs import Run, RunAttempt
from dlpipe.orchestrator.state import FILE, State
from dlpipe.orchestrator.timing import next_due

DEPLOYMENTS = 200
TIMES_A_DAY = 5
PACKAGES = {f"package-{number}": "1.2.3" for number in range(300)}
BEGIN = 1767225600.0  # 2026-01-01
DAY = 86_400.0
LOOKS = 300


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        state = State.open(Path(folder))
        for number in range(DEPLOYMENTS):
            state.deploy(version(number), now=BEGIN)
        due, started = play(state, BEGIN + options.days * DAY)
        quiet = looks(state, BEGIN + options.days * DAY)
        size = Path(folder, FILE).stat().st_size
    print_table(options.days, started, due, quiet, size)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=30)
    return parser.parse_args()


def version(number: int) -> Version:
    """A deployment that is due five times a day, at a minute of its own, in one of four time zones."""
    hours = ",".join(str((number + 5 * place) % 24) for place in range(TIMES_A_DAY))
    zone = ("Europe/Berlin", "America/New_York", "Asia/Kolkata", "")[number % 4]
    return Version(
        f"Flow{number}", 0, "Flow", "code", "flow.py", "digest", "/srv", "python", PACKAGES,
        schedule=Schedule(f"{number * 7 % 60} {hours} * * *", zone), policies=Policies(overlap="allow"),
    )  # fmt: skip


def play(state: State, end: float) -> tuple[float, int]:
    """Play all due times until ``end``; the processor's seconds that they took, and how many runs there were."""
    began, started, now = time.process_time(), 0, BEGIN
    while (now := next_moment(state)) <= end:
        for run in decide(state, now, max_runs=DEPLOYMENTS):
            carry_out(state, run, now)
            started += 1
    return time.process_time() - began, started


def next_moment(state: State) -> float:
    schedules = [(one.version.schedule, one.scheduled_until) for one in state.list_deployments()]
    return min(next_due(schedule, until) for schedule, until in schedules if schedule)


def carry_out(state: State, run: Run, now: float) -> None:
    attempt = RunAttempt(
        0, f"token-{run.number}", f"runs/{run.number}/0", metaflow_run=f"ls-{run.number}", started=now
    )
    state.add_attempt(run.number, attempt)
    with state.transaction():
        state.set_attempt(run.number, attempt)
        state.set_status(run.number, "succeeded")


def looks(state: State, now: float) -> list[float]:
    """The processor's seconds of decisions when nothing is due."""
    seconds = []
    for _ in range(LOOKS):
        began = time.process_time()
        assert decide(state, now, max_runs=DEPLOYMENTS) == []
        seconds.append(time.process_time() - began)
    return seconds


def print_table(days: int, started: int, due: float, quiet: list[float], size: int) -> None:
    look, run = statistics.median(quiet), due / started
    memory = read_resident("VmHWM")
    rows = {
        "deployments": f"{DEPLOYMENTS}",
        "due runs": f"{started:,} in {days} days",
        "a look when nothing is due": f"{1000 * look:.2f} ms",
        "a due run, with all its notes": f"{1000 * run:.2f} ms",
        "share of a core, a look a second": f"{100 * (look + run * started / days / DAY):.2f} %",
        "peak memory": f"{memory:.0f} MB",
        "state on disk": f"{size / 2**20:.1f} MB",
    }
    print("| what | measured |\n|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
