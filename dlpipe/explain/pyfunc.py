"""The explainer as an MLflow model: a Python function that ``_load_pyfunc`` opens."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlpipe.explain.explaining import explain_rows, task_of
from dlpipe.explain.explanations import ExplainSettings, Explanation, Explanations
from dlpipe.settings import read_settings
from dlpipe.task import Model, Predictor, Row, Task, find_task

if TYPE_CHECKING:
    import pandas as pd

    from dlpipe.registry import ModelVersion, Packaging

LOADER = "dlpipe.explain.pyfunc"
"""The module whose ``_load_pyfunc`` opens an explainer."""
SETTINGS = "explain.json"
COLUMNS = (
    ("output_name", "string"),
    ("output", "double"),
    ("base_value", "double"),
    ("parts", "string[]"),
    ("attributions", "double[]"),
)
TYPES = {"double": "float64"}


@dataclass(frozen=True)
class ExplainerModel:
    """A trained model with how to explain it: what ``log_and_register`` keeps as one model."""

    model: Model
    settings: ExplainSettings

    @property
    def card(self) -> Mapping[str, Any]:
        """The card of the model."""
        return self.model.card

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the model's digest and the settings."""
        return hashlib.sha256(f"{self.model.digest} {self._settings()}".encode()).hexdigest()

    def save(self, folder: Path) -> Path:
        """Write the files into ``folder`` (made if needed) and return it."""
        self.model.save(folder)
        (folder / SETTINGS).write_text(self._settings(), encoding="utf-8")
        return folder

    def _settings(self) -> str:
        return json.dumps(dataclasses.asdict(self.settings), indent=1)


def register_explainer(
    registered: ModelVersion,
    model: Model,
    *,
    settings: ExplainSettings,
    example: Sequence[Row],
    challenger: bool = True,
) -> ModelVersion:
    """Return the registered explainer ``<model>-explainer`` of a registered model, made if need be.

    The same weights with the same settings are the same version. It has the model's lineage.

    Parameters
    ----------
    registered : ModelVersion
    model : Model
        What was registered so.
    example : sequence of rows
        Kept as the input example.
    challenger : bool, optional
        ``False`` moves no alias.
    """
    from dlpipe.registry import register_companion

    return register_companion(
        ExplainerModel(model, settings),
        registered,
        kind="explainer",
        settings=dataclasses.asdict(settings),
        example=example,
        challenger=challenger,
        packaging=describe_packaging(model.card),
    )


def describe_packaging(card: Mapping[str, Any]) -> Packaging:
    """Return how MLflow opens an ``ExplainerModel`` of a model with this card, and what goes in and out."""
    from dlpipe.registry import Packaging

    return Packaging(
        loader=LOADER,
        outputs=list_answer_columns(find_task(card["task"]), card),
        params={"method": ""},
        packages=("captum",),
    )


def list_answer_columns(task: Task, card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the columns of an answer with their MLflow types: first the prediction, of the model's own type."""
    return [task.target.list_frame_fields(card)[0], *COLUMNS]


def _load_pyfunc(path: str) -> PyfuncExplainer:
    """Return the explainer in the folder ``path``: MLflow calls this from ``mlflow.pyfunc.load_model``."""
    return open_explainer(Path(path))


def open_explainer(folder: Path) -> PyfuncExplainer:
    """Return the explainer whose files are in ``folder``, all of them read."""
    from dlpipe.task import open_predictor

    given = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    settings = read_settings(ExplainSettings, given, where=SETTINGS)
    return PyfuncExplainer(open_predictor(folder, engine="exact"), settings)


class PyfuncExplainer:
    """A predictor and settings with the interface of MLflow's Python functions."""

    def __init__(self, predictor: Predictor, settings: ExplainSettings) -> None:
        self.predictor, self.settings = predictor, settings

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Return for each row what each of its parts adds to the highest output.

        The columns are ``predicted`` (what the model predicts for the row), ``output_name`` and ``output`` (the
        highest output), ``base_value``, and as lists ``parts`` and ``attributions``.

        Parameters
        ----------
        model_input : str, sequence, Series, DataFrame or mapping of columns
            What the model itself takes. A missing row has no prediction and no parts.
        params : mapping, optional
            ``method``: another than that of the settings.
        """
        import pandas as pd

        task = task_of(self.predictor)
        asked = task.inputs.read_request(model_input, self.predictor.card)
        made = self._explain(asked, (params or {}).get("method"))
        found = {int(row.row_id): to_answer(row) for row in made.rows}
        answers = [found.get(number) or make_empty_answer() for number in range(len(asked))]
        # object: pandas' own type for texts makes NaN of the label that a missing row has not
        return pd.DataFrame(
            {
                name: pd.Series([row[name] for row in answers], dtype=TYPES.get(kind, object))
                for name, kind in list_answer_columns(task, self.predictor.card)
            }
        )

    def explain(self, given: Any, *, method: str | None = None) -> Explanations:
        """Return the explanations of rows, without those that are missing; their ids are their numbers.

        Parameters
        ----------
        given : str, sequence, Series, DataFrame or mapping of columns
            What the model itself takes.
        method : str, optional
            Another than that of the settings.
        """
        inputs = task_of(self.predictor).inputs
        return self._explain(inputs.read_request(given, self.predictor.card), method)

    def _explain(self, asked: Sequence[Row | None], method: str | None) -> Explanations:
        rows = [(str(number), row) for number, row in enumerate(asked) if row is not None]
        named = {"method": method or self.settings.method}
        checked = read_settings(ExplainSettings, named, where="params")
        return explain_rows(self.predictor, rows, settings=replace(self.settings, method=checked.method))


def to_answer(row: Explanation) -> dict[str, Any]:
    """Return the columns of one row."""
    column = row.highest
    return {
        "predicted": row.predicted,
        "output_name": row.output_name,
        "output": float(row.output[column]),
        "base_value": float(row.base[column]),
        "parts": [part.strip() for part in row.parts],
        "attributions": row.attributions[:, column].tolist(),
    }


def make_empty_answer() -> dict[str, Any]:
    """Return the columns of a missing row."""
    numbers = {"output": math.nan, "base_value": math.nan}
    return {"predicted": None, "output_name": None, **numbers, "parts": [], "attributions": []}
