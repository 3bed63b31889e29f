"""What the scheduler costs: idle, at due times, and between a due time and the first task.

idle     a real ``dlpipe scheduler`` with its page, 200 deployments and a month of runs in its state: share of a
         core and resident memory while nothing is due, once with nobody looking, once with a browser's refreshes
day      a day of 200 deployments with 1,000 due runs, on a clock that jumps from one due time to the next;
         launchers are real processes that do nothing, and only the scheduler's own processor time counts
latency  from a due time to the first line of the flow's first task, paired with a bare ``run`` of the same flow,
         from its command to the same line; both once a minute

    python tests/bench/scheduler_idle.py
    python tests/bench/scheduler_idle.py --only latency --rounds 3
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from dlpipe.orchestrator.deployments import Policies, Schedule, Version
from dlpipe.orchestrator.environment import list_packages
from dlpipe.orchestrator.presence import read_about
from dlpipe.orchestrator.runs import RunAttempt
from dlpipe.orchestrator.scheduler import Scheduler
from dlpipe.orchestrator.state import State

PACKAGES = list_packages(sys.executable)
DEPLOYMENTS = 200
RUNS_A_DAY = 1_000
DAYS_KEPT = 30
DAY = 86_400
PATIENCE = 300.0
REFRESH = 5.0
NOT_INHERITED = ("METAFLOW_", "MLFLOW_", "DLPIPE_", "PYTEST_")
LAUNCHER = """
import os, sys
run = sys.argv[sys.argv.index("--run-id") + 1]
with open(os.environ["_DLPIPE_ATTEMPT_FOLDER"] + "/end", "w") as end:
    end.write(f"Flow/{run}/end/2")
"""
FLOW = """
import time
from metaflow import FlowSpec, schedule, step

@schedule(cron="* * * * *")
class LatencyFlow(FlowSpec):
    @step
    def start(self):
        with open("started", "a") as file:
            print(time.time(), file=file)
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    LatencyFlow()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["idle", "day", "latency"])
    parser.add_argument("--seconds", type=float, default=120.0, help="how long each idle measurement is")
    parser.add_argument("--rounds", type=int, default=10, help="of latency, a minute each")
    options = parser.parse_args()
    for name, measure in (("idle", idle), ("day", day), ("latency", latency)):
        if options.only in (None, name):
            with tempfile.TemporaryDirectory(prefix="dlpipe-bench-") as folder:
                measure(Path(folder), options)


# -- idle --------------------------------------------------------------------------------------------------------


def idle(folder: Path, options: argparse.Namespace) -> None:
    """Print what the real process takes while nothing is due."""
    with contextlib.closing(State.open(folder / "state")) as state:
        deploy_all(state, time.time(), quiet=True)
        keep_runs(state, time.time())
    port = free_port()
    with scheduler(folder / "state", "--port", str(port), "--no-token") as process:
        wait_until(lambda: read_about(folder / "state").get("page"))
        time.sleep(5)
        alone = cpu_share(process.pid, options.seconds, lambda: time.sleep(0.2))
        memory = resident(process.pid)
        watched = cpu_share(process.pid, options.seconds, lambda: look_at_page(port))
        print(f"\nidle, {DEPLOYMENTS} deployments, {RUNS_A_DAY * DAYS_KEPT:,} runs kept, page on")
        print(f"  share of a core, nobody looking      {alone:.2%}   (target below 1 %)")
        print(f"  share of a core, a page every {REFRESH:.0f} s    {watched:.2%}")
        print(f"  resident memory                      {memory:.0f} MB, {resident(process.pid):.0f} MB after pages"
              "   (target below 100 MB)")  # fmt: skip


