"""Search over training settings with Ray Tune.

settings        how to search
space           which settings are varied, and over what
search          running the search (starts Ray)
searcher        Optuna's sampler: which values are tried (imports Ray and Optuna)
asha            which trials are stopped early (imports Ray)
trial_callback  the line and the record of each trial (imports Ray)
trials          one trial, in a process of Ray
worker          what such a process imports before its first trial
records         trials that ended, recorded for a search that starts again
judging         whether the best trial beats guessing, and the settings as they stand
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlpipe.task import find_task
from dlpipe.tuning.settings import TuningSettings
from dlpipe.tuning.space import Choices, Range, Space, read_space

if TYPE_CHECKING:
    from dlpipe.cluster import Cluster
    from dlpipe.tables import TableVersion
    from dlpipe.task import Task, TrainingSettings
    from dlpipe.training import Checkpoints, EpochScore

__all__ = ["Choices", "Range", "Space", "Trial", "Tuned", "TuningSettings", "read_space", "tune"]

# Trial and Tuned are defined here because pickles of old runs' artifacts name them as classes of this module.


@dataclass(frozen=True)
class Trial:
    """A combination of values that was tried."""

    number: int
    values: Mapping[str, Any]
    scores: tuple[EpochScore, ...]
    error: str | None

    @property
    def score(self) -> float:
        """The best score of its epochs, of those that decide; minus infinity if none ended."""
        return max((score.score for score in self.scores), default=float("-inf"))


@dataclass(frozen=True)
class Tuned:
    """All trials in the order of their numbers, the values to train with, and why these."""

    trials: tuple[Trial, ...]
    best: Mapping[str, Any]
    note: str = ""

    def apply(self, training: TrainingSettings) -> TrainingSettings:
        """Return ``training`` with the values that the search found best, or kept."""
        return dataclasses.replace(training, **self.best)


def tune(
    table: TableVersion,
    *,
    space: Space,
    settings: TuningSettings,
    training: TrainingSettings,
    task: Task | None = None,
    say: Callable[[str], None] = print,
    callbacks: Sequence[Any] = (),
    checkpoints: Checkpoints | None = None,
    cluster: Cluster | None = None,
) -> Tuned:
    """Return the trials of ``space`` on ``table`` and the values to train with.

    Those are the values of the best score on the valid split, where it is better than guessing and than the
    settings as they stand by more than chance gives (``TuningSettings.confidence``); otherwise those settings.

    The same seed gives the same result, however many trials run at once and however they overlap: where Optuna
    learns or ASHA stops trials, they run in batches and are compared with those of earlier batches.

    What trials read is prepared once and shared. A trial that fails is a result with an error; one whose process
    dies is tried again, twice at most.

    Parameters
    ----------
    table : TableVersion
        With the columns of the task's inputs, ``label`` and ``split``.
    space : Space
        As ``read_space`` returns it; with an empty one nothing is searched.
    settings : TuningSettings
    training : TrainingSettings
        The settings as they stand; a trial has those of ``space`` replaced, and the epochs, rows and threads of
        ``settings``.
    task : Task, optional
        What is learnt; by default text classification.
    say : callable, optional
        Gets progress as lines of text.
    callbacks : sequence of ray.tune.Callback, optional
        Told of each trial beside what is printed.
    checkpoints : Checkpoints, optional
        Where the trials that end are recorded. A search that starts again proposes the same values, and a trial
        that is recorded there (same settings, table version and threads) reports its recorded scores at once.
    cluster : Cluster, optional
        Where trials run; by default on this machine. Trials on a node that dies are tried again on the others.

    Raises
    ------
    TrainingFailed
        When every trial failed; the message has the first trial's error.
    """
    if not settings.trials or not space:
        return Tuned((), {})
    from dlpipe.tuning.search import run_search

    trials, chosen = run_search(
        table,
        task=task or find_task(),
        space=space,
        settings=settings,
        training=training,
        say=say,
        callbacks=callbacks,
        checkpoints=checkpoints,
        cluster=cluster,
    )
    return Tuned(tuple(trials), chosen.values, chosen.note)
