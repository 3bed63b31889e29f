"""One trial, in a process of Ray: trains on data that all trials share, or replays what is recorded of it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlpipe.cluster import Surroundings
from dlpipe.errors import BackboneNotFound
from dlpipe.task import Task, TrainingSettings, find_task
from dlpipe.training import EpochScore
from dlpipe.training.data import TrainingData, prepare_data
from dlpipe.tuning.records import Record, Records

if TYPE_CHECKING:
    from dlpipe.tables import TableVersion

ERROR = "error"
THREADS = "_DLPIPE_TRIAL_THREADS"


@dataclass(frozen=True)
class TrialInputs:
    """What every trial is given, through Ray's object store: arrays in it are read in place, without a copy."""

    table: TableVersion
    task: str
    """The name: each process finds the task itself, and nothing of it is pickled."""
    training: TrainingSettings
    data: Mapping[tuple[Any, ...], TrainingData]
    records: Records
    surroundings: Surroundings


def prepare_inputs(
    table: TableVersion,
    task: Task,
    training: TrainingSettings,
    variants: list[TrainingSettings],
    records: Records,
    say: Callable[[str], None],
) -> TrialInputs:
    """Prepare what trials read, on all cores, once for each of the ``variants`` that reads something else.

    Parameters
    ----------
    table : TableVersion
    task : Task
    training : TrainingSettings
        The settings of every trial, but for the values that the search varies.
    variants : list of TrainingSettings
        As ``list_variants`` returns them.
    records : Records
        Of trials that are known already.
    say : callable
        Gets progress as lines of text.
    """
    data: dict[tuple[Any, ...], TrainingData] = {}
    for variant in variants:
        key = task.inputs.make_encoding_key(variant)
        if key not in data:
            with suppress(BackboneNotFound):  # each trial that asks for it says so
                data[key] = prepare_data(table, dataclasses.replace(variant, threads=0), task=task, say=say)
    return TrialInputs(table, task.name, training, data, records, Surroundings.here())


def run_trial(values: dict[str, Any], *, inputs: TrialInputs) -> None:
    """Train with ``values`` and report each epoch's scores to Ray Tune, or an exception as the last result.

    It is not raised, because Ray would try the trial again: it cannot tell an exception, which would come again,
    from a process that died.
    """
    from ray import tune as ray_tune

    inputs.surroundings.enter()
    settings = dataclasses.replace(inputs.training, **values)
    limit_threads(settings.threads)
    # a trial that ASHA stopped may have to go on this time: then what follows its recorded epochs is trained
    known = inputs.records.find(values) or Record((), None, stopped=True)
    try:
        for score in known.scores:
            ray_tune.report(score.to_record())
        if known.stopped:
            _train(settings, inputs, after=len(known.scores), report=ray_tune.report)
        error = known.error
    except Exception as failure:
        error = f"{type(failure).__name__}: {' '.join(str(failure).split())}"
    if error:
        ray_tune.report({ERROR: error, "epoch": 0, find_task(inputs.task).target.deciding_metric: float("nan")})


def _train(
    settings: TrainingSettings, inputs: TrialInputs, *, after: int, report: Callable[[dict[str, Any]], None]
) -> None:
    """Train, and report the epochs that come after number ``after``."""
    task = find_task(inputs.task)
    data = inputs.data.get(task.inputs.make_encoding_key(settings)) or prepare_data(
        inputs.table, settings, task=task
    )
    from dlpipe.training.loop import train

    def on_epoch(score: EpochScore) -> None:
        if score.epoch > after:
            report(score.to_record())

    train(data, task=task, settings=settings, on_epoch=on_epoch)


def read_threads() -> int:
    """Return the threads of a trial in this process, which the search sets before any trial is known."""
    return int(os.environ.get(THREADS, "1"))


def limit_threads(threads: int) -> None:
    """Limit the libraries of this process to ``threads``; the training sets those of torch itself."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
    os.environ.update(dict.fromkeys(names, str(threads)))
    # how long a stopped trial may take to leave this process; Ray reads it when the next one takes over
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = "60"
