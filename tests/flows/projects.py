"""A project in a folder of its own: the flow run as a person runs it, by its command, in its own processes."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warm import WarmPython

if TYPE_CHECKING:
    from metaflow import Run

FLOWS = Path(__file__).resolve().parents[2] / "flows"
NOT_INHERITED = ("METAFLOW_", "MLFLOW_", "DLPIPE_", "RAY_", "TUNE_", "PYTEST_", "AWS_")
TOKENS = tempfile.TemporaryDirectory(prefix="production-tokens-")  # of deployments; not in this user's home
PATIENCE = 240.0  # seconds; what is waited for takes a few on a quiet machine
# runs commands, as many at once as there are cores; what all of them import is imported once
EACH = """
import atexit, json, os, runpy, sys, threading, time
import deltalake, pyarrow.dataset
import mlflow.store.model_registry.sqlalchemy_store, mlflow.store.tracking.sqlalchemy_store
import dlpipe.cli, dlpipe.explain, dlpipe.inference, dlpipe.monitoring, dlpipe.registry, dlpipe.tracking

commands, begun, done = json.load(sys.stdin), {}, {}
if not any(name.startswith("METAFLOW_") for *_, environ in commands for name in environ):  # read by the import
    import metaflow.package, metaflow.plugins, metaflow.runtime  # metaflow.cli reads a flow when it is imported
while commands or begun:
    while commands and len(begun) < os.cpu_count():
        (name, log, words, environ), *commands = commands
        if not (child := os.fork()):
            out = os.open(log, os.O_WRONLY | os.O_CREAT)
            os.dup2(out, 1), os.dup2(out, 2)
            os.environ.update(environ)
            code = 0
            try:
                if words[0] == "-m":
                    sys.argv = words[1:]
                    runpy.run_module(words[1], run_name="__main__", alter_sys=True)
                else:
                    sys.argv, sys.path[0] = words, os.path.dirname(os.path.abspath(words[0]))
                    runpy.run_path(words[0], run_name="__main__")
            except SystemExit as ended:
                code = ended.code or 0
            if not isinstance(code, int):
                sys.exit(code)
            threading._shutdown(), atexit._run_exitfuncs()
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)  # taking the objects down would take as long as many a command
        begun[child] = name, log, time.monotonic()
    child, status = os.wait()
    name, log, started = begun.pop(child)
    done[name] = os.waitstatus_to_exitcode(status), open(log).read(), time.monotonic() - started
