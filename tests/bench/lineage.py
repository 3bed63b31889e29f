"""How long lineage takes: from an answer to its line, and from a row or a line to all that it reached.

    python tests/bench/lineage.py                  1,000,000 predictions, 100,000 other nodes, and a tenth of them
    python tests/bench/lineage.py --scale 0.1      a tenth of both
    python tests/bench/lineage.py --keep FOLDER    with the stores in this folder, which are made where missing

A store is made by big_lineage.py: a file of 100,000 lines, ten models that were trained on it and predicted all of
its rows, and beside them other tables, models, runs and requests.

``command`` is `dlpipe lineage` from its start to its end, a process of its own: processor and wall seconds, the
median of five, and the most memory. ``walk`` is what is left without imports: processor seconds in a process that
has walked before, the least of five, and the bytes that it read, by the kernel's count. The index is made by
the first walks, whose seconds stand below the table.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from big_lineage import Size, make_history

from dlpipe.lineage import Graph, Records, walk

MODELS, ROWS = 10, 100_000
FULL = Size(tables=100, runs=5_000, requests=30_000)
REPEATS = 5
RUN = """
import json, os, subprocess, sys, time
begun = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, used = os.wait4(process.pid, 0)
print(json.dumps([status, used.ru_utime + used.ru_stime, time.perf_counter() - begun, used.ru_maxrss / 1024]))
"""
"""Runs a command and prints what it took: of a process that others start, Linux counts their memory as well."""


def count_bytes() -> int:
    """Return how many bytes this process has read so far."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["rchar"])


def measure(text: str, direction: str) -> tuple[float, int, Graph]:
    """Return processor seconds and bytes read of a walk from a node, and what it found."""
    cpu, read = time.process_time(), count_bytes()
    records = Records()
    graph = walk(records, records.find(text), direction=direction)  # type: ignore[arg-type]
    return time.process_time() - cpu, count_bytes() - read, graph


def measure_command(text: str, direction: str) -> tuple[float, float, float]:
    """Return processor seconds, wall seconds and the most MiB of memory of the command."""
    command = [sys.executable, "-m", "dlpipe.cli", "lineage", text, f"--{direction}"]
    done = subprocess.run([sys.executable, "-c", RUN, *command], stdout=subprocess.PIPE, text=True, check=False)
    status, *measured = json.loads(done.stdout)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return tuple(measured)


def open_store(folder: Path, scale: float) -> tuple[str, str, str]:
    """Return a row, its line and how many seconds of a core the store took; one that exists is not made again."""
    done = folder / "made.json"
    if not done.exists():
        cpu = time.process_time()
        size = scale_size(scale)
        row, line = make_history(folder, round(ROWS * scale), MODELS, size)
        done.write_text(json.dumps([row, line, f"{time.process_time() - cpu:.0f}"]))
    os.environ["DLPIPE_TABLES"] = str(folder / "tables")
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
    row, line, seconds = json.loads(done.read_text())
    return row, line, seconds


def scale_size(scale: float) -> Size:
    """Return how much is beside the history at a scale."""
    return Size(round(FULL.tables * scale), round(FULL.runs * scale), round(FULL.requests * scale))


def report(folder: Path, scale: float) -> None:
    """Measure the store of this scale in a folder, and print a line a walk."""
    row, line, seconds = open_store(folder, scale)
    nodes = f"{round(ROWS * scale) * MODELS:,} + {scale_size(scale).count_nodes():,}"
    first = 0.0
    for name, text, direction in (
        ("answer, up", f"reviews_predictions@v{MODELS // 2}#{row}", "up"),
        ("row, down", f"reviews#{row}", "down"),
        ("line, down", line, "down"),
        ("model, both ways", "reviews/3", "both"),
        ("run, both ways", "TrainFlow/1700000000000007", "both"),
    ):
        first += measure(text, direction)[0]
        cpu, read, graph = min((measure(text, direction) for _ in range(REPEATS)), key=lambda found: found[:2])
        whole = [measure_command(text, direction) for _ in range(REPEATS)]
        process, wall, memory = (statistics.median(column) for column in zip(*whole, strict=True))
        print(
            f"| {nodes} | {name} | {len(graph.nodes):,} | {process:.2f} | {wall:.2f} | {memory:.0f} | {cpu:.3f} "
            f"| {read / 1e6:.1f} |",
            flush=True,
        )
    print(
        f"Of {nodes}: made in {seconds} s of a core, first walks, which make the index, {first:.1f} s.",
        file=sys.stderr,
    )


def main() -> None:
    """Measure a tenth and the whole, each in a process of its own, or one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--keep", type=Path, help="where stores stay between runs; by default none does")
    parser.add_argument("--only", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:  # Metaflow looks for runs where its process first stood
        with contextlib.chdir(options.only):
            report(options.only, options.scale)
        return
    print(
        "| predictions + other nodes | from | nodes found | command, s of a core | command, wall s | memory, MiB "
        "| walk, s of a core | read, MB |\n|---|---|---:|---:|---:|---:|---:|---:|",
        flush=True,
    )
    notes = []
    with tempfile.TemporaryDirectory() as scratch:
        for scale in (options.scale / 10, options.scale):
            folder = Path(options.keep or scratch, f"{scale:g}")
            folder.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, __file__, "--scale", str(scale), "--only", str(folder.resolve())]
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr)
            notes.append(done.stderr.strip().splitlines()[-1])
    load = ", ".join(f"{number:.1f}" for number in os.getloadavg())
    print(f"\n{' '.join(notes)} Load of the machine (1, 5 and 15 minutes): {load}.")


if __name__ == "__main__":
    main()
