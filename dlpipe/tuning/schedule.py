"""ASHA, the searcher and the progress lines, as classes of Ray Tune."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from ray.tune import Callback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch

from dlpipe.task import TrainingSettings
from dlpipe.training import EpochScore
from dlpipe.tuning import RANDOM_TRIALS, Choices, Space, Trial, TuningSettings, as_they_stand
from dlpipe.tuning.trials import ERROR


def searcher(
    space: Space, settings: TuningSettings, training: TrainingSettings, places: int, metric: str
) -> ConcurrencyLimiter:
    """Return Optuna's sampler; the first trial is the settings as they stand.

    It is asked for a batch at a time where results of earlier trials decide something, so that it never matters
    which of two trials ends first. Otherwise a trial starts as soon as another ends, in the same process.
    """
    samplers = {
        "optuna": optuna.samplers.TPESampler(seed=settings.seed, n_startup_trials=RANDOM_TRIALS),
        "random": optuna.samplers.RandomSampler(seed=settings.seed),
    }
    as_set = as_they_stand(space, training)
    search = Search(
        {name: _distribution(spec) for name, spec in space.items()},
        metric=metric,
        mode="max",
        sampler=samplers[settings.searcher],
        points_to_evaluate=[as_set] if all(as_set[name] in spec for name, spec in space.items()) else None,
    )
    at_once = settings.batch if settings.batched else places
    return ConcurrencyLimiter(search, max_concurrent=at_once, batch=settings.batched)


class Search(OptunaSearch):  # type: ignore[misc]
    """Optuna's search, told that a trial failed, and told of an epoch once however often its trial is tried."""

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
        super().on_trial_complete(trial_id, None if failed else result, failed)


def _distribution(spec: Any) -> optuna.distributions.BaseDistribution:
    if isinstance(spec, Choices):
        return optuna.distributions.CategoricalDistribution(spec.choices)
    if isinstance(spec.low, int) and isinstance(spec.high, int):
        return optuna.distributions.IntDistribution(spec.low, spec.high, log=spec.log)
    return optuna.distributions.FloatDistribution(spec.low, spec.high, log=spec.log)


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
            rung: {} for rung in _rungs(settings.grace_epochs, settings.reduction, settings.epochs)
        }
        self._batches: dict[str, int] = {}
        self.stopped: set[str] = set()
        """The ids of the trials that were stopped before their last epoch."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Give the trial its batch; one that is tried again keeps it."""
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


def _rungs(first: int, reduction: int, last: int) -> list[int]:
    rungs = []
    while first < last:
        rungs.append(first)
        first *= reduction
    return rungs


class TrialLines(Callback):
    """Collects what the trials report, records each that ends, and says a line for it."""

    def __init__(
        self, say: Callable[[str], None], asha: BatchedASHA, record: Callable[[Trial, bool], None]
    ) -> None:
        self._say, self._asha, self._record = say, asha, record
        self._made: dict[str, Any] = {}
        self._scores: dict[str, dict[int, EpochScore]] = defaultdict(dict)
        self._errors: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Keep nothing: Ray pickles callbacks for its own restore, and what these hold need not be picklable."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Remember the order in which trials were made: Ray puts one that is tried again at the end."""
        self._notice(trials)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        """Keep the epoch's scores, or the error; a trial that is tried again reports its epochs again."""
        if result.get(ERROR):
            self._errors[trial.trial_id] = result[ERROR]
            return
        score = EpochScore.from_record(result)
        self._scores[trial.trial_id].setdefault(score.epoch, score)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Say how the trial went."""
        self._ended(trials, trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Say why the trial failed."""
        self._errors[trial.trial_id] = _death(trial)
        self._ended(trials, trial)

    def trials(self) -> list[Trial]:
        """Return all trials in the order in which they were made."""
        return [self._trial(trial) for trial in self._made.values()]

    def _notice(self, trials: list[Any]) -> None:
        for trial in trials:
            self._made.setdefault(trial.trial_id, trial)

    def _ended(self, trials: list[Any], trial: Any) -> None:
        self._notice(trials)
        made = self._trial(trial)
        self._record(made, trial.trial_id in self._asha.stopped)
        values = ", ".join(f"{name} {_short(value)}" for name, value in made.values.items())
        scored = f"{made.scores[0].deciding if made.scores else 'score'} {made.score:.3f}"
        outcome = f"failed: {made.error}" if made.error else f"{scored} in {len(made.scores)} epochs"
        self._say(f"trial {made.number + 1}: {values}: {outcome}")

    def _trial(self, trial: Any) -> Trial:
        number = list(self._made).index(trial.trial_id)
        scores = tuple(self._scores[trial.trial_id].values())
        return Trial(number, dict(trial.config), scores, self._errors.get(trial.trial_id))


def _death(trial: Any) -> str:
    """Return why Ray gave a trial up, on one line."""
    # Ray's own copy: the one in storage, which trial.get_error reads, comes later
    file = trial.error_file and Path(trial.error_file)
    said = file.read_text() if file and file.exists() else "Ray gave no reason"
    return f"the process of the trial ended: {' '.join(said.split())[-300:]}"


def _short(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)
