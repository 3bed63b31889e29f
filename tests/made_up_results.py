"""Evaluations of made-up models on made-up tables: what cards show of them, without a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from dlpipe.evaluation import Evaluation
from dlpipe.evaluation.on_table import LabelledRows, evaluate_outputs
from dlpipe.registry import ModelVersion
from dlpipe.tables import TableVersion, write_table
from dlpipe.task import find_task

HEBREW = "הסרט הזה היה נהדר, אבל הסוף היה ארוך מדי"
TOPICS = (
    *("billing", "delivery", "returns", "login", "password", "refund", "warranty", "invoice", "upgrade", "outage"),
    *("speed", "coverage", "roaming", "contract", "cancellation", "complaint", "praise", "hardware", "software"),
    *("privacy", "security", "shipping", "discount", "account", "other"),
)


def draw_texts(count: int, *, seed: int = 0) -> list[str]:
    """Return texts: mostly short ones, one of 400 words, one from right to left and one that looks like HTML."""
    chance = np.random.default_rng(seed)
    texts = [f"{' '.join(chance.choice(TOPICS, 7))} {at}" for at in range(count)]
    texts[:3] = [" ".join(TOPICS * 16), HEBREW, "<script>alert('no')</script> & **stars** | pipes\n\nlines"]
    return texts


def write_rows(folder: Path, columns: dict[str, Sequence[Any]]) -> TableVersion:
    """Return a table named ``rows`` of nothing but a test split."""
    count = len(next(iter(columns.values())))
    rows = {"row_id": [f"r{at}" for at in range(count)], **columns, "split": ["test"] * count}
    return write_table(str(folder / "rows"), pa.table(rows))


def make_outputs(truth: np.ndarray, width: int, *, skill: float, seed: int) -> np.ndarray:
    """Return probabilities that favour the true class the more, the larger ``skill`` is."""
    chance = np.random.default_rng(seed)
    logits = chance.normal(size=(len(truth), width))
    logits += 0.8 * np.roll(np.eye(width), 1, axis=0)[truth]  # each class is taken for its neighbour most often
    logits[np.arange(len(truth)), truth] += skill * (0.5 + truth / width)
    logits[np.arange(3), (truth[:3] + 1) % width] += 20  # the odd texts are the worst mistakes
    shares = np.exp(logits)
    return shares / shares.sum(axis=1, keepdims=True)


def evaluate(
    task: str, rows: TableVersion, outputs: np.ndarray, labels: Sequence[Any], names: Sequence[str]
) -> Any:
    """Return the evaluation of outputs on the rows of the table, as the flow would make it."""
    from dlpipe.tables import read_table

    found, table = find_task(task), read_table(rows)
    columns = list(found.inputs.find_columns(rows))
    test = LabelledRows(table["row_id"].to_pylist(), found.inputs.read_rows(table.select(columns)), labels)
    decision = {"halfwidth": 1.5, "coverage": 0.9} if "regression" in task else {}
    return evaluate_outputs(outputs, test, names, task=found, decision=decision, seed=0)


def judged_classes(
    folder: Path, classes: int, *, count: int = 600
) -> tuple[Evaluation, Evaluation, Any, TableVersion]:
    """Return evaluations of a model and of a worse one with so many classes, the model, and the table."""
    names = sorted(TOPICS)[:classes] if classes > 2 else ["negative", "positive"]
    truth = np.random.default_rng(0).integers(0, classes, count)
    labels = [names[at] for at in truth]
    rows = write_rows(folder, {"text": draw_texts(count), "label": labels})
    task = "text-classification"
    good, plain = (
        evaluate(task, rows, make_outputs(truth, classes, skill=skill, seed=seed), labels, names)
        for seed, skill in ((1, 4.0), (2, 2.5))
    )
    return good, plain, make_model(task, names), rows


def judged_numbers(folder: Path, *, count: int = 400) -> tuple[Evaluation, Evaluation, Any, TableVersion]:
    """Return the same of numbers from 1 to 5."""
    chance = np.random.default_rng(0)
    truth = np.round(chance.uniform(1, 5, count), 1)
    rows = write_rows(folder, {"text": draw_texts(count), "label": truth.tolist()})
    good, plain = (
        evaluate("text-regression", rows, (truth + noise)[:, None], truth.tolist(), ["value"])
        for noise in (chance.normal(0, 0.5, count), chance.normal(0, 1.0, count))
    )
    return good, plain, make_model("text-regression", ["value"]), rows


def judged_labels(folder: Path, *, count: int = 300) -> tuple[Evaluation, Evaluation, Any, TableVersion]:
    """Return the same of any of six labels, one of which no row has."""
    chance, names = np.random.default_rng(0), sorted(TOPICS)[:6]
    truth = chance.random((count, 6)) < np.array([0.4, 0.3, 0.2, 0.1, 0.05, 0.0])
    labels = [[name for name, there in zip(names, row, strict=True) if there] for row in truth]
    rows = write_rows(folder, {"text": draw_texts(count), "label": labels})
    good, plain = (
        evaluate("text-multilabel", rows, np.clip(0.3 + 0.4 * truth + noise, 0, 1), labels, names)
        for noise in (chance.normal(0, 0.12, truth.shape), chance.normal(0, 0.25, truth.shape))
    )
    return good, plain, make_model("text-multilabel", names), rows


def make_model(task: str, names: Sequence[str]) -> Any:
    """Return what a card asks of a model."""
    return SimpleNamespace(task=task, card={"labels": names}, digest="0123456789abcdef")


def score_made_up(
    folder: Path, task: str, outputs: Sequence[np.ndarray], card: Any, *, count: int, by: Sequence[int] = ()
) -> Any:
    """Return a scoring of the rows of a table, the last one of several, with the table and the model.

    Parameters
    ----------
    folder : Path
    task : str
    outputs : sequence of array of shape (n_rows, n_outputs)
        Of one scoring after the other; those of all together are as many as the table has rows.
    card : mapping
        Of the model.
    count : int
        The rows of the table.
    by : sequence of int, optional
        The version of the model that made each scoring; by default 3.
    """
    from dlpipe.parts import ScoringResult

    rows = write_rows(folder, {"text": draw_texts(count), "label": [""] * count})
    target, start = find_task(task).target, 0
    names = [name for name, _ in target.list_prediction_fields()]
    for some, number in zip(outputs, by or [3] * len(outputs), strict=True):
        columns = dict(zip(names, target.make_prediction_columns(some, card), strict=True))
        ids = [f"r{at}" for at in range(start, start + len(some))]
        start += len(some)
        versions = [f"models:/reviews/{number}"] * len(some)
        made = {"row_id": ids, "source": [rows.path] * len(some), "model_version": versions, **columns}
        table = write_table(str(folder / "scored"), pa.table(made))
    version = ModelVersion("reviews", 3, "models:/reviews/3", "", "", "", ("champion",), {"dlpipe.task": task})
    return ScoringResult(table, start, len(outputs[-1])), rows, version
