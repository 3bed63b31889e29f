"""The scheduler under kills: every run that was due ends once, none is lost, none is doubled.

Ten deployments run by a real ``dlpipe scheduler``: some by the minute, some by events, some after others, some by
hand. In each round, made from its seed, something is killed with SIGKILL at random moments: the scheduler,
launchers, keepers, tasks, or all of it at once as by a power loss; a killed scheduler is started again after a
while. At the end, what ran is compared with what was due, by notes that each step has written itself, and lineage
is asked for what started the run that wrote each version of a table.

    .venv/bin/python tests/chaos/scheduler.py --rounds 60 --seed 0
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlpipe.orchestrator.runs import Run
from dlpipe.orchestrator.state import State

ROOT = Path(__file__).resolve().parents[2]
FLOW_FILE = Path(__file__).with_name("due_flow.py")
NOT_INHERITED = ("METAFLOW_", "MLFLOW_", "DLPIPE_", "_DLPIPE_", "PYTHON")
KINDS = ("scheduler", "launcher", "keeper", "task", "run", "all")
ATTACK_SECONDS = 8.0  # of a round's beginning; on a quiet machine its runs take ten
AIM_SECONDS = 15.0  # how long an attack waits for its target
ROUND_SECONDS = 60.0  # after which the next round begins, whatever is still open
DRAIN_SECONDS = 900.0
SUSPENDED_BY = 20.0  # of a minute; each of three commands takes seconds on a busy machine
MAX_RUNS = 4
EVERY_MINUTE, FED, AFTER = '@schedule(cron="* * * * *")', '@trigger(event="fed")', "@trigger_on_finish(flow={!r})"
DEPLOYMENTS = {
    "EveryMinuteA": EVERY_MINUTE,
    "EveryMinuteB": EVERY_MINUTE,
    "EveryMinuteC": EVERY_MINUTE,
    "FedA": FED,
    "FedB": FED,
    "FedC": FED,
    "AfterMinute": AFTER.format("EveryMinuteA"),
    "AfterFed": AFTER.format("FedA"),
    "ByHandA": "",
    "ByHandB": "",
}
"""Flow -> its decorator."""
POLICIES = (
    "--overlap",
    "queue",
    "--missed",
    "all",
    "--missed-limit",
    "1000",
    "--resumes",
    "100",
    "--backoff",
    "0.2s",
)


# -- plans -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attack:
    """One attack: ``at`` seconds after the round began; a killed scheduler stays away for ``away`` seconds."""

    kind: str
    at: float
    away: float
    pick: float


@dataclass(frozen=True)
class Plan:
    """What happens in one round: each kind of attack begins one round of six, more follow by chance."""

    seed: int
    attacks: tuple[Attack, ...]

    @classmethod
    def of(cls, seed: int) -> Plan:
        chance = random.Random(seed)
        kinds = [KINDS[seed % len(KINDS)], *(chance.choice(KINDS) for _ in range(chance.randint(0, 3)))]
        attacks = [
            Attack(kind, chance.uniform(0.0, ATTACK_SECONDS), chance.choice([0.0, 0.5, 3.0]), chance.random())
            for kind in kinds
        ]
        return cls(seed, tuple(sorted(attacks, key=lambda one: one.at)))


# -- processes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """The living processes of a production, by what they are; ``orphan``: tasks that outlive a launcher."""

    launcher: tuple[int, ...] = ()
    keeper: tuple[int, ...] = ()
    task: tuple[int, ...] = ()
    orphan: tuple[int, ...] = ()
    other: tuple[int, ...] = ()

    @property
    def all(self) -> tuple[int, ...]:
        return self.keeper + self.launcher + self.task + self.other


def processes(folder: Path, state: Path) -> Found:
    """Return what runs in ``folder`` or keeps an attempt of ``state``."""
    found = defaultdict(list)
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            here = Path(os.readlink(entry / "cwd")) == folder
        except OSError:  # it has just ended, or is not ours to look at
            continue
        pid = int(entry.name)
        if any(word.endswith("keeper.py") for word in words) and str(state) in " ".join(words):
            found["keeper"].append(pid)
        elif here and pid != os.getpid():
            found[_kind_of(words)].append(pid)
            if "step" in words and "work" in words:
                found["orphan"].append(pid)
    return Found(**{kind: tuple(sorted(pids)) for kind, pids in found.items()})


def _kind_of(words: list[str]) -> str:
    if "step" in words and "--run-id" in words:
        return "task"
    return "launcher" if "launch" in words or "relaunch" in words else "other"


def kill(pid: int) -> bool:
    """Kill a process and return whether there was one."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def environment(folder: Path) -> dict[str, str]:
    """Return an environment that leads nowhere else, with a copy of the code: it can be edited meanwhile."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
    code = str(folder / "tested")
    return {
        **kept,
        "PYTHONPATH": code,
        "METAFLOW_EXTENSIONS_SEARCH_DIRS": os.pathsep.join([code, sysconfig.get_path("purelib")]),
        "METAFLOW_USER": "tester",
        "METAFLOW_TOKEN_HOME": str(folder / "tokens"),
        "DLPIPE_STATE": str(folder / "state"),
    }


# -- production ------------------------------------------------------------------------------------------------


class Production:
    """A folder with ten deployed flows, and the scheduler that runs them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, folder / "state"
        self.asked: Counter[str] = Counter()
        self.published: list[str] = []
        self._scheduler: subprocess.Popen[bytes] | None = None
        self._back = 0.0
        for name in ("dlpipe", "metaflow_extensions"):
            shutil.copytree(ROOT / name, folder / "tested" / name, ignore=shutil.ignore_patterns("__pycache__"))

    def deploy(self) -> None:
        """Make the ten deployments."""
        text = FLOW_FILE.read_text()
        flows = self.folder / "flows"
        flows.mkdir()
        for name, decorator in DEPLOYMENTS.items():
            made = text.replace("class DueFlow", f"{decorator}\nclass DueFlow").replace("DueFlow", name)
            names = "FlowSpec, schedule, trigger, trigger_on_finish"
            (flows / f"{name}.py").write_text(made.replace("import FlowSpec", f"import {names}"))
        for name in DEPLOYMENTS:
            self.flow(name, "create", *POLICIES)

    def flow(self, name: str, *words: str) -> str:
        return self._command(f"flows/{name}.py", "--no-pylint", "local-scheduler", *words)

    def _command(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-P", *words],
            cwd=self.folder,
            env=environment(self.folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}"
        return done.stdout

    def feed(self, number: int) -> None:
        """Publish an event, which three deployments wait for, and start one by hand."""
        label = f"round-{number}"
        self._command("-m", "dlpipe.cli", "event", "publish", "fed", "--payload", json.dumps({"label": label}))
        self.published.append(label)
        name = "ByHandA" if number % 2 else "ByHandB"
        self.flow(name, "trigger", "--label", label)
        self.asked[name] += 1

    # the scheduler ----------------------------------------------------------------------------------------------

    def keep_going(self) -> None:
        """Start the scheduler unless it lives or is to stay away."""
        if self._scheduler is not None and self._scheduler.poll() is None:
            return
        if time.monotonic() < self._back:
            return
        with (self.folder / "scheduler.log").open("a") as log:
            self._scheduler = subprocess.Popen(
                [sys.executable, "-P", "-m", "dlpipe.cli", "scheduler", f"--max-runs={MAX_RUNS}", "--port=0"],
                cwd="/",
                env=environment(self.folder),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def attack(self, one: Attack) -> str:
        """Return what was killed, in a few words; nothing if there was no such thing."""
        found = processes(self.folder, self.state)
        match one.kind:
            case "scheduler":
                return "scheduler" if self._kill_scheduler(one.away) else ""
            case "all":
                self._kill_scheduler(one.away)
                killed = sum(kill(pid) for pid in found.all)
                return f"all ({killed})" if killed else ""
            case "run":
                if not found.orphan:
                    return ""
                return "keepers and launchers" if sum(map(kill, found.keeper + found.launcher)) else ""
            case kind:
                pids = getattr(found, kind)
                return kind if pids and kill(pids[int(one.pick * len(pids))]) else ""

    def _kill_scheduler(self, away: float) -> bool:
        if self._scheduler is None or self._scheduler.poll() is not None:
            return False
        self._scheduler.kill()
        self._scheduler.wait()
        self._back = time.monotonic() + away
        return True

    def stop(self) -> int:
        """Stop the scheduler gracefully and return its exit code."""
        assert self._scheduler is not None
        self._scheduler.terminate()
        return self._scheduler.wait(60)

    def end(self) -> None:
        """Kill whatever is left."""
        self._kill_scheduler(0.0)
        for _ in range(3):
            for pid in processes(self.folder, self.state).all:
                kill(pid)


# -- rounds ----------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What became of a round."""

    plan: Plan
    hits: list[str] = field(default_factory=list)
    seconds: float = 0.0
    ended: int = 0
    open: int = 0
    resumed: int = 0

    def line(self) -> str:
        return (
            f"{self.plan.seed:>5}  {', '.join(self.hits):<64}  {self.seconds:5.1f} s  {self.ended:>5} ended"
            f"  {self.resumed:>4} resumes  {self.open:>3} open"
        )


def play(production: Production, state: State, plan: Plan) -> Outcome:
    """Play a round: due times and events come, processes die, until nothing is open or time is up."""
    outcome = Outcome(plan)
    production.feed(plan.seed)
    began = time.monotonic()
    waiting = list(plan.attacks)
    while time.monotonic() - began < ROUND_SECONDS:
        production.keep_going()
        now = time.monotonic() - began
        waiting = [one for one in waiting if not _try(production, one, now, outcome)]
        outcome.open = len(state.list_runs(status=["queued", "running", "waiting"]))
        if not waiting and not outcome.open:
            break
        time.sleep(0.02)
    runs = state.list_runs()
    outcome.ended = sum(run.status == "succeeded" for run in runs)
    outcome.resumed = sum(max(len(run.attempts) - 1, 0) for run in runs)
    outcome.seconds = time.monotonic() - began
    return outcome


def _try(production: Production, attack: Attack, now: float, outcome: Outcome) -> bool:
    """Attack if it is time, and return whether that is done with."""
    if now < attack.at:
        return False
    if said := production.attack(attack):
        outcome.hits.append(f"{said}@{now:.1f}s")
        return True
    if now < attack.at + AIM_SECONDS:
        return False
    outcome.hits.append(f"{attack.kind} missed")
    return True


def drain(production: Production, state: State) -> None:
    """Let what is open end, with no further due times and no kills."""
    while time.time() % 60 > SUSPENDED_BY:  # all within one minute: nothing is due between two of them
        production.keep_going()
        time.sleep(0.1)
    for name in DEPLOYMENTS:
        if name.startswith("EveryMinute"):
            production.flow(name, "suspend")
    deadline = time.monotonic() + DRAIN_SECONDS
    quiet = 0
    while quiet < 20 and time.monotonic() < deadline:
        production.keep_going()
        quiet = 0 if state.list_runs(status=["queued", "running", "waiting"]) else quiet + 1
        time.sleep(0.1)


# -- the comparison --------------------------------------------------------------------------------------------


def problems(production: Production, state: State, until: float) -> Iterator[str]:
    """Yield what is not as it was due."""
    runs = state.list_runs()
    for run in runs:
        if run.status != "succeeded":
            yield f"run {run.number} of {run.deployment} is {run.status}: {run.reason}"
    by_deployment = defaultdict(list)
    for run in runs:
        by_deployment[run.deployment].append(run)
    for name in DEPLOYMENTS:
        yield from _not_due(name, by_deployment, production, state, until)
    yield from _doubled(production, runs)
    yield from _not_in_lineage(production, runs)


def _not_due(
    name: str, by: dict[str, list[Run]], production: Production, state: State, until: float
) -> Iterator[str]:
    """Compare a deployment's runs with what was due."""
    if name.startswith("EveryMinute"):
        created = state.list_versions(name)[-1].created
        expected = Counter(str(at * 60) for at in range(int(created // 60) + 1, int(until // 60) + 1))
        found = Counter(str(int(run.due)) for run in by[name])
    elif name.startswith("Fed"):
        expected = Counter(production.published)
        found = Counter(run.parameters.get("label") for run in by[name])
    elif name.startswith("After"):
        before = by["EveryMinuteA" if name == "AfterMinute" else "FedA"]
        expected = Counter(run.attempts[-1].metaflow_run for run in before if run.attempts)
        found = Counter(run.events[0].payload["run_id"] for run in by[name])
    else:
        expected = Counter({name: production.asked[name]})
        found = Counter({name: len(by[name])})
    for what in (expected - found).elements():
        yield f"{name} was due once more: {what}"
    for what in (found - expected).elements():
        yield f"{name} ran once too often: {what}"


def _doubled(production: Production, runs: list[Run]) -> Iterator[str]:
    """Compare the steps' own notes with what Metaflow has recorded."""
    begun: dict[tuple[int, str, int | None], list[dict[str, Any]]] = defaultdict(list)
    done: Counter[tuple[int, str, int | None]] = Counter()
    for line in (production.folder / "notes").read_text().splitlines():
        said = json.loads(line)
        key = (said["run"], said["step"], said["index"])
        if said["what"] == "overlaps":
            yield f"run {said['run']}: two executions of {said['step']}/{said['index']} at a time"
        elif said["what"] == "begins":
            begun[key].append(said)
        else:
            done[key] += 1
    numbers = {run.number for run in runs}
    for key, executions in begun.items():
        if key[0] not in numbers:
            yield f"run {key[0]} is not in the state, but its step {key[1]} ran"
        for earlier, later in itertools.pairwise(executions):
            if is_recorded(production.folder, earlier):
                yield f"run {key[0]}: {key[1]}/{key[2]} ran again in {later['metaflow_run']} after it was done"
    for run in runs:
        for step, index in [("start", None), ("work", 0), ("work", 1), ("join", None), ("end", None)]:
            if run.status == "succeeded" and not done[run.number, step, index]:
                yield f"run {run.number} succeeded without {step}/{index}"


def _not_in_lineage(production: Production, runs: list[Run]) -> Iterator[str]:
    """Yield in what records do not agree, and runs whose rows do not lead to their deployment and events."""
    from dlpipe.lineage import Records, check_records, walk

    os.environ["DLPIPE_STATE"] = str(production.state)
    os.chdir(production.folder)
    records = Records()
    yield from map(str, check_records(records))
    tables = {record.name: record for record in records.catalog.list_records()}
    for run in runs:
        if run.status != "succeeded":
            continue
        made = [
            number
            for number in (tables[run.deployment].commits if run.deployment in tables else ())
            if tables[run.deployment].read_key(number) == {"run": str(run.number)}
        ]
        if len(made) != 1:
            yield f"run {run.number} of {run.deployment} made {len(made)} versions of its table"
            continue
        told = walk(records, records.find(f"{run.deployment}@v{made[0]}"), direction="up").facts
        kinds = {"run", "deployment", *(["event"] if run.events else [])}
        if missing := kinds - {node.kind for node, facts in told.items() if not facts.gone}:
            yield f"{run.deployment}@v{made[0]} of run {run.number} leads to no {' and no '.join(sorted(missing))}"


def is_recorded(folder: Path, said: dict[str, Any]) -> bool:
    """Whether Metaflow has recorded that this execution of a step is done."""
    from metaflow import Task, metadata, namespace

    metadata(f"local@{folder}")
    namespace(None)
    flow = next(path.parent for path in folder.glob(f".metaflow/*/{said['metaflow_run']}")).name
    task = Task(f"{flow}/{said['metaflow_run']}/{said['step']}/{said['task']}")
    marked = list(folder.glob(f".metaflow/{task.pathspec}/*.DONE.lock"))
    return bool(marked) and task.finished and task.metadata_dict.get("attempt_ok") == "True"


# -- the command -----------------------------------------------------------------------------------------------


def main() -> int:
    """Play the rounds and return 1 if anything is not as it was due."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=60)
    options.add_argument("--seed", type=int, default=0, help="of the first round; the others follow")
    options.add_argument("--keep", action="store_true", help="keep the folder, which is named at the end")
    asked = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="scheduler-chaos-")).resolve()
    production = Production(folder)
    found = ["it did not come to the end"]
    try:
        production.deploy()
        state = State.open(production.state)
        for seed in range(asked.seed, asked.seed + asked.rounds):
            print(play(production, state, Plan.of(seed)).line(), flush=True)
        drain(production, state)
        until = time.time()  # suspended a moment ago, no minute has passed since the last due time was dealt with
        code = production.stop()
        found = [*problems(production, state, suspended_at(state, until))]
        if code != 0:
            found.append(f"the scheduler ended with {code} after SIGTERM")
        print(summary(state.list_runs(), found))
    finally:
        production.end()
        if asked.keep or found:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 1 if found else 0


def suspended_at(state: State, until: float) -> float:
    """Return up to when due times were dealt with: no more come once a deployment is suspended."""
    return min([until, *(one.scheduled_until for one in state.list_deployments() if one.suspended)])


def summary(runs: list[Run], found: list[str]) -> str:
    """Return the end of the table."""
    attempts = Counter(attempt.outcome for run in runs for attempt in run.attempts)
    said = ", ".join(f"{number} {outcome}" for outcome, number in attempts.most_common())
    lines = [f"{len(runs)} runs of {len(DEPLOYMENTS)} deployments; attempts: {said}"]
    lines += found or ["every due run ended once; no step ran twice at a time or again after it was done"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
