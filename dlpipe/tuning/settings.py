"""The settings of a search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le, Lt

RANDOM_TRIALS = 10  # Optuna's own number of trials before it starts to learn from them


@dataclass(frozen=True)
class TuningSettings:
    """How to search."""

    trials: Annotated[int, Ge(0), Le(10_000)] = 4
    """How many settings to try; 0 skips the search."""
    epochs: Annotated[int, Ge(1), Le(1000)] = 1
    """The most epochs of a trial; its learning rate decays over as many."""
    rows: Annotated[int, Ge(0)] = 600
    """Train rows of a trial, drawn by the training's seed; 0 takes all."""
    searcher: Literal["optuna", "random"] = "optuna"
    grace_epochs: Annotated[int, Ge(1)] = 1
    """ASHA stops no trial before this many epochs."""
    reduction: Annotated[int, Ge(2)] = 2
    """ASHA lets the best 1/reduction of the trials go on at each rung."""
    batch: Annotated[int, Ge(1)] = 4
    """Where Optuna learns or ASHA stops trials: so many are proposed, run and compared together."""
    cores_per_trial: Annotated[int, Ge(1)] = 1
    """Threads of a trial; as many trials run at once as the machine or the cluster has cores for."""
    seed: Annotated[int, Ge(0)] = 0
    confidence: Annotated[float, Ge(0), Lt(1)] = 0.95
    """How sure it must be that the best trial is better than the settings as they stand; 0 takes it anyway."""

    @property
    def batched(self) -> bool:
        """Whether the results of trials decide about later ones: Optuna learns from them, or ASHA stops trials."""
        learns = self.searcher == "optuna" and self.trials > RANDOM_TRIALS
        return learns or self.grace_epochs < self.epochs
