"""Search over training settings. The only room that names Ray Tune.

schedule     ASHA, the searcher and the progress lines, as classes of Ray Tune (imports Ray)
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Le, MinLen

from dlpipe.errors import SettingError, TrainingFailed
from dlpipe.settings import check_name, read_settings
from dlpipe.task.predictor import usable_cores
from dlpipe.training import EpochScore, TrainingSettings, fit

if TYPE_CHECKING:
    from dlpipe.tables import TableVersion

METRIC = "val_f1"
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
    cores_per_trial: Annotated[int, Ge(1)] = 1
    """As many trials run at once as the machine has cores for."""
    seed: Annotated[int, Ge(0)] = 0


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
        """The best ``val_f1`` of its epochs; minus infinity for a trial that failed before one ended."""
        return max((score.val_f1 for score in self.scores), default=float("-inf"))


@dataclass(frozen=True)
class Tuned:
    """All trials in the order of their numbers, and the winner's values."""

    trials: tuple[Trial, ...]
    best: Mapping[str, Any]

    def apply(self, training: TrainingSettings) -> TrainingSettings:
        """Return ``training`` with the winner's values."""
        return dataclasses.replace(training, **self.best)


def read_space(values: Mapping[str, Any], *, where: str) -> Space:
    """Return the search space that a settings file describes.

    Examples
    --------
    >>> read_space({"learning_rate": {"low": 1e-5, "high": 1e-4, "log": True}}, where="[search_space]")
    {'learning_rate': Range(low=1e-05, high=0.0001, log=True)}
    """
    known = [field.name for field in dataclasses.fields(TrainingSettings)]
    space: Space = {}
    for name, spec in values.items():
        check_name(name, known, what="setting", where=where)
        if not isinstance(spec, Mapping):
            raise SettingError(
                f"{where}: {name} = {spec!r}; write {{ low = ..., high = ... }} or {{ choices = [...] }}."
            )
        kind: type[Range | Choices] = Choices if "choices" in spec else Range
        space[name] = _typed(name, read_settings(kind, spec, where=f"{where} {name}"), where)
    return space


def tune(
    table: TableVersion,
    *,
    space: Space,
    settings: TuningSettings,
    training: TrainingSettings,
    say: Callable[[str], None] = print,
    callbacks: Sequence[Any] = (),
) -> Tuned:
    """Return the trials of ``space`` on ``table`` and the values that gave the best ``val_f1``.

    The same seed gives the same result on the same machine, however the trials happen to overlap: where
    Optuna learns or ASHA stops trials, they run in batches and are compared with those of earlier batches.

    Parameters
    ----------
    callbacks : sequence of ray.tune.Callback, optional
        Told of each trial beside what is printed.

    Raises
    ------
    TrainingFailed
        When no trial ended an epoch; the message has the first trial's error.
    """
    if not settings.trials or not space:
        return Tuned((), {})
    cores = usable_cores()
    at_once = min(settings.trials, max(1, cores // settings.cores_per_trial))
    training = dataclasses.replace(
        training, epochs=settings.epochs, max_train_rows=settings.rows, threads=max(1, cores // at_once)
    )
    say(f"{settings.trials} trials, {at_once} at a time with {training.threads} threads each")
    trials = _run_trials(table, space, settings, training, at_once, say, callbacks)
    done = [trial for trial in trials if trial.scores]
    if not done:
        raise TrainingFailed(f"all {len(trials)} trials failed; the first with: {trials[0].error}")
    best = max(done, key=lambda trial: (trial.score, -trial.number))
    return Tuned(tuple(trials), best.values)


def _run_trials(
    table: TableVersion,
    space: Space,
    settings: TuningSettings,
    training: TrainingSettings,
    at_once: int,
    say: Callable[[str], None],
    callbacks: Sequence[Any],
) -> list[Trial]:
    _quiet_ray()
    import ray
    from ray import tune as ray_tune

    from dlpipe.tuning.schedule import BatchedASHA, TrialLines, searcher

    def attempt(values: dict[str, Any]) -> None:
        fit(
            table,
            settings=dataclasses.replace(training, **values),
            on_epoch=lambda score: ray_tune.report(dataclasses.asdict(score)),
            say=None,
        )

    # without "local", a cluster that somebody else runs on this machine would be joined
    ray.init("local", num_cpus=at_once, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        with tempfile.TemporaryDirectory(prefix="dlpipe-trials-") as folder:
            tuner = ray_tune.Tuner(
                ray_tune.with_resources(attempt, {"cpu": 1}),
                param_space=None,
                tune_config=ray_tune.TuneConfig(
                    num_samples=settings.trials,
                    search_alg=searcher(space, settings, training, at_once),
                    scheduler=BatchedASHA(at_once, settings),
                    reuse_actors=True,
                ),
                run_config=ray_tune.RunConfig(
                    storage_path=folder, verbose=0, callbacks=[lines := TrialLines(say), *callbacks]
                ),
            )
            tuner.fit()
            return lines.trials()
    finally:
        ray.shutdown()


def _typed(name: str, spec: Range | Choices, where: str) -> Range | Choices:
    """Return ``spec`` with its values as the setting ``name`` takes them: whole numbers for an epoch count."""

    def typed(value: Any) -> Any:
        return getattr(read_settings(TrainingSettings, {name: value}, where=where), name)

    if isinstance(spec, Choices):
        return Choices(tuple(typed(value) for value in spec.choices))
    return Range(typed(spec.low), typed(spec.high), spec.log)


def _quiet_ray() -> None:
    """Turn off what Ray does besides running trials; read when Ray is imported."""
    os.environ.update(
        RAY_USAGE_STATS_ENABLED="0",
        RAY_AIR_NEW_OUTPUT="0",
        RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
        RAY_CHDIR_TO_TRIAL_DIR="0",  # a backbone's folder may be relative
        TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
        TUNE_DISABLE_SIGINT_HANDLER="1",  # it would wait for the trials, longer than Metaflow waits for the task
        TUNE_PRINT_ALL_TRIAL_ERRORS="0",  # TrialLines says a line
    )
    import logging

    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("ray").setLevel(logging.ERROR)
