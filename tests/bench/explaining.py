"""Explaining movie snippets word by word: the usual recipe, dlpipe by both of its methods, and the bare network.

All use the same weights (trained first, on other rows), words, ``max_evals`` and batch size.

recipe   ``shap.Explainer`` on a transformers pipeline, one row a call, as shap's own examples do. A pipeline sends
         one text after another through the network. Our network pools by mean, so that the pipeline's model is a
         small class around the same encoder and head. shap is warmed up: its compiling by numba is not counted.
ours     ``dlpipe.explain.explain_rows`` on all rows.
bound    the network's forward pass alone on the distinct texts that ours asked for (for gradients, forward and
         backward on the rows, once for each step), token ids ready, sorted by length, at the best of several
         batch sizes.

Each is a process of its own; the order alternates. Rows per second are without loading the model.

    python tests/bench/explaining.py
    python tests/bench/explaining.py --rows 8 --repeats 1
"""

from __future__ import annotations

import argparse
import csv
import inspect
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from contenders import Runs, compare_speed, measure_speed, run_contender, say

SNIPPETS = Path(__file__).resolve().parents[3] / "shared" / "data" / "snippets"
MAX_LENGTH = 128
BATCH_TOKENS = (1024, 2048, 4096, 8192)
LABELS = ("negative", "positive")
OURS = {"torch": "partition", "onnx": "partition", "gradient": "gradient"}
BOUND = {"torch": "bound", "onnx": "bound", "gradient": "gradient-bound"}


def main() -> None:
    options = parse()
    if options.worker:
        print(json.dumps(WORKERS[options.worker](options)))
        return
    if not (SNIPPETS / "movies_test.csv").is_file():
        sys.exit(f"movies_test.csv is not in {SNIPPETS}: this benchmark needs the real text.")
    with tempfile.TemporaryDirectory() as folder:
        options.folder = Path(folder)
        if options.model is None:
            options.model = options.folder / "model"
            say("training the model")
            run_with_options("train", options)
        run_with_options("asked", options)
        print_table(repeated(options))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50, help="the first rows of movies_test.csv")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", type=Path, help="folder of a model; by default one is trained")
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def repeated(options: argparse.Namespace) -> Runs:
    """Return what each contender did in each repeat, in alternating order."""
    names = ["recipe", *ours_here(), *sorted({BOUND[name] for name in ours_here()})]
    runs: Runs = {name: [] for name in names}
    for repeat in range(options.repeats):
        for name in names if repeat % 2 == 0 else names[::-1]:
            runs[name].append(run_with_options(name, options))
            say(f"{name}: {runs[name][-1]['rows_per_second']:.2f} rows/s")
    return runs


def ours_here() -> list[str]:
    """Return our contenders; exact ONNX is one where predictors have engines."""
    from dlpipe.task import open_predictor

    engines = "engine" in inspect.signature(open_predictor).parameters
    return [name for name in OURS if name != "onnx" or engines]


def run_with_options(name: str, options: argparse.Namespace) -> dict[str, Any]:
    arguments = ("--folder", options.folder, "--model", options.model, "--rows", options.rows)
    return run_contender(__file__, name, *arguments)