def deploy_all(state: State, now: float, *, quiet: bool = False) -> None:
    """Deploy 200 programs, due five times a day each; ``quiet`` ones are due once a year, half a year from now."""
    code = state.folder / "code" / "nothing"
    code.mkdir(parents=True)
    (code / "flow.py").write_text(LAUNCHER)
    month = time.gmtime(now + DAY * 182).tm_mon
    for number in range(DEPLOYMENTS):
        hours = ",".join(str((number + 5 * place) % 24) for place in range(RUNS_A_DAY // DEPLOYMENTS))
        cron = f"{number % 60} {number % 24} 1 {month} *" if quiet else f"{number % 60} {hours} * * *"
        version = Version(
            f"Flow{number}", 0, "Flow", str(code), "flow.py", "0" * 64, str(code), sys.executable, PACKAGES,
            schedule=Schedule(cron, "Europe/Berlin" if number % 2 else ""), policies=Policies(overlap="allow"),
        )  # fmt: skip
        state.deploy(version, now=now)


def keep_runs(state: State, now: float) -> None:
    """Note a month of runs, as they are after they ended."""
    for start in range(0, RUNS_A_DAY * DAYS_KEPT, 1000):
        with state.transaction():
            for number in range(start, start + 1000):
                due = now - DAY * DAYS_KEPT + number * DAY / RUNS_A_DAY
                run, _ = state.add_run(f"Flow{number % DEPLOYMENTS}", cause="schedule", key=f"{number}", due=due)
                made = RunAttempt(0, str(number), "nowhere", "", f"ls-{run.number}", due, due + 60, 0, "succeeded")
                state.add_attempt(run.number, made)
                state.set_status(run.number, "succeeded")


def look_at_page(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/")
    assert connection.getresponse().read()
    connection.close()
    time.sleep(REFRESH)


def cpu_share(pid: int, seconds: float, meanwhile: Callable[[], None]) -> float:
    """The share of a core that a process and its threads took."""
    began, before = time.monotonic(), cpu_seconds(pid)
    while time.monotonic() - began < seconds:
        meanwhile()
    return (cpu_seconds(pid) - before) / (time.monotonic() - began)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """Megabytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024 / 1e6


# -- a day -------------------------------------------------------------------------------------------------------


def day(folder: Path, options: argparse.Namespace) -> None:
    """Print what a day's decisions and starts cost."""
    state = State.open(folder / "state")
    now = time.time() // DAY * DAY - DAY + 30  # between due times
    deploy_all(state, now)
    made = Scheduler(state, max_runs=1000, clock=lambda: now)
    began, ticks, until = time.process_time(), 0, now + DAY
    while now < until:
        made.tick()
        ticks += 1
        while state.list_runs(status=["running"], limit=1):
            time.sleep(0.05)
            if made.is_time():
                made.tick()
                ticks += 1
        now = min(made._next, until)
    took = time.process_time() - began
    ended = len(state.list_runs(status=["succeeded"]))
    made.close()
    assert ended == len(state.list_runs()), "every run ends once"
    print(f"\na day on a clock that jumps: {ended} due runs of {DEPLOYMENTS} deployments, {ticks} looks")
    print(f"  the scheduler's processor time       {took:.1f} s, {took / ended * 1000:.0f} ms a run, "
          f"{took / DAY:.3%} of a core over the day")  # fmt: skip
    print(f"  its resident memory                  {resident(os.getpid()):.0f} MB")


# -- latency -----------------------------------------------------------------------------------------------------


def latency(folder: Path, options: argparse.Namespace) -> None:
    """Print how long after a due time the first task starts, and after the command of a bare run."""
    work = folder / "work"
    work.mkdir()
    (work / "latency_flow.py").write_text(FLOW)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
    environment = {
        **kept,
        "DLPIPE_STATE": str(folder / "state"),
        "METAFLOW_USER": "bench",
        "METAFLOW_HOME": str(folder),
    }
    flow = [sys.executable, "latency_flow.py"]

    def command(*words: str) -> None:
        subprocess.run([*flow, *words], cwd=work, env=environment, check=True, capture_output=True)

    def started() -> list[float]:
        file = work / "started"
        return [float(line) for line in file.read_text().splitlines()] if file.exists() else []

    command("run")
    command("local-scheduler", "create")
    bare, due = [], []
    with scheduler(folder / "state", "--port", "0"):
        for _ in range(options.rounds):
            minute = (time.time() // 60 + 1) * 60
            time.sleep(max(0.0, minute - 25 - time.time()))  # the run before has long ended
            before = time.time()
            command("run")
            bare.append(next(one for one in started() if one > before) - before)
            wait_until(lambda minute=minute: any(one > minute for one in started()))
            due.append(next(one for one in started() if one > minute) - minute)
            print(f"bare {bare[-1]:.2f} s, due {due[-1]:.2f} s", file=sys.stderr)
        with contextlib.closing(State.open(folder / "state")) as state:
            state.suspend("LatencyFlow", True, now=time.time())
            wait_until(lambda: not state.list_runs(status=["running", "queued"]))
    more = [one - other for one, other in zip(due, bare, strict=True)]
    print(f"\nto the first task, {options.rounds} pairs (median, range)")
    for name, values in (("bare run", bare), ("due time", due), ("difference", more)):
        middle = statistics.median(values)
        print(f"  {name:12}{middle:6.2f} s   {min(values):.2f} to {max(values):.2f}")
    print("  (target: at most 2 s more)")


# -- processes ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def scheduler(folder: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "dlpipe.cli", "scheduler", *words],
        env={**os.environ, "DLPIPE_STATE": str(folder)},
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: (folder / "scheduler.json").exists())
        yield process
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def wait_until(condition: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.05)


if __name__ == "__main__":
    main()
