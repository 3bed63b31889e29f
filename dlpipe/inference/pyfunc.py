"""The classifier as MLflow's Python function; ``_load_pyfunc`` is what a registered model names as its loader."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlpipe.task.texts.requests import read_texts

if TYPE_CHECKING:
    import pandas as pd

    from dlpipe.task import Predictor


def _load_pyfunc(path: str) -> PyfuncModel:
    """Return the model in the folder ``path``: MLflow calls this from ``mlflow.pyfunc.load_model``."""
    from dlpipe.task import open_predictor

    return PyfuncModel(open_predictor(Path(path)))


class PyfuncModel:
    """A predictor with the interface of MLflow's Python functions."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return one row for each text: ``label``, its ``probability``, and ``p_<label>`` for each label.

        Parameters
        ----------
        model_input : str, sequence, Series, DataFrame or mapping of columns
            A table's texts are its column ``text`` or its only one. A missing text has no label.
        params : dict, optional
            Not used; MLflow passes it.
        """
        return predictions(self.predictor, read_texts(model_input))


def predictions(predictor: Predictor, texts: Sequence[str | None]) -> pd.DataFrame:
    """Return ``label``, ``probability`` and ``p_<label>`` for each text, in the order of ``texts``.

    A missing text has no label, and NaN for its probabilities.
    """
    import numpy as np
    import pandas as pd

    there = np.array([text is not None for text in texts], bool)
    shares = np.full((len(texts), len(predictor.labels)), np.nan, np.float32)
    if there.any():
        shares[there] = predictor.predict_outputs([text for text in texts if text is not None])
    labels = np.array(predictor.labels, dtype=object)[shares.argmax(axis=1)]
    labels[~there] = None
    columns: dict[str, Any] = {"label": pd.Series(labels, dtype=object), "probability": shares.max(axis=1)}
    columns |= {f"p_{label}": shares[:, number] for number, label in enumerate(predictor.labels)}
    return pd.DataFrame(columns)
