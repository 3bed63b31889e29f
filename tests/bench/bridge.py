"""What the bridge to MLflow costs: plain Metaflow, ``--with mlflow_bridge`` and MLflow by hand, paired in one run.

While a flow runs, what counts is the time until its command returns, so that the wait for the mirror at the end is
included. The three take turns in being first. ``tests/bench/flows`` has the flows and, in ``by_hand.py``, what
people write into every step today; both keep a number and a word a step. Before a command is timed, the mirror of
the one before it is complete.

Then back-fill: ``sync`` of runs of 100, 300 and 1,000 tasks, each in a fresh process, once as the bridge does it
(a foreach of many tasks is one record with a table) and once with a run for every task. Its time is that of
``dlpipe.bridge.sync`` with MLflow imported and the store open; ``again`` is a second sync, which finds nothing to
write. Calls are those of MLflow's store (of a server: its requests), without those that carry artifacts.

A run of 1,000 tasks takes Metaflow minutes. Unless ``--real`` is given, only the one of 100 is really run: larger
ones are copies of its folder in ``.metaflow`` in which copies of its tasks stand, under ids and places of their
own. They share their artifacts with the task they are copies of, and ``start`` still says that it made 100.

    python tests/bench/bridge.py
    python tests/bench/bridge.py --only noop --store sqlite --repeats 1
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resident import read_resident

FLOWS = Path(__file__).with_name("flows")
NOT_INHERITED = ("METAFLOW_", "MLFLOW_", "DLPIPE_", "PYTEST_")
MODES = ("plain", "bridge", "by hand")
WIDTHS = (100, 300, 1000)
PATIENCE = 180.0  # seconds
TARGETS = {"work": (1.05, "times plain"), "wide": (1.10, "times plain"), "noop": (2.0, "s more than plain")}
TITLES = {
    "work": "five steps of two seconds each",
    "wide": "a foreach of 100 tasks that do nothing",
    "noop": "five steps that do nothing",
}
CALLS_A_TASK = 3


def main() -> None:
    options = parse()
    if options.worker:
        print(json.dumps(sync_here(options.worker, every_task=options.every_task)))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is stopped
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {options.repeats} repeats")
    with tempfile.TemporaryDirectory(prefix="dlpipe-bench-") as folder, ExitStack() as opened:
        places = [opened.enter_context(OPEN[name](Path(folder, name))) for name in stores(options.store)]
        warm_up(places[0])
        for flow in TITLES:
            if options.only in (None, flow):
                print_live(flow, [measure_live(place, flow, options.repeats) for place in places])
        if options.only in (None, "noop") and options.store != "server":
            print_fresh(Path(folder, "fresh"))
        if options.only in (None, "backfill"):
            found = [one for place in places for one in measure_backfill(place, options)]
            print_backfill(found)
            print_growth(found)
            print_calls(found)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="how often each is measured")
    parser.add_argument("--only", choices=[*TITLES, "backfill"], help="one question instead of all")
    parser.add_argument("--store", choices=["sqlite", "server", "both"], default="both")
    parser.add_argument("--real", action="store_true", help="really run the flows of 300 and 1,000 tasks")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--every-task", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def progress(line: str) -> None:
    """Say on stderr what has been done, where somebody looks on."""
    if sys.stderr.isatty():
        print(line, file=sys.stderr)


def stores(chosen: str) -> list[str]:
    return ["sqlite", "server"] if chosen == "both" else [chosen]


# -- where flows run, and the stores -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A folder in which flows run, with the MLflow store that they use."""

    folder: Path
    store: str
    uri: str

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
        ours = {"METAFLOW_USER": "bench", "MLFLOW_TRACKING_URI": self.uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
        return {**kept, **ours, "PYTHONUNBUFFERED": "1"}

    @property
    def runs(self) -> Path:
        """Metaflow's folder of the runs of the wide flow."""
        return self.folder / ".metaflow" / "WideFlow"

    def command(self, *words: str) -> tuple[float, str]:
        """Return the seconds that a Python command took, and what it said; ``nan`` when it failed."""
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, *words],
            **{"cwd": self.folder, "env": self.environment, "text": True, "check": False},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        seconds = time.monotonic() - began
        progress(f"{self.store}: {Path(words[0]).name} {' '.join(words[1:3])}: {seconds:.1f} s")
        if done.returncode:
            print(f"{' '.join(words)} failed:\n{done.stdout[-2000:]}", file=sys.stderr)
        return (math.nan if done.returncode else seconds), done.stdout

    def wait_for_followers(self) -> float:
        """Wait until no run is behind, and return how long that took."""
        began = time.monotonic()
        while list((self.folder / ".metaflow").glob("*/*/_bridge/behind.json")):
            if time.monotonic() - began > PATIENCE:
                return math.nan
            time.sleep(0.1)
        waited = time.monotonic() - began
        time.sleep(1)  # the follower's own end
        return waited


