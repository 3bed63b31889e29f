"""What the trials of a search report, as a callback of Ray Tune."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune import Callback

from dlpipe.training import EpochScore
from dlpipe.tuning import Trial
from dlpipe.tuning.asha import BatchedASHA
from dlpipe.tuning.trials import ERROR


class TrialCallback(Callback):
    """Collects what the trials report, records each that ends, and prints a line for it.

    Parameters
    ----------
    say : callable
        Gets the lines.
    asha : BatchedASHA
        Knows which trials were stopped before their last epoch.
    record : callable
        Gets each trial that ends, and whether ASHA stopped it.
    """

    def __init__(
        self, say: Callable[[str], None], asha: BatchedASHA, record: Callable[[Trial, bool], None]
    ) -> None:
        self._say, self._asha, self._record = say, asha, record
        self._made: dict[str, Any] = {}
        self._scores: dict[str, dict[int, EpochScore]] = defaultdict(dict)
        self._errors: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Ray pickles callbacks for its restore, which is not used, and these hold functions."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Remember the order in which trials were made: Ray puts one that is tried again at the end."""
        self._note_order(trials)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        """Keep the epoch's scores, or the error; a trial that is tried again reports its epochs again."""
        if result.get(ERROR):
            self._errors[trial.trial_id] = result[ERROR]
            return
        score = EpochScore.from_record(result)
        self._scores[trial.trial_id].setdefault(score.epoch, score)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record the trial and print how it went."""
        self._finish(trials, trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record the trial and print why it failed."""
        self._errors[trial.trial_id] = _read_death(trial)
        self._finish(trials, trial)

    def list_trials(self) -> list[Trial]:
        """Return all trials in the order in which they were made."""
        return [self._to_trial(trial) for trial in self._made.values()]

    def _note_order(self, trials: list[Any]) -> None:
        for trial in trials:
            self._made.setdefault(trial.trial_id, trial)

    def _finish(self, trials: list[Any], trial: Any) -> None:
        self._note_order(trials)
        made = self._to_trial(trial)
        self._record(made, trial.trial_id in self._asha.stopped)  # before the line: what is printed is on record
        values = ", ".join(f"{name} {_shorten(value)}" for name, value in made.values.items())
        scored = f"{made.scores[0].deciding if made.scores else 'score'} {made.score:.3f}"
        outcome = f"failed: {made.error}" if made.error else f"{scored} in {len(made.scores)} epochs"
        self._say(f"trial {made.number + 1}: {values}: {outcome}")

    def _to_trial(self, trial: Any) -> Trial:
        number = list(self._made).index(trial.trial_id)
        scores = tuple(self._scores[trial.trial_id].values())
        return Trial(number, dict(trial.config), scores, self._errors.get(trial.trial_id))


def _read_death(trial: Any) -> str:
    """Return why Ray gave a trial up, on one line."""
    # Ray's own copy: the one in storage, which trial.get_error reads, comes later
    file = trial.error_file and Path(trial.error_file)
    reason = file.read_text() if file and file.exists() else "Ray gave no reason"
    return f"the process of the trial ended: {' '.join(reason.split())[-300:]}"


def _shorten(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)
