"""RowAdamW beside torch's fused AdamW with the same clipping: three seeds, both sets of real texts, in pairs.

rows   dlpipe as it is: word embeddings have gradients for the tokens of a batch, ``RowAdamW`` updates those rows
dense  dense gradients, ``torch.nn.utils.clip_grad_norm_`` and ``torch.optim.AdamW(fused=True)``

Every weight of the encoder is trained. Rows per second are those of the training epochs; accuracy is that of valid
and test together. The two sides of a pair run one after the other, in alternating order.

    python tests/bench/optimizer.py
    python tests/bench/optimizer.py --sets imdb --seeds 0 --epochs 1
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SETS = {"movies": "snippets/movies_{}.csv", "imdb": "imdb/{}.csv"}
SIDES = ("rows", "dense")


def main() -> None:
    options = parse()
    if options.worker:
        print(json.dumps(train(options.worker, options.sets[0], options.seeds[0], options.epochs)))
        return
    pairs = []
    for name in options.sets:
        for turn, seed in enumerate(options.seeds):
            order = SIDES if turn % 2 == 0 else SIDES[::-1]
            pairs.append((name, seed, {side: measure(side, name, seed, options.epochs) for side in order}))
    print_table(pairs)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not DATA.is_dir():
        parser.exit(1, "There is no shared/data beside the clone, with the real texts.\n")
    return options


def measure(side: str, name: str, seed: int, epochs: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--worker", side, "--sets", name, "--seeds", str(seed)]
    environment = {"OMP_WAIT_POLICY": "passive", **os.environ}
    made = subprocess.run(
        [*command, "--epochs", str(epochs)], capture_output=True, text=True, check=False, env=environment
    )
    if made.returncode:
        sys.exit(made.stderr)
    found = dict(json.loads(made.stdout.splitlines()[-1]))
    print(f"{side}, {name}, seed {seed}: {found}", file=sys.stderr, flush=True)
    return found


def train(side: str, name: str, seed: int, epochs: int) -> dict[str, float]:
    """Train on one of the sets with one of the optimizers."""
    import pandas

    from dlpipe.inference.pyfunc import predict_frame
    from dlpipe.tables import Sources, ingest
    from dlpipe.task import open_predictor
    from dlpipe.task.text_classification import TextClassData
    from dlpipe.task.texts import TextTraining
    from dlpipe.training import fit

    if side == "dense":
        use_dense_adamw()
    settings = TextTraining(
        strategy="no_freeze", epochs=epochs, patience=epochs, batch_size=32, max_length=128, seed=seed
    )
    with tempfile.TemporaryDirectory() as folder:
        files = {split: str(DATA / SETS[name].format(split)) for split in ("train", "valid", "test")}
        made = ingest(Sources(**files), f"{folder}/texts", settings=TextClassData())
        fitted = fit(made.table, settings=settings, say=None)
        held_out = pandas.concat(pandas.read_csv(files[split]) for split in ("valid", "test"))
        predicted = predict_frame(open_predictor(fitted.model), held_out["review"].tolist())["predicted"]
        right = predicted.to_numpy() == held_out["sentiment"].to_numpy()
    trained = len(fitted.epochs) * made.split_rows["train"]
    rate = trained / sum(score.seconds for score in fitted.epochs)
    return {"rows_per_second": rate, "accuracy": float(right.mean()), "rows": len(right)}


def use_dense_adamw() -> None:
    """Train with what torch has: gradients of whole embeddings, clipping as a pass of its own, fused AdamW."""
    import torch

    from dlpipe.task.texts import network
    from dlpipe.training import frame

    class DenseAdamW(torch.optim.AdamW):
        def __init__(self, parameters: Iterable[Any], lr: float, *, weight_decay: float) -> None:
            super().__init__(parameters, lr=lr, weight_decay=weight_decay, fused=True)

        def step(self, closure: Callable[[], Any] | None = None) -> Any:
            loss = None
            if closure is not None:
                with torch.enable_grad():
                    loss = closure()
            trained = [parameter for group in self.param_groups for parameter in group["params"]]
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            super().step()
            return loss

    frame.RowAdamW = DenseAdamW  # type: ignore[misc, assignment]
    network._make_word_gradients_sparse = lambda encoder: encoder


def print_table(pairs: list[tuple[str, int, dict[str, dict[str, float]]]]) -> None:
    print("| texts | seed | rows, rows/s | dense, rows/s | rows / dense | accuracy, rows | accuracy, dense |")
    print("|---|---|---|---|---|---|---|")
    for name, seed, found in pairs:
        rows, dense = found["rows"], found["dense"]
        ratio = rows["rows_per_second"] / dense["rows_per_second"]
        print(
            f"| {name} | {seed} | {rows['rows_per_second']:.1f} | {dense['rows_per_second']:.1f} | {ratio:.3f} "
            f"| {rows['accuracy']:.4f} | {dense['accuracy']:.4f} |"
        )
    for name in dict.fromkeys(name for name, _, _ in pairs):
        of_set = [found for at, _, found in pairs if at == name]
        ratio = statistics.median(f["rows"]["rows_per_second"] / f["dense"]["rows_per_second"] for f in of_set)
        gain = statistics.mean(f["rows"]["accuracy"] - f["dense"]["accuracy"] for f in of_set)
        print(
            f"\n{name}: {ratio:.3f} times as fast (median); accuracy {gain:+.4f} (mean of {len(of_set)} seeds,"
            f" {of_set[0]['rows']['rows']:,} rows)."
        )


if __name__ == "__main__":
    main()
