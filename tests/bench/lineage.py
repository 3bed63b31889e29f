"""How long lineage takes: from an answer to its line, and from a row or a line to all that it reached.

    python tests/bench/lineage.py 100000      rows of the table, and a tenth of them; each has ten answers

The answers of each size are made anew in a temporary folder: a file, ten versions of a model, ten commits of
predictions. Printed are the seconds of the second of two walks, what they found, and the memory of the process.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from made_up_lineage import History, list_ids

from dlpipe.lineage import Graph, Records, walk
from dlpipe.terminal import format_table

MODELS = 10


def make_history(folder: Path, rows: int) -> tuple[str, str]:
    """Make a history in a folder, and return the id of a row in the middle and the line that it stood on."""
    os.chdir(folder)
    history = History(folder)
    texts = [(f"text number {number} of many words", ("good", "bad")[number % 2]) for number in range(rows)]
    table = history.ingest("TrainFlow/17", rows=texts)
    ids = list_ids(table)
    for _ in range(MODELS):
        history.predict("TrainFlow/17", history.register("TrainFlow/17", table), table, ids)
    return ids[rows // 2], f"films.csv:{rows // 2 + 2}"


def measure(text: str, direction: str) -> tuple[float, Graph]:
    """Return the seconds of a walk from what ``text`` means, and what it found."""
    started = time.perf_counter()
    records = Records()
    graph = walk(records, records.find(text), direction=direction)  # type: ignore[arg-type]
    return time.perf_counter() - started, graph


def report(rows: int) -> None:
    """Measure a history of so many rows, and print it."""
    with tempfile.TemporaryDirectory() as folder:
        row, line = make_history(Path(folder), rows)
        walks = (
            ("answer up", f"reviews_predictions@v{MODELS // 2}#{row}", "up"),
            ("row down", f"reviews#{row}", "down"),
            ("line down", line, "down"),
            ("model up", "reviews/3", "up"),
        )
        lines = []
        for name, text, direction in walks:
            measure(text, direction)
            seconds, graph = measure(text, direction)
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            found = {"answers": f"{rows * MODELS:,}", "walk": name, "seconds": f"{seconds:.2f}"}
            lines.append({**found, "nodes": len(graph.nodes), "edges": len(graph.edges), "MB": memory})
        print("\n".join(format_table(lines)), flush=True)
        os.chdir("/")


if __name__ == "__main__":
    largest = int(sys.argv[1]) if sys.argv[1:] else 100_000
    for size in (largest // 10, largest):
        report(size)
