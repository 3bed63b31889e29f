"""Search over training settings. The only room that names Ray Tune.

trials       one trial, in a process of Ray
judging      whether the best trial beats guessing, and the settings as they stand
records      what is known of trials that ended, kept for a search that starts again
schedule     ASHA, the searcher and the progress lines, as classes of Ray Tune (imports Ray)
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Le, Lt, MinLen

from dlpipe.cluster import Cluster, start
from dlpipe.errors import SettingError, TrainingFailed
from dlpipe.machine import usable_cores
from dlpipe.settings import check_name, read_settings
from dlpipe.task import Chance, Task, TrainingSettings, find_task
from dlpipe.training import Checkpoints, EpochScore
from dlpipe.tuning.judging import judge_trials
from dlpipe.tuning.records import Record, Records

if TYPE_CHECKING:
    from dlpipe.tables import TableVersion
    from dlpipe.tuning.trials import Shared

RANDOM_TRIALS = 10  # Optuna's own number of trials before it starts to learn from them
DEATHS = 2  # so often a trial is tried again after its process or its node died; an exception is a result
Space = dict[str, "Range | Choices"]


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


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``; drawn on a logarithmic scale with ``log``; whole if both ends are."""

    low: float | int
    high: float | int
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"low ({self.low}) must be below high ({self.high}), and above 0 with log")

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


@dataclass(frozen=True)
class Choices:
    """One of the listed values."""

    choices: Annotated[tuple[Any, ...], MinLen(1)]

    def __contains__(self, value: Any) -> bool:
        return value in self.choices


@dataclass(frozen=True)
class Trial:
    """One setting that was tried."""

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


def read_space(values: Mapping[str, Any], *, where: str, training: TrainingSettings | None = None) -> Space:
    """Return the search space that a settings file describes.

    Parameters
    ----------
    training : TrainingSettings
        The settings as they stand, which the ends of a range with ``relative`` are multiples of; by default
        those of text classification.

    Examples
    --------
    >>> read_space({"learning_rate": {"low": 1e-5, "high": 1e-4, "log": True}}, where="[search_space]")
    {'learning_rate': Range(low=1e-05, high=0.0001, log=True)}
    >>> read_space({"learning_rate": {"low": 0.5, "high": 2.5, "relative": True}}, where="[search_space]")
    {'learning_rate': Range(low=0.0001, high=0.0005, log=False)}
    """
    training = training or find_task().inputs.training()
    known = [field.name for field in dataclasses.fields(training)]
    space: Space = {}
    for name, spec in values.items():
        check_name(name, known, what="setting", where=where)
        if not isinstance(spec, Mapping):
            raise SettingError(
                f"{where}: {name} = {spec!r}; write {{ low = ..., high = ... }} or {{ choices = [...] }}."
            )
        kind: type[Range | Choices] = Choices if "choices" in spec else Range
        spec, at = dict(spec), f"{where} {name}"
        if spec.pop("relative", False) is True:
            spec = _scaled(spec, getattr(training.resolve(), name), at)
        space[name] = _typed(name, read_settings(kind, spec, where=at), type(training), where)
    return space


def _scaled(spec: Mapping[str, Any], value: Any, where: str) -> dict[str, Any]:
    """Return a range whose ends are multiples of ``value``."""
    ends = read_settings(Range, spec, where=where)  # also says what is wrong with them
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SettingError(f"{where}: relative = true multiplies numbers, and the setting is {value!r}.")
    low, high = ends.low * value, ends.high * value
    if isinstance(value, int):
        low, high = round(low), round(high)
    return {"low": low, "high": high, "log": ends.log}


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
    task : Task, optional
        What is learnt; by default text classification.
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
    task = task or find_task()
    places = _places(settings, cluster)
    training = dataclasses.replace(
        training, epochs=settings.epochs, max_train_rows=settings.rows, threads=settings.cores_per_trial
    )
    records = Records(table, training)
    if checkpoints:
        records.take_up(checkpoints)
    known = f", {len(records)} of them known" if len(records) else ""
    say(f"{settings.trials} trials, {places} at a time with {training.threads} threads each{known}")
    if idle := training.find_ineffective([] if "strategy" in space else space):
        say(f"the search varies {', '.join(idle)}, which a training with these settings does not look at")
    variants, chance = _variants(space, training, task), valid_chance(table, task)
    with ThreadPoolExecutor(1) as thread:
        # read while Ray starts, and while its workers import what trials need
        coming = thread.submit(_shared, table, task, training, variants, records, say)
        with nullcontext(cluster) if cluster else _ray(places, settings.cores_per_trial):
            trials = _run_trials(coming.result(), task, space, settings, places, say, callbacks, checkpoints)
    done = [trial for trial in trials if trial.scores and not trial.error]
    if not done:
        raise TrainingFailed(f"all {len(trials)} trials failed; the first with: {trials[0].error}")
    found = judge_trials(trials, as_they_stand(space, training), chance=chance, confidence=settings.confidence)
    say(f"search: {found.note}")
    return Tuned(tuple(trials), found.values, found.note)


