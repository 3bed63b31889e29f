"""What serving costs: a request with a model that does nothing, rows in batches, one client, and too much load.

overhead  CPU time of the server a request, with a key, log and metrics, beside bare uvicorn and Starlette.
batches   rows a second of 32 clients that ask for a snippet each, beside the network alone on batches of like
          length, the server with each row alone, and MLflow's own server with the same model.
single    one client beside a call of the model in Python; and short texts beside long ones.
overload  five times as many requests as the server has answers for: how long those take that get one, how long
          those that are refused, and the server's memory.

Everything is a process of its own. Servers are started first and stopped by SIGSTOP while another one is asked, so
that the order can alternate from round to round; ratios are medians of the ratios of each round. A machine that is
shared has fast and slow moments, of a factor of 1.4 within seconds: where rows a second are compared, the network
alone runs before and after each measurement, which is made again where the two differ, and divided by their mean.

Clients are one process (``load.py``), which shares the cores with the server: rows a second are what both reach
together, as on a machine that answers itself. CPU time of the server a request holds on a noisy machine, and the
client's own stands under the table, so that it can be judged what the client took from the server.

The whole table takes about twelve minutes on two quiet cores; its last lines are how many bounds hold, how busy
the machine was with other work meanwhile, and how long it took.

    python tests/bench/serving.py
    python tests/bench/serving.py --parts overhead single --rounds 3
    python tests/bench/serving.py --parts overload --overload-seconds 10 --folder /tmp/model
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from contenders import say
from running import Running, end_load, find_free_port, run_load, run_server, start_load

HERE = Path(__file__).resolve().parent
SNIPPETS = HERE.parents[2] / "shared" / "data" / "snippets"
SAMPLE = HERE.parents[1] / "data" / "sample" / "reviews.csv"
TEXT = "a film that takes its time and rewards the patience of those who stay with it until the end"
WORDS = ("a", "good", "film", "that", "is", "worth", "the", "time")
"""Each is one token; a text has two more."""
INT8, TORCH = "onnx-int8", "torch"
MODEL, CLIENTS = "reviews", 32
WARM_SECONDS, FIRST_SECONDS = 1.5, 8.0
"""Before each measurement; and before the first of a server that logs, which commits for the first time then."""
FORWARD_TOKENS, FORWARD_ROWS = (512, 1024, 2048), 600
"""Tokens of a batch of the bare forward, of which the fastest number counts; and the rows of one."""
UNSTEADY, TRIES = 0.1, 5
"""By how much the speed of the machine may change during a measurement, which is made so many times at most."""
BARE, ALONE, MLFLOW = "bare", " alone", "MLflow"
OVERHEAD_BOUNDS = {1: 0.5, 16: 0.25}
"""Milliseconds of CPU a request at most."""
QUIET = 0.1
"""Cores that other work may take."""
MOST_LOST = 2.0
"""Points of accuracy that an engine may lose."""
AT_ONCE_MS, FLAT = 50.0, 1.05
"""A refusal in so many milliseconds is at once, and memory that grows by no more than this is flat."""


def main() -> None:
    options, began, busy = parse_options(), time.monotonic(), read_busy()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bench = Bench(options, options.folder or folder / "model", folder, stack)
        for name in options.parts:
            say(name)
            PARTS[name](bench)
        bench.print_table()
        describe_run(bench, time.monotonic() - began, read_busy() - busy)


def read_busy() -> float:
    """Return the seconds of processor time that all processes of this machine have taken."""
    user, nice, system = Path("/proc/stat").read_text().split()[1:4]
    return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")


def describe_run(bench: Bench, seconds: float, busy: float) -> None:
    """Print how many bounds hold, and whether the machine was quiet: else times say little."""
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    own += sum(server.read_cpu() for server in bench.servers)
    judged = [figure for figure in bench.figures if figure.holds is not None]
    missed = [f"{figure.what} {figure.must}" for figure in judged if not figure.holds]
    print(f"\n{len(judged) - len(missed)} of {len(judged)} bounds hold.", *(f"Missed: {one}." for one in missed))
    cores = max(0.0, busy - own) / seconds
    told = "quiet" if cores < QUIET else "**not quiet**: times, and ratios of times, say little"
    print(f"Other processes took {cores:.2f} cores: the machine was {told}. All took {seconds / 60:.1f} minutes.")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5, help="in which each server is asked once")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement in a round")
    parser.add_argument("--overload-seconds", type=float, default=60.0)
    parser.add_argument(
        "--folder", type=Path, help="where the model is trained and registered, or found if it is there already"
    )
    return parser.parse_args()


# -- what was measured -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figure:
    """A line of the table."""

    what: str
    measured: str
    beside: str
    must: str = ""
    holds: bool | None = None


@dataclass(frozen=True)
class Measured:
    """What one server did in one measurement."""

    seconds: float
    answers: dict[str, list[float]]
    cpu: float
    """Seconds of the server's processes."""
    client_cpu: float
    pace: float = 1.0
    """Rows a second of the bare forward at this time."""

    @property
    def count(self) -> int:
        """How many were answered with status 200."""
        return sum(len(some) for name, some in self.answers.items() if name.endswith(" 200"))

    @property
    def rate(self) -> float:
        return self.count / self.seconds

    @property
    def cpu_ms(self) -> float:
        return 1000 * self.cpu / self.count

    @property
    def client_ms(self) -> float:
        return 1000 * self.client_cpu / self.count


