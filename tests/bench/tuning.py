"""Tuning over a frozen backbone: Ray Tune around Flash as the book does it beside dlpipe, on the same draws.

Ten learning rates, three epochs each, all rows of movies_train, no early stopping. The recipe fine-tunes Flash's
own ``TextClassifier`` with strategy ``freeze`` in each trial, from CSV, padded to 128 tokens; the frozen backbone
runs anew in each trial and epoch. ``dlpipe.tuning.tune`` runs it once, from a Delta table, and keeps what it gave
(cold: nothing kept yet; warm: a second search). The bound is one pass of the frozen encoder over train and valid
rows, sorted by length. Each is measured in a process of its own; the start of Ray and imports count, except in the
bound.

    python tests/bench/tuning.py
    python tests/bench/tuning.py --rows 300 --trials 2 --recipe-trials 2
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SNIPPETS = Path(__file__).resolve().parents[3] / "shared" / "data" / "snippets"
EPOCHS, BATCH_SIZE, MAX_LENGTH, SEED = 3, 32, 128, 0
LOW, HIGH = 1e-4, 1e-2


def main() -> None:
    options = parse()
    if options.worker:
        given = json.loads(options.given)
        print(json.dumps(WORKERS[options.worker](Path(options.folder), options.trials, given)))
        return
    runs: dict[str, list[dict[str, Any]]] = {"cold": [], "warm": [], "bound": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split in ("train", "valid", "test"):
            cut(SNIPPETS / f"movies_{split}.csv", options.rows, folder / f"{split}.csv")
        for at in range(options.repeats):
            for what in ("cold", "warm", "bound") if at % 2 == 0 else ("bound", "cold", "warm"):
                runs[what].append(measure(what, folder, options.trials))
        rates = runs["cold"][0]["rates"][: options.recipe_trials]  # the best of ours first
        recipe = measure("recipe", folder, len(rates), rates)
    print_table(runs, recipe, options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=None, help="train rows; all unless given")
    parser.add_argument("--trials", type=int, default=10, help="trials of a search")
    parser.add_argument(
        "--recipe-trials", type=int, default=2, help="trials of the recipe that are run; all cost the same"
    )
    parser.add_argument("--repeats", type=int, default=1, help="how often dlpipe and the bound are measured")
    parser.add_argument("--worker", choices=list(WORKERS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--given", default="[]", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not SNIPPETS.is_dir():
        parser.exit(1, f"{SNIPPETS} is not there; this benchmark needs the movie snippets.\n")
    return options


def cut(source: Path, rows: int | None, target: Path) -> None:
    with source.open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))[:rows]
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["review", "sentiment"], quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(table)


def measure(what: str, folder: Path, trials: int, given: list[float] | None = None) -> dict[str, Any]:
    print(f"{what}: {trials} trials ...", file=sys.stderr, flush=True)
    command = [sys.executable, __file__, "--worker", what, "--folder", str(folder), "--trials", str(trials)]
    result = subprocess.run([*command, "--given", json.dumps(given or [])], stdout=subprocess.PIPE, text=True)
    if result.returncode:
        sys.exit(f"{what} failed")
    found = dict(json.loads(result.stdout.splitlines()[-1]))
    print(f"{what}: {found['seconds']:.1f} s", file=sys.stderr, flush=True)
    return found


def print_table(
    runs: dict[str, list[dict[str, Any]]], recipe: dict[str, Any], options: argparse.Namespace
) -> None:
    seconds = {what: statistics.median(run["seconds"] for run in found) for what, found in runs.items()}
    whole = recipe["fixed"] + (recipe["seconds"] - recipe["fixed"]) * options.trials / recipe["trials"]
    best = runs["cold"][0]["best"]
    print("| tuning | seconds | times as fast as the recipe | times the bound | best validation F1 |")
    print("|---|---|---|---|---|")
    for name, took, f1 in (
        ("recipe: Flash in each trial", whole, f"{recipe['best']:.3f}"),
        ("dlpipe, nothing kept yet", seconds["cold"], f"{best:.3f}"),
        ("dlpipe, embeddings kept", seconds["warm"], f"{runs['warm'][0]['best']:.3f}"),
        ("bound: one pass of the encoder", seconds["bound"], ""),
    ):
        print(f"| {name} | {took:,.1f} | {whole / took:.1f} | {took / seconds['bound']:.2f} | {f1} |")
    if recipe["trials"] < options.trials:
        print(
            f"\nThe recipe ran {recipe['trials']} of the {options.trials} trials in {recipe['seconds']:,.0f} s; "
            f"its time is extrapolated (every trial costs the same). Those are the rates at which dlpipe was best."
        )


def dlpipe_search(folder: Path, trials: int, given: list[float]) -> dict[str, Any]:
    """Search with dlpipe from the Delta table, which is made before the clock starts."""
    from dlpipe.tables import Sources, ingest
    from dlpipe.task.text_classification import TextClassData
    from dlpipe.task.texts import TextTraining
    from dlpipe.tuning import Range, TuningSettings, tune

    sources = Sources(**{split: str(folder / f"{split}.csv") for split in ("train", "valid", "test")})
    table = ingest(
        sources,
        str(folder / "tables" / "movies"),
        settings=TextClassData(text_column="review", label_column="sentiment"),
    ).table
    started = time.monotonic()
    tuned = tune(
        table,
        space={"learning_rate": Range(LOW, HIGH, log=True)},
        settings=TuningSettings(
            confidence=0.0, trials=trials, epochs=EPOCHS, rows=0, searcher="random", grace_epochs=EPOCHS, seed=SEED
        ),
        # a learning rate outside of the space: the first trial is a draw as well
        training=TextTraining(
            strategy="freeze", batch_size=BATCH_SIZE, max_length=MAX_LENGTH, learning_rate=LOW / 10
        ),
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    return {
        "seconds": time.monotonic() - started,
        "best": max(trial.score for trial in tuned.trials),
        "rates": [
            trial.values["learning_rate"]
            for trial in sorted(tuned.trials, key=lambda trial: trial.score, reverse=True)
        ],
    }


def cold(folder: Path, trials: int, given: list[float]) -> dict[str, Any]:
    import shutil

    shutil.rmtree(folder / "tables", ignore_errors=True)
    return dlpipe_search(folder, trials, given)


def recipe(folder: Path, trials: int, rates: list[float]) -> dict[str, Any]:
    """Search as the book does: a Flash task, fine-tuned from CSV in each trial of Ray Tune."""
    started = time.monotonic()
    import os

    os.environ.update(RAY_USAGE_STATS_ENABLED="0", TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1")
    import ray
    from ray import tune

    ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    tuner = tune.Tuner(
        tune.with_parameters(flash_trial, folder=str(folder)),
        param_space={"learning_rate": tune.grid_search(rates)},
        run_config=tune.RunConfig(storage_path=str(folder / "recipe"), verbose=0),
    )
    ready = time.monotonic()
    results = tuner.fit()
    if results.errors:
        sys.exit(str(results.errors[0]))
    best = max(float(result.metrics["val_f1"]) for result in results)
    seconds = time.monotonic() - started
    return {"seconds": seconds, "fixed": ready - started, "best": best, "trials": len(rates)}


def flash_trial(config: dict[str, Any], folder: str) -> None:
    import pytorch_lightning
    from flash.text import TextClassificationData, TextClassifier
    from ray import tune
    from torchmetrics import F1Score

    from dlpipe.task.texts import find_backbone
    from dlpipe.training.frame import Callback, flash  # after Flash, which dlpipe has load without its extras

    pytorch_lightning.seed_everything(SEED)

    class Report(Callback):
        best = 0.0

        def on_validation_epoch_end(self, trainer: Any, task: Any) -> None:
            self.best = max(self.best, float(trainer.callback_metrics["val_f1score"]))
            tune.report({"val_f1": self.best})

    data = TextClassificationData.from_csv(
        "review",
        "sentiment",
        train_file=f"{folder}/train.csv",
        val_file=f"{folder}/valid.csv",
        batch_size=BATCH_SIZE,
    )
    model = TextClassifier(
        backbone=str(find_backbone().folder),
        labels=data.labels,
        max_length=MAX_LENGTH,
        learning_rate=config["learning_rate"],
        metrics=F1Score(num_classes=data.num_classes, average="macro"),
    )
    trainer = flash.Trainer(
        max_epochs=EPOCHS,
        callbacks=[Report()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )
    trainer.finetune(model, datamodule=data, strategy="freeze")


def bound(folder: Path, trials: int, given: list[float]) -> dict[str, Any]:
    """Run the frozen encoder once over all rows: the raw forward pass, without reading or tokenising."""
    from dlpipe.task.texts import find_backbone
    from dlpipe.task.texts.encoding import compute_embeddings
    from dlpipe.task.texts.network import read_tokenizer_json
    from dlpipe.task.texts.tokens import TextTokenizer

    texts = []
    for split in ("train", "valid"):
        with (folder / f"{split}.csv").open(newline="", encoding="utf-8") as file:
            texts += [row["review"] for row in csv.DictReader(file)]
    backbone = find_backbone()
    encoded = TextTokenizer(read_tokenizer_json(backbone.folder), max_length=MAX_LENGTH)(texts)
    few = TextTokenizer(read_tokenizer_json(backbone.folder), max_length=MAX_LENGTH)(texts[:64])
    compute_embeddings(few, backbone, threads=0, say=print)  # warms up
    started = time.monotonic()
    compute_embeddings(encoded, backbone, threads=0, say=print)
    return {"seconds": time.monotonic() - started}


WORKERS = {"cold": cold, "warm": dlpipe_search, "recipe": recipe, "bound": bound}

if __name__ == "__main__":
    main()