def print_table(runs: Runs) -> None:
    speed, ratio = partial(measure_speed, runs), partial(compare_speed, runs)
    print("| method | recipe, rows/s | ours, rows/s | bound, rows/s | ours / recipe | ours / bound | ", end="")
    print("accuracy: largest difference from the recipe | rank correlation with the recipe |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name in (name for name in runs if name in OURS):
        apart, rank = compare_values(runs[name][0], runs["recipe"][0])
        method = OURS[name] if name == "gradient" else f"{OURS[name]}, {name}"
        print(
            f"| {method} | {speed('recipe'):.2f} | {speed(name):.2f} | {speed(BOUND[name]):.2f} | "
            f"{ratio(name, 'recipe'):.1f} | {ratio(name, BOUND[name]):.2f} | {apart:.1g} | {rank:.3f} |"
        )
    each = runs["bound"][0]["texts"] / len(runs["recipe"][0]["values"])
    print(
        f"\nOwen values ask for {each:.0f} different texts a row. Rank correlation is Spearman's, over the words"
    )
    print("of a row toward one label, the mean over rows.")


def compare_values(run: dict[str, Any], recipe: dict[str, Any]) -> tuple[float, float]:
    """Return the largest difference of a value, and the mean rank correlation."""
    import numpy as np

    from dlpipe.explain.agreement import correlate_ranks

    pairs = [(np.array(a), np.array(b)) for a, b in zip(run["values"], recipe["values"], strict=True)]
    apart = max(float(abs(a - b).max()) for a, b in pairs)
    return apart, statistics.mean(correlate_ranks(a[:, 1], b[:, 1]) for a, b in pairs if len(a) > 1)


def texts(options: argparse.Namespace) -> list[str]:
    with (SNIPPETS / "movies_test.csv").open(newline="", encoding="utf-8") as file:
        return [row["review"] for row in csv.DictReader(file)][: options.rows]


def train(options: argparse.Namespace) -> dict[str, Any]:
    """Train one epoch on other rows, and export the engines as registration does."""
    from dlpipe.tables import Sources, ingest, read_table
    from dlpipe.task.text_classification import TextClassData
    from dlpipe.task.texts import TextTraining
    from dlpipe.task.texts.engines import export_engines
    from dlpipe.training import fit

    files = {split: str(SNIPPETS / f"movies_{split}.csv") for split in ("train", "valid", "test")}
    table = ingest(Sources(**files), options.folder / "train", settings=TextClassData()).table
    model = fit(table, settings=TextTraining(epochs=1, max_length=MAX_LENGTH), say=say).model
    held = read_table(table, split="test", columns=["text", "label"]).to_pydict()
    export_engines(model, held["text"], held["label"]).save(options.model)
    return {}


def recipe(options: argparse.Namespace) -> dict[str, Any]:
    """Explain one row after another with shap on a transformers pipeline."""
    import numpy as np
    import shap

    from dlpipe.explain import ExplainSettings
    from dlpipe.machine import use_machine
    from dlpipe.task.texts.words import tokenize_for_shap

    use_machine()
    settings = ExplainSettings()
    explainer = shap.Explainer(book_pipeline(options.model), shap.maskers.Text(tokenize_for_shap, mask_token=" "))

    def explain(text: str) -> Any:
        np.random.seed(settings.seed)
        found = explainer([text], max_evals=settings.max_evals, batch_size=settings.batch_rows, silent=True)
        return found.values[0]

    explain("numba compiles at the first text .")
    started = time.perf_counter()
    values = [explain(text) for text in texts(options)]
    seconds = time.perf_counter() - started
    return {"rows_per_second": len(values) / seconds, "values": [each.tolist() for each in values]}


def book_pipeline(folder: Path) -> Any:
    """Return a text-classification pipeline around the network in ``folder``."""
    import transformers
    from transformers.modeling_outputs import SequenceClassifierOutput

    from dlpipe.task.texts import TextModel
    from dlpipe.task.texts.network import restore_network

    transformers.logging.set_verbosity_error()
    network = restore_network(TextModel.load(folder))
    config = transformers.BertConfig(**network.encoder.config.to_dict())

    class MeanPooled(transformers.PreTrainedModel):
        config_class = transformers.BertConfig
        _supports_sdpa = True

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.encoder, self.head = network.encoder, network.head

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> Any:
            states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(states.dtype)
            return SequenceClassifierOutput(logits=self.head((states * mask).sum(1) / mask.sum(1)))

    config.id2label, config.label2id = dict(enumerate(LABELS)), {label: at for at, label in enumerate(LABELS)}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]", model_max_length=MAX_LENGTH
    )
    return transformers.pipeline(
        "text-classification", model=MeanPooled(config).eval(), tokenizer=tokenizer, top_k=None, truncation=True
    )