def find_quantile(values: Sequence[float], share: float) -> float:
    """Return a quantile in milliseconds."""
    ordered = sorted(values)
    return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def compare(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the median of the ratios of each round."""
    return statistics.median(one / other for one, other in zip(first, second, strict=True))


@dataclass
class Bench:
    """The folder with the model, the servers that run, and what was measured."""

    options: argparse.Namespace
    store: Path
    folder: Path
    stack: ExitStack
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    servers: list[Running] = field(default_factory=list)

    def __post_init__(self) -> None:
        from dlpipe.serving.key_file import create_key

        self.keys = self.folder / "keys.json"
        self.key = create_key(self.keys, "bench")[1]
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{self.store / 'mlflow.db'}"

    def start(self, name: str, *words: object) -> Running:
        """Return a server of ``servers.py`` that answers, and is stopped until it is asked."""
        command = [sys.executable, str(HERE / "servers.py"), name, "--keys", str(self.keys), *map(str, words)]
        return self.run(command)

    def run(self, command: Sequence[str], *, port: int = 0) -> Running:
        """Return a server that ends with the benchmark."""
        self.servers.append(self.stack.enter_context(run_server(command, self.folder, port=port)))
        return self.servers[-1]

    def make_head(self, path: str) -> str:
        return "\r\n".join(
            (
                f"POST {path} HTTP/1.1",
                "Host: 127.0.0.1",
                "User-Agent: bench",
                "Content-Type: application/json",
                f"Authorization: Bearer {self.key}",
            )
        )

    def plan(self, server: Running, path: str, bodies: Sequence[tuple[str, str]], **plan: Any) -> dict[str, Any]:
        return {"port": server.port, "head": self.make_head(path), "bodies": bodies, **plan}

    def ask(
        self,
        server: Running,
        path: str,
        bodies: Sequence[tuple[str, str]],
        *,
        warm: float = WARM_SECONDS,
        **plan: Any,
    ) -> Measured:
        """Return what came of requests to a server by the plan of ``load.py``, after it has warmed up."""
        plan = self.plan(server, path, bodies, **plan)
        with server.awake():
            if warm:
                run_load({**plan, "seconds": warm, "rate": 0.0})
            before = server.read_cpu()
            found = run_load(plan)
            cpu = server.read_cpu() - before
        return Measured(found["seconds"], found["answers"], cpu, found["cpu"])

    def repeat(self, names: Sequence[str], measure: Callable[[str], Any]) -> dict[str, list[Any]]:
        """Return what each of ``names`` gave in each round, in alternating order."""
        found: dict[str, list[Any]] = {name: [] for name in names}
        for number in range(self.options.rounds):
            for name in names if number % 2 == 0 else names[::-1]:
                found[name].append(measure(name))
        return found

    def add(self, figure: Figure) -> None:
        self.figures.append(figure)
        say(f"{figure.what}: {figure.measured} ({figure.beside})")

    def print_table(self) -> None:
        print("| | dlpipe | beside it | must | holds |\n|---|---:|---:|---:|---|")
        for figure in self.figures:
            holds = "" if figure.holds is None else "yes" if figure.holds else "**no**"
            print(f"| {figure.what} | {figure.measured} | {figure.beside} | {figure.must} | {holds} |")
        print("\n" + "\n".join(self.notes))


# -- overhead ----------------------------------------------------------------------------------------------------

ROW = json.dumps({"text": TEXT})
SHAPES = {
    "plain": ("/models/none", ROW),
    "MLflow's body": (
        "/models/none/invocations",
        json.dumps({"dataframe_split": {"columns": ["text"], "data": [[TEXT]]}}),
    ),
    "Open Inference Protocol": (
        "/v2/models/none/infer",
        json.dumps({"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [TEXT]}]}),
    ),
}


def measure_overhead(bench: Bench) -> None:
    servers = {BARE: bench.start("bare"), **dict.fromkeys(SHAPES, bench.start("nothing"))}
    path, body = SHAPES["plain"]
    bench.ask(servers["plain"], path, [("", body)], clients=1, seconds=FIRST_SECONDS, warm=0)
    for clients, bound in OVERHEAD_BOUNDS.items():

        def ask(name: str, clients: int = clients) -> Measured:
            path, body = SHAPES.get(name, SHAPES["plain"])
            return bench.ask(
                servers[name], path, [("", body)], clients=clients, seconds=bench.options.seconds, warm=0.5
            )

        found = bench.repeat(list(servers), ask)
        cpu = {name: statistics.median(one.cpu_ms for one in runs) for name, runs in found.items()}
        p50 = {name: find_quantile(join(runs), 0.5) for name, runs in found.items()}
        for name in SHAPES:
            what = f"overhead, {clients} client{'s' * (clients > 1)}, {name}: CPU of the server a request"
            beside = f"bare Starlette {cpu[BARE]:.2f} ms"
            must = f"at most {bound:.2f} ms"
            bench.add(Figure(what, f"{cpu[name]:.2f} ms", beside, must, cpu[name] <= bound))
        client = statistics.median(one.client_ms for runs in found.values() for one in runs)
        bench.notes.append(
            f"Overhead, {clients} client{'s' * (clients > 1)}: p50 {describe(p50, 'ms')}; the client took "
            f"{client:.2f} ms of CPU a request."
        )


def join(runs: Sequence[Measured], kind: str = "") -> list[float]:
    """Return the seconds of all answers of some rounds to bodies of one kind."""
    return [
        seconds for run in runs for name, some in run.answers.items() if name == f"{kind} 200" for seconds in some
    ]


def describe(values: dict[str, float], unit: str) -> str:
    return ", ".join(f"{name} {value:.2f} {unit}" for name, value in values.items())


# -- the model ---------------------------------------------------------------------------------------------------


def prepare(bench: Bench) -> tuple[list[str], Path]:
    """Return rows to ask for, and the folder of the registered model, which is trained if it is not there."""
    there = SNIPPETS.is_dir()
    if not there:
        say(f"{SNIPPETS} is not there: rows are those of the sample")
        bench.notes.append("The movie snippets were not at hand: rows are those of the sample, of another length.")
    rows = read_texts(SNIPPETS / "movies_train.csv" if there else SAMPLE)
    random.Random(0).shuffle(rows)
    kept = bench.store / "model.json"
    if not kept.exists():
        bench.store.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(str(register(bench, there))))
    return rows, Path(json.loads(kept.read_text()))


def read_texts(file: Path) -> list[str]:
    with file.open(newline="", encoding="utf-8") as lines:
        return [row["review"] for row in csv.DictReader(lines)]


def register(bench: Bench, there: bool) -> Path:
    """Train the model for an epoch, export its engines, register it as champion, and return its folder."""
    from dlpipe.inference import download_model
    from dlpipe.registry import log_and_register, promote
    from dlpipe.tables import Sources, ingest, read_table
    from dlpipe.task.text_classification import TextClassData
    from dlpipe.task.texts import TextTraining
    from dlpipe.task.texts.engines import CheckSettings, export_engines
    from dlpipe.tracking import open_store
    from dlpipe.training import fit

    say("training the model")
    files = [str(SNIPPETS / f"movies_{name}.csv") for name in ("valid", "test")] if there else [str(SAMPLE)] * 2
    sources = Sources(train=files[:1], test=files[1]) if there else Sources(train=files[:1])
    table = ingest(sources, bench.store / "tables" / MODEL, settings=TextClassData()).table
    held = read_table(table, split="test", columns=["text", "label"]).to_pydict()
    model = fit(table, settings=TextTraining(epochs=1, max_length=256), say=say).model
    # of a model after one epoch, int8 may lose three rows of six hundred, or two: here its speed is asked for
    settings = CheckSettings(accuracy_lost=MOST_LOST)
    version = log_and_register(
        export_engines(model, held["text"], held["label"], settings=settings),
        name=MODEL,
        example=held["text"][:5],
        params={},
        tags={"delta.table": MODEL, "delta.version": "0", "delta.digest": table.digest},
    )
    promote(version)
    return download_model(open_store(), version, scratch=bench.store / "downloaded")


def to_bodies(texts: Sequence[str], kind: str = "") -> list[tuple[str, str]]:
    return [(kind, json.dumps(text)) for text in texts]


# -- batches -----------------------------------------------------------------------------------------------------


def measure_batches(bench: Bench) -> None:
    rows, folder = prepare(bench)
    forward = bench.start("forward", "--engine", INT8, "--folder", folder)
    tried: dict[int, list[float]] = {tokens: [] for tokens in FORWARD_TOKENS}
    for _ in range(bench.options.rounds):
        for tokens, rates in tried.items():
            rates.append(run_forward(forward, rows[:FORWARD_ROWS], tokens).rate)
    tokens = max(tried, key=lambda tokens: statistics.median(tried[tokens]))
    servers = {
        # nothing is refused, for a client that is refused would ask again at once
        f"{engine}{ALONE * alone}": bench.start(
            "dlpipe", "--engine", engine, "--max-wait", 60, *["--alone"] * alone
        )
        for engine in (INT8, TORCH)
        for alone in (False, True)
    }
    servers[MLFLOW] = start_mlflow(bench)
    draw, bare, unsteady = random.Random(1), [], 0

    def ask(name: str) -> Measured:
        some = draw.sample(rows, min(2000, len(rows)))
        path, bodies = f"/models/{MODEL}", to_bodies(some)
        if name == MLFLOW:
            path, bodies = "/invocations", [("", to_mlflow(text)) for text in some]
        return bench.ask(servers[name], path, bodies, clients=CLIENTS, seconds=bench.options.seconds)

    def run_bare() -> Measured:
        bare.append(run_forward(forward, draw.sample(rows, min(FORWARD_ROWS, len(rows))), tokens))
        return bare[-1]

    def measure(name: str) -> Measured:
        nonlocal unsteady
        for _ in range(TRIES):
            before, found, after = run_bare(), ask(name), run_bare()
            if abs(before.rate / after.rate - 1) < UNSTEADY:
                break
            unsteady += 1
        return replace(found, pace=(before.rate + after.rate) / 2)

    found = bench.repeat(list(servers), measure)
    add_speed(bench, INT8, found[INT8], "bare bucketed forward", None, 0.8)
    for name, other, beside, bound in (
        (INT8, INT8 + ALONE, "batching off", 1.35),
        (TORCH, TORCH + ALONE, "batching off", 2.5),
        (INT8, MLFLOW, "MLflow's server", 5.0),
    ):
        add_speed(bench, name, found[name], beside, found[other], bound)
    client = statistics.median(run.client_ms for run in found[INT8])
    p50 = {name: find_quantile(join(found[name]), 0.5) for name in servers}
    cpu = {name: statistics.median(run.cpu_ms for run in runs) for name, runs in ({BARE: bare} | found).items()}
    paces = [run.rate for run in bare]
    bench.notes.append(
        f"Batches: the bare forward has batches of {tokens} tokens, and had {min(paces):,.0f} to "
        f"{max(paces):,.0f} rows a second, as the machine was slower or faster; measurements made again since it "
        f"changed meanwhile: {unsteady}; p50 {describe(p50, 'ms')}; CPU a row {describe(cpu, 'ms')}, and "
        f"{client:.2f} ms of the client."
    )


def add_speed(
    bench: Bench, name: str, runs: list[Measured], beside: str, others: list[Measured] | None, bound: float
) -> None:
    """Add the line of a server beside another one, or the bare forward: rows a second at the same pace."""
    paces = [run.pace for run in runs]
    other_paces = paces if others is None else [run.pace for run in others]
    other_rates = paces if others is None else [run.rate for run in others]
    times = compare(
        [run.rate / pace for run, pace in zip(runs, paces, strict=True)],
        [rate / pace for rate, pace in zip(other_rates, other_paces, strict=True)],
    )
    bench.add(
        Figure(
            f"{name}, {CLIENTS} clients: rows a second",
            f"{statistics.median(run.rate for run in runs):,.0f}: {times:.2f} times",
            f"{beside} {statistics.median(other_rates):,.0f}",
            f"at least {bound:g} times",
            times >= bound,
        )
    )


def run_forward(forward: Running, texts: Sequence[str], tokens: int) -> Measured:
    found = forward.run(forward=texts, tokens=tokens)
    each = [found["seconds"] / len(texts)] * len(texts)
    return Measured(found["seconds"], {" 200": each}, found["cpu"], 0.0)


def start_mlflow(bench: Bench) -> Running:
    """Return MLflow's own server with the same model."""
    port = find_free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", f"models:/{MODEL}@champion"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    return bench.run(command, port=port)


def to_mlflow(text: str) -> str:
    return json.dumps({"dataframe_split": {"columns": ["text"], "data": [[text]]}})


# -- one client --------------------------------------------------------------------------------------------------


def measure_single(bench: Bench) -> None:
    rows, folder = prepare(bench)
    forward = bench.start("forward", "--engine", INT8, "--folder", folder)
    server = bench.start("dlpipe", "--engine", INT8)
    seconds, path = bench.options.seconds, f"/models/{MODEL}"

    def measure(name: str) -> list[float]:
        if name == BARE:
            found: list[float] = forward.run(call=rows[:500], seconds=seconds)["seconds"]
            return found
        return join([bench.ask(server, path, to_bodies(rows[:500]), clients=1, seconds=seconds, warm=0.5)])

    found = bench.repeat([BARE, "served"], measure)
    bare, served = (find_quantile(list(chain(*found[name])), 0.5) for name in (BARE, "served"))
    bench.add(
        Figure("one client: p50", f"{served:.2f} ms", f"call in Python {bare:.2f} ms", "at most 1.5 ms more",
               served <= bare + 1.5)
    )  # fmt: skip
    short, long = to_bodies([make_text(10)], "short"), to_bodies([make_text(250)], "long")

    def mix(name: str) -> Measured:
        if name == "two clients":
            with server.awake():
                beside = start_load(bench.plan(server, path, long, clients=1, seconds=seconds + 1))
                time.sleep(0.5)
                made = bench.ask(server, path, short, clients=1, seconds=seconds, warm=0)
                end_load(beside)
            return made
        bodies = short if name == "short alone" else random.Random(2).choices([*short, *long], k=500)
        return bench.ask(server, path, bodies, clients=1, seconds=seconds, warm=0.5)

    mixed = bench.repeat(["short alone", "one client", "two clients"], mix)
    p99 = {name: find_quantile(join(runs, "short"), 0.99) for name, runs in mixed.items()}
    for name, what in (("one client", "one client, 10 and 250 tokens mixed"),
                       ("two clients", "a client with 10 tokens beside one with 250")):  # fmt: skip
        times = p99[name] / p99["short alone"]
        bench.add(
            Figure(
                f"{what}: p99 of the short ones",
                f"{p99[name]:.2f} ms: {times:.2f} times",
                f"short ones alone {p99['short alone']:.2f} ms",
                "at most 2 times",
                times <= 2,
            )
        )


def make_text(tokens: int) -> str:
    return " ".join(WORDS[at % len(WORDS)] for at in range(tokens - 2))


# -- too much load -----------------------------------------------------------------------------------------------


def measure_overload(bench: Bench) -> None:
    rows, _ = prepare(bench)
    server, path, bodies = bench.start("dlpipe", "--engine", INT8), f"/models/{MODEL}", to_bodies(rows)
    seconds = bench.options.overload_seconds

    def ask_usual() -> Measured:
        # as long in all as with too much load: a slowest percent is that of the machine's slow seconds, too
        return bench.ask(server, path, bodies, clients=CLIENTS, seconds=seconds / 2)

    usual = ask_usual()
    say(f"{CLIENTS} clients: {usual.rate:.0f} rows a second; now five times as many requests")
    memory = []
    with server.awake():
        before = server.read_cpu()
        loading = start_load(
            bench.plan(server, path, bodies, clients=CLIENTS, seconds=seconds, rate=5 * usual.rate)
        )
        for _ in range(int(seconds)):
            time.sleep(1)
            memory.append(server.read_memory())
        found = end_load(loading)
        cpu = server.read_cpu() - before
    made = Measured(found["seconds"], found["answers"], cpu, found["cpu"])
    # before and after, for the machine may have become faster or slower
    p99 = find_quantile(join([usual, ask_usual()]), 0.99)
    accepted, refused = made.answers.get(" 200", [0.0]), made.answers.get(" 503", [0.0])
    others = {name.strip(): len(some) for name, some in made.answers.items() if name not in (" 200", " 503")}
    times = find_quantile(accepted, 0.99) / p99
    first, last = statistics.median(memory[: len(memory) // 4 + 1]), statistics.median(memory[-len(memory) // 4 :])
    title = f"five times too much load, {seconds:g} s"
    for figure in (
        Figure(f"{title}: p99 of the accepted", f"{find_quantile(accepted, 0.99):.0f} ms: {times:.2f} times",
               f"{CLIENTS} clients {p99:.0f} ms", "at most 2 times", times <= 2),
        Figure(f"{title}: p99 of the refused", f"{find_quantile(refused, 0.99):.0f} ms", "",
               f"at once: {AT_ONCE_MS:g} ms", find_quantile(refused, 0.99) <= AT_ONCE_MS and not others),
        Figure(f"{title}: memory of the last quarter", f"{last:.0f} MB: {last / first:.3f} times",
               f"first quarter {first:.0f} MB", f"at most {FLAT:g} times", last <= FLAT * first),
    ):  # fmt: skip
        bench.add(figure)
    bench.notes.append(
        f"Too much load: {5 * usual.rate:,.0f} a second asked, {len(accepted) / made.seconds:,.0f} answered (p50 "
        f"{find_quantile(accepted, 0.5):.0f} ms), {len(refused) / made.seconds:,.0f} refused (p50 "
        f"{find_quantile(refused, 0.5):.1f} ms); other answers: {others or 'none'}. The server took "
        f"{made.cpu / made.seconds:.2f} cores, the client {made.client_cpu / made.seconds:.2f}. {CLIENTS} clients "
        f"got {usual.rate:,.0f} answers a second."
    )


PARTS = {
    "overhead": measure_overhead,
    "batches": measure_batches,
    "single": measure_single,
    "overload": measure_overload,
}

if __name__ == "__main__":
    main()
