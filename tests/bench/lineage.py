"""How long lineage takes: from an answer to its line, and from a row or a line to all that it reached.

    python tests/bench/lineage.py             1,000,000 predictions and 100,000 other nodes, and a tenth of them
    python tests/bench/lineage.py 0.1         a tenth of both

Each store is made anew in a temporary folder, see big_lineage.py: a file of 100,000 lines, ten models that were
trained on it and predicted all of its rows, and beside them other tables, models, runs and requests.

``first`` is a walk for which something of the index is still to be made (for the first one, imports too),
``seconds`` the fastest of five after it; ``cpu`` is processor time of that one, ``read`` the bytes that it read,
by the kernel's count. ``command`` is `dlpipe lineage` from its start to its end, ``command cpu`` what that took of
the processor.
"""

from __future__ import annotations

import contextlib
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from big_lineage import Size, make_history

from dlpipe.lineage import Graph, Records, walk
from dlpipe.terminal import format_table

MODELS, ROWS = 10, 100_000
FULL = Size(tables=100, runs=5_000, requests=30_000)


def count_bytes() -> int:
    """Return how many bytes this process has read so far."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["rchar"])


def measure(text: str, direction: str) -> tuple[float, float, int, Graph]:
    """Return wall seconds, processor seconds and bytes read of a walk from a node, and what it found."""
    begun, cpu, read = time.perf_counter(), time.process_time(), count_bytes()
    records = Records()
    graph = walk(records, records.find(text), direction=direction)  # type: ignore[arg-type]
    return time.perf_counter() - begun, time.process_time() - cpu, count_bytes() - read, graph


def measure_command(text: str, direction: str) -> tuple[float, float]:
    """Return wall seconds and processor seconds of the command."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "dlpipe.cli", "lineage", text, f"--{direction}"]
    subprocess.run(command, check=True, capture_output=True)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def report(scale: float) -> None:
    """Measure a store of this scale, and print it."""
    size = Size(round(FULL.tables * scale), round(FULL.runs * scale), round(FULL.requests * scale))
    rows = round(ROWS * scale)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        row, line = make_history(Path(folder), rows, MODELS, size)
        print(f"\n{rows * MODELS:,} predictions, {size.count_nodes():,} other nodes", flush=True)
        lines = []
        for name, text, direction in (
            ("answer up", f"reviews_predictions@v{MODELS // 2}#{row}", "up"),
            ("row down", f"reviews#{row}", "down"),
            ("line down", line, "down"),
            ("model both", "reviews/3", "both"),
            ("run both", "TrainFlow/1700000000000007", "both"),
        ):
            first = measure(text, direction)[0]
            seconds, cpu, read, graph = min(
                (measure(text, direction) for _ in range(5)), key=lambda found: found[:2]
            )
            wall, whole = measure_command(text, direction)
            found = {"walk": name, "nodes": len(graph.nodes), "first": f"{first:.2f}", "seconds": f"{seconds:.3f}"}
            found |= {
                "cpu": f"{cpu:.3f}",
                "read": f"{read:,}",
                "command": f"{wall:.2f}",
                "command cpu": f"{whole:.2f}",
            }
            lines.append(found)
        print("\n".join(format_table(lines)))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(f"at most {memory} MB of memory, and the making of the store is part of it", flush=True)


if __name__ == "__main__":
    largest = float(sys.argv[1]) if sys.argv[1:] else 1.0
    if sys.argv[2:]:
        report(largest)
    else:  # Metaflow looks for runs where its process first stood
        for part in (largest / 10, largest):
            subprocess.run([sys.executable, __file__, str(part), "alone"], check=True)