def ours(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Explain all rows."""
    from dlpipe.explain import ExplainSettings, explain_rows

    settings = ExplainSettings(method=OURS[name])
    predictor = opened(options, name)
    explain_rows(predictor, [("warm", "a warm welcome")], settings=settings)
    rows = [(str(number), text) for number, text in enumerate(texts(options))]
    started = time.perf_counter()
    made = explain_rows(predictor, rows, settings=settings)
    seconds = time.perf_counter() - started
    return {"rows_per_second": len(rows) / seconds, "values": [row.attributions.tolist() for row in made.rows]}


def opened(options: argparse.Namespace, name: str) -> Any:
    from dlpipe.task import open_predictor

    if "onnx" not in ours_here():
        return open_predictor(options.model)
    return open_predictor(options.model, engine="onnx" if name == "onnx" else "torch")


def asked(options: argparse.Namespace) -> dict[str, Any]:
    """Keep the distinct texts that Owen values of all rows ask for."""
    from dlpipe.explain import ExplainSettings, explain_rows

    predictor = opened(options, "torch")
    scored, predict = [], predictor.predict_outputs

    def predict_outputs(texts: Sequence[str]) -> Any:
        scored.extend(texts)
        return predict(texts)

    predictor.predict_outputs = predict_outputs
    rows = [(str(number), text) for number, text in enumerate(texts(options))]
    explain_rows(predictor, rows, settings=ExplainSettings())
    (options.folder / "asked.json").write_text(json.dumps(sorted(set(scored))), encoding="utf-8")
    return {}


def bound(options: argparse.Namespace) -> dict[str, Any]:
    """Run the network alone forward on what Owen values ask for."""
    import torch

    network, encode = bare(options)
    wanted = json.loads((options.folder / "asked.json").read_text(encoding="utf-8"))
    with torch.inference_mode():
        seconds = best_seconds(lambda batch: torch.softmax(network(**batch), 1), encode(wanted))
    return {"rows_per_second": options.rows / seconds, "texts": len(wanted)}


def gradient_bound(options: argparse.Namespace) -> dict[str, Any]:
    """Run the network alone forward and backward on the rows, once for each step."""
    import torch

    from dlpipe.explain import ExplainSettings

    network, encode = bare(options)
    states: list[torch.Tensor] = []

    def cut(module: Any, ids: Any, found: torch.Tensor) -> torch.Tensor:
        states[:] = [found.detach().requires_grad_()]
        return states[0]

    network.encoder.get_input_embeddings().register_forward_hook(cut)

    def run(batch: Any) -> None:
        found = network.encoder(**batch).last_hidden_state.mean(1)
        torch.autograd.grad(torch.softmax(network.head(found), 1)[:, 0].sum(), states)

    seconds = best_seconds(run, encode(texts(options) * ExplainSettings().steps))
    return {"rows_per_second": options.rows / seconds}


def bare(options: argparse.Namespace) -> tuple[Any, Any]:
    """Return the network in torch and what encodes texts for it."""
    from dlpipe.machine import use_machine
    from dlpipe.task.texts import TextModel
    from dlpipe.task.texts.network import restore_network
    from dlpipe.task.texts.tokens import TextTokenizer

    use_machine()
    model = TextModel.load(options.model)
    return restore_network(model), TextTokenizer(model.files["tokenizer.json"].decode(), max_length=MAX_LENGTH)


def best_seconds(run: Any, encoded: Any) -> float:
    """Return the seconds of ``run`` over all texts at the best batch size, which is found on a part of them."""
    from dlpipe.task.batches import sort_batches

    def timed(tokens: int, every: int = 1) -> tuple[float, int]:
        rows = list(sort_batches(encoded.lengths, tokens=tokens))[::every]
        batches = [encoded.pad_tensors(some) for some in rows]
        started = time.perf_counter()
        for batch in batches:
            run(batch)
        return time.perf_counter() - started, int(sum(encoded.lengths[some].sum() for some in rows))

    timed(BATCH_TOKENS[0], every=4)
    tried = {}
    for tokens in BATCH_TOKENS:
        seconds, done = timed(tokens, every=max(1, 8192 // tokens))
        tried[tokens] = done / seconds
    say(f"bound by batch tokens: { {tokens: round(speed) for tokens, speed in tried.items()} } tokens/s")
    return timed(max(tried, key=lambda tokens: tried[tokens]))[0]


WORKERS = {
    "train": train,
    "asked": asked,
    "recipe": recipe,
    "bound": bound,
    "gradient-bound": gradient_bound,
    **{name: lambda options, name=name: ours(options, name) for name in OURS},
}

if __name__ == "__main__":
    main()
