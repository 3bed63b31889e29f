"""Optuna's search, as a searcher of Ray Tune."""

from __future__ import annotations

from typing import Any

import optuna
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch

from dlpipe.task import TrainingSettings
from dlpipe.tuning.settings import RANDOM_TRIALS, TuningSettings
from dlpipe.tuning.space import Choices, Space, get_current_values
from dlpipe.tuning.trials import ERROR


def build_searcher(
    space: Space, settings: TuningSettings, training: TrainingSettings, places: int, metric: str
) -> ConcurrencyLimiter:
    """Return Optuna's sampler; the first trial is the settings as they stand, if they lie in the space.

    Where results of earlier trials decide something, it is asked for a batch at a time, so that it never matters
    which of two trials ends first. Otherwise a trial starts as soon as another ends, in the same process.

    Parameters
    ----------
    space : Space
    settings : TuningSettings
    training : TrainingSettings
        The settings as they stand.
    places : int
        How many trials run at once where they do not come in batches.
    metric : str
        The score that decides; more is better.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # TrialCallback prints a line for each trial
    samplers = {
        "optuna": optuna.samplers.TPESampler(seed=settings.seed, n_startup_trials=RANDOM_TRIALS),
        "random": optuna.samplers.RandomSampler(seed=settings.seed),
    }
    current = get_current_values(space, training)
    search = RetrySafeSearch(
        {name: _to_distribution(spec) for name, spec in space.items()},
        metric=metric,
        mode="max",
        sampler=samplers[settings.searcher],
        points_to_evaluate=[current] if all(current[name] in spec for name, spec in space.items()) else None,
    )
    at_once = settings.batch if settings.batched else places
    return ConcurrencyLimiter(search, max_concurrent=at_once, batch=settings.batched)


class RetrySafeSearch(OptunaSearch):  # type: ignore[misc]
    """Optuna's search, told that a trial failed, and told of an epoch once however often its trial is tried.

    A trial whose process died begins again and reports its first epochs a second time; Optuna would warn of each.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._told: set[tuple[str, int]] = set()

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass an epoch's score on."""
        if not result.get(ERROR) and (trial_id, result["epoch"]) not in self._told:
            self._told.add((trial_id, result["epoch"]))
            super().on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Pass on how a trial ended."""
        failed = error or bool(result and result.get(ERROR))
        # without a result: that of a failed trial has a score that is not a number
        super().on_trial_complete(trial_id, None if failed else result, failed)


def _to_distribution(spec: Any) -> optuna.distributions.BaseDistribution:
    if isinstance(spec, Choices):
        return optuna.distributions.CategoricalDistribution(spec.choices)
    if isinstance(spec.low, int) and isinstance(spec.high, int):
        return optuna.distributions.IntDistribution(spec.low, spec.high, log=spec.log)
    return optuna.distributions.FloatDistribution(spec.low, spec.high, log=spec.log)
