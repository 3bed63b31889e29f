"""Evaluations of a model and of its baseline on the test split of a table version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dlpipe.errors import EvaluationError
from dlpipe.evaluation.baseline import fit_baseline
from dlpipe.evaluation.scores import Evaluation, evaluate

if TYPE_CHECKING:
    from dlpipe.tables import TableVersion
    from dlpipe.task import Predictor


def evaluate_model(predictor: Predictor, table: TableVersion, *, seed: int = 0) -> Evaluation:
    """Return how ``predictor`` does on the test split of ``table``.

    Raises
    ------
    EvaluationError
        When the test split has a label that the model does not know.
    """
    test = _split(table, "test")
    unknown = sorted({*test["label"]} - {*predictor.labels})
    if unknown:
        raise EvaluationError(
            f"the model knows the labels {', '.join(predictor.labels)}, the test split of {table} also has "
            f"{', '.join(unknown)}. Train a model on this table, or register it under another name."
        )
    return _evaluation(predictor.predict_proba(test["text"]), test, predictor.labels, seed)


def evaluate_baseline(table: TableVersion, *, labels: Sequence[str], seed: int = 0) -> Evaluation:
    """Return how TF-IDF with logistic regression does on the test split, trained on the same train split."""
    train, test = _split(table, "train"), _split(table, "test")
    baseline = fit_baseline(train["text"], train["label"], seed=seed)
    return _evaluation(baseline.predict_proba(test["text"], labels=labels), test, labels, seed)


def _split(table: TableVersion, split: str) -> dict[str, list[str]]:
    from dlpipe.tables import read_table

    return read_table(table, split=split, columns=["row_id", "text", "label"]).to_pydict()


def _evaluation(probabilities: Any, rows: dict[str, list[str]], labels: Sequence[str], seed: int) -> Evaluation:
    return evaluate(probabilities, rows["label"], labels, row_ids=rows["row_id"], texts=rows["text"], seed=seed)
