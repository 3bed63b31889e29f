"""Batch scoring of movie snippets and whole reviews: the usual recipe, dlpipe, and the bare network.

All three use the same weights (trained first, on other rows) and read at most ``MAX_LENGTH`` tokens of a text.

recipe   an ``mlflow.pyfunc`` model whose ``predict`` applies a Lightning Flash ``TextClassifier`` to one row after
         another, as Liu's book does; Flash pads each text to its maximum. Measured on some rows of the same mix.
ours     ``dlpipe.inference.score``: from the Delta table to the commit of the predictions, for each engine.
bound    the network's forward pass alone, on token ids that are ready, sorted by length over all rows, at the best
         of several batch sizes.

Each is a process of its own; the order alternates. Rows per second are without loading the model.

    python tests/bench/scoring.py
    python tests/bench/scoring.py --rows 1560 --repeats 1
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from contenders import Runs, compare_speed, measure_speed, run_contender, say

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
TRAIN = ["snippets/movies_valid.csv", "snippets/movies_test.csv", "imdb/valid.csv", "imdb/test.csv"]
SCORE = ["snippets/movies_train.csv", "imdb/train.csv"]
MAX_LENGTH = 256
BATCH_TOKENS = (1024, 2048, 4096, 8192)
ENGINES = ("torch", "torch-bf16", "onnx", "onnx-int8")


def main() -> None:
    options = parse_options()
    if options.worker:
        print(json.dumps(WORKERS[options.worker](options)))
        return
    missing = [name for name in TRAIN + SCORE if not (SHARED / name).is_file()]
    if missing:
        sys.exit(f"{missing[0]} is not in {SHARED}: these benchmarks need the real text.")
    with tempfile.TemporaryDirectory() as folder:
        options.folder = Path(folder)
        prepare(options)
        print_table(repeat(options))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=7_800, help="rows to score, of both kinds in the same mix")
    parser.add_argument("--sample", type=int, default=260, help="rows of these that the recipe is measured on")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", type=Path, help="folder of a model; by default one is trained")
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--target", help=argparse.SUPPRESS)
    return parser.parse_args()


def prepare(options: argparse.Namespace) -> None:
    """Train the model and write the table that is scored."""
    import pyarrow as pa

    from dlpipe.tables import write_table

    rows = [row for name in SCORE for row in read(name)]
    kept = [rows[at * len(rows) // options.rows] for at in range(min(options.rows, len(rows)))]
    columns = {"text": [row["review"] for row in kept], "label": [row["sentiment"] for row in kept]}
    columns["row_id"] = [str(number) for number in range(len(kept))]
    write_table(options.folder / "texts", pa.table(columns))
    if options.model is None:
        options.model = options.folder / "model"
        say("training the model")
        run_with_options("train", options)


def read(name: str) -> list[dict[str, str]]:
    with (SHARED / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def repeat(options: argparse.Namespace) -> Runs:
    """Return what each contender did in each repeat, in alternating order."""
    names = ["recipe", *list_engines(options), "bound"]
    runs: Runs = {name: [] for name in names}
    for repeat in range(options.repeats):
        for name in names if repeat % 2 == 0 else names[::-1]:
            options.target = f"scores-{repeat}-{name}"
            runs[name].append(run_with_options(name, options))
            say(f"{name}: {runs[name][-1]['rows_per_second']:.1f} rows/s")
    return runs


def list_engines(options: argparse.Namespace) -> list[str]:
    """Return torch and the engines that the model is offered with."""
    from dlpipe.task.texts.engines.stored import read_engines

    found = read_engines(options.model)
    say(str(found))
    return [name for name in ENGINES if name == "torch" or (found and not found.check(name).refused)]


def run_with_options(name: str, options: argparse.Namespace) -> dict[str, Any]:
    arguments = ("--folder", options.folder, "--model", options.model, "--sample", options.sample)
    return run_contender(__file__, name, *arguments, "--target", options.target)


def print_table(runs: Runs) -> None:
    speed, ratio = partial(measure_speed, runs), partial(compare_speed, runs)
    print("| engine | recipe, rows/s | ours, rows/s | bound, rows/s | ours / recipe | ours / bound | ", end="")
    print("ours / torch | accuracy of recipe, ours, bound |\n|---|---:|---:|---:|---:|---:|---:|---|")
    scored = [name for name in runs if name not in ("recipe", "bound")]
    for engine in scored:
        each = [measure_accuracy(runs[name][0], runs["recipe"][0]) for name in ("recipe", engine, "bound")]
        print(
            f"| {engine} | {speed('recipe'):.1f} | {speed(engine):.1f} | {speed('bound'):.1f} | "
            f"{ratio(engine, 'recipe'):.1f} | {ratio(engine, 'bound'):.2f} | {ratio(engine, 'torch'):.2f} | "
            f"{each[0]:.3f}, {each[1]:.3f}, {each[2]:.3f} |"
        )
    first = runs[scored[0]][0]
    differences = [f"{name} {describe_agreement(runs[name][0], first)}" for name in runs if name != scored[0]]
    print(f"\nAccuracy on the {len(runs['recipe'][0]['labels'])} rows of the recipe. Same label as torch, and the")
    print(f"largest difference of a probability: {'; '.join(differences)}.")


def measure_accuracy(run: dict[str, Any], sample: dict[str, Any]) -> float:
    """Return the share of right labels among the rows of ``sample``."""
    right = [run["labels"][row] == truth for row, truth in sample["truth"].items()]
    return sum(right) / len(right)


def describe_agreement(run: dict[str, Any], torch: dict[str, Any]) -> str:
    same = [label == torch["labels"][row] for row, label in run["labels"].items()]
    apart = max(abs(share - torch["positive"][row]) for row, share in run["positive"].items())
    return f"{sum(same):,} of {len(same):,} rows, {apart:.1g}"


def train(options: argparse.Namespace) -> dict[str, Any]:
    """Train one epoch on rows that are not scored, and export the engines as registration does."""
    from dlpipe.tables import Sources, ingest, read_table
    from dlpipe.task.text_classification import TextClassData
    from dlpipe.task.texts import TextTraining
    from dlpipe.task.texts.engines import export_engines
    from dlpipe.training import fit

    files = [str(SHARED / name) for name in TRAIN]
    table = ingest(
        Sources(train=files[:-1], test=files[-1]), options.folder / "train", settings=TextClassData()
    ).table
    settings = TextTraining(epochs=1, max_length=MAX_LENGTH)
    held = read_table(table, split="test", columns=["text", "label"]).to_pydict()
    model = fit(table, settings=settings, say=say).model
    export_engines(model, held["text"], held["label"]).save(options.model)
    return {}


def run_recipe(options: argparse.Namespace) -> dict[str, Any]:
    """Predict a sample with an MLflow model that is applied to one row after another."""
    import mlflow.pyfunc

    from dlpipe.tables import read_table, table_at

    rows = read_table(table_at(options.folder / "texts")).to_pandas()
    size = min(options.sample, len(rows))
    sample = rows.iloc[[at * len(rows) // size for at in range(size)]].set_index("row_id")
    folder = options.folder / options.target
    mlflow.pyfunc.save_model(
        str(folder), python_model=make_book_model(), artifacts={"model": str(options.model)}, pip_requirements=[]
    )
    model = mlflow.pyfunc.load_model(str(folder))
    texts = sample[["text"]]
    model.predict(texts.head(5))
    started = time.perf_counter()
    found = model.predict(texts)
    seconds = time.perf_counter() - started
    return {
        "rows_per_second": len(texts) / seconds,
        "labels": found["predicted"].to_dict(),
        "positive": found["positive"].to_dict(),
        "truth": sample["label"].to_dict(),
    }


def make_book_model() -> Any:
    """Return the Python model of the recipe, which Flash and a row-wise ``apply`` make up."""
    import mlflow.pyfunc

    class BookModel(mlflow.pyfunc.PythonModel):
        def load_context(self, context: Any) -> None:
            import logging
            import warnings

            import numpy

            numpy.Inf = numpy.inf  # Flash asks for the old name
            import flash  # before dlpipe, which has it load without its extras

            warnings.simplefilter("ignore")
            logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
            self.trainer = flash.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False)
            self.classifier = make_flash_classifier(Path(context.artifacts["model"]))

        def predict_row(self, row: Any) -> Any:
            import pandas as pd
            from flash.text import TextClassificationData

            data = TextClassificationData.from_lists(predict_data=[row["text"]], batch_size=1)
            ((shares,),) = self.trainer.predict(self.classifier, datamodule=data, output="probabilities")
            return pd.Series({"predicted": ("negative", "positive")[shares[1] > shares[0]], "positive": shares[1]})

        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            return model_input.apply(self.predict_row, axis=1)

    return BookModel()


def make_flash_classifier(folder: Path) -> Any:
    """Return Flash's own text classifier around the network in ``folder``."""
    from flash.text import TextClassifier
    from flash.text.classification.adapters import HuggingFaceAdapter
    from flash.text.classification.backbones import TEXT_CLASSIFIER_BACKBONES
    from transformers import PreTrainedTokenizerFast

    from dlpipe.task.texts import TextModel
    from dlpipe.task.texts.network import restore_network

    model = TextModel.load(folder)
    tokenizer = folder.parent / "tokenizer"
    PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]").save_pretrained(
        tokenizer
    )
    TEXT_CLASSIFIER_BACKBONES(
        lambda num_classes: (restore_network(model), str(tokenizer)), name="bench", adapter=HuggingFaceAdapter
    )
    return TextClassifier(backbone="bench", labels=list(model.labels), max_length=MAX_LENGTH)


