"""Full fine-tuning for three epochs: Flash as the book uses it, dlpipe, and the bound, paired in one run.

All three work on the packaged MiniLM with the same rows, batch size and threads.

recipe  Flash's own text classifier: every text padded to ``max_length=128``, BERT's pooler, Adam.
ours    dlpipe's training loop with its defaults: padding by batch, mean pooling, AdamW, clipping.
bound   forward and backward alone, in plain torch around the encoder of transformers, on the token ids of the same
        rows at the best padding (rows sorted by length, cut into batches), in the precision that ``ours`` uses and
        with the faster one of the two kinds of attention: no dropout, no optimizer, no trainer.

Rows per second are those of the training epochs, without start-up and validation. First one round on all rows, for
the accuracy; then rounds of one epoch on fewer rows in alternating order, because machines are noisy.

    python tests/bench/training.py
    python tests/bench/training.py --full no --rows 960 --repeats 3
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SNIPPETS = Path(__file__).resolve().parents[3] / "shared" / "data" / "snippets"
BATCH_SIZE, LEARNING_RATE, MAX_LENGTH, EPOCHS, SEED = 32, 1e-4, 128, 3, 0
KNOWN = ("negative", "positive")
SIDES = ("recipe", "ours", "bound")


def main() -> None:
    options = parse()
    if options.worker:
        print(json.dumps({"recipe": recipe, "ours": ours, "bound": bound}[options.worker](options)))
        return
    rounds = [one_round(options, rows=None, epochs=options.epochs, turn=0)] if options.full == "yes" else []
    rounds += [one_round(options, rows=options.rows, epochs=1, turn=at) for at in range(options.repeats)]
    print_table(rounds)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for split in ("train", "valid", "test"):
        parser.add_argument(f"--{split}", type=Path, default=SNIPPETS / f"movies_{split}.csv")
    parser.add_argument("--full", choices=["yes", "no"], default="yes", help="the round on all rows, ~20 minutes")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="epochs of the round on all rows")
    parser.add_argument("--rows", type=int, default=960, help="train rows of the repeated rounds")
    parser.add_argument("--repeats", type=int, default=5, help="how many repeated rounds")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES, help="leave one out to save time")
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.train.is_file():
        parser.exit(1, f"{options.train.name} is not there: pass --train, --valid and --test.\n")
    return options


def one_round(options: argparse.Namespace, *, rows: int | None, epochs: int, turn: int) -> dict[str, Any]:
    """Measure each side in a process of its own; every round starts with another side."""
    order = [options.sides[(at + turn) % len(options.sides)] for at in range(len(options.sides))]
    with tempfile.TemporaryDirectory() as folder:
        train = cut(options.train, rows, Path(folder))
        results = {side: measure(side, train, epochs, options) for side in order}
    return {"rows": len(read(options.train)[0][:rows]), "epochs": epochs, **results}


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


def measure(side: str, train: Path, epochs: int, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--worker", side, "--train", str(train), "--epochs", str(epochs)]
    command += ["--valid", str(options.valid), "--test", str(options.test)]
    # how OpenMP's threads wait is read when torch is loaded; dlpipe's way for all, whatever each imports first
    environment = {"OMP_WAIT_POLICY": "passive", **os.environ}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if result.returncode:
        sys.exit(result.stderr)
    found = dict(json.loads(result.stdout.splitlines()[-1]))
    print(f"{side}, {epochs} epochs of {train.name}: {found}", file=sys.stderr, flush=True)
    return found


def print_table(rounds: list[dict[str, Any]]) -> None:
    print(
        "| rows x epochs | recipe, rows/s | ours, rows/s | bound, rows/s | ours / recipe | ours / bound |", end=""
    )
    print(" accuracy, recipe | accuracy, ours |")
    print("|---|---|---|---|---|---|---|---|")
    for measured in rounds:
        rates = [measured[side]["rows_per_second"] if side in measured else float("nan") for side in SIDES]
        accuracies = [measured[side]["accuracy"] if side in measured else float("nan") for side in SIDES[:2]]
        cells = [f"{measured['rows']:,} x {measured['epochs']}", *(f"{rate:.1f}" for rate in rates)]
        cells += [f"{rates[1] / rates[0]:.2f}", f"{rates[1] / rates[2]:.3f}", *(f"{at:.4f}" for at in accuracies)]
        print("| " + " | ".join(cells) + " |")
    medians = [middle(rounds, other) for other in ("recipe", "bound")]
    print(f"Median of the rounds: {medians[0]:.2f} times the recipe, {medians[1]:.3f} of the bound.")


def middle(rounds: list[dict[str, Any]], other: str) -> float:
    pairs = [
        (measured["ours"], measured[other]) for measured in rounds if "ours" in measured and other in measured
    ]
    return (
        statistics.median(a["rows_per_second"] / b["rows_per_second"] for a, b in pairs) if pairs else float("nan")
    )


def read(path: Path) -> tuple[list[str], list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row["review"] for row in rows], [row["sentiment"] for row in rows]


def recipe(options: argparse.Namespace) -> dict[str, float]:
    """Train as chapter 2 of the book does, with the files read by Flash and its own text classifier."""
    import numpy

    numpy.Inf = numpy.inf  # Flash asks for the old name
    import flash  # before dlpipe, which has it load without its extras

    from dlpipe.machine import count_usable_cores
    from dlpipe.task.texts import find_backbone
    from dlpipe.training.frame import Callback, torch

    torch.set_num_threads(count_usable_cores())
    import pytorch_lightning
    from flash.text import TextClassificationData, TextClassifier

    pytorch_lightning.seed_everything(SEED)

    class Clock(Callback):
        seconds = 0.0

        def on_train_epoch_start(self, *_: Any) -> None:
            self.started = time.monotonic()

        def on_validation_start(self, trainer: Any, _: Any) -> None:
            Clock.seconds += time.monotonic() - self.started

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
        max_epochs=options.epochs,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
    )
    trainer.finetune(model, datamodule=data, strategy="no_freeze")
    _, labels = read(options.test)
    guess = [row for batch in trainer.predict(model, datamodule=data, output="labels") for row in batch]
    right = sum(a == b for a, b in zip(guess, labels, strict=True))
    rows = options.epochs * len(read(options.train)[0])
    return {"rows_per_second": rows / clock.seconds, "accuracy": right / len(labels)}


def ours(options: argparse.Namespace) -> dict[str, float]:
    """Train with dlpipe and its defaults, from a table."""
    from dlpipe.evaluation import evaluate_model
    from dlpipe.tables import Sources, ingest
    from dlpipe.task import open_predictor
    from dlpipe.task.text_classification import TextClassData
    from dlpipe.training import fit

    with tempfile.TemporaryDirectory() as folder:
        files = {split: str(getattr(options, split)) for split in ("train", "valid", "test")}
        made = ingest(Sources(**files), f"{folder}/texts", settings=TextClassData())
        fitted = fit(made.table, settings=our_settings(options), say=None)
        scores = evaluate_model(open_predictor(fitted.model), made.table).metrics
    rows = len(fitted.epochs) * made.split_rows["train"]
    rate = rows / sum(score.seconds for score in fitted.epochs)
    return {"rows_per_second": rate, "accuracy": scores["accuracy"]}


def our_settings(options: argparse.Namespace) -> Any:
    from dlpipe.task.texts import TextTraining

    return TextTraining(
        strategy="no_freeze",
        epochs=options.epochs,
        patience=options.epochs,
        batch_size=BATCH_SIZE,
        max_length=MAX_LENGTH,
        seed=SEED,
    )


def bound(options: argparse.Namespace) -> dict[str, float]:
    """Run forward and backward alone, with all batches padded beforehand."""
    import torch

    from dlpipe.machine import has_fast_bf16, use_machine

    use_machine()
    network = PlainNetwork()
    batches = best_batches(options.train)
    bf16 = has_fast_bf16()

    def step(ids: Any, mask: Any, classes: Any) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = torch.nn.functional.cross_entropy(network(ids, mask), classes)
        loss.backward()
        for parameter in network.parameters():
            parameter.grad = None

    step(*batches[0])  # the first one pays for setting up
    started = time.monotonic()
    for _ in range(options.epochs):
        for batch in batches:
            step(*batch)
    rows = options.epochs * sum(len(classes) for *_, classes in batches)
    return {"rows_per_second": rows / (time.monotonic() - started)}


def PlainNetwork() -> Any:
    """Return the encoder of transformers, mean pooling and a linear layer, without dropout."""
    import torch
    from transformers import AutoModel

    from dlpipe.task.texts import find_backbone

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = AutoModel.from_pretrained(
                find_backbone().folder, add_pooling_layer=False, attn_implementation="eager"
            )
            self.head = torch.nn.Linear(self.encoder.config.hidden_size, len(KNOWN))

        def forward(self, ids: Any, mask: Any) -> Any:
            states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
            weight = mask.unsqueeze(-1).to(states.dtype)
            return self.head((states * weight).sum(1) / weight.sum(1))

    return Network().eval()  # gradients flow in evaluation mode as well; it turns dropout off


def best_batches(train: Path) -> list[tuple[Any, Any, Any]]:
    """Return token ids, mask and classes of all batches: rows sorted by length, padded to the longest."""
    import numpy as np
    import torch

    from dlpipe.task.texts import find_backbone
    from dlpipe.task.texts.network import read_tokenizer_json
    from dlpipe.task.texts.tokens import TextTokenizer

    texts, labels = read(train)
    encoded = TextTokenizer(read_tokenizer_json(find_backbone().folder), max_length=MAX_LENGTH)(texts)
    classes = torch.tensor([KNOWN.index(label) for label in labels])
    order = np.argsort(-encoded.lengths, kind="stable")
    rows = [order[at : at + BATCH_SIZE] for at in range(0, len(order), BATCH_SIZE)]
    return [(*encoded.pad_tensors(batch).values(), classes[batch]) for batch in rows]


if __name__ == "__main__":
    main()
