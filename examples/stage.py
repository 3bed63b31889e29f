"""The folder in which production is played: its commands, its scheduler and its server, each a process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

NOT_INHERITED = ("METAFLOW_", "MLFLOW_", "DLPIPE_")
PATIENCE = 900.0
"""Seconds that a run may take to begin and to end."""
MODEL = "reviews"
AT_ONCE = 50
"""Rows of a request."""

Run = dict[str, Any]
Found = TypeVar("Found")


class NotAsExpected(Exception):
    """Production did not do what it is to do."""


@dataclass(frozen=True)
class Answers:
    """What the server answered for some rows."""

    predicted: list[str]
    places: list[tuple[str, int]]
    """The id of the request of each row, and its number there."""
    versions: set[int]

    def measure_accuracy(self, labels: Sequence[str]) -> float:
        """Return the share of rows that were answered right."""
        return sum(own == true for own, true in zip(self.predicted, labels, strict=True)) / len(labels)


@dataclass
class Endpoint:
    """A running `dlpipe serve`."""

    address: str
    asked: int = 0
    """Requests for predictions so far."""

    def ask(self, texts: Sequence[str]) -> Answers:
        """Return what the champion answers."""
        predicted: list[str] = []
        places: list[tuple[str, int]] = []
        versions: set[int] = set()
        for first in range(0, len(texts), AT_ONCE):
            some = list(texts[first : first + AT_ONCE])
            answer = self._post(f"/models/{MODEL}", {"text": some})
            self.asked += 1
            predicted += [record["predicted"] for record in answer["predictions"]]
            places += [(answer["request_id"], row) for row in range(len(some))]
            versions.add(answer["version"])
        return Answers(predicted, places, versions)

    def send_labels(self, answers: Answers, labels: Sequence[str]) -> int:
        """Send what is true of rows that were asked, and return how many labels were taken."""
        pairs = zip(answers.places, labels, strict=True)
        given = [{"request_id": request_id, "row": row, "label": label} for (request_id, row), label in pairs]
        return int(self._post(f"/models/{MODEL}/feedback", given)["accepted"])

    def _post(self, path: str, body: Any) -> Any:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.address + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)


@dataclass(frozen=True)
class Stage:
    """A folder in which production is played."""

    folder: Path
    train: tuple[str, ...]
    """Options of each training."""
    began: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        """Print a line with the seconds that have gone by."""
        print(f"{time.monotonic() - self.began:5.0f} s  {text}", flush=True)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of all commands: nothing leads out of the folder."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
        path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}"
        own = {"DLPIPE_STATE": str(self.folder / "state"), "METAFLOW_TOKEN_HOME": str(self.folder / "tokens")}
        return {**kept, **own, "PATH": path, "HF_HUB_OFFLINE": "1"}

    def get_exit_code(self, *words: str) -> int:
        """Run a command that may fail, and return its exit code."""
        return self._done(words).returncode

    def _done(self, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )

    def run(self, *words: str) -> str:
        """Run a command in the folder to its end and return what it says."""
        done = self._done(words)
        if done.returncode:
            raise NotAsExpected(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def run_flow(self, name: str, *words: str) -> str:
        """Run a command of a flow."""
        return self.run(sys.executable, f"flows/{name}_flow.py", "--quiet", "--no-pylint", *words)

    def run_dlpipe(self, *words: str) -> str:
        """Run a command of dlpipe."""
        return self.run("dlpipe", *words)

    def compute(self, program: str) -> Any:
        """Return what a Python program prints as JSON."""
        return json.loads(self.run(sys.executable, "-c", program))

    def list_runs(self) -> list[Run]:
        """Return the runs, the oldest first."""
        return list(reversed(json.loads(self.run_dlpipe("runs", "--limit", "1000", "--json"))))

    def wait_for(self, what: str, found: Callable[[Run], bool]) -> Run:
        """Return the first run that is ``found`` and has succeeded; a run that fails ends the play."""

        def look() -> Run | None:
            for run in self.list_runs():
                if run["status"] in ("failed", "terminated"):
                    raise NotAsExpected(f"run {run['run']} of {run['deployment']} {run['status']}: {run['why']}")
                if run["status"] == "succeeded" and found(run):
                    return run
            return None

        run = self.wait_until(what, look, seconds=PATIENCE, command="runs")
        self.say(f"run {run['run']} of {run['deployment']} succeeded, started by {run['cause']}")
        return run

    def wait_until(self, what: str, look: Callable[[], Found | None], *, seconds: float, command: str) -> Found:
        """Return what ``look`` finds; where that is nothing in time, say so with what a command of dlpipe says."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if (found := look()) is not None:
                return found
            time.sleep(2)
        raise NotAsExpected(
            f"{what} did not happen within {seconds:.0f} s; `dlpipe {command}` says:\n"
            f"{self.run_dlpipe(*command.split())}"
        )

    @contextmanager
    def run_scheduler(self, port: int) -> Iterator[None]:
        """Have ``dlpipe scheduler`` run meanwhile."""
        with self._keep_running("scheduler.txt", "dlpipe", "scheduler", "--port", str(port)):
            yield

    @contextmanager
    def run_server(self, settings: Path) -> Iterator[Endpoint]:
        """Have ``dlpipe serve`` run meanwhile."""
        words = ("dlpipe", "serve", "--port", "0", "--model", MODEL, "--settings", str(settings))
        with self._keep_running("serving.txt", *words) as said:

            def find_address() -> str | None:
                found = re.search(r"http://[\d.]+:\d+", said.read_text())
                return found[0] if found else None

            address = self.wait_until("the start of the server", find_address, seconds=120, command="models")
            self.say(f"serving on {address}")
            yield Endpoint(address)

    @contextmanager
    def _keep_running(self, output: str, *words: str) -> Iterator[Path]:
        """Have a process run meanwhile, and yield the file with what it says; it is to end with 0."""
        said = self.folder / output
        with said.open("w") as file:
            process = subprocess.Popen(
                words,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        try:
            yield said
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        if process.returncode:
            raise NotAsExpected(f"{' '.join(words)} ended with {process.returncode}:\n{said.read_text()}")
