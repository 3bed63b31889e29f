"""Fit a task on a pinned table version, with checkpoints that a killed training goes on from.

data         what a training reads, prepared once and shared
checkpoints  where checkpoints go, and a folder that keeps them
loop         one training run (imports torch and Flash)
frame        Flash's task and trainer; the only file that names lightning-flash
optimizer    AdamW with clipping that updates the rows of an embedding that a batch has
later        modules that are imported when somebody asks for them
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlpipe.task import Chance, Model, Task, TrainingSettings, find_task
from dlpipe.training.checkpoints import Checkpoints, FolderCheckpoints

if TYPE_CHECKING:
    from dlpipe.tables import TableVersion

__all__ = ["Checkpoints", "EpochScore", "Fitted", "FolderCheckpoints", "fit"]


@dataclass(frozen=True)
class EpochScore:
    """What an epoch gave.

    Attributes
    ----------
    epoch : int
        From 1.
    train_loss : float
        The mean loss of its steps.
    scores : mapping of str to float
        Of the valid split, ``val_loss`` among them, as the task's target names them.
    deciding : str
        The name of the score that chooses the best epoch; more is better.
    seconds, rows_per_second : float
        Without the validation.
    """

    epoch: int
    train_loss: float
    scores: Mapping[str, float]
    deciding: str
    seconds: float
    rows_per_second: float

    @property
    def score(self) -> float:
        """The score that decides."""
        return self.scores[self.deciding]

    @property
    def val_loss(self) -> float:
        """The mean loss on the valid split."""
        return self.scores["val_loss"]

    def to_record(self) -> dict[str, Any]:
        """Return everything under one name each; ``from_record`` reads it."""
        return {
            "epoch": self.epoch,
            "train_loss": self.train_loss,
            **self.scores,
            "deciding": self.deciding,
            "seconds": self.seconds,
            "rows_per_second": self.rows_per_second,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> EpochScore:
        """Return what ``to_record`` wrote, whatever else the record has.

        Examples
        --------
        >>> score = EpochScore(1, 0.7, {"val_loss": 0.6, "val_f1": 0.8}, "val_f1", 2.0, 50.0)
        >>> EpochScore.from_record({**score.to_record(), "pid": 17}) == score
        True
        """
        scores = {name: value for name, value in record.items() if name.startswith("val_")}
        names = ("epoch", "train_loss", "deciding", "seconds", "rows_per_second")
        return cls(scores=scores, **{name: record[name] for name in names})


@dataclass(frozen=True)
class Fitted:
    """A trained model with the history of its training."""

    model: Model
    epochs: tuple[EpochScore, ...]
    best_epoch: int
    resumed_after: int
    """The number of epochs that came from a checkpoint; 0 when none did."""

    @property
    def best(self) -> EpochScore:
        """The epoch whose weights the model has."""
        return self.epochs[self.best_epoch - 1]


def fit(
    table: TableVersion,
    *,
    settings: TrainingSettings,
    task: Task | None = None,
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[EpochScore], None] | None = None,
    say: Callable[[str], None] | None = print,
) -> Fitted:
    """Return the model trained on the ``train`` split of ``table``, chosen by its ``valid`` split.

    The same table version, settings and number of threads give the same weights on the same machine, whether
    or not the training was interrupted and went on from ``checkpoints``.

    Parameters
    ----------
    table : TableVersion
        With the columns of the task's inputs, ``label`` and ``split``.
    settings : TrainingSettings
        Those of the task's inputs.
    task : Task, optional
        What is learnt; by default text classification.
    checkpoints : Checkpoints, optional
        Where to go on from, and where to leave the state after each epoch but the last.
    on_epoch : callable, optional
        Called after each epoch, for live pictures and for tuning.
    say : callable, optional
        Gets progress as lines of text; ``None`` keeps quiet.

    Raises
    ------
    BackboneNotFound
        When the backbone is not available offline.
    TrainingFailed
        When the loss stops being a number.
    """
    from dlpipe.training.data import prepare

    tell = say or (lambda line: None)
    for doubt in settings.doubts:
        tell(doubt)
    task = task or find_task()
    data = prepare(table, settings, task=task, say=tell)
    from dlpipe.training.loop import assemble, run

    trained = run(data, task=task, settings=settings, checkpoints=checkpoints, on_epoch=on_epoch, say=say)
    model = assemble(trained, data, task, settings)
    made = Fitted(model, trained.epochs, trained.best_epoch, trained.resumed_after)
    valid = data.valid.targets
    for doubt in (
        doubt_score(made.best.score, task.target.measure_chance(valid)),
        task.target.doubt_decision(valid, data.coding),
    ):
        if doubt:
            tell(doubt)
    return made


def doubt_score(score: float, chance: Chance) -> str:
    """Return why a model may have learnt nothing; empty where its score is better than guessing."""
    bar = chance.bound_guess()
    if score > bar:
        return ""
    return (
        f"the model is no better than guessing: its {chance.words} on the valid split is {score:.3f}, guessing's "
        f"{chance.guess:.3f}, by chance up to {bar:.3f}. Give it more rows or epochs, or another learning rate"
    )
