"""Ray clusters of two nodes on this machine, each with ports of its own, that leave nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

WAIT_SECONDS = 60
STORE_BYTES = 100 * 2**20
# a dead node is noticed in about two seconds, not in fifteen
SETTINGS = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
}
HEAD = ("--head", "--port", "0", "--include-dashboard", "false", "--no-monitor")  # which asks a cloud for nodes
OPTIONS = ("--block", "--disable-usage-stats", "--min-worker-port", "0", "--max-worker-port", "0")


@dataclass
class Node:
    """One `ray start`, and all processes that came of it: they share its session."""

    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        """Kill the raylet and its workers at once, as if the machine had lost its power."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def processes(self) -> list[int]:
        """Return the ids of the processes of this node."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                session = (entry / "stat").read_text().rpartition(")")[2].split()[3]
            except OSError:
                continue
            if session == str(self.process.pid):
                found.append(int(entry.name))
        return found


@dataclass
class Nodes:
    """A cluster that tests start, grow and break."""

    folder: Path
    address: str = ""
    nodes: list[Node] = field(default_factory=list)

    def add(self, *, python: str = sys.executable, environment: Mapping[str, str] | None = None) -> Node:
        """Start a node of one core; the first is the head."""
        log = self.folder / f"node-{len(self.nodes)}.log"
        options = ["--address", self.address] if self.nodes else self._head()
        command = [python, "-m", "ray.scripts.scripts", "start", *OPTIONS, "--num-cpus", "1", *options]
        command += ["--object-store-memory", str(STORE_BYTES)]
        with log.open("wb") as said:
            node = Node(
                subprocess.Popen(
                    command,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    cwd=self.folder,
                    env={**os.environ, **SETTINGS, **(environment or {})},
                    start_new_session=True,
                ),
                log,
            )
        self.nodes.append(node)
        wait_for(lambda: "Ray runtime started" in log.read_text(), node)
        if not self.address:
            port = next(self.folder.glob("session_latest/gcs_server_port_*")).read_text()
            self.address = f"127.0.0.1:{port}"
        return node

    def second(self) -> Node:
        """Return the last of two living nodes, which is a new one if there was but one."""
        living = [node for node in self.nodes if node.process.poll() is None]
        return living[1] if len(living) > 1 else self.add()

    def workers(self, name: str) -> list[int]:
        """Return the ids of the workers on all nodes that do what has ``name`` in its name."""
        return [
            pid
            for node in self.nodes
            for pid in node.processes()
            if f"ray::{name}" in Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
        ]

    def _head(self) -> list[str]:
        return [*HEAD, "--temp-dir", str(self.folder)]


def wait_for(condition: Callable[[], bool], node: Node) -> None:
    """Wait until ``condition`` holds, as long as ``node`` lives."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert node.process.poll() is None, f"a node ended:\n{node.log.read_text()}"
        assert time.monotonic() < deadline, f"what a node should do takes too long:\n{node.log.read_text()}"
        time.sleep(0.1)


@contextmanager
def cluster_of(nodes: int, *, environment: Mapping[str, str] | None = None) -> Iterator[Nodes]:
    """Run a cluster of so many one-core nodes; at the end, all of its processes and files are gone."""
    # a socket's path may have 107 characters, and pytest's folders are long
    made = Nodes(Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp")))
    try:
        for _ in range(nodes):
            made.add(environment=environment)
        yield made
    finally:
        for node in reversed(made.nodes):
            node.kill()
        shutil.rmtree(made.folder, ignore_errors=True)
