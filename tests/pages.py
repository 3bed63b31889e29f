"""The pages of README and docs as blocks, and a copy of the project in which blocks are run.

The commands stay those of the page; what makes them quick is given from outside: variables of Metaflow and pytest,
and a Python that has the heavy packages already. A comment before a block says what is special about it:
``exits 1: what it says`` for a command that must fail, ``file NAME`` for a file that later blocks use.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
import tomllib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests
from warm import WarmPython

from dlpipe.datasets import find_dataset
from dlpipe.flows.settings import TrainFlowSettings, read_flow_settings
from dlpipe.orchestrator.runs import OPEN
from dlpipe.orchestrator.state import State
from dlpipe.serving.settings import read_serving_settings

ROOT = Path(__file__).resolve().parents[1]
RUN_ID = "1795494849196362"
PORTS = ("8080", "8324", "8710", "8720")
ASKED = "127.0.0.1:8720"
"""Where blocks ask a server of models, which runs from the first of them on."""
SERVER = re.compile(r"\b(make|dlpipe) ui\b|\bcard server\b|\bdlpipe (scheduler|serve)\b.* --port\b")
OPENED = re.compile(r"http://127\.0\.0\.1:(\d+)|on port (\d+)")
# run by a Python that has imported nothing: what starts processes of its own kind, or looks at those of others
COLD = re.compile(r"\bmake\b|\bdlpipe ui$|\bdlpipe serve\b|\bcard server\b|\bscheduler\b", re.MULTILINE)
COLD_PAGES = ("docs/production.md", "docs/storage.md")
SECONDS = 600
NOT_INHERITED = ("METAFLOW_", "MLFLOW_", "DLPIPE_", "PYTEST_", "AWS_", "MAKE", "MFLAGS")
S3 = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ALLOW_HTTP": "true",
}
QUICK = {
    "METAFLOW_RUN_TRIALS": "0",
    "METAFLOW_RUN_EPOCHS": "3",
    "METAFLOW_RUN_LEARNING_RATE": "5e-3",
    "METAFLOW_RUN_BATCH_SIZE": "16",
    "PYTEST_ADDOPTS": "tests/test_house.py -k test_importing_dlpipe_is_light",
    "BROWSER": "true",  # `card view` opens nothing
}


# -- blocks ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str
    note: str
    """What the comment before it says."""

    def __str__(self) -> str:
        return f"{self.page} line {self.line}"


@functools.cache
def blocks(page: str) -> tuple[Block, ...]:
    """Return the fenced blocks of a page, whatever their indentation and fence."""
    found: list[Block] = []
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    numbered = iter(enumerate(lines, start=1))
    for number, line in numbered:
        if opened := re.match(r"\s*(`{3,}|~{3,})\s*(.*)", line):
            fence, language = opened.groups()
            inside = textwrap.dedent("\n".join(until_closed(numbered, fence))) + "\n"
            comment = re.fullmatch(r"<!-- (.+) -->", lines[number - 2].strip()) if number > 1 else None
            found.append(Block(page, number, language, inside, comment[1] if comment else ""))
    return tuple(found)


def until_closed(numbered: Iterator[tuple[int, str]], fence: str) -> Iterator[str]:
    for _, line in numbered:
        if line.strip() == fence:
            return
        yield line
    raise AssertionError(f"a block that begins with {fence} is not closed")


def shell_lines(page: str) -> list[str]:
    """Return the commands of a page, continued lines joined."""
    texts = [block.text for block in blocks(page) if block.language in ("sh", "bash")]
    return [line.strip() for text in texts for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines()]


# -- the copy of the project -----------------------------------------------------------------------------------


@dataclass
class Project:
    """A copy of the project in which blocks are run, each at most once."""

    folder: Path
    environment: dict[str, str]
    warm: WarmPython
    _said: dict[Block, str] = field(default_factory=dict)
    _server: tuple[subprocess.Popen[str], str] | None = None

    @classmethod
    def make(cls, folder: Path, given: dict[str, str]) -> Project:
        """Return a project in ``folder`` whose commands see ``given`` besides what makes them quick; end it."""
        copy_project(folder)
        borrow_installation(folder)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
        path = f"{folder / '.venv/bin'}{os.pathsep}{kept['PATH']}"
        environment = {**kept, **S3, **QUICK, **places(folder), **given, "PATH": path}
        return cls(folder, environment, WarmPython(folder / ".venv/bin/python", environment))

    def end(self) -> None:
        if self._server:
            self._server[0].terminate()
            self._server[0].communicate(timeout=60)
        self.warm.end()

    def run(self, block: Block) -> str:
        """Run a block, or find what it said when it was run before."""
        if block not in self._said:
            self._said[block] = getattr(self, f"_{block.language}")(block)
        return self._said[block]

    @property
    def run_id(self) -> str:
        """The number of the first run that a block has started."""
        return next(found[1] for said in self._said.values() if (found := re.search(r"\(run-id (\d+)\)", said)))

    def _sh(self, block: Block) -> str:
        if SERVER.search(block.text):
            return self._serve(block)
        return self._command(["bash", "-euo", "pipefail", "-c", self._here(block.text)], block)

    _bash = _sh

    def _python(self, block: Block) -> str:
        if block.note.startswith("file "):  # a later block runs it
            (self.folder / block.note.removeprefix("file ")).write_text(block.text)
            return ""
        return self._command(["python", "-c", self._here(block.text)], block)

    def _toml(self, block: Block) -> str:
        check_toml(block, self.folder)
        if block.note.startswith("file "):
            (self.folder / block.note.removeprefix("file ")).write_text(block.text)
        return ""

    def _text(self, block: Block) -> str:
        if block.note.startswith("file "):
            (self.folder / block.note.removeprefix("file ")).write_text(block.text)
        return ""

    def _environment_of(self, block: Block) -> dict[str, str]:
        """Return the variables that a block sees: the warm Python comes first, except in cold ones."""
        if block.text == "make train\n":  # its Python is the one of a folder that make is given from outside
            return {**self.environment, "MAKEFLAGS": f"BIN={self.warm.bin}"}
        if COLD.search(block.text) or block.page in COLD_PAGES:
            return self.environment
        return {**self.environment, "PATH": f"{self.warm.bin}{os.pathsep}{self.environment['PATH']}"}

    def _here(self, text: str) -> str:
        """Put what exists here in the place of the page's run and ports."""
        if RUN_ID in text:
            text = text.replace(RUN_ID, self.run_id)
        if ASKED in text:
            text = text.replace(ASKED, self._find_server())
        for port in PORTS:
            text = text.replace(f"--port {port}", f"--port {free_port()}")
        return text

    def _command(self, command: list[str], block: Block) -> str:
        code, words = re.fullmatch(r"(?:exits (\d): (.+))?.*", block.note).groups(default="0")
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment_of(block),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
        )
        ended = f"{block}:\n{block.text}\nends with {done.returncode}:\n{done.stdout}"
        assert done.returncode == int(code), ended
        assert code == "0" or words in done.stdout, ended
        return done.stdout

    def _wait_for_runs(self) -> None:
        """Wait until the scheduler has done all that it was asked for, and what comes of that."""
        deadline = time.monotonic() + SECONDS
        with closing(State.open(Path(self.environment["DLPIPE_STATE"]))) as state:
            while state.list_runs(status=OPEN, limit=1) or state.list_events_after(state.get_events_dealt()):
                assert time.monotonic() < deadline, f"runs go on: {state.list_runs(status=OPEN)}"
                time.sleep(0.2)
            runs = state.list_runs()
        assert {run.status for run in runs} <= {"succeeded", "skipped"}, runs

    def _address(self, block: Block, port: str) -> str:
        """Where the server answers; the scheduler's page asks for the token that a command prints."""
        if "scheduler" not in block.text:
            return f"http://127.0.0.1:{port}/"
        deadline, words = time.monotonic() + SECONDS, ["dlpipe", "scheduler", "page"]
        while True:
            said = subprocess.run(words, cwd=self.folder, env=self.environment, capture_output=True, text=True)
            if said.returncode == 0 or time.monotonic() > deadline:
                return said.stdout.strip()
            time.sleep(0.2)

    def _find_server(self) -> str:
        """Return where the server of the project's models answers, which is started if need be."""
        if not self._server:
            server = subprocess.Popen(
                ["dlpipe", "serve", "--port", str(free_port())],
                cwd=self.folder,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            self._server = server, f"127.0.0.1:{port_of(server)}"
        return self._server[1]

    def _serve(self, block: Block) -> str:
        """Start a server, see that it answers, and end it with Ctrl-C."""
        assert len(block.text.splitlines()) == 1, f"{block}: a server must stand alone"
        server = subprocess.Popen(
            ["bash", "-c", f"exec {self._here(block.text)}"],
            cwd=self.folder,
            env=self._environment_of(block),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            port = port_of(server)
            answered = requests.get(self._address(block, port), timeout=20)
            if "scheduler" in block.text:
                self._wait_for_runs()
            os.killpg(server.pid, signal.SIGINT)
            said, _ = server.communicate(timeout=30)
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGKILL)
        assert answered.status_code == 200, str(block)
        assert "Traceback" not in said, f"{block}:\n{said}"
        with pytest.raises(requests.ConnectionError):
            requests.get(f"http://127.0.0.1:{port}/", timeout=2)
        return said


def places(folder: Path) -> dict[str, str]:
    """Return where a person's own state and settings are, which are nobody else's here."""
    names = {"DLPIPE_STATE": "state", "XDG_CONFIG_HOME": "config", "METAFLOW_TOKEN_HOME": "tokens"}
    return {name: str(folder.parent / place) for name, place in names.items()}


def port_of(server: subprocess.Popen[str]) -> str:
    """Return the port that a starting server names."""
    said = []
    for line in server.stdout or ():
        said.append(line)
        if named := OPENED.search(line):
            port = named[1] or named[2]
            wait_until_listening(int(port))
            return port
    raise AssertionError("the server ended:\n" + "".join(said))


def wait_until_listening(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as trying:
            if trying.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as trying:
        trying.bind(("127.0.0.1", 0))
        return int(trying.getsockname()[1])


def check_toml(block: Block, folder: Path) -> None:
    """Have a block read by what would read it: the catalogue of data sets, or settings of a flow or a server."""
    sections = tomllib.loads(block.text)
    if "serving" in sections:
        read_serving_settings(sections["serving"], where=str(block))
        return
    if not any("url" in section for section in sections.values()):
        read_flow_settings(TrainFlowSettings, sections, {})
        return
    catalogue = folder / f"catalogue-{block.line}.toml"
    catalogue.write_text(block.text)
    for name in sections:
        find_dataset(name, catalogue=catalogue)


def copy_project(folder: Path) -> None:
    """Copy what git has or would take, without the Metaflow extension: it is installed, and may be there once."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith("metaflow_extensions/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def borrow_installation(folder: Path) -> None:
    """Make a .venv of links to this one, stamped as installed."""
    (folder / ".venv").mkdir()
    for entry in Path(sys.prefix).iterdir():
        if entry.name != "installed":
            (folder / ".venv" / entry.name).symlink_to(entry)
    (folder / ".venv/installed").touch()
