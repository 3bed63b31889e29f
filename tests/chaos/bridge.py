"""The bridge under kills: whatever dies on the way, MLflow holds in the end what happened, once.

Each round, made from its seed, runs ``chaos_flow.py`` with the bridge in a folder of its own, kills or cuts off
something at a random moment, resumes until the run has succeeded, and compares MLflow with Metaflow: by
``dlpipe.bridge.check`` and ``dlpipe.lineage.check_records``, and by checks here that know nothing of their code.

    .venv/bin/python tests/chaos/bridge.py --rounds 100 --seed 0
    .venv/bin/python tests/chaos/bridge.py --only 17 --keep
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

FLOW = "ChaosFlow"
FLOW_FILE = Path(__file__).with_name("chaos_flow.py")
ROOT = Path(__file__).resolve().parents[2]
ON_MLFLOW = ("server", "cut")
KINDS = ("task", "launcher", "group", "follower", *ON_MLFLOW)
HARMLESS = ("follower", *ON_MLFLOW)
"""Attacks that the flow must not notice, unless a step logs to MLflow itself."""
RESUMES = 5
NOT_INHERITED = ("METAFLOW_", "MLFLOW_", "DLPIPE_", "CHAOS_")
TICK = 0.02
RESUME_SHARE = 0.6  # of a run's length; a resume has less to do
SLOW_SECONDS = 60.0  # ten times what the flow takes on a quiet machine; a call to a dead server blocks for 247
AIM_SECONDS = 1.5  # how long an attack waits for its target
UNKNOWN_SECONDS = 31.0  # for so long a run counts as going on of whose launcher nothing is known
FLOW_SECONDS, ORPHAN_SECONDS, FOLLOWER_SECONDS, CHECK_SECONDS, SERVER_SECONDS = 120.0, 60.0, 30.0, 120, 60.0
OWN_STEP, OWN_POINTS = "count", [0, 1, 2]
"""The step that logs to MLflow itself, and the steps of its metric."""
REPORTING_STEP, REPORTED = "gather", [1, 2, 3, 4]
"""The step that reports points while it runs, and their steps; a killed attempt has the first of them."""


# -- plans -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attack:
    """One attack.

    Attributes
    ----------
    at : float
        When, as a share of the seconds that an undisturbed run takes.
    lasts : float
        Seconds until the server is started again, or goes on.
    pick : float
        Which of the running tasks, from 0 to 1.
    """

    kind: str
    at: float
    lasts: float
    pick: float


@dataclass(frozen=True)
class Plan:
    """What happens in one round.

    Attributes
    ----------
    server : bool
        Whether an MLflow server stands before the store, or it is a database in the round's folder.
    empty : bool
        Whether that database is not there yet.
    logs : bool
        Whether a step logs to MLflow itself.
    """

    seed: int
    server: bool
    empty: bool
    logs: bool
    attacks: tuple[Attack, ...]
    on_resume: tuple[Attack, ...]

    @classmethod
    def of(cls, seed: int) -> Plan:
        """Return the plan of a seed; six seeds in a row begin with six kinds of attack."""
        chance = random.Random(seed)
        first = KINDS[seed % len(KINDS)]
        server = first in ON_MLFLOW or chance.random() < 0.4
        kinds = [kind for kind in KINDS if server or kind not in ON_MLFLOW]
        second = [chance.choice(kinds)] if chance.random() < 0.35 else []
        third = [chance.choice(kinds)] if chance.random() < 0.35 else []
        return cls(
            seed=seed,
            server=server,
            empty=not server and chance.random() < 0.2,
            logs=chance.random() < 0.2,
            attacks=tuple(sorted((_attack(kind, chance) for kind in [first, *second]), key=lambda one: one.at)),
            on_resume=tuple(_attack(kind, chance) for kind in third),
        )

    @property
    def store(self) -> str:
        """In a word."""
        return "server" if self.server else "empty" if self.empty else "sqlite"


def _attack(kind: str, chance: random.Random) -> Attack:
    return Attack(kind, at=chance.uniform(0.05, 1.0), lasts=chance.uniform(0.5, 4.0), pick=chance.random())


# -- processes -------------------------------------------------------------------------------------------------


def standing_in(folder: Path) -> dict[int, list[str]]:
    """Return the commands of the living processes whose working directory is ``folder``."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(entry / "cwd")) == folder:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                found[int(entry.name)] = words
        except OSError:  # it has just ended, or is not ours to look at
            continue
    return found