@contextmanager
def sqlite_place(folder: Path) -> Iterator[Place]:
    """Yield a place with a SQLite store that has been made already."""
    folder.mkdir(parents=True, exist_ok=True)
    place = Place(folder, "sqlite", f"sqlite:///{folder / 'mlflow.db'}")
    place.command("-c", "from dlpipe.tracking import open_store; open_store(create=True)")
    yield place


@contextmanager
def server_place(folder: Path) -> Iterator[Place]:
    """Yield a place with an ``mlflow server`` on loopback that is ready; it is stopped at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    place = Place(folder, "server", f"http://127.0.0.1:{port}")
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder / 'server.db'}"),
        *("--artifacts-destination", str(folder / "artifacts")),
    ]
    environment = {**place.environment, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_until_well(place.uri, server)
        yield place
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


OPEN = {"sqlite": sqlite_place, "server": server_place}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_until_well(uri: str, server: subprocess.Popen[bytes]) -> None:
    import requests

    deadline = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < deadline:
        try:
            if requests.get(f"{uri}/health", timeout=2).ok:
                return
        except requests.exceptions.RequestException:
            time.sleep(0.2)
    sys.exit("The MLflow server does not start.")


# -- while a flow runs -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Live:
    """The times of one flow on one store: a list of seconds for each mode, all of one length.

    Attributes
    ----------
    late : list of float
        Seconds from the end of the command to the end of the mirror; 0 where the command has seen it.
    """

    store: str
    seconds: dict[str, list[float]]
    late: list[float]

    def against_plain(self, mode: str, flow: str) -> list[float]:
        """Return what a mode costs in each repeat, in the unit of the flow's target."""
        pairs = zip(self.seconds[mode], self.seconds["plain"], strict=True)
        return [one - plain if flow == "noop" else one / plain for one, plain in pairs]


def warm_up(place: Place) -> None:
    """Run each mode once, unmeasured: files are read and compiled for the first time."""
    for mode in MODES:
        run_flow(place, "noop", mode)


def measure_live(place: Place, flow: str, repeats: int) -> Live:
    seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
    late = []
    for at in range(repeats):
        for mode in (*MODES[at % 3 :], *MODES[: at % 3]):
            took, waited = run_flow(place, flow, mode)
            seconds[mode].append(took)
            late += [waited] if mode == "bridge" else []
    return Live(place.store, seconds, late)


def run_flow(place: Place, flow: str, mode: str) -> tuple[float, float]:
    """Return the seconds until the command returned, and those until the mirror was complete after that."""
    script = FLOWS / (f"{flow}_by_hand_flow.py" if mode == "by hand" else f"{flow}_flow.py")
    words = ["--with", "mlflow_bridge"] if mode == "bridge" else []
    took, said = place.command(str(script), "run", *words)
    waited = place.wait_for_followers()
    return took, 0.0 if "MLflow has this run" in said else waited


def print_live(flow: str, found: Sequence[Live]) -> None:
    """Print one row a store."""
    target, unit = TARGETS[flow]
    print(f"\n{TITLES[flow]}: seconds until the command returns (median), and {unit} (median, spread)")
    print_rows(
        ("store", *MODES, "bridge", "by hand", "target", "mirror complete"),
        [
            (
                one.store,
                *(f"{statistics.median(one.seconds[mode]):.2f}" for mode in MODES),
                *(spread(one.against_plain(mode, flow)) for mode in MODES[1:]),
                f"at most {target:.2f}",
                said_of_mirror(one.late),
            )
            for one in found
        ],
    )


def said_of_mirror(late: Sequence[float]) -> str:
    """Return in how many runs the mirror was complete when the command returned, and how late it was at worst."""
    in_time = f"{sum(not one for one in late)} of {len(late)} in time"
    return in_time if not any(late) else f"{in_time}, {max(late):.1f} s late"


def print_fresh(folder: Path) -> None:
    """Print what the first run of all costs, which makes the database."""
    print("\nfive steps that do nothing, on a database that is not there yet: seconds, once")
    with sqlite_place(folder) as ready:
        rows = []
        for mode in MODES:
            (Path(ready.folder) / "mlflow.db").unlink(missing_ok=True)
            took, late = run_flow(ready, "noop", mode)
            rows.append((mode, f"{took:.2f}", said_of_mirror([late]) if mode == "bridge" else ""))
    print_rows(("", "seconds", "mirror complete"), rows)


