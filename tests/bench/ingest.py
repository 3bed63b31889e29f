"""Ingest of a CSV file, and an append of one row to what it made: peak memory over that of the imports, and time.

Each is a process of its own. The numbers at a tenth of the rows tell what grows: an ingest keeps some thirty bytes
of a row, an append nothing.

    python tests/bench/ingest.py
    python tests/bench/ingest.py --rows 10000
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from resident import read_resident


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(work(*options.worker)))
        return
    print("| what | rows | file, MiB | seconds | peak memory over the imports', MiB |\n|---|---:|---:|---:|---:|")
    for rows in (options.rows // 10, options.rows):
        with tempfile.TemporaryDirectory() as folder:
            source, new = Path(folder, "all.csv"), Path(folder, "one.csv")
            size = write_reviews(source, rows)
            new.write_text("review,sentiment\na film that nobody has seen yet,good\n")
            for what, file in (("ingest", source), ("append", new)):
                seconds, peak = measure(what, file, Path(folder, "reviews"))
                print(f"| {what} | {rows:,} | {size / 2**20:.1f} | {seconds:.2f} | {peak:.0f} |")


def write_reviews(path: Path, rows: int) -> int:
    """Write different texts of about 190 characters with two labels, and return the bytes."""
    draw = random.Random(0)
    words = ["film", "plot", "actor", "scene", "good", "bad", "slow", "bright", "story", "end", "never", "again"]
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["review", "sentiment"])
        for row in range(rows):
            out.writerow([f"{row} {' '.join(draw.choices(words, k=34))}", draw.choice(["good", "bad"])])
    return path.stat().st_size


def measure(what: str, source: Path, table: Path) -> tuple[float, float]:
    command = [sys.executable, __file__, "--worker", what, str(source), str(table)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    found = json.loads(done.stdout.splitlines()[-1])
    return found["seconds"], found["peak_mib"]


def work(what: str, source: str, table: str) -> dict[str, float]:
    """Do it in this process, after everything that it imports is there."""
    from dlpipe.tables import Sources, append, ingest
    from dlpipe.task.text_classification import TextClassData

    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder, "small.csv")
        write_reviews(small, 100)
        ingest(Sources(data=str(small)), f"{folder}/t", settings=TextClassData())
        append(str(small), f"{folder}/t")
    before, started = read_resident("VmRSS"), time.perf_counter()
    Path("/proc/self/clear_refs").write_text("5")
    if what == "ingest":
        ingest(Sources(data=source), table, settings=TextClassData())
    else:
        append(source, table)
    return {"seconds": time.perf_counter() - started, "peak_mib": read_resident("VmHWM") - before}


if __name__ == "__main__":
    main()
