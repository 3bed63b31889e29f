"""The explainer as MLflow's Python function; its loader is ``_load_pyfunc``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlpipe.explain.explaining import explain_rows
from dlpipe.explain.explanations import ExplainSettings, Explanation, Scorer
from dlpipe.settings import read_settings
from dlpipe.task.texts import TextModel
from dlpipe.task.texts.requests import read_texts

if TYPE_CHECKING:
    import pandas as pd

    from dlpipe.registry import ModelVersion, Packaging

SETTINGS = "explain.json"
COLUMNS = (
    ("predicted", "string"),
    ("output", "double"),
    ("base_value", "double"),
    ("words", "string[]"),
    ("attributions", "double[]"),
)
TYPES = {"double": "float64"}


@dataclass(frozen=True)
class ExplainerModel:
    """A trained classifier with how to explain it: what ``log_and_register`` keeps as one model."""

    model: TextModel
    settings: ExplainSettings

    @property
    def card(self) -> Mapping[str, Any]:
        """The card of the classifier."""
        return self.model.card

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the weights and the settings."""
        return hashlib.sha256(f"{self.model.digest} {self._settings()}".encode()).hexdigest()

    def save(self, folder: Path) -> Path:
        """Write the files into ``folder`` (made if needed) and return it."""
        self.model.save(folder)
        (folder / SETTINGS).write_text(self._settings(), encoding="utf-8")
        return folder

    def _settings(self) -> str:
        return json.dumps(dataclasses.asdict(self.settings), indent=1)


def register_explainer(
    model: ModelVersion,
    text_model: TextModel,
    *,
    settings: ExplainSettings,
    example: Sequence[str],
    challenger: bool = True,
) -> ModelVersion:
    """Return the registered explainer ``<model>-explainer`` of the classifier ``model``, made if need be.

    The same weights with the same settings are the same version. It has the classifier's lineage.

    Parameters
    ----------
    model : ModelVersion
        The registered classifier.
    text_model : TextModel
        What was registered as ``model``.
    example : sequence of str
        A few texts, kept as the input example.
    challenger : bool, optional
        ``False`` moves no alias.
    """
    from dlpipe.registry import register_companion

    return register_companion(
        ExplainerModel(text_model, settings),
        model,
        kind="explainer",
        settings=dataclasses.asdict(settings),
        example=example,
        challenger=challenger,
        packaging=explainer_packaging(),
    )


def explainer_packaging() -> Packaging:
    """Return how MLflow opens an ``ExplainerModel``, and what goes in and out."""
    from dlpipe.registry import Packaging

    return Packaging(
        loader="dlpipe.explain.pyfunc",
        outputs=COLUMNS,
        params={"method": ""},
        packages=("captum",),
    )


def _load_pyfunc(path: str) -> PyfuncExplainer:
    """Return the explainer in the folder ``path``: MLflow calls this from ``mlflow.pyfunc.load_model``."""
    from dlpipe.task import open_predictor

    given = json.loads((Path(path) / SETTINGS).read_text(encoding="utf-8"))
    return PyfuncExplainer(
        open_predictor(Path(path), engine="exact"), read_settings(ExplainSettings, given, where=SETTINGS)
    )


class PyfuncExplainer:
    """A predictor and settings with the interface of MLflow's Python functions."""

    def __init__(self, predictor: Scorer, settings: ExplainSettings) -> None:
        self.predictor, self.settings = predictor, settings

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Return one row for each text: what each of its words adds to the probability of the predicted label.

        The columns are ``predicted``, ``output`` (its probability), ``base_value``, and as lists ``words`` and
        ``attributions``.

        Parameters
        ----------
        model_input : str, sequence, Series, DataFrame or mapping of columns
            A table's texts are its column ``text`` or its only one. A missing text has no prediction and no words.
        params : mapping, optional
            ``method``: another than that of the settings.
        """
        import pandas as pd

        texts = read_texts(model_input)
        rows = [(str(number), text) for number, text in enumerate(texts) if text is not None]
        made = explain_rows(self.predictor, rows, settings=self._with(params or {}))
        found = {int(row.row_id): answer(row) for row in made.rows}
        answers = [found.get(number) or no_answer() for number in range(len(texts))]
        # object: pandas' own type for texts makes NaN of the label that a missing text has not
        return pd.DataFrame(
            {
                name: pd.Series([row[name] for row in answers], dtype=TYPES.get(kind, object))
                for name, kind in COLUMNS
            }
        )

    def _with(self, params: Mapping[str, Any]) -> ExplainSettings:
        asked = {"method": params.get("method") or self.settings.method}
        checked = read_settings(ExplainSettings, asked, where="params")
        return replace(self.settings, method=checked.method)


def answer(row: Explanation) -> dict[str, Any]:
    """Return the columns of one text."""
    column = row.labels.index(row.predicted)
    return {
        "predicted": row.predicted,
        "output": float(row.output[column]),
        "base_value": float(row.base[column]),
        "words": [word.strip() for word in row.words],
        "attributions": row.attributions[:, column].tolist(),
    }


def no_answer() -> dict[str, Any]:
    """Return the columns of a missing text."""
    return {"predicted": None, "output": math.nan, "base_value": math.nan, "words": [], "attributions": []}
