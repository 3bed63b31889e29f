"""Scoring 20,000 and 200,000 short rows with a small network of random weights: peak memory and time.

Each scoring is a process of its own, from the table to the commit, in alternating order. The peak is that of the
whole process, its libraries included. Ten times the rows may take 10.5 times as long and 1.1 times the memory.

    python tests/bench/memory.py
    python tests/bench/memory.py --rows 20000 --repeats 1
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from resident import read_resident

TIMES = 10


def main() -> None:
    options = parse()
    if options.worker:
        print(json.dumps(score_table(*map(Path, options.worker))))
        return
    sizes = (options.rows, options.rows * TIMES)
    with tempfile.TemporaryDirectory() as folder:
        make_small_model(Path(folder, "model"))
        for rows in sizes:
            write_short_texts(Path(folder, str(rows)), rows)
        runs: dict[int, list[dict[str, float]]] = {rows: [] for rows in sizes}
        for repeat in range(options.repeats):
            for rows in sizes if repeat % 2 == 0 else sizes[::-1]:
                runs[rows].append(measure(Path(folder), rows, repeat))
                print(rows, runs[rows][-1], file=sys.stderr)
    print_table(runs)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000, help="rows of the smaller table")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def make_small_model(folder: Path) -> None:
    """Write a model of two layers of width 64 that reads what the packaged backbone reads."""
    import torch
    from transformers import BertConfig, BertModel

    from dlpipe.task.texts import find_backbone
    from dlpipe.task.texts.network import TextNetwork, read_tokenizer_json, to_text_model

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30_522, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128
    )
    network = TextNetwork(BertModel(config, add_pooling_layer=False), 2)
    reads = read_tokenizer_json(find_backbone().folder)
    to_text_model(
        network, tokenizer_json=reads, card={"task": "text-classification", "labels": ["a", "b"], "max_length": 64}
    ).save(folder)


def write_short_texts(path: Path, rows: int) -> None:
    """Write a table of different texts of 5 to 15 words."""
    import random

    import pyarrow as pa

    from dlpipe.tables import write_table

    draw = random.Random(0)
    words = ["film", "plot", "actor", "scene", "good", "bad", "slow", "bright", "story", "end", "never", "again"]
    texts = [f"{row} {' '.join(draw.choices(words, k=draw.randint(4, 14)))}" for row in range(rows)]
    write_table(path, pa.table({"row_id": [str(row) for row in range(rows)], "text": texts}))


def measure(folder: Path, rows: int, repeat: int) -> dict[str, float]:
    paths = [folder / "model", folder / str(rows), folder / f"scores-{rows}-{repeat}"]
    command = [sys.executable, __file__, "--worker", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def score_table(model: Path, source: Path, target: Path) -> dict[str, float]:
    """Score the table and return seconds and peak MiB of this process."""
    from dlpipe.inference import score
    from dlpipe.registry import ModelVersion
    from dlpipe.tables import table_at
    from dlpipe.task import open_predictor

    predictor = open_predictor(model)
    version = ModelVersion("small", 1, "models:/small/1", predictor.digest, run_id="", model_id="")
    started = time.perf_counter()
    done = score(predictor, table_at(source), model=version, target=str(target), split=None, say=None)
    seconds = time.perf_counter() - started
    return {"rows": done.new_rows, "seconds": seconds, "peak_mib": read_resident("VmHWM")}


def print_table(runs: dict[int, list[dict[str, float]]]) -> None:
    def find_median(repeats: list[dict[str, Any]], name: str) -> float:
        return statistics.median(run[name] for run in repeats)

    few, many = runs.values()
    print("| rows | seconds | rows/s | peak memory, MiB |\n|---:|---:|---:|---:|")
    for rows, repeats in runs.items():
        seconds, peak = find_median(repeats, "seconds"), find_median(repeats, "peak_mib")
        print(f"| {rows:,} | {seconds:.1f} | {rows / seconds:,.0f} | {peak:.0f} |")
    slower = statistics.median(b["seconds"] / a["seconds"] for a, b in zip(few, many, strict=True))
    larger = statistics.median(b["peak_mib"] / a["peak_mib"] for a, b in zip(few, many, strict=True))
    print(f"| ratio | {slower:.2f} | {TIMES / slower:.2f} | {larger:.3f} |")


if __name__ == "__main__":
    main()
