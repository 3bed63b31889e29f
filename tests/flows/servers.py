"""Real servers on 127.0.0.1 for tests, stopped at the end whatever happens, and folders in which flows run."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from commands import dlpipe
from mlflow import MlflowClient
from mlflow.entities import Run
from projects import Done, warm_python
from stores import copy_database, plain_name

SHAPES = Path(__file__).with_name("shapes")
NOT_INHERITED = ("METAFLOW_", "MLFLOW_", "DLPIPE_", "PYTEST_", "PG")
BRIDGED = ("run", "--with", "mlflow_bridge")
PATIENCE = 120.0  # seconds; what is waited for takes a few on a quiet machine
ADMIN, PASSWORD = "ana", "hunter2-of-ana-0123"


@dataclass(frozen=True)
class Folder:
    """A folder in which flows run, with the variables that say where their MLflow is."""

    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def at(self, uri: str, **variables: str) -> Folder:
        """Return the same folder with another MLflow."""
        return Folder(self.folder, {**variables, "MLFLOW_TRACKING_URI": uri})

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
        return {**kept, "METAFLOW_USER": "tester", "PYTHONUNBUFFERED": "1", **self.variables}

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command beside the test."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def command(self, *command: str) -> Done:
        """Run a command to the end."""
        started = time.monotonic()
        process = self.start(*command)
        try:
            said, _ = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
        return Done(process.returncode, said, time.monotonic() - started)

    def flow(self, *words: str, script: str | Path = SHAPES / "quick_flow.py") -> Done:
        """Run a flow to the end."""
        return self.command(str(warm_python().bin / "python"), str(script), *words)

    def run(self, *words: str, script: str | Path = SHAPES / "quick_flow.py") -> str:
        """Run a flow with the bridge, which goes well, and return the id of the run."""
        done = self.flow(*BRIDGED, *words, script=script)
        assert done.code == 0, done.said
        return done.run_id

    def flow_that_has_looked(self, words: str, go_file: Path) -> Done:
        """Run the quick flow with the bridge; it goes on to its end once the mark beside it says ``words``."""
        process = self.start(sys.executable, str(SHAPES / "quick_flow.py"), *BRIDGED, "--go-file", str(go_file))
        try:
            wait_until(lambda: any(words in path.read_text() for path in self.marks()), words)
            go_file.touch()
            said, _ = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
        return Done(process.returncode, said, 0)

    def marks(self) -> list[Path]:
        """Return the files that say that MLflow is behind."""
        return list((self.folder / ".metaflow").glob("*/*/_bridge/behind.json"))

    def bridge(self, *words: str, code: int = 0) -> str:
        """Run ``dlpipe bridge`` and return what it says."""
        done = dlpipe("bridge", *words, folder=self.folder, environment=self.environment, seconds=PATIENCE)
        said = done.stdout + done.stderr
        assert done.returncode == code, said
        assert "Traceback" not in said
        return said

    def behind(self) -> list[str]:
        """Return the runs that ``dlpipe bridge status`` lists."""
        return [one["run"] for one in json.loads(self.bridge("status", "--json"))]

    def wait_until_nothing_is_behind(self) -> None:
        """Wait for the followers."""
        wait_until(lambda: not self.marks(), "the followers have caught up")
        assert self.behind() == []

    def client(self) -> MlflowClient:
        """Return a client of a store that needs no password."""
        return MlflowClient(self.variables.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.folder / 'mlflow.db'}")

    def held(self, pathspec: str) -> dict[str, Run]:
        """Return what MLflow holds of a run, by name."""
        client = self.client()
        experiment = client.get_experiment_by_name(pathspec.partition("/")[0])
        assert experiment
        runs = client.search_runs([experiment.experiment_id], f"tags.`metaflow.run` = '{pathspec}'")
        held = {plain_name(one): one for one in runs}
        assert len(held) == len(runs)
        return held


def wait_until(seen: Callable[[], Any], what: str) -> None:
    """Return as soon as ``seen`` gives something."""
    deadline = time.monotonic() + PATIENCE
    while not seen():
        assert time.monotonic() < deadline, f"not within {PATIENCE:.0f} seconds: {what}"
        time.sleep(0.1)


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def process(command: Sequence[str], log: Path, *, stop: signal.Signals, **more: Any) -> Iterator[subprocess.Popen]:
    """Run a server in a session of its own; stop it at the end, by force if need be."""
    with log.open("ab") as out:
        made = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, **more
        )
    try:
        yield made
    finally:
        made.send_signal(stop)
        try:
            made.wait(20)
        except subprocess.TimeoutExpired:
            pass
        finally:
            kill(made)


def kill(server: subprocess.Popen) -> None:
    """End all processes of a server by SIGKILL."""
    try:
        os.killpg(server.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        server.wait()


@contextmanager
def mlflow_server(
    folder: Path, *words: str, port: int | None = None, **variables: str
) -> Iterator[tuple[str, subprocess.Popen]]:
    """Run ``mlflow server`` on ``folder / "server.db"``; yield its address and its process once it answers.

    Its database is a copy of an empty one, unless it is there already.
    """
    if not (folder / "server.db").exists():
        copy_database(folder, "server.db")
    port = port or free_port()
    address = f"http://127.0.0.1:{port}"
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder / 'server.db'}"),
        *("--artifacts-destination", str(folder / "server-artifacts"), *words),
    ]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment = {**Folder(folder).environment, **quiet, **variables}
    log = folder / "server.log"
    with process(command, log, stop=signal.SIGTERM, cwd=folder, env=environment) as server:
        wait_until(lambda: server.poll() is not None or answers(address), "the MLflow server answers")
        assert server.poll() is None, log.read_text()
        yield address, server


def answers(address: str) -> bool:
    """Return whether the MLflow server says that it is well."""
    try:
        return requests.get(f"{address}/health", timeout=2).ok
    except requests.exceptions.RequestException:
        return False


@contextmanager
def auth_server(folder: Path) -> Iterator[str]:
    """Run an ``mlflow server`` that asks for a password; yield its address."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "auth.ini"
    settings.write_text(
        "[mlflow]\ndefault_permission = READ\nauthorization_function = "
        "mlflow.server.auth:authenticate_request_basic_auth\n"
        f"database_uri = sqlite:///{folder / 'auth.db'}\nadmin_username = {ADMIN}\n"
    )
    with mlflow_server(
        folder,
        *("--app-name", "basic-auth"),
        MLFLOW_AUTH_CONFIG_PATH=str(settings),
        MLFLOW_AUTH_ADMIN_PASSWORD=PASSWORD,
        MLFLOW_FLASK_SERVER_SECRET_KEY="of-no-use-to-anyone",
    ) as (address, _):
        yield address


