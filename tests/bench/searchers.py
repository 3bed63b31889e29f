"""Searchers on one budget: random draws, Optuna's TPE, and ASHA with either, over a frozen backbone.

16 trials of at most 4 epochs on all rows of movies_train; learning rate, weight decay, batch size and dropout are
searched. Each search runs with several seeds; embeddings are computed before that. The start of Ray counts.

    python tests/bench/searchers.py
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SNIPPETS = Path(__file__).resolve().parents[3] / "shared" / "data" / "snippets"
SEARCHES = {
    "random": ("random", False),
    "Optuna TPE": ("optuna", False),
    "random with ASHA": ("random", True),
    "Optuna TPE with ASHA": ("optuna", True),
}


def main() -> None:
    options = parse()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in SEARCHES}
    with tempfile.TemporaryDirectory() as folder:
        table = movies(folder)
        for seed in range(options.repeats):
            for name in list(SEARCHES)[:: 1 if seed % 2 == 0 else -1]:
                found[name].append(search(table, *SEARCHES[name], seed, options))
                print(f"seed {seed}, {name}: {found[name][-1]}", file=sys.stderr, flush=True)
    print(f"| searcher | best validation F1 (mean of {options.repeats}) | lowest | epochs trained | seconds |")
    print("|---|---|---|---|---|")
    for name, runs in found.items():
        best = [run["best"] for run in runs]
        epochs, seconds = (statistics.mean(run[what] for run in runs) for what in ("epochs", "seconds"))
        print(f"| {name} | {statistics.mean(best):.4f} | {min(best):.4f} | {epochs:.0f} | {seconds:.1f} |")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=16, help="trials of a search")
    parser.add_argument("--epochs", type=int, default=4, help="the most epochs of a trial")
    parser.add_argument("--rows", type=int, default=0, help="train rows of a trial; all unless given")
    parser.add_argument("--repeats", type=int, default=3, help="seeds of each search")
    options = parser.parse_args()
    if not SNIPPETS.is_dir():
        parser.exit(1, f"{SNIPPETS} is not there; this benchmark needs the movie snippets.\n")
    return options


def movies(folder: str) -> Any:
    """Return the snippets as a table whose embeddings are computed."""
    from dlpipe.tables import Sources, ingest
    from dlpipe.task import find_task
    from dlpipe.task.text_classification import TextClassData
    from dlpipe.task.texts import TextTraining
    from dlpipe.training.data import prepare_data

    print("embedding ...", file=sys.stderr, flush=True)
    sources = Sources(**{split: str(SNIPPETS / f"movies_{split}.csv") for split in ("train", "valid", "test")})
    settings = TextClassData(text_column="review", label_column="sentiment")
    table = ingest(sources, f"{folder}/movies", settings=settings).table
    prepare_data(table, TextTraining(strategy="freeze"), task=find_task())
    return table


def search(table: Any, searcher: Any, asha: bool, seed: int, options: argparse.Namespace) -> dict[str, float]:
    from dlpipe.task.texts import TextTraining
    from dlpipe.tuning import Choices, Range, TuningSettings, tune

    started = time.monotonic()
    tuned = tune(
        table,
        space={
            "learning_rate": Range(1e-4, 1e-1, log=True),
            "weight_decay": Range(1e-4, 1e-1, log=True),
            "batch_size": Choices((16, 32, 64, 128)),
            "dropout": Range(0.0, 0.5),
        },
        settings=TuningSettings(
            confidence=0.0,
            trials=options.trials,
            epochs=options.epochs,
            rows=options.rows,
            searcher=searcher,
            grace_epochs=1 if asha else options.epochs,
            seed=seed,
        ),
        training=TextTraining(strategy="freeze", patience=options.epochs),
        say=lambda line: None,
    )
    return {
        "best": max(trial.score for trial in tuned.trials),
        "epochs": sum(len(trial.scores) for trial in tuned.trials),
        "seconds": time.monotonic() - started,
    }


if __name__ == "__main__":
    main()