# -- back-fill ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Backfill:
    """``sync`` of a run of one width, repeated; ``calls`` and ``carried`` are of the whole run, by name."""

    store: str
    every_task: bool
    width: int
    seconds: list[float]
    again: list[float]
    peak_mb: float
    sync_mb: float
    calls: dict[str, int]
    carried: int

    @property
    def shape(self) -> str:
        return "a run a task" if self.every_task else "one record"

    @property
    def tasks(self) -> int:
        """The tasks of the run: those of the foreach, and the three around it."""
        return self.width + 3


def measure_backfill(place: Place, options: argparse.Namespace) -> list[Backfill]:
    models = {width: model_run(place, width) for width in (WIDTHS if options.real else WIDTHS[:1])}
    return [
        backfill(place, models.get(width, models[WIDTHS[0]]), width, options.repeats, every_task=every_task)
        for every_task in (False, True)
        for width in WIDTHS
    ]


def model_run(place: Place, width: int) -> Path:
    """Run the wide flow without a bridge, and return Metaflow's folder of the run."""
    words = ("run", "--width", str(width), "--max-num-splits", str(width))
    _, said = place.command(str(FLOWS / "wide_flow.py"), *words)
    found = re.search(r"run-id (\d+)", said)
    return place.runs / found[1] if found else sys.exit(said)


def backfill(place: Place, model: Path, width: int, repeats: int, *, every_task: bool) -> Backfill:
    found = []
    for _ in range(repeats):
        copy = copied_run(model, width)
        words = ["--every-task"] if every_task else []
        _, said = place.command(__file__, "--worker", f"WideFlow/{copy.name}", *words)
        found.append(json.loads(said.splitlines()[-1]))
        shutil.rmtree(copy)
    return Backfill(
        place.store,
        every_task,
        width,
        [one["seconds"] for one in found],
        [one["again"] for one in found],
        max(one["peak_mb"] for one in found),
        max(one["sync_mb"] for one in found),
        found[0]["calls"],
        found[0]["carried"],
    )


def copied_run(model: Path, width: int) -> Path:
    """Copy a run under a new id, with copies of its foreach tasks until there are ``width``; return its folder."""
    copy = model.with_name(str(int(time.time() * 1e6)))
    shutil.copytree(model, copy)
    for file in copy.rglob("_meta/*.json"):
        edit(file, run_number=copy.name)
    tasks = sorted((one for one in (copy / "body").iterdir() if one.name.isdigit()), key=lambda one: int(one.name))
    free = 1 + max(int(one.name) for one in copy.glob("*/*") if one.name.isdigit())
    for place in range(len(tasks), width):
        copy_task(tasks[place % len(tasks)], str(free + place - len(tasks)), place)
    return copy


def copy_task(task: Path, name: str, place: int) -> None:
    """Copy a task's folder under another id, at another place of the foreach."""
    copy = task.with_name(name)
    shutil.copytree(task, copy)
    values = {"foreach-execution-path": f"body:{place}", "foreach-stack": [f"places={place}"]}
    for file in (copy / "_meta").iterdir():
        kind = file.name.split("_")[1]
        edit(file, task_id=name, **({"value": values[kind]} if kind in values else {}))


def edit(file: Path, **changed: Any) -> None:
    """Change fields of a JSON file; those that it does not have stay away."""
    held = json.loads(file.read_bytes())
    file.write_text(json.dumps({**held, **{key: value for key, value in changed.items() if key in held}}))


# -- in the process that syncs -----------------------------------------------------------------------------------


def sync_here(pathspec: str, *, every_task: bool) -> dict[str, Any]:
    """Sync a run twice in this process, and return times, memory and calls."""
    import dlpipe.bridge.reading
    from dlpipe.bridge import sync
    from dlpipe.tracking import open_store

    if every_task:
        dlpipe.bridge.reading.FOREACH_TASKS = 10**9
    store = open_store()
    store.experiment("WideFlow")  # MLflow is imported, the connection open, the experiment there
    calls, carried = count_requests() if store.is_server else count_store_calls()
    before = read_resident("VmHWM")
    seconds = timed(lambda: sync(pathspec, store=store))
    made, peak, files = dict(calls), read_resident("VmHWM"), carried["files"]
    again = timed(lambda: sync(pathspec, store=store))
    return {
        "seconds": seconds,
        "again": again,
        "peak_mb": peak,
        "sync_mb": peak - before,
        "calls": made,
        "carried": files,
    }


