"""A model of any task as MLflow's Python function; ``_load_pyfunc`` is what registered models name as loader."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlpipe.task import find_task

if TYPE_CHECKING:
    import pandas as pd

    from dlpipe.task import Predictor, Row


def _load_pyfunc(path: str) -> PyfuncModel:
    """Return the model in the folder ``path``: MLflow calls this from ``mlflow.pyfunc.load_model``."""
    from dlpipe.task import open_predictor

    return PyfuncModel(open_predictor(Path(path)))


class PyfuncModel:
    """A predictor with the interface of MLflow's Python functions."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return a row for each row given, with the columns that the task predicts.

        Of a classification these are ``predicted``, its ``probability``, and ``p_<label>`` for each label.

        Parameters
        ----------
        model_input : str, sequence, Series, DataFrame or mapping of columns
            What the inputs of the task read: a table's texts are its column ``text`` or its only one. A missing
            row has no prediction.
        params : dict, optional
            Not used; MLflow passes it.
        """
        card = self.predictor.card
        return predict_frame(self.predictor, find_task(card["task"]).inputs.read_request(model_input, card))


def predict_frame(predictor: Predictor, rows: Sequence[Row | None]) -> pd.DataFrame:
    """Return what the task predicts of each row, in the order of ``rows``; nothing for one that is ``None``."""
    import numpy as np

    there = np.array([row is not None for row in rows], bool)
    outputs = np.full((len(rows), len(predictor.labels)), np.nan, np.float32)
    if there.any():
        outputs[there] = predictor.predict_outputs([row for row in rows if row is not None])
    return find_task(predictor.card["task"]).target.make_frame(outputs, predictor.card)
