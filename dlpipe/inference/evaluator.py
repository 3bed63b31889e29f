"""Classifiers and pipelines in ``mlflow.models.evaluate``, which expects a model's labels and nothing else.

MLflow finds this by the entry point ``mlflow.model_evaluator``, in place of its own of the same name; for
any other model it is that one.
"""

from __future__ import annotations

from typing import Any

from mlflow.models.evaluation.evaluators.classifier import ClassifierEvaluator

from dlpipe.inference.loading import PIPELINE_LOADER
from dlpipe.registry import LOADER

NO_TEXT = ""
"""The label of a row whose text is missing."""


class LabelEvaluator(ClassifierEvaluator):
    """MLflow's evaluator of classifiers, for which the column ``label`` is what our models predict."""

    def _generate_model_predictions(self, model: Any, input_df: Any) -> tuple[Any, Any]:
        if not is_ours(model):
            return super()._generate_model_predictions(model, input_df)
        found = model.predict(input_df)
        columns = {name.removeprefix("p_"): name for name in sorted(found) if name.startswith("p_")}
        # probabilities are compared class by class, so they must be of the very classes that there are
        same = [*columns] == sorted({*self.y_true, *found["label"].dropna()})
        shares = found[[*columns.values()]].to_numpy() if same and found["label"].notna().all() else None
        return found["label"].fillna(NO_TEXT).to_numpy(), shares


def is_ours(model: Any) -> bool:
    """Return whether ``model`` is a classifier or a pipeline of dlpipe, loaded by MLflow."""
    flavors = model.metadata.flavors if getattr(model, "metadata", None) else {}
    return flavors.get("python_function", {}).get("loader_module") in (LOADER, PIPELINE_LOADER)
