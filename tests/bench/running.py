"""Servers of a benchmark, each stopped while another one is asked, and the clients that ask them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOAD = Path(__file__).resolve().with_name("load.py")


@dataclass
class Running:
    """A process that is stopped while it is not asked."""

    process: subprocess.Popen[str]
    port: int
    asking: int = 0

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Let it run until the end of the block, and of those around it."""
        self.asking += 1
        self.signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.asking -= 1
            if not self.asking:
                self.signal(signal.SIGSTOP)

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def read_cpu(self) -> float:
        """Return the seconds of CPU that its processes have taken so far."""
        found = 0.0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[2]) == self.process.pid:  # its process group
                    found += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return found

    def read_memory(self) -> float:
        """Return the megabytes that it has in memory."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

    def run(self, **given: Any) -> dict[str, Any]:
        """Have ``servers.py forward`` do something, and return what it took."""
        assert self.process.stdin
        assert self.process.stdout
        with self.awake():
            self.process.stdin.write(json.dumps(given) + "\n")
            self.process.stdin.flush()
            return dict(json.loads(self.process.stdout.readline()))


@contextmanager
def run_server(command: Sequence[str], folder: Path, *, port: int = 0) -> Iterator[Running]:
    """Run a server with a folder of its own until the end of the block; it prints its port where none is given."""
    own = Path(tempfile.mkdtemp(dir=folder))
    # MLflow's command for its server is looked for in PATH
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = {
        **os.environ,
        "PATH": path,
        "DLPIPE_TABLES": str(own / "tables"),
        "DLPIPE_STATE": str(own / "state"),
    }
    with (own / "errors").open("w") as errors:
        process = subprocess.Popen(
            command,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    assert process.stdout
    try:
        given = port or process.stdout.readline().strip()
        if not given:
            sys.exit(f"{command} does not start: {(own / 'errors').read_text()}")
        running = Running(process, int(given))
        if given != "0":
            wait_until_it_listens(running, own)
        running.signal(signal.SIGSTOP)
        yield running
    finally:
        for number in (signal.SIGKILL, signal.SIGCONT):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        process.wait()


def wait_until_it_listens(running: Running, own: Path) -> None:
    """Return when the port takes connections."""
    for _ in range(1200):
        with suppress(OSError), socket.create_connection(("127.0.0.1", running.port), timeout=10) as made:
            # who connects again and again to a port at which nobody listens yet may be given that port itself
            if made.getsockname() != made.getpeername():
                return
        if running.process.poll() is not None:
            break
        time.sleep(0.1)
    sys.exit(f"there is no answer: {(own / 'errors').read_text()}")


def find_free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_load(plan: dict[str, Any]) -> subprocess.Popen[str]:
    """Return ``load.py`` at work by a plan."""
    process = subprocess.Popen(
        [sys.executable, str(LOAD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin
    process.stdin.write(json.dumps(plan))
    process.stdin.close()
    return process


def end_load(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return what ``load.py`` prints when it is done."""
    assert process.stdout
    content = process.stdout.read()
    if process.wait():
        sys.exit("the client failed")
    return dict(json.loads(content))


def run_load(plan: dict[str, Any]) -> dict[str, Any]:
    """Return what came of a plan of ``load.py``."""
    return end_load(start_load(plan))
