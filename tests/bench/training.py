"""One epoch of full fine-tuning: Flash as the book uses it beside dlpipe, paired in one run.

Both train the packaged MiniLM on the same rows with the same batch size, learning rate and seed. Flash's own text
classifier pads every text to ``max_length=128`` and classifies with BERT's pooler; dlpipe pads by batch and pools
by mean. Rows per second are those of the training epoch, without start-up. First one pair on all rows, for the
accuracy; then pairs on fewer rows in alternating order, because machines are noisy.

    make bench
    python tests/bench/training.py --train movies_train.csv --valid movies_valid.csv --test movies_test.csv
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SNIPPETS = Path(__file__).resolve().parents[3] / "shared" / "data" / "snippets"
BATCH_SIZE, LEARNING_RATE, MAX_LENGTH, SEED = 32, 1e-4, 128, 0


def main() -> None:
    options = parse()
    if options.worker:
        print(json.dumps({"flash": flash_epoch, "dlpipe": dlpipe_epoch}[options.worker](options)))
        return
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, batch size {BATCH_SIZE}")
    whole = pair(options, rows=None, first="flash")
    small = [pair(options, rows=options.rows, first=("flash", "dlpipe")[at % 2]) for at in range(options.repeats)]
    print_table([("all", whole), *((str(options.rows), one) for one in small)])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for split in ("train", "valid", "test"):
        parser.add_argument(f"--{split}", type=Path, default=SNIPPETS / f"movies_{split}.csv")
    parser.add_argument("--rows", type=int, default=960, help="train rows of the repeated pairs")
    parser.add_argument("--repeats", type=int, default=3, help="how many repeated pairs")
    parser.add_argument("--worker", choices=["flash", "dlpipe"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.train.is_file():
        parser.exit(1, f"{options.train.name} is not there: pass --train, --valid and --test.\n")
    return options


def pair(options: argparse.Namespace, *, rows: int | None, first: str) -> dict[str, Any]:
    """Measure both, each in a process of its own, on the first ``rows`` rows of the train file."""
    with tempfile.TemporaryDirectory() as folder:
        train = cut(options.train, rows, Path(folder))
        order = ["flash", "dlpipe"] if first == "flash" else ["dlpipe", "flash"]
        return {name: measure(name, train, options) for name in order}


def cut(source: Path, rows: int | None, folder: Path) -> Path:
    if rows is None:
        return source
    with source.open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))[:rows]
    target = folder / source.name
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["review", "sentiment"], quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(table)
    return target


def measure(name: str, train: Path, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--worker", name, "--train", str(train)]
    command += ["--valid", str(options.valid), "--test", str(options.test)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(result.stderr)
    return dict(json.loads(result.stdout.splitlines()[-1]))


def print_table(pairs: list[tuple[str, dict[str, Any]]]) -> None:
    print(
        f"{'train rows':>10}  {'Flash rows/s':>12}  {'dlpipe rows/s':>13}  {'ratio':>5}  {'accuracy of each':>16}"
    )
    for rows, one in pairs:
        flash, ours = one["flash"], one["dlpipe"]
        ratio = ours["rows_per_second"] / flash["rows_per_second"]
        print(
            f"{rows:>10}  {flash['rows_per_second']:>12.1f}  {ours['rows_per_second']:>13.1f}  {ratio:>5.2f}"
            f"  {flash['accuracy']:>7.4f}  {ours['accuracy']:>7.4f}"
        )
    ratios = [one["dlpipe"]["rows_per_second"] / one["flash"]["rows_per_second"] for _, one in pairs]
    print(f"median ratio {statistics.median(ratios):.2f}")


def read(path: Path) -> tuple[list[str], list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row["review"] for row in rows], [row["sentiment"] for row in rows]


def flash_epoch(options: argparse.Namespace) -> dict[str, float]:
    """Train as chapter 2 of the book does, with the files read by Flash and its own text classifier."""
    from dlpipe.task import find_backbone
    from dlpipe.task.classifier import Callback, flash, torch
    from dlpipe.task.predictor import usable_cores

    torch.set_num_threads(usable_cores())
    import pytorch_lightning
    from flash.text import TextClassificationData, TextClassifier

    pytorch_lightning.seed_everything(SEED)

    class Clock(Callback):
        seconds = 0.0

        def on_train_epoch_start(self, *_: Any) -> None:
            self.started = time.monotonic()

        def on_validation_start(self, trainer: Any, _: Any) -> None:
            Clock.seconds = time.monotonic() - self.started

    data = TextClassificationData.from_csv(
        "review",
        "sentiment",
        train_file=str(options.train),
        val_file=str(options.valid),
        predict_file=str(options.test),
        batch_size=BATCH_SIZE,
    )
    model = TextClassifier(
        backbone=str(find_backbone().folder),
        labels=data.labels,
        max_length=MAX_LENGTH,
        learning_rate=LEARNING_RATE,
    )
    clock = Clock()
    trainer = flash.Trainer(
        max_epochs=1, callbacks=[clock], logger=False, enable_checkpointing=False, num_sanity_val_steps=0
    )
    trainer.finetune(model, datamodule=data, strategy="no_freeze")
    texts, labels = read(options.test)
    guess = [row for batch in trainer.predict(model, datamodule=data, output="labels") for row in batch]
    right = sum(a == b for a, b in zip(guess, labels, strict=True))
    rows = len(read(options.train)[0])
    return {"rows_per_second": rows / clock.seconds, "accuracy": right / len(texts)}


def dlpipe_epoch(options: argparse.Namespace) -> dict[str, float]:
    """Train with dlpipe's loop."""
    from dlpipe.task import open_predictor
    from dlpipe.training import TrainingSettings
    from dlpipe.training.loop import Examples, run

    known = ("negative", "positive")

    def examples(path: Path) -> Examples:
        texts, labels = read(path)
        return Examples(texts, [known.index(label) for label in labels])

    settings = TrainingSettings(
        epochs=1, batch_size=BATCH_SIZE, learning_rate=LEARNING_RATE, max_length=MAX_LENGTH, seed=SEED
    )
    train, valid, test = (examples(path) for path in (options.train, options.valid, options.test))
    fitted = run(train, valid, known, settings=settings, checkpoints=None, on_epoch=None, say=None)
    guess = open_predictor(fitted.model).predict_proba(test.texts).argmax(1)
    return {"rows_per_second": fitted.epochs[0].rows_per_second, "accuracy": float((guess == test.classes).mean())}


if __name__ == "__main__":
    main()