@contextmanager
def silent_server() -> Iterator[str]:
    """Listen, let everybody connect and never answer; yield the address."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def postgresql_programs() -> Path | None:
    """Return the folder of PostgreSQL's newest programs on this machine."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(found, key=lambda path: int(re.sub(r"\D", "", path.parent.name)), default=None)


@contextmanager
def postgresql(programs: Path) -> Iterator[str]:
    """Run a new PostgreSQL server; yield the URI of its empty database. As root, its own user runs it."""
    folder = Path(tempfile.mkdtemp(prefix="dlpipe-postgresql-"))
    other = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
    if other:
        shutil.chown(folder, "postgres", "postgres")
    port = free_port()
    try:
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)
        data, log = ("-D", str(folder / "data")), folder / "log"
        who = ("-U", ADMIN, "-A", "scram-sha-256", "--pwfile", str(folder / "password"))
        subprocess.run(
            [str(programs / "initdb"), *data, *who, "--no-sync", "-E", "UTF8", "--locale", "C"],
            **{"cwd": folder, "check": True, "capture_output": True, **other},
        )
        command = [str(programs / "postgres"), *data, "-p", str(port), "-h", "127.0.0.1", "-k", "", "-F"]
        with process(command, log, stop=signal.SIGINT, **{"cwd": folder, **other}) as server:
            ready = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
            wait_until(
                lambda: server.poll() is not None or subprocess.run(ready, check=False).returncode == 0,
                "PostgreSQL answers",
            )
            assert server.poll() is None, log.read_text()
            yield f"postgresql+psycopg2://{ADMIN}:{PASSWORD}@127.0.0.1:{port}/postgres"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def new_database(uri: str, name: str) -> str:
    """Make a database beside the one of ``uri`` and return its URI."""
    import psycopg2

    connection = psycopg2.connect(uri.replace("+psycopg2", ""))
    try:
        connection.autocommit = True
        connection.cursor().execute(f"CREATE DATABASE {name}")
    finally:
        connection.close()
    return f"{uri.rpartition('/')[0]}/{name}"
