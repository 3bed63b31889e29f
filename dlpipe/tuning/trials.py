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
from dlpipe.training.data import TrainingData, prepare
from dlpipe.tuning.records import Record, Records

if TYPE_CHECKING:
    from dlpipe.tables import TableVersion

ERROR = "error"
THREADS = "_DLPIPE_TRIAL_THREADS"


@dataclass(frozen=True)
class Shared:
    """What every trial is given, through Ray's object store: arrays in it are read where they are."""

    table: TableVersion
    task: str
    """The name: each process finds the task itself."""
    training: TrainingSettings
    data: Mapping[tuple[Any, ...], TrainingData]
    records: Records
    surroundings: Surroundings


def shared(
    table: TableVersion,
    task: Task,
    training: TrainingSettings,
    variants: list[TrainingSettings],
    records: Records,
    say: Callable[[str], None],
) -> Shared:
    """Prepare what trials read on all cores, once for each of the ``variants`` that reads something else."""
    data: dict[tuple[Any, ...], TrainingData] = {}
    for variant in variants:
        key = task.inputs.make_encoding_key(variant)
        if key not in data:
            with suppress(BackboneNotFound):  # each trial that asks for it says so
                data[key] = prepare(table, dataclasses.replace(variant, threads=0), task=task, say=say)
    return Shared(table, task.name, training, data, records, Surroundings.here())


def attempt(values: dict[str, Any], *, shared: Shared) -> None:
    """Report each epoch's scores to Ray Tune; an exception is the last thing that a trial reports."""
    from ray import tune as ray_tune

    shared.surroundings.enter()
    settings = dataclasses.replace(shared.training, **values)
    limit_threads(settings.threads)
    known = shared.records.find(values) or Record((), None, stopped=True)
    try:
        for score in known.scores:
            ray_tune.report(score.to_record())
        if known.stopped:
            _train(settings, shared, after=len(known.scores), report=ray_tune.report)
        error = known.error
    except Exception as failure:
        error = f"{type(failure).__name__}: {' '.join(str(failure).split())}"
    if error:
        ray_tune.report({ERROR: error, "epoch": 0, find_task(shared.task).target.deciding_metric: float("nan")})


def _train(
    settings: TrainingSettings, shared: Shared, *, after: int, report: Callable[[dict[str, Any]], None]
) -> None:
    """Train and report the epochs that are not reported yet."""
    task = find_task(shared.task)
    data = shared.data.get(task.inputs.make_encoding_key(settings)) or prepare(shared.table, settings, task=task)
    from dlpipe.training.loop import run

    def on_epoch(score: EpochScore) -> None:
        if score.epoch > after:
            report(score.to_record())

    run(data, task=task, settings=settings, on_epoch=on_epoch)


def threads_given() -> int:
    """Return the threads of a trial in this process, where the search says so before it knows the trial."""
    return int(os.environ.get(THREADS, "1"))


def limit_threads(threads: int) -> None:
    """Keep this trial to its threads; the training sets those of torch itself."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
    os.environ.update(dict.fromkeys(names, str(threads)))
    # Ray reads it when the next trial takes over this process: how long a stopped one may take to leave it
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = "60"
