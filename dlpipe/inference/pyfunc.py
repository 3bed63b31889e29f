"""The classifier as MLflow's Python function; ``_load_pyfunc`` is what a registered model names as its loader."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlpipe.errors import SettingError

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
        model_input : DataFrame, Series or sequence of str
            A DataFrame's texts are its column ``text`` or its only, unnamed column.
        params : dict, optional
            Not used; MLflow passes it.
        """
        return predictions(self.predictor, texts_of(model_input))


def texts_of(model_input: Any) -> list[str]:
    """Return the texts in what ``mlflow.pyfunc`` was given.

    MLflow hands on the first column of a DataFrame under its name, and a list as a column named 0: any other
    name means that the texts were not first, and scoring row ids in silence helps nobody.

    Examples
    --------
    >>> texts_of("good"), texts_of(["good", "bad"])
    (['good'], ['good', 'bad'])
    """
    return [str(text) for text in rows_of(model_input)]


def rows_of(model_input: Any) -> list[object]:
    """Return what stands where the texts should be, as it is."""
    if isinstance(model_input, str):
        return [model_input]
    if not hasattr(model_input, "columns"):
        return list(model_input)
    named = [column for column in model_input.columns if column in ("text", 0)]
    if not named:
        there = ", ".join(map(repr, model_input.columns))
        raise SettingError(f"The texts must be the first column, named 'text'; got {there}. Pass data[['text']].")
    return list(model_input[named[0]])


def predictions(predictor: Predictor, texts: Sequence[str]) -> pd.DataFrame:
    """Return ``label``, ``probability`` and ``p_<label>`` for each text, in the order of ``texts``."""
    import numpy as np
    import pandas as pd

    shares = predictor.predict_proba(texts) if texts else np.empty((0, len(predictor.labels)), np.float32)
    best = shares.argmax(axis=1)
    columns: dict[str, Any] = {
        "label": np.array(predictor.labels, dtype=object)[best],
        "probability": shares[np.arange(len(texts)), best],
    }
    columns |= {f"p_{label}": shares[:, number] for number, label in enumerate(predictor.labels)}
    return pd.DataFrame(columns)