def run_ours(options: argparse.Namespace, engine: str = "torch") -> dict[str, Any]:
    """Score the table into another one."""
    from dlpipe.inference import score
    from dlpipe.registry import ModelVersion
    from dlpipe.tables import read_table, table_at
    from dlpipe.task import open_predictor

    predictor = open_predictor(options.model, engine=engine)
    predictor.predict_outputs(["a warm welcome"] * 5)
    version = ModelVersion("bench", 1, "models:/bench/1", predictor.digest, run_id="", model_id="")
    source, target = table_at(options.folder / "texts"), str(options.folder / options.target)
    started = time.perf_counter()
    done = score(predictor, source, model=version, target=target, split=None, say=say)
    seconds = time.perf_counter() - started
    rows = read_table(done.table).to_pandas().set_index("row_id")
    positive = {row: float(shares[1]) for row, shares in rows["probabilities"].items()}
    return {"rows_per_second": len(rows) / seconds, "labels": rows["predicted"].to_dict(), "positive": positive}


def run_bound(options: argparse.Namespace) -> dict[str, Any]:
    """Run the network alone on batches that are ready; first find the best size on a part of them."""
    import torch

    from dlpipe.machine import use_machine
    from dlpipe.tables import read_table, table_at
    from dlpipe.task.batches import sort_batches
    from dlpipe.task.texts import TextModel
    from dlpipe.task.texts.network import restore_network
    from dlpipe.task.texts.tokens import TextTokenizer

    use_machine()
    model = TextModel.load(options.model)
    rows = read_table(table_at(options.folder / "texts")).to_pydict()
    encoded = TextTokenizer(model.files["tokenizer.json"].decode(), max_length=MAX_LENGTH)(rows["text"])
    network = restore_network(model)

    def run(tokens: int, every: int = 1) -> tuple[float, dict[int, float]]:
        order = list(sort_batches(encoded.lengths, tokens=tokens))[::every]
        batches = [(some, encoded.pad_tensors(some)) for some in order]
        started = time.perf_counter()
        made = [(some, network(**batch)) for some, batch in batches]
        seconds = time.perf_counter() - started
        found = {}
        for some, logits in made:
            found.update(zip(some.tolist(), torch.softmax(logits, 1)[:, 1].tolist(), strict=True))
        return len(found) / seconds, found

    with torch.inference_mode():
        run(BATCH_TOKENS[0], every=16)
        tried = {tokens: run(tokens, every=max(1, 16384 // tokens))[0] for tokens in BATCH_TOKENS}
        say(f"bound by batch tokens: { {tokens: round(speed, 1) for tokens, speed in tried.items()} }")
        speed, found = run(max(tried, key=lambda tokens: tried[tokens]))
    positive = {rows["row_id"][at]: share for at, share in found.items()}
    labels = {row: model.labels[share > 0.5] for row, share in positive.items()}
    return {"rows_per_second": speed, "labels": labels, "positive": positive}


WORKERS = {
    "train": train,
    "recipe": run_recipe,
    "bound": run_bound,
    **{engine: lambda options, engine=engine: run_ours(options, engine) for engine in ENGINES},
}

if __name__ == "__main__":
    main()