def is_follower(words: list[str]) -> bool:
    return "dlpipe.bridge.follow" in words


def is_task(words: list[str]) -> bool:
    return "step" in words and "--run-id" in words


def kill(pid: int, number: signal.Signals = signal.SIGKILL, *, group: bool = False) -> bool:
    """Send a signal and return whether there was a process to take it."""
    try:
        (os.killpg if group else os.kill)(pid, number)
    except ProcessLookupError:
        return False
    return True


def end_all_in(folder: Path) -> None:
    """Kill every process that stands in the folder, and those that they start meanwhile."""
    deadline = time.monotonic() + 10
    while (found := standing_in(folder)) and time.monotonic() < deadline:
        for pid in found:
            kill(pid)
        time.sleep(TICK)


def environment(**more: str) -> dict[str, str]:
    """Return the environment without what would lead a flow to other places, and with ``more``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
    places = os.pathsep.join([os.environ["PYTHONPATH"], sysconfig.get_path("purelib")])
    ours = {"METAFLOW_USER": "tester", "METAFLOW_EXTENSIONS_SEARCH_DIRS": places, "PYTHONUNBUFFERED": "1"}
    return {**kept, **ours, **more}


def freeze_code(folder: Path) -> None:
    """Copy what is tested into the folder and let all processes use that: it can be edited meanwhile."""
    for name in ("dlpipe", "metaflow_extensions"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    os.environ["PYTHONPATH"] = str(folder)


# -- the server ------------------------------------------------------------------------------------------------


class Server:
    """A real MLflow server on loopback, which dies and comes back at the same address."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it unless it lives; it answers some seconds later."""
        if self._process is not None and self._process.poll() is None:
            return
        words = ["server", "--workers", "1", "--host", "127.0.0.1", "--port", str(self._port)]
        words += ["--backend-store-uri", f"sqlite:///{self._folder / 'mlflow.db'}"]
        words += ["--artifacts-destination", str(self._folder / "artifacts")]
        with (self._folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                [str(Path(sys.executable).with_name("mlflow")), *words],
                cwd=self._folder,
                env=environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false", MLFLOW_DISABLE_TELEMETRY="true"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> bool:
        return self._signal(signal.SIGKILL)

    def cut_off(self) -> bool:
        return self._signal(signal.SIGSTOP)

    def go_on(self) -> bool:
        return self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> bool:
        if self._process is None or not kill(self._process.pid, number, group=True):
            return False
        if number == signal.SIGKILL:
            self._process.wait()
        return True

    def make_sure(self) -> None:
        """Return once it answers."""
        self.go_on()
        self.start()
        deadline = time.monotonic() + SERVER_SECONDS
        while not self._answers():
            assert time.monotonic() < deadline, f"the MLflow server does not start: {self._folder / 'server.log'}"
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False


# -- a round ---------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What became of a round."""

    plan: Plan
    hits: list[tuple[str, str]] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    commands: list[tuple[str, int, float]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    verdict: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def only_mlflow(self) -> bool:
        """Whether nothing was hit that the flow may notice."""
        return not self.plan.logs and all(kind in HARMLESS for kind, _ in self.hits)

    def line(self) -> str:
        """Return the round in one line."""
        records, wrote, removed = (self.verdict.get(name, "?") for name in ("records", "wrote", "removed"))
        end = f"FAILED: {'; '.join(self.problems)}" if self.problems else "OK"
        what = ", ".join([*(said for _, said in self.hits), *(f"{kind} missed" for kind in self.missed)])
        ran = " ".join(f"{word}:{code}:{seconds:.1f}s" for word, code, seconds in self.commands)
        logs = "logs" if self.plan.logs else ""
        return (
            f"seed {self.plan.seed:<4} {self.plan.store:<6} {logs:<4} {what:<58} | {ran} | {self.seconds:.1f} s, "
            f"{records} records, sync wrote {wrote}, removed {removed} | {end}{self._behind()}"
        )

    def _behind(self) -> str:
        """Return why the runs that sync had to catch up with were behind."""
        reasons = dict.fromkeys(self.verdict.get("behind", {}).values())
        return "".join(f" | behind: {reason[:150]}" for reason in reasons)


class Round:
    """One round in its folder.

    Parameters
    ----------
    length : float
        Seconds that an undisturbed run takes.
    """

    def __init__(self, plan: Plan, folder: Path, server: Server, length: float) -> None:
        self.plan, self.folder, self._server, self._length = plan, folder, server, length
        self.outcome = Outcome(plan)
        self._repairs: list[tuple[float, Callable[[], object]]] = []
        self._began = time.monotonic()

    @property
    def uri(self) -> str:
        return self._server.uri if self.plan.server else f"sqlite:///{self.folder / 'mlflow.db'}"

    def play(self) -> None:
        """Run the flow under attack, and resume it until it has succeeded."""
        self._drive(["run"], self.plan.attacks)
        for number in range(RESUMES):
            if self._has_succeeded():
                break
            self._drive(self._next_words(), self.plan.on_resume if number == 0 else ())
        else:
            self.outcome.problems.append(f"no success after {RESUMES} resumes")
        self._judge_commands()

    def settle(self) -> None:
        """Return when the server answers, no follower lives, and no run counts as going on."""
        if self.plan.server:
            self._server.make_sure()
        self._repairs = []
        self._wait(is_follower, FOLLOWER_SECONDS, "followers live on")
        for run in runs_in(self.folder):
            if not was_bridged(self.folder, run):  # its id is when it began, in microseconds
                time.sleep(max(0.0, int(run) / 1e6 + UNKNOWN_SECONDS - time.time()))

    def _has_succeeded(self) -> bool:
        made = runs_in(self.folder)
        return bool(made) and has_succeeded(self.folder, made[-1])

    def _next_words(self) -> list[str]:
        """Return how the flow goes on: Metaflow resumes no run that was killed before it kept its parameters."""
        done = [run for run in runs_in(self.folder) if can_be_resumed(self.folder, run)]
        return ["resume", "--origin-run-id", done[-1]] if done else ["run"]

    def _drive(self, words: list[str], attacks: tuple[Attack, ...]) -> None:
        """Run the flow's command to the end under attack, and wait for the tasks that outlive it."""
        began = time.monotonic()
        process = self._started(words)
        waiting = list(attacks)
        while process.poll() is None:
            waiting = [one for one in waiting if not self._try(one, process, time.monotonic() - began)]
            self._repair()
            if time.monotonic() - began > FLOW_SECONDS:
                self.outcome.problems.append(f"`{words[0]}` had not ended after {FLOW_SECONDS:.0f} s")
                kill(process.pid, group=True)
            time.sleep(TICK)
        self.outcome.missed += [one.kind for one in waiting]
        self.outcome.commands.append((words[0], process.returncode, time.monotonic() - began))
        self._wait(is_task, ORPHAN_SECONDS, "orphans live on")

    def _started(self, words: list[str]) -> subprocess.Popen[bytes]:
        more = {"CHAOS_MLFLOW": "1"} if self.plan.logs else {}
        if self.plan.server:
            more["MLFLOW_TRACKING_URI"] = self.uri
        with (self.folder / "flow.log").open("a") as log:
            return subprocess.Popen(
                [sys.executable, str(FLOW_FILE), *words, "--with", "mlflow_bridge"],
                cwd=self.folder,
                env=environment(**more),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _try(self, attack: Attack, process: subprocess.Popen[bytes], now: float) -> bool:
        """Attack if it is time, and return whether that is done with."""
        due = attack.at * self._length * (RESUME_SHARE if self.outcome.commands else 1)
        if now < due:
            return False
        if said := self._hit(attack, process):
            place = f"{len(self.outcome.commands)}+" if self.outcome.commands else ""
            self.outcome.hits.append((attack.kind, f"{said}@{place}{now:.1f}s"))
            return True
        if now < due + AIM_SECONDS:
            return False
        self.outcome.missed.append(attack.kind)
        return True

    def _hit(self, attack: Attack, process: subprocess.Popen[bytes]) -> str:
        """Return what was hit in a few words; nothing if there was no such thing to hit."""
        match attack.kind:
            case "launcher":
                return "launcher" if kill(process.pid) else ""
            case "group":
                return "group" if kill(process.pid, group=True) else ""
            case "server":
                self._later(attack.lasts, self._server.start)
                return f"server for {attack.lasts:.1f}s" if self._server.kill() else ""
            case "cut":
                self._later(attack.lasts, self._server.go_on)
                return f"cut for {attack.lasts:.1f}s" if self._server.cut_off() else ""
        wanted = is_task if attack.kind == "task" else is_follower
        found = sorted(
            (words[words.index("step") + 1] if wanted is is_task else attack.kind, pid)
            for pid, words in standing_in(self.folder).items()
            if wanted(words)
        )
        if not found:
            return ""
        name, pid = found[int(attack.pick * len(found))]
        return name if kill(pid) else ""

    def _later(self, seconds: float, repair: Callable[[], object]) -> None:
        self._repairs.append((time.monotonic() + seconds, repair))

    def _repair(self) -> None:
        now = time.monotonic()
        for _, repair in [one for one in self._repairs if one[0] <= now]:
            repair()
        self._repairs = [one for one in self._repairs if one[0] > now]

    def _wait(self, wanted: Callable[[list[str]], bool], seconds: float, otherwise: str) -> None:
        deadline = time.monotonic() + seconds
        while any(wanted(words) for words in standing_in(self.folder).values()):
            self._repair()
            if time.monotonic() > deadline:
                self.outcome.problems.append(f"{otherwise} after {seconds:.0f} s")
                return
            time.sleep(3 * TICK)

    def _judge_commands(self) -> None:
        """Say so if the flow failed, or waited for long, where only MLflow and the bridge were attacked."""
        if not self.outcome.only_mlflow:
            return
        word, code, seconds = self.outcome.commands[0]
        if code:
            self.outcome.problems.append(f"`{word}` ended with {code} although the flow was not attacked")
        if seconds > SLOW_SECONDS:
            self.outcome.problems.append(f"`{word}` took {seconds:.0f} s although the flow was not attacked")


# -- what Metaflow says, read from its files -------------------------------------------------------------------


def runs_in(folder: Path) -> list[str]:
    """Return the ids of the runs that Metaflow knows, the oldest first."""
    found = (folder / ".metaflow" / FLOW).glob("*/_meta/_self.json")
    return sorted((path.parts[-3] for path in found if path.parts[-3].isdigit()), key=int)


def entries(task: Path) -> list[dict[str, Any]]:
    """Return the metadata of the task in the folder ``task``, the oldest first."""
    found = [json.loads(path.read_bytes()) for path in task.glob("_meta/sysmeta_*.json")]
    return sorted(found, key=lambda one: int(one["ts_epoch"]))


def has_succeeded(folder: Path, run: str) -> bool:
    """Return whether the last step of the run has."""
    tasks = (folder / ".metaflow" / FLOW / run / "end").glob("[0-9]*")
    said = [one["value"] for task in tasks for one in entries(task) if one["field_name"] == "attempt_ok"]
    return said[-1:] == ["True"]


def can_be_resumed(folder: Path, run: str) -> bool:
    """Return whether the run has kept its parameters."""
    return any((folder / ".metaflow" / FLOW / run / "_parameters").glob("[0-9]*/0.DONE.lock"))


def was_bridged(folder: Path, run: str) -> bool:
    """Return whether the run's launcher lived long enough to leave the last of the bridge's marks."""
    return (folder / ".metaflow" / FLOW / run / "_bridge" / "launcher").exists()


@dataclass(frozen=True)
class Ended:
    """An attempt as Metaflow's files tell it."""

    key: str
    step: str
    status: str
    cloned: bool


def attempts_in(folder: Path, run: str) -> Iterator[Ended]:
    """Yield the attempts of a run in which nothing runs any more."""
    for task in (folder / ".metaflow" / FLOW / run).glob("[a-z]*/[0-9]*"):
        said = entries(task)
        cloned = any(one["field_name"] == "origin-task-id" for one in said)
        ok = {one["tags"][0].partition(":")[2]: one["value"] for one in said if one["field_name"] == "attempt_ok"}
        numbers = list(dict.fromkeys(str(one["value"]) for one in said if one["field_name"] == "attempt"))
        for number in numbers:
            status = {"True": "FINISHED", "False": "FAILED"}.get(ok.get(number, ""), "KILLED")
            if status == "FINISHED" and number != numbers[-1]:  # killed after it had said so, and tried again
                status = "KILLED"
            step = task.parent.name
            yield Ended(f"{FLOW}/{run}/{step}/{task.name}/{number}", step, status, cloned)


# -- the checker: one process that has MLflow in memory, and forks for each round ---------------------------------


class Checker:
    """A process that answers one line of JSON with another."""

    def __init__(self, folder: Path) -> None:
        with (folder / "checker.log").open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, __file__, "--checker"],
                cwd=folder,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def ask(self, **question: Any) -> dict[str, Any]:
        """Return its answer; one that does not come in time has a problem in it."""
        print(json.dumps(question), file=self._process.stdin, flush=True)
        ready, _, _ = select.select([self._process.stdout], [], [], CHECK_SECONDS + 30)
        return json.loads(self._process.stdout.readline()) if ready else {"problems": ["the checker hangs"]}

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def answer_questions() -> None:
    """Answer each line on stdin, in a process of its own that has everything imported already."""
    import metaflow  # noqa: F401
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    from mlflow import MlflowClient  # noqa: F401

    import dlpipe.bridge.mirroring
    import dlpipe.bridge.reading
    import dlpipe.lineage  # noqa: F401

    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print is no answer
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            signal.alarm(CHECK_SECONDS)
            _answer(json.loads(line), out)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            print(json.dumps({"problems": [f"the check died ({status})"]}), file=out, flush=True)


def _answer(question: dict[str, Any], out: IO[str]) -> None:
    try:
        os.chdir(question["folder"])
        os.environ["MLFLOW_TRACKING_URI"] = question["uri"]
        said = verdict(**question) if "answer" in question else prepared()
    except BaseException as error:
        import traceback

        traceback.print_exc()
        said = {"problems": [f"the check raised {type(error).__name__}: {str(error).splitlines()[:1]}"]}
    print(json.dumps(said), file=out, flush=True)


def prepared() -> dict[str, Any]:
    """Make an empty store."""
    from dlpipe.tracking import open_store

    open_store(create=True)
    return {}


def verdict(folder: str, uri: str, logs: bool, answer: dict[str, Any] | None, name: str) -> dict[str, Any]:
    """Sync and check; return what was written, the flow's own answer, and every problem.

    Parameters
    ----------
    answer : dict or None
        The final artifacts of an undisturbed run, if there was one.
    name : str
        What the experiment is called afterwards: the next round begins without one.
    """
    from dlpipe import bridge

    behind = {one.run: one.reason for one in bridge.status()}
    problems = [  # a launcher killed before it left a mark has said nothing
        f"said to be whole, but {one}"
        for run in runs_in(Path(folder))
        if f"{FLOW}/{run}" not in behind and was_bridged(Path(folder), run)
        for one in bridge.check(f"{FLOW}/{run}")
    ]
    done = bridge.sync(FLOW)
    problems += [f"{one.run} is still behind: {one.reason}" for one in bridge.status()]
    differences = [str(one) for one in bridge.check(FLOW)]
    if differences:
        problems.append(f"{len(differences)} differences, such as {differences[0][:300]}")
    problems += lineage_problems()
    final = final_artifacts(Path(folder), runs_in(Path(folder))[-1])
    if answer is not None and final != answer:
        problems.append(f"artifacts {final} instead of {answer}")
    seen = Seen(name)
    problems += seen.problems(Path(folder), logs=logs)
    seen.put_aside()
    return {
        "answer": final,
        "behind": behind,
        "wrote": sum(one.written for one in done),
        "records": len(seen.runs),
        "removed": seen.removed,
        "problems": problems,
    }


def lineage_problems() -> Iterator[str]:
    """Yield in what records do not agree, and the versions of tables that lead to no run of the flow."""
    from dlpipe.lineage import Records, check_records, walk

    records = Records()
    yield from map(str, check_records(records))
    tables = {record.name: record for record in records.catalog.list_records()}
    if sorted(tables) != ["squares", "squares_again"] or list(tables["squares"].commits) != [0]:
        yield f"the tables {', '.join(tables)} instead of one version of squares and those of squares_again"
    for record in tables.values():
        for number in record.commits:
            told = walk(records, records.find(f"{record.name}@v{number}"), direction="up").facts
            if not any(node.kind == "run" and not facts.gone for node, facts in told.items()):
                yield f"{record.name}@v{number} leads to no run"


def final_artifacts(folder: Path, run: str) -> dict[str, Any]:
    """Return the artifacts of the last task of a run; none if it did not come so far."""
    import metaflow

    if not has_succeeded(folder, run):
        return {}
    metaflow.namespace(None)
    data = metaflow.Run(f"{FLOW}/{run}")["end"].task.data
    return {name: getattr(data, name) for name in ("total", "mean", "words", "table")}


class Seen:
    """What MLflow holds, as its own client tells it."""

    def __init__(self, name: str) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import ViewType

        self._client, self._name = MlflowClient(os.environ["MLFLOW_TRACKING_URI"]), name
        experiment = self._client.get_experiment_by_name(FLOW)
        assert experiment, f"no experiment {FLOW}"
        self._experiment = experiment.experiment_id
        self.runs = self._client.search_runs([self._experiment], max_results=5000)
        self.removed = len(self._client.search_runs([self._experiment], run_view_type=ViewType.DELETED_ONLY))

    def put_aside(self) -> None:
        """Give the experiment another name."""
        self._client.rename_experiment(self._experiment, self._name)

    def problems(self, folder: Path, *, logs: bool) -> list[str]:
        """Return everything that is not as it should be."""
        found = [*self._doubles(), *self._open(), *self._points(), *self._strays()]
        for run in runs_in(folder):
            found += [*self._parents(run), *self._attempts(list(attempts_in(folder, run)), logs=logs)]
        return found

    def _doubles(self) -> Iterator[str]:
        keys = Counter(one.data.tags.get("metaflow.key", "no key") for one in self.runs)
        yield from (f"{count} runs for {key}" for key, count in keys.items() if count > 1 or key == "no key")

    def _open(self) -> Iterator[str]:
        for one in self.runs:
            if one.info.status == "RUNNING":
                yield f"{one.data.tags.get('metaflow.key')} is left RUNNING"

    def _points(self) -> Iterator[str]:
        for one in self.runs:
            for name in one.data.metrics:
                history = self._client.get_metric_history(one.info.run_id, name)
                if len({point.step for point in history}) < len(history):
                    yield f"{one.data.tags.get('metaflow.key')} has points of {name} twice"

    def _strays(self) -> Iterator[str]:
        """Yield what landed in MLflow's default experiment, and delete it: a server serves more rounds."""
        for one in self._client.search_runs(["0"]):
            yield f"a run in experiment Default: {one.info.run_name}, {one.data.tags.get('metaflow.task')}"
            self._client.delete_run(one.info.run_id)

    def _parents(self, run: str) -> Iterator[str]:
        of_run = [one for one in self.runs if one.data.tags.get("metaflow.run") == f"{FLOW}/{run}"]
        parents = [one for one in of_run if "mlflow.parentRunId" not in one.data.tags]
        if [one.data.tags.get("metaflow.key") for one in parents] != [f"{FLOW}/{run}"]:
            yield f"{len(parents)} parents of {run}"
        ids = {one.info.run_id for one in parents}
        for one in of_run:
            if one not in parents and one.data.tags["mlflow.parentRunId"] not in ids:
                yield f"{one.data.tags.get('metaflow.key')} is nested under another run"

    def _attempts(self, attempts: list[Ended], *, logs: bool) -> Iterator[str]:
        held = {one.data.tags.get("metaflow.key"): one for one in self.runs}
        for attempt in attempts:
            if (one := held.get(attempt.key)) is None:
                yield f"{attempt.key} is missing"
                continue
            if one.info.status != attempt.status:
                yield f"{attempt.key} is {one.info.status}, Metaflow says {attempt.status}"
            if attempt.step == REPORTING_STEP and not attempt.cloned:
                points = self._client.get_metric_history(one.info.run_id, "epochs/loss")
                steps = sorted(point.step for point in points)
                wanted = REPORTED if attempt.status == "FINISHED" else REPORTED[: len(steps)]
                if steps != wanted:
                    yield f"{attempt.key} has the points {steps} of {REPORTED} that its step reported"
            if logs and attempt.step == OWN_STEP and attempt.status == "FINISHED" and not attempt.cloned:
                points = self._client.get_metric_history(one.info.run_id, "own")
                if sorted(point.step for point in points) != OWN_POINTS:
                    yield f"{attempt.key} has {len(points)} of {len(OWN_POINTS)} points that its step logged"


# -- the suite -------------------------------------------------------------------------------------------------


class Suite:
    """Rounds one after the other, with one server and one checker for all of them."""

    def __init__(self, root: Path, *, keep: bool) -> None:
        self._root, self._keep = root, keep
        freeze_code(self._folder("code"))
        self._template = self._folder("template")
        self._server = Server(self._folder("server"))
        self._checker = Checker(root)
        self._answer: dict[str, Any] | None = None
        self._length = FLOW_SECONDS

    def prepare(self) -> Outcome:
        """Make an empty store, start the server, and run the flow undisturbed."""
        made = self._checker.ask(folder=str(self._template), uri=f"sqlite:///{self._template / 'mlflow.db'}")
        assert not made, made
        shutil.copy(self._template / "mlflow.db", self._root / "server")
        self._server.make_sure()
        outcome = self.round(Plan(-1, server=False, empty=False, logs=False, attacks=(), on_resume=()))
        self._answer = outcome.verdict.get("answer")
        return outcome

    def round(self, plan: Plan) -> Outcome:
        """Play one round to the end, and leave no process of it."""
        folder = self._folder(f"round-{plan.seed}")
        (folder / ".metaflow").mkdir()
        if not plan.server and not plan.empty:
            shutil.copy(self._template / "mlflow.db", folder)
        one = Round(plan, folder, self._server, self._length)
        began = time.monotonic()
        try:
            one.play()
            one.settle()
        finally:
            end_all_in(folder)
        outcome = one.outcome
        outcome.verdict = self._checker.ask(
            folder=str(folder), uri=one.uri, logs=plan.logs, answer=self._answer, name=f"round {plan.seed}"
        )
        outcome.problems += outcome.verdict["problems"]
        # a machine that was busy at first may have become quiet: attacks should not come after the end
        whole = [seconds for word, code, seconds in outcome.commands if (word, code) == ("run", 0)]
        self._length = min([self._length, *whole])
        outcome.seconds = time.monotonic() - began
        if not self._keep and not outcome.problems:
            shutil.rmtree(folder)
        return outcome

    def end(self) -> None:
        """End all processes, and remove all folders but those that are to be kept."""
        self._checker.end()
        self._server.kill()
        for folder in self._root.iterdir():
            if folder.is_dir():
                end_all_in(folder)
        if not self._keep and not list(self._root.glob("round-*")):
            shutil.rmtree(self._root)
        else:
            print(f"kept: {self._root}")

    def _folder(self, name: str) -> Path:
        folder = self._root / name
        folder.mkdir()
        return folder


def table(outcomes: list[Outcome]) -> str:
    """Return a row for each kind of attack, over the rounds in which it hit something."""
    row = "{:<10}{:>8}{:>8}{:>8}{:>10}{:>14}{:>10}{:>9}".format
    lines = [row("attack", "rounds", "hits", "missed", "commands", "sync wrote", "seconds", "failed")]
    for kind in [*KINDS, "all"]:
        hit = [one for one in outcomes if kind in ("all", *(what for what, _ in one.hits))]
        hits = sum(kind in ("all", what) for one in hit for what, _ in one.hits)
        missed = sum(kind in ("all", what) for one in outcomes for what in one.missed)
        commands = sum(len(one.commands) for one in hit)
        wrote = sum(bool(one.verdict.get("wrote")) for one in hit)
        seconds = sum(one.seconds for one in hit) / max(1, len(hit))
        failed = sum(bool(one.problems) for one in hit)
        lines.append(row(kind, len(hit), hits, missed, commands, f"in {wrote} rounds", f"{seconds:.1f}", failed))
    return "\n".join(lines)


def wanted() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the first round; the others follow it")
    parser.add_argument("--only", type=int, metavar="SEED", help="play the round of one seed")
    parser.add_argument("--keep", action="store_true", help="keep the folders; those of failed rounds always stay")
    parser.add_argument("--checker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Play the rounds, print a line for each and a table, and return the exit code."""
    asked = wanted()
    if asked.checker:
        answer_questions()
        return 0
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell has them ignored in the background
        signal.signal(number, signal.default_int_handler)
    seeds = [asked.only] if asked.only is not None else range(asked.seed, asked.seed + asked.rounds)
    suite = Suite(Path(tempfile.mkdtemp(prefix="dlpipe-chaos-")).resolve(), keep=asked.keep)
    outcomes: list[Outcome] = []
    try:
        print(suite.prepare().line(), flush=True)
        for seed in seeds:
            outcomes.append(suite.round(Plan.of(seed)))
            print(outcomes[-1].line(), flush=True)
    except KeyboardInterrupt:
        print("interrupted")
    finally:
        suite.end()
    print(table(outcomes))
    failed = [one.plan.seed for one in outcomes if one.problems]
    print(f"{len(outcomes) - len(failed)} of {len(outcomes)} rounds OK", *(f"--only {seed}" for seed in failed))
    return int(bool(failed) or not outcomes)


if __name__ == "__main__":
    sys.exit(main())