print(json.dumps(done))
"""


@dataclass(frozen=True)
class Done:
    """A command that has ended; ``said`` is what a person saw of it, stdout and stderr together."""

    code: int
    said: str
    seconds: float

    @property
    def run_id(self) -> str:
        return re.search(r"run-id (\d+)", self.said)[1]

    @property
    def weights(self) -> str:
        """The digest of the trained weights."""
        return re.search(r"weights +([0-9a-f]{64})", self.said)[1]

    def of_task(self, step: str) -> list[str]:
        """What the tasks of ``step`` said."""
        return re.findall(rf"^\S+ \S+ \[\d+/{step}/\d+ \(pid \d+\)\] ?(.*)$", self.said, re.MULTILINE)

    def summary(self, name: str) -> str:
        """The line ``name`` of the summary at the end."""
        (line,) = [line for line in self.of_task("end") if line.startswith(f"{name} ")]
        return line.removeprefix(name).strip()


@dataclass(frozen=True)
class Project:
    """A folder with ``flows/``; tables, runs and models are made in it."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Project:
        shutil.copytree(FLOWS, folder / "flows", ignore=shutil.ignore_patterns("__pycache__"))
        return cls(folder)

    @property
    def tables(self) -> Path:
        return self.folder / "data" / "tables"

    def file(self, name: str, content: str | bytes) -> str:
        """Write a file into the folder and return its name."""
        (self.folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return name

    def flow(self, *words: str, env: dict[str, str] | None = None) -> Done:
        """Run the flow's command to the end."""
        return self.python("flows/train_flow.py", *words, env=env)

    def python(self, *words: str, env: dict[str, str] | None = None, under: tuple[str, ...] = ()) -> Done:
        """Run this Python with ``words`` in the folder to the end, ``under`` another command.

        It has the heavy packages already, unless something before Python, or in its path, is to be different.
        """
        cold = under or "PYTHONPATH" in (env or {})
        started = time.monotonic()
        done = subprocess.run(
            [*under, sys.executable if cold else str(warm_python().bin / "python"), *words],
            cwd=self.folder,
            env=environment(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=2 * PATIENCE,
        )
        return Done(done.returncode, done.stdout.decode(), time.monotonic() - started)

    def each(
        self,
        commands: dict[str, Sequence[str]],
        *,
        env: dict[str, str] | None = None,
        environs: dict[str, dict[str, str]] | None = None,
    ) -> dict[str, Done]:
        """Run commands to the end, each in a fork of one process; ``environs`` has more variables of some."""
        with tempfile.TemporaryDirectory() as logs:
            given = [
                (name, f"{logs}/{number}", list(words), (environs or {}).get(name, {}))
                for number, (name, words) in enumerate(commands.items())
            ]
            done = subprocess.run(
                [sys.executable, "-c", EACH],
                cwd=self.folder,
                env=environment(env),
                input=json.dumps(given),
                stdout=subprocess.PIPE,
                text=True,
                timeout=3 * PATIENCE,
                check=True,
            )
        return {name: Done(*ended) for name, ended in json.loads(done.stdout.splitlines()[-1]).items()}

    @contextmanager
    def running(
        self, *words: str, flow: str = "flows/train_flow.py", python: str = sys.executable
    ) -> Iterator[Running]:
        """Run a flow's command beside the test, in a process group of its own; end it by force if need be."""
        log = self.folder / f"{time.monotonic_ns()}.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                [python, flow, *words],
                cwd=self.folder,
                env=environment(),
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield Running(self, process, log)
        finally:
            for pid in self.processes():
                os.kill(pid, signal.SIGKILL)
            process.wait()

    def processes(self) -> dict[int, str]:
        """Return the commands of the living processes that stand in the folder: the flow's, and Ray's."""
        standing = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if Path(os.readlink(entry / "cwd")) == self.folder and (command := _command(entry)):
                    standing[int(entry.name)] = command
            except OSError:  # it has just ended, or is not ours to look at
                continue
        return standing

    def run(self, run_id: str, flow: str = "TrainFlow") -> Run:
        """Return the Metaflow run, whose artifacts are read from the folder."""
        from metaflow import Run, metadata, namespace

        metadata(f"local@{self.folder}")
        namespace(None)
        return Run(f"{flow}/{run_id}")


def _parent(process: int) -> int:
    """Return the process that started it; 0 where it has ended."""
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@functools.cache
def warm_python() -> WarmPython:
    """Return the Python that is forked for the commands that a test waits for; it ends with this process."""
    return WarmPython(Path(sys.executable), environment())


@dataclass(frozen=True)
class Running:
    """A flow's command on its way."""

    project: Project
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text()

    @property
    def run_id(self) -> str:
        self.wait_for(r"run-id \d+")
        return Done(0, self.said, 0).run_id

    def wait_for(self, pattern: str) -> None:
        """Return as soon as ``pattern`` has been said."""
        self.wait_until(lambda: re.search(pattern, self.said), pattern)

    def wait_for_checkpoint(self, *, attempt: int) -> None:
        """Return as soon as an attempt to train has left its first checkpoint: it is in its next epoch then."""
        kept = self.project.folder / ".metaflow/mf.checkpoints/checkpoints/metadata/TrainFlow" / self.run_id
        name = f"train/*/{attempt}.training.0.metadata"
        self.wait_until(lambda: list(kept.glob(name)), f"checkpoint of attempt {attempt}")

    def wait_until(self, seen: Callable[[], Any], what: str) -> None:
        """Return as soon as ``seen`` gives something; fail when the command ends before that."""
        deadline = time.monotonic() + PATIENCE
        while not seen():
            assert self.process.poll() is None, f"ended without {what}:\n{self.said}"
            assert time.monotonic() < deadline, f"no {what} after {PATIENCE:.0f} seconds:\n{self.said}"
            time.sleep(0.02)

    def task(self, step: str) -> int:
        """Return the process of the task of ``step`` that runs now."""
        words = f" step {step} --run-id"
        found = {pid for pid, command in self.project.processes().items() if words in command}
        # a child that a task has forked has its command until it becomes what it is to be
        (pid,) = [pid for pid in found if _parent(pid) not in found]
        return pid

    def kill_task(self, step: str) -> None:
        os.kill(self.task(step), signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Send a signal to the whole process group, as a terminal does for Ctrl-C."""
        os.killpg(self.process.pid, number)

    def end(self) -> Done:
        """Wait for the end."""
        started = time.monotonic()
        code = self.process.wait(2 * PATIENCE)
        return Done(code, self.said, time.monotonic() - started)


def environment(more: dict[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without what would lead the flow to other places, and with ``more``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
    return {**kept, "HF_HUB_OFFLINE": "1", "METAFLOW_TOKEN_HOME": TOKENS.name, **(more or {})}


def assert_in_mlflow(project: Project, *flows: str, env: dict[str, str] | None = None) -> None:
    """Fail where MLflow does not have the runs of these flows as they happened."""
    checks = project.each({flow: ("-m", "dlpipe.cli", "bridge", "check", flow) for flow in flows}, env=env)
    assert {flow: done.said for flow, done in checks.items()} == dict.fromkeys(flows, "0 differences\n")


def as_csv(rows: list[tuple[str, str]]) -> str:
    """Return rows as the CSV that the flow reads by default."""
    return "\n".join(["review,sentiment", *(f'"{text}",{label}' for text, label in rows)]) + "\n"


def _command(entry: Path) -> str:
    return (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
