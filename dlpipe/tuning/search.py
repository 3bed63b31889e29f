"""Running a search with Ray Tune, and choosing the values to train with.

Ray, Optuna and Ray Tune are imported when a search begins: no other step of a flow, and no flow without a search,
waits for them.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlpipe.cluster import Cluster, start
from dlpipe.errors import TrainingFailed
from dlpipe.machine import count_usable_cores
from dlpipe.scratch import open_scratch
from dlpipe.task import Chance, Task, TrainingSettings
from dlpipe.training import Checkpoints
from dlpipe.tuning.judging import ChosenValues, judge_trials
from dlpipe.tuning.records import Record, Records
from dlpipe.tuning.settings import TuningSettings
from dlpipe.tuning.space import Space, get_current_values, list_variants
from dlpipe.tuning.trials import THREADS, TrialInputs, prepare_inputs, run_trial

if TYPE_CHECKING:
    from dlpipe.tables import TableVersion
    from dlpipe.tuning import Trial

MAX_DEATHS = 2
"""So often a trial is tried again after its process or its node died; an exception is a result."""


@dataclass(frozen=True)
class SearchPlan:
    """What a search is about to do.

    Attributes
    ----------
    training : TrainingSettings
        Of every trial, but for the values of the space.
    places : int
        How many trials run at once.
    """

    table: TableVersion
    task: Task
    space: Space
    settings: TuningSettings
    training: TrainingSettings
    places: int

    def describe(self, known: int) -> str:
        """Return the first line that a search prints; the outcome of ``known`` trials is on record."""
        trials, threads = self.settings.trials, self.training.threads
        more = f", {known} of them known" if known else ""
        return f"{trials} trials, {self.places} at a time with {threads} threads each{more}"


def run_search(
    table: TableVersion,
    *,
    task: Task,
    space: Space,
    settings: TuningSettings,
    training: TrainingSettings,
    say: Callable[[str], None],
    callbacks: Sequence[Any],
    checkpoints: Checkpoints | None,
    cluster: Cluster | None,
) -> tuple[list[Trial], ChosenValues]:
    """Return the trials and the values to train with; parameters are those of ``dlpipe.tuning.tune``."""
    training = dataclasses.replace(
        training, epochs=settings.epochs, max_train_rows=settings.rows, threads=settings.cores_per_trial
    )
    plan = SearchPlan(table, task, space, settings, training, _count_places(settings, cluster))
    records = Records(table, training)
    if checkpoints:
        records.load(checkpoints)
    say(plan.describe(len(records)))
    if idle := training.find_ineffective([] if "strategy" in space else space):
        say(f"the search varies {', '.join(idle)}, which a training with these settings does not look at")
    # before Ray starts: both can fail, and Ray takes seconds
    variants, chance = list_variants(space, training, task), measure_chance(table, task)
    with ThreadPoolExecutor(1) as thread:
        # read while Ray starts, and while its workers import what trials need
        inputs = thread.submit(prepare_inputs, table, task, training, variants, records, say)
        with nullcontext(cluster) if cluster else _start_ray(plan.places, settings.cores_per_trial):
            trials = _run_trials(plan, inputs.result(), say, callbacks, checkpoints)
    if all(trial.error or not trial.scores for trial in trials):
        raise TrainingFailed(f"all {len(trials)} trials failed; the first with: {trials[0].error}")
    current = get_current_values(space, training)
    chosen = judge_trials(trials, current, chance=chance, confidence=settings.confidence)
    say(f"search: {chosen.note}")
    return trials, chosen


def measure_chance(table: TableVersion, task: Task) -> Chance:
    """Return what guessing gives on the valid split."""
    from dlpipe.tables import read_table

    train, valid = (read_table(table, split=name, columns=["label"])["label"] for name in ("train", "valid"))
    coding = task.target.learn_coding(train.to_pylist())
    return task.target.measure_chance(task.target.encode_labels(valid.to_pylist(), coding))


def _start_ray(places: int, cores: int) -> AbstractContextManager[Cluster]:
    """Return Ray on this machine, whose workers import what a trial needs before they get one."""
    # Ray starts a process for each core; where a trial takes several, most would import for nothing
    preload = ["dlpipe.tuning.worker"] if cores == 1 else []
    return start(places * cores, preload=preload, variables={THREADS: str(cores)})


def _count_places(settings: TuningSettings, cluster: Cluster | None) -> int:
    """Return how many trials run at once."""
    if cluster:
        cluster.check(settings.cores_per_trial)
    there = (
        cluster.places(settings.cores_per_trial) if cluster else count_usable_cores() // settings.cores_per_trial
    )
    return max(1, min(there, settings.trials, settings.batch if settings.batched else settings.trials))


def _run_trials(
    plan: SearchPlan,
    inputs: TrialInputs,
    say: Callable[[str], None],
    callbacks: Sequence[Any],
    checkpoints: Checkpoints | None,
) -> list[Trial]:
    """Run all trials and return them in the order in which they were made."""
    _silence_tune()
    from ray import tune as ray_tune

    from dlpipe.tuning.asha import BatchedASHA
    from dlpipe.tuning.searcher import build_searcher
    from dlpipe.tuning.trial_callback import TrialCallback

    settings, metric = plan.settings, plan.task.target.deciding_metric
    asha = BatchedASHA(settings, metric)
    recording = TrialCallback(say, asha, _make_recorder(inputs.records, checkpoints))
    with open_scratch() as folder:
        tuner = ray_tune.Tuner(
            ray_tune.with_resources(
                ray_tune.with_parameters(run_trial, inputs=inputs), {"cpu": settings.cores_per_trial}
            ),
            param_space=None,  # the searcher proposes all values
            tune_config=ray_tune.TuneConfig(
                num_samples=settings.trials,
                search_alg=build_searcher(plan.space, settings, plan.training, plan.places, metric),
                scheduler=asha,
                reuse_actors=True,  # the next trial finds torch and Lightning imported
            ),
            run_config=ray_tune.RunConfig(
                storage_path=str(folder),  # nothing of Ray's is needed later: records are kept in checkpoints
                verbose=0,
                failure_config=ray_tune.FailureConfig(max_failures=MAX_DEATHS),
                # ours first: a trial is on record before a callback that was passed in is told of its end, and
                # might fail
                callbacks=[recording, *callbacks],
            ),
        )
        tuner.fit()
        return recording.list_trials()


def _make_recorder(records: Records, checkpoints: Checkpoints | None) -> Callable[[Trial, bool], None]:
    """Return what records each trial that ends (and whether ASHA ended it), durably before it returns."""

    def record(trial: Trial, stopped: bool) -> None:
        is_new = records.add(trial.number, trial.values, Record(trial.scores, trial.error, stopped))
        if is_new and checkpoints:  # a trial that was replayed from its record is no reason to save again
            records.save(checkpoints)

    return record


def _silence_tune() -> None:
    """Turn off what Ray Tune does besides running trials; some of it is read when it is imported."""
    os.environ.update(
        RAY_AIR_NEW_OUTPUT="0",
        RAY_CHDIR_TO_TRIAL_DIR="0",  # a backbone's folder may be relative
        TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
        TUNE_DISABLE_SIGINT_HANDLER="1",  # it would wait for the trials, longer than Metaflow waits for the task
        TUNE_PRINT_ALL_TRIAL_ERRORS="0",  # TrialCallback prints a line
    )