def _shared(table: TableVersion, *rest: Any) -> Shared:
    from dlpipe.tuning.trials import shared

    return shared(table, *rest)


def _ray(places: int, cores: int) -> AbstractContextManager[Cluster]:
    """Return Ray on this machine, whose workers import what a trial needs before they get one."""
    from dlpipe.tuning.trials import THREADS

    preload = ["dlpipe.tuning.worker"] if cores == 1 else []  # a process starts for each core, and may stay idle
    return start(places * cores, preload=preload, variables={THREADS: str(cores)})


def as_they_stand(space: Space, training: TrainingSettings) -> dict[str, Any]:
    """Return the settings of ``space`` that ``training`` has."""
    return {name: getattr(training.resolve(), name) for name in space}


def valid_chance(table: TableVersion, task: Task) -> Chance:
    """Return what guessing gives on the valid split."""
    from dlpipe.tables import read_table

    train, valid = (read_table(table, split=name, columns=["label"])["label"] for name in ("train", "valid"))
    coding = task.target.learn_coding(train.to_pylist())
    return task.target.measure_chance(task.target.encode_labels(valid.to_pylist(), coding))


def _places(settings: TuningSettings, cluster: Cluster | None) -> int:
    """Return how many trials run at once."""
    if cluster:
        cluster.check(settings.cores_per_trial)
    there = cluster.places(settings.cores_per_trial) if cluster else usable_cores() // settings.cores_per_trial
    return max(1, min(there, settings.trials, settings.batch if settings.batched else settings.trials))


def _variants(space: Space, training: TrainingSettings, task: Task) -> list[TrainingSettings]:
    """Return ``training`` with each combination of choices that trials read other data for."""
    lists = {
        name: spec.choices
        for name, spec in space.items()
        if isinstance(spec, Choices) and _decides_data(name, spec, training, task)
    }
    combined = itertools.product(*lists.values())
    return [dataclasses.replace(training, **dict(zip(lists, values, strict=True))) for values in combined]


def _decides_data(name: str, spec: Choices, training: TrainingSettings, task: Task) -> bool:
    """Return whether trials with other choices of a setting read other data."""
    return (
        len({task.inputs.make_encoding_key(dataclasses.replace(training, **{name: v})) for v in spec.choices}) > 1
    )


def _run_trials(
    given: Shared,
    task: Task,
    space: Space,
    settings: TuningSettings,
    places: int,
    say: Callable[[str], None],
    callbacks: Sequence[Any],
    checkpoints: Checkpoints | None,
) -> list[Trial]:
    _quiet_tune()
    from ray import tune as ray_tune

    from dlpipe.tuning.schedule import BatchedASHA, TrialLines, searcher
    from dlpipe.tuning.trials import attempt

    asha = BatchedASHA(settings, task.target.deciding_metric)
    lines = TrialLines(say, asha, _recorder(given.records, checkpoints))
    with tempfile.TemporaryDirectory(prefix="dlpipe-trials-") as folder:
        tuner = ray_tune.Tuner(
            ray_tune.with_resources(
                ray_tune.with_parameters(attempt, shared=given), {"cpu": settings.cores_per_trial}
            ),
            param_space=None,
            tune_config=ray_tune.TuneConfig(
                num_samples=settings.trials,
                search_alg=searcher(space, settings, given.training, places, task.target.deciding_metric),
                scheduler=asha,
                reuse_actors=True,
            ),
            run_config=ray_tune.RunConfig(
                storage_path=folder,
                verbose=0,
                failure_config=ray_tune.FailureConfig(max_failures=DEATHS),
                callbacks=[lines, *callbacks],
            ),
        )
        tuner.fit()
        return lines.trials()


def _recorder(records: Records, checkpoints: Checkpoints | None) -> Callable[[Trial, bool], None]:
    """Return what writes down each trial that ends (and whether ASHA ended it), durably before it returns."""

    def record(trial: Trial, stopped: bool) -> None:
        news = records.add(trial.number, trial.values, Record(trial.scores, trial.error, stopped))
        if news and checkpoints:
            records.save(checkpoints)

    return record


def _typed(name: str, spec: Range | Choices, cls: type[TrainingSettings], where: str) -> Range | Choices:
    """Return ``spec`` with its values as the setting ``name`` takes them: whole numbers for an epoch count."""

    def typed(value: Any) -> Any:
        return getattr(read_settings(cls, {name: value}, where=where), name)

    if isinstance(spec, Choices):
        return Choices(tuple(typed(value) for value in spec.choices))
    return Range(typed(spec.low), typed(spec.high), spec.log)


def _quiet_tune() -> None:
    """Turn off what Ray Tune does besides running trials; some of it is read when it is imported."""
    os.environ.update(
        RAY_AIR_NEW_OUTPUT="0",
        RAY_CHDIR_TO_TRIAL_DIR="0",  # a backbone's folder may be relative
        TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
        TUNE_DISABLE_SIGINT_HANDLER="1",  # it would wait for the trials, longer than Metaflow waits for the task
        TUNE_PRINT_ALL_TRIAL_ERRORS="0",  # TrialLines says a line
    )
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
