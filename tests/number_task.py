"""Tasks that another distribution brings: two numbers a row, or a text, and a number to predict. For tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from dlpipe.errors import SchemaMismatch
from dlpipe.tables import TableSettings, TableVersion
from dlpipe.task import Coding, DriftSeries, Inputs, Model, Target, Task, TrainingSettings
from dlpipe.task.model import CARD, WEIGHTS
from dlpipe.task.texts import TextInputs

NAMES = ("a", "b")


class Rows(list):
    """Rows that are encoded: pairs of numbers."""

    @property
    def lengths(self) -> np.ndarray:
        return np.ones(len(self), np.int64)


class NumberPredictor:
    """Adds up a row's numbers, each times its weight."""

    engine, workers = "torch", 1

    def __init__(self, model: Model) -> None:
        from safetensors.numpy import load

        self.card, self.labels, self.digest = model.card, model.labels, model.digest
        self.weights = load(model.files[WEIGHTS])["weights"]
        self.rows = 0

    def encode(self, rows: Sequence[Mapping[str, float]]) -> Rows:
        return Rows([row["a"], row["b"]] for row in rows)

    def predict_encoded(self, encoded: Rows, *, done: Any = None) -> np.ndarray:
        self.rows += len(encoded)
        if done is not None:
            done(np.arange(len(encoded)))
        return np.array(encoded, np.float32).reshape(len(encoded), 2) @ self.weights[:, None]

    def predict_outputs(self, rows: Sequence[Mapping[str, float]]) -> np.ndarray:
        return self.predict_encoded(self.encode(rows))

    predict_batch = predict_outputs


class NumberInputs(Inputs):
    """The columns ``a`` and ``b``."""

    training = TrainingSettings

    def find_columns(self, table: TableVersion, card: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        if missing := [name for name in NAMES if name not in dict(table.columns)]:
            raise SchemaMismatch(f"{str(table)!r} has no column {missing[0]!r}.")
        return NAMES

    def read_rows(self, rows: Any) -> list[Any]:
        return [dict(row) for row in rows.select(NAMES).to_pylist()]

    def read_request(self, given: Any, card: Mapping[str, Any]) -> list[Any]:
        records = given.to_dict("records") if isinstance(given, pd.DataFrame) else given
        return [None if row is None else {name: float(row[name]) for name in NAMES} for row in records]

    def format_row(self, row: Any) -> str:
        return ", ".join(f"{name} {value}" for name, value in row.items())

    def make_example(self, rows: Sequence[Any]) -> pd.DataFrame:
        return pd.DataFrame(list(rows))

    def encode_splits(self, table: Any, splits: Any, settings: Any, *, say: Any) -> Any:
        raise NotImplementedError

    def build_network(self, encoded: Any, coding: Any, settings: Any) -> Any:
        raise NotImplementedError

    def assemble_model(self, network: Any, encoded: Any, settings: Any, card: Any) -> Any:
        raise NotImplementedError

    def load_model(self, folder: Path) -> Model:
        return Model.load(folder)

    def open_predictor(self, model: Model, folder: Path | None, **options: Any) -> NumberPredictor:
        return NumberPredictor(model)

    def make_featurizer(self, rows: Any) -> Any:
        raise NotImplementedError

    def make_drift_series(self, rows: Sequence[Any]) -> list[DriftSeries]:
        return []


class Numbers(Target):
    """A number."""

    deciding_metric, headline = "val_r2", "mae"
    lower_is_better = frozenset({"mae"})

    def learn_coding(self, labels: Sequence[float]) -> Coding:
        return Coding(("value",))

    def encode_labels(self, labels: Any, coding: Any) -> Any:
        raise NotImplementedError

    def compute_loss(self, logits: Any, encoded: Any) -> Any:
        raise NotImplementedError

    def score_epoch(self, logits: Any, encoded: Any) -> Any:
        raise NotImplementedError

    def measure_chance(self, encoded: Any) -> Any:
        raise NotImplementedError

    def activate(self, logits: Any, card: Any) -> Any:
        return logits

    def decide(self, outputs: Any, card: Any) -> list[float]:
        return outputs[:, 0].tolist()

    def measure_accuracy(self, outputs: Any, labels: Any, card: Any) -> float:
        """Return the share of rows that are at most 1 off."""
        return float((abs(outputs[:, 0] - np.array(labels)) <= 1).mean())

    def measure_agreement(self, outputs: Any, others: Any, card: Any) -> float:
        """Return the share of rows that are at most 0.1 apart."""
        return float((abs(outputs[:, 0] - others[:, 0]) <= 0.1).mean())

    def get_output_scale(self, card: Any) -> float:
        return 10.0

    def list_prediction_fields(self) -> list[tuple[str, pa.DataType]]:
        return [("predicted", pa.float64())]

    def make_prediction_columns(self, outputs: Any, card: Any) -> list[pa.Array]:
        return [pa.array(outputs[:, 0], pa.float64())]

    def list_frame_fields(self, card: Any) -> list[tuple[str, str]]:
        return [("predicted", "double")]

    def make_frame(self, outputs: Any, card: Any) -> pd.DataFrame:
        return pd.DataFrame({"predicted": outputs[:, 0].astype(float)})

    def fit_baseline(self, features: Any, rows: Any, labels: Any, *, seed: int) -> Any:
        raise NotImplementedError

    def evaluate(self, outputs: Any, labels: Any, **options: Any) -> Any:
        raise NotImplementedError

    def make_prediction_series(self, predictions: pa.Table) -> list[DriftSeries]:
        return []


TASK = Task("two-numbers", NumberInputs(), Numbers(), TableSettings)
TEXTS = Task("text-number", TextInputs(), Numbers(), TableSettings)


def number_model(*weights: float) -> Model:
    """Return a model with these weights."""
    from safetensors.numpy import save

    card = {"task": TASK.name, "labels": ["value"]}
    return Model({WEIGHTS: save({"weights": np.array(weights, np.float32)}), CARD: json.dumps(card).encode()})