def timed(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


def count_requests() -> tuple[Counter[str], Counter[str]]:
    """Count the requests of this process from now on: those of the API by path, and those that carry files."""
    import requests

    calls: Counter[str] = Counter()
    carried: Counter[str] = Counter()
    send = requests.Session.send

    def counted(self: requests.Session, request: requests.PreparedRequest, **more: Any) -> requests.Response:
        path = (request.path_url or "").partition("?")[0].partition("/mlflow")
        if path[2].startswith("-artifacts"):
            carried["files"] += 1
        else:
            calls[path[2].strip("/") or path[0]] += 1
        return send(self, request, **more)

    requests.Session.send = counted  # type: ignore[method-assign]
    return calls, carried


def count_store_calls() -> tuple[Counter[str], Counter[str]]:
    """Count the calls of this process to its SQLite store from now on, by name; files are written without one."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    calls: Counter[str] = Counter()
    inside: list[str] = []

    def counting(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **more: Any) -> Any:
            if not inside:
                calls[name] += 1
            inside.append(name)
            try:
                return method(*args, **more)
            finally:
                inside.pop()

        return counted

    started = re.compile(r"(get|search|create|log|update|delete|set|restore|record|list)_")
    for name in dir(SqlAlchemyStore):
        if started.match(name) and callable(getattr(SqlAlchemyStore, name)):
            setattr(SqlAlchemyStore, name, counting(name, getattr(SqlAlchemyStore, name)))
    return calls, Counter()


# -- tables ------------------------------------------------------------------------------------------------------


def print_backfill(found: Sequence[Backfill]) -> None:
    print("\nback-fill: sync of a run that MLflow knows nothing of, in a fresh process")
    print_rows(
        ("store", "foreach as", "tasks", "seconds", "tasks/s", "again s", "peak MB", "of it sync's"),
        [
            (
                one.store,
                one.shape,
                f"{one.tasks:,}",
                spread(one.seconds),
                f"{one.tasks / statistics.median(one.seconds):.1f}",
                f"{statistics.median(one.again):.2f}",
                f"{one.peak_mb:.0f}",
                f"{one.sync_mb:.0f}",
            )
            for one in found
        ],
    )


def narrow_and_wide(found: Sequence[Backfill]) -> list[tuple[Backfill, Backfill]]:
    """Return the narrowest and the widest of each store and shape."""
    narrow = [one for one in found if one.width == WIDTHS[0]]
    wide = [one for one in found if one.width == WIDTHS[-1]]
    return list(zip(narrow, wide, strict=True))


def print_growth(found: Sequence[Backfill]) -> None:
    few, many = WIDTHS[0], WIDTHS[-1]
    print(f"\ngrowth from {few:,} to {many:,} tasks: how many times as long ({many / few:.0f} is in proportion)")
    print_rows(
        ("store", "foreach as", "sync", "again", "memory more"),
        [
            (
                one.store,
                one.shape,
                f"{statistics.median(other.seconds) / statistics.median(one.seconds):.1f}",
                f"{statistics.median(other.again) / statistics.median(one.again):.1f}",
                f"{other.peak_mb - one.peak_mb:.0f} MB",
            )
            for one, other in narrow_and_wide(found)
        ],
    )


def print_calls(found: Sequence[Backfill]) -> None:
    """Print calls a task, with those that a run of any width takes, and without: those of one task more."""
    few, many = WIDTHS[0], WIDTHS[-1]
    print(f"\nMLflow calls a task, artifacts apart (at most {CALLS_A_TASK}), and which at {few} wide")
    print_rows(
        ("store", "foreach as", "calls", "of one task more", "artifact calls", "by name, whole run"),
        [
            (
                one.store,
                one.shape,
                f"{sum(one.calls.values()) / one.tasks:.2f}",
                f"{(sum(other.calls.values()) - sum(one.calls.values())) / (many - few):.2f}",
                f"{one.carried / one.tasks:.2f}" if one.store == "server" else "none (files)",
                ", ".join(f"{count} {name}" for name, count in Counter(one.calls).most_common(6)),
            )
            for one, other in narrow_and_wide(found)
        ],
    )


def spread(values: Sequence[float]) -> str:
    """Return the median, and the least and the most."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def print_rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    for row in [head, *rows]:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip(), flush=True)


if __name__ == "__main__":
    main()
