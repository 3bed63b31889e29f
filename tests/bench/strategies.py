"""What each strategy reaches on real text, and in what time: movie snippets and whole IMDb reviews.

Each is ``dlpipe.training.fit`` with the settings of its row and the defaults for the rest, in a process of its
own. Seconds are those of ``fit`` (embedding and validation included), without imports and ingest.

    python tests/bench/strategies.py
    python tests/bench/strategies.py --sets movies --only lora no_freeze
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SETS = {"movies": "snippets/movies_{}.csv", "imdb": "imdb/{}.csv"}
ROWS: list[dict[str, Any]] = [
    {"strategy": "freeze", "epochs": 10, "learning_rate": 3e-3},
    {"strategy": "lora", "epochs": 2, "learning_rate": 1e-3},
    {"strategy": "freeze_unfreeze", "epochs": 2},
    {"strategy": "no_freeze", "epochs": 1},
    {"strategy": "no_freeze", "epochs": 2},
    {"strategy": "no_freeze", "epochs": 3},
]


def main() -> None:
    options = parse_options()
    if options.worker:
        print(json.dumps(fit_model(options.worker, json.loads(options.given))))
        return
    if not SHARED.is_dir():
        sys.exit(f"{SHARED} is not there: this benchmark needs the real text.")
    chosen = [row for row in ROWS if not options.only or row["strategy"] in options.only]
    print("| strategy | epochs | rate |" + "".join(f" {name}, accuracy | s |" for name in options.sets))
    print("|---|---|---|" + "---|---|" * len(options.sets))
    for row in chosen:
        found = [measure(name, row) for name in options.sets]
        cells = [row["strategy"], str(row["epochs"]), f"{found[0]['rate']:g}"]
        cells += [cell for made in found for cell in (f"{made['accuracy']:.3f}", f"{made['seconds']:.0f}")]
        print(f"| {' | '.join(cells)} |", flush=True)
    print("\nAccuracy on the test split; 800 and 399 rows, so that a point of difference is within chance.")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--only", nargs="+", help="strategies; by default all")
    parser.add_argument("--worker", choices=SETS, help=argparse.SUPPRESS)
    parser.add_argument("--given", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(name: str, row: dict[str, Any]) -> dict[str, float]:
    command = [sys.executable, __file__, "--worker", name, "--given", json.dumps(row)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = dict(json.loads(done.stdout.splitlines()[-1]))
    print(f"{name} {row}: {found}", file=sys.stderr, flush=True)
    return found


def fit_model(name: str, row: dict[str, Any]) -> dict[str, float]:
    from dlpipe.evaluation import evaluate_model
    from dlpipe.tables import Sources, ingest
    from dlpipe.task import open_predictor
    from dlpipe.task.text_classification import TextClassData
    from dlpipe.task.texts import TextTraining
    from dlpipe.training import fit

    with tempfile.TemporaryDirectory() as folder:
        files = {split: str(SHARED / SETS[name].format(split)) for split in ("train", "valid", "test")}
        table = ingest(Sources(**files), f"{folder}/texts", settings=TextClassData()).table
        settings = TextTraining(**row)
        began = time.monotonic()
        made = fit(table, settings=settings, say=None)
        seconds = time.monotonic() - began
        scores = evaluate_model(open_predictor(made.model), table).metrics
        return {"seconds": seconds, "accuracy": scores["accuracy"], "rate": settings.learning_rate}


if __name__ == "__main__":
    main()
