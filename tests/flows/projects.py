"""A project in a folder of its own: the flow run as a person runs it, by its command, in its own processes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FLOWS = Path(__file__).resolve().parents[2] / "flows"
NOT_INHERITED = re.compile("METAFLOW_|MLFLOW_|DLPIPE_|RAY_|TUNE_|PYTEST_|AWS_")
PATIENCE = 180.0  # seconds until something that should happen has not; all of it takes a few on a quiet machine


@dataclass(frozen=True)
class Done:
    """A command that has ended; ``said`` is what a person saw of it, stdout and stderr together."""

    code: int
    said: str
    seconds: float

    @property
    def run_id(self) -> str:
        return run_id_in(self.said)

    @property
    def weights(self) -> str:
        """The digest of the trained weights."""
        return re.findall(r"weights +([0-9a-f]{64})", self.said)[-1]

    @property
    def lines(self) -> list[str]:
        """What the tasks and Metaflow said, without time stamps and task names."""
        return [re.sub(r"^\S+ \S+ (\[\S+ \(pid \d+\)\] ?)?", "", line).rstrip() for line in self.said.splitlines()]

    def task_lines(self, step: str) -> list[str]:
        """What the tasks of ``step`` said."""
        return re.findall(rf"^\S+ \S+ \[\d+/{step}/\d+ \(pid \d+\)\] ?(.*)$", self.said, re.MULTILINE)

    def summary(self, name: str) -> str:
        """The line of the summary that starts with ``name``."""
        (line,) = [line for line in self.task_lines("end") if line.startswith(f"{name} ")]
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

    def python(self, *words: str, env: dict[str, str] | None = None, before: tuple[str, ...] = ()) -> Done:
        """Run this Python with ``words`` in the folder, under the command ``before``, to the end."""
        started = time.monotonic()
        process = subprocess.run(
            [*before, sys.executable, *words],
            cwd=self.folder,
            env=environment(env),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=2 * PATIENCE,
            errors="replace",
        )
        return Done(process.returncode, process.stdout, time.monotonic() - started)

    def flow(self, *words: str, env: dict[str, str] | None = None) -> Done:
        return self.python("flows/train_flow.py", *words, env=env)

    def file(self, name: str, content: str | bytes) -> str:
        """Write a file into the folder and return its name."""
        data = content if isinstance(content, bytes) else content.encode()
        (self.folder / name).write_bytes(data)
        return name

    @contextmanager
    def running(self, *words: str) -> Iterator[Running]:
        """A flow command in a process group of its own; nothing of it is left afterwards."""
        log = self.folder / f"{time.monotonic_ns()}.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                [sys.executable, "flows/train_flow.py", *words],
                cwd=self.folder,
                env=environment(),
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        running = Running(self, process, log)
        try:
            yield running
        finally:
            running.signal(signal.SIGKILL)
            process.wait()

    def result(self, code: str, **names: Any) -> str:
        """Return what the expression ``code`` gives in a process that stands in the folder, as its ``repr``.

        ``run`` is the Metaflow run of the name ``run_id``.
        """
        program = f"from metaflow import Run; run = Run('TrainFlow/{names['run_id']}'); print(repr({code}))"
        done = self.python("-c", program, env={"PYTHONPATH": str(FLOWS)})
        assert done.code == 0, done.said
        return done.said.strip().splitlines()[-1]


@dataclass(frozen=True)
class Running:
    """A flow command on its way."""

    project: Project
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def run_id(self) -> str:
        return run_id_in(self.wait_for(r"run-id \d+"))

    def wait_for(self, pattern: str) -> str:
        """Return what was said as soon as ``pattern`` is in it."""
        wait_until(lambda: re.search(pattern, self.said) or self.process.poll() is not None, self)
        assert re.search(pattern, self.said), f"ended without {pattern!r}:\n{self.said}"
        return self.said

    def wait_for_checkpoint(self, attempt: int) -> None:
        """Return as soon as the training's ``attempt`` has left a checkpoint (and is in its next epoch)."""
        kept = self.project.folder / ".metaflow/mf.checkpoints/checkpoints/metadata/TrainFlow" / self.run_id
        wait_until(
            lambda: list(kept.glob(f"train/*/{attempt}.training.0.metadata")) or self.process.poll() is not None,
            self,
        )
        assert self.process.poll() is None, self.said

    def task(self, step: str) -> int:
        """Return the process of the task of ``step`` that runs now."""
        words = ["step", step, "--run-id", self.run_id]
        (pid,) = [pid for pid, command in processes().items() if is_in(words, command)]
        return pid

    def group(self) -> list[str]:
        """Return the commands of all living processes of this command, Ray's workers too."""
        mine = self.process.pid
        return [" ".join(words) for pid, words in processes().items() if mine in (pid, *ancestry(pid))]

    def signal(self, number: int) -> None:
        """Send a signal to the whole process group, as Ctrl-C in a terminal does."""
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return

    def end(self) -> Done:
        """Wait for the end."""
        started = time.monotonic()
        code = self.process.wait(2 * PATIENCE)
        return Done(code, self.said, time.monotonic() - started)
