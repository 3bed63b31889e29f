"""Classifiers and pipelines in ``mlflow.models.evaluate``, which expects a model's classes and nothing else.

MLflow finds this by the entry point ``mlflow.model_evaluator``, in place of its own of the same name; for
any other model it is that one.
"""

from __future__ import annotations

from typing import Any

from mlflow.models.evaluation.evaluators.classifier import ClassifierEvaluator

from dlpipe.registry import TASK
from dlpipe.task import find_task, list_tasks

MISSING = ""
"""The class of a row that is missing."""


class LabelEvaluator(ClassifierEvaluator):
    """MLflow's evaluator of classifiers, for which the column ``predicted`` is what our models predict."""

    def _generate_model_predictions(self, model: Any, input_df: Any) -> tuple[Any, Any]:
        if not predicts_classes(model):
            return super()._generate_model_predictions(model, input_df)
        found = model.predict(input_df)
        columns = {name.removeprefix("p_"): name for name in sorted(found) if name.startswith("p_")}
        # probabilities are compared class by class, so they must be of the very classes that there are
        same = [*columns] == sorted({*self.y_true, *found["predicted"].dropna()})
        shares = found[[*columns.values()]].to_numpy() if same and found["predicted"].notna().all() else None
        return found["predicted"].fillna(MISSING).to_numpy(), shares


def predicts_classes(model: Any) -> bool:
    """Return whether ``model`` is one of dlpipe, loaded by MLflow, whose task predicts one class of several."""
    metadata = getattr(getattr(model, "metadata", None), "metadata", None) or {}
    name = metadata.get(TASK)
    return name in list_tasks() and find_task(name).target.has_classes
