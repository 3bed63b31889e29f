"""Stopping trials early, as a scheduler of Ray Tune."""

from __future__ import annotations

from typing import Any

import numpy as np
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from dlpipe.tuning.settings import TuningSettings


class BatchedASHA(FIFOScheduler):
    """Asynchronous successive halving (Li et al., MLSys 2020) whose decisions do not depend on timing.

    At a rung, a trial is compared with the trials of earlier batches alone. Those have all ended when its own
    batch starts, so which of two trials that run side by side reports first changes nothing.
    """

    def __init__(self, settings: TuningSettings, metric: str) -> None:
        super().__init__()
        self._metric = metric
        self._batch, self._keep = settings.batch, 1 / settings.reduction
        self._rungs: dict[int, dict[int, float]] = {
            rung: {} for rung in _list_rungs(settings.grace_epochs, settings.reduction, settings.epochs)
        }
        self._batches: dict[str, int] = {}
        self.stopped: set[str] = set()
        """The ids of the trials that were stopped before their last epoch."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Assign the trial to a batch, in the order in which trials are made; one that is tried again keeps it."""
        self._batches.setdefault(trial.trial_id, len(self._batches) // self._batch)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stop a trial that is not among the best of the earlier batches at this rung."""
        rung = self._rungs.get(result["epoch"])
        if rung is None:
            return TrialScheduler.CONTINUE
        batch, score = self._batches[trial.trial_id], result[self._metric]
        number = list(self._batches).index(trial.trial_id)
        earlier = [other for at, other in rung.items() if at // self._batch < batch]
        rung[number] = score
        if not earlier or score >= np.percentile(earlier, 100 * (1 - self._keep)):
            return TrialScheduler.CONTINUE
        self.stopped.add(trial.trial_id)
        return TrialScheduler.STOP


def _list_rungs(first: int, reduction: int, last: int) -> list[int]:
    rungs = []
    while first < last:
        rungs.append(first)
        first *= reduction
    return rungs
