"""What a gate asks of a model that predicts numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from dlpipe.task.gate import Check, Thresholds
from dlpipe.task.numbers.scores import NumberEvaluation


@dataclass(frozen=True)
class NumberThresholds(Thresholds):
    """What a model must reach to become champion; ``None`` is not asked. Margins are in the unit of ``metric``."""

    metric: Literal["mae", "rmse", "r2", "spearman"] = "mae"
    max_mae: Annotated[float, Ge(0.0)] | None = None
    max_rmse: Annotated[float, Ge(0.0)] | None = None
    min_r2: Annotated[float, Le(1.0)] | None = None
    min_spearman: Annotated[float, Ge(-1.0), Le(1.0)] | None = None
    min_coverage: Annotated[float, Ge(0.0), Le(1.0)] | None = None


def check_constant(evaluation: NumberEvaluation) -> Check:
    """Return the check that the model says more than the mean of all numbers does."""
    r2 = evaluation.metrics["r2"]
    passed = r2 > 0
    relation = "above" if passed else "not above"
    return Check(passed, f"R² {r2:.3f} is {relation} the 0 of always answering the mean")
