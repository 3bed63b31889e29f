"""Fit a task on a pinned table version, with checkpoints that a killed training goes on from.

settings     TrainingSettings
chance       what guessing gives, and how far two scores may lie apart
data         what a training reads, prepared once and shared
checkpoints  where checkpoints go, and a folder that keeps them
loop         one training run on Flash's trainer (imports torch and Flash)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlpipe.task import TextModel
from dlpipe.training.chance import guessed, guessed_at_most
from dlpipe.training.checkpoints import Checkpoints, FolderCheckpoints
from dlpipe.training.settings import TrainingSettings

if TYPE_CHECKING:
    from dlpipe.tables import TableVersion
    from dlpipe.training.data import TrainingData

__all__ = ["Checkpoints", "EpochScore", "Fitted", "FolderCheckpoints", "TrainingSettings", "fit"]


@dataclass(frozen=True)
class EpochScore:
    """What an epoch gave.

    ``epoch`` counts from 1; losses are mean cross-entropies in nats; ``seconds`` leave out the validation.
    """

    epoch: int
    train_loss: float
    val_loss: float
    val_accuracy: float
    val_f1: float
    seconds: float
    rows_per_second: float


@dataclass(frozen=True)
class Fitted:
    """A trained model with the history of its training."""

    model: TextModel
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
        With the columns ``text``, ``label`` and ``split``.
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
    data = prepare(table, settings, say=tell)
    from dlpipe.training.loop import assembled, run

    trained = run(data, settings=settings, checkpoints=checkpoints, on_epoch=on_epoch, say=say)
    made = Fitted(assembled(trained, data, settings), trained.epochs, trained.best_epoch, trained.resumed_after)
    if doubt := doubt_of(made.best, data):
        tell(doubt)
    return made


def doubt_of(best: EpochScore, data: TrainingData) -> str:
    """Return why a model may have learnt nothing; empty where it is better than guessing."""
    rows = [int((data.valid.classes == number).sum()) for number in range(len(data.labels))]
    bar = guessed_at_most(rows)
    if best.val_f1 > bar:
        return ""
    return (
        f"the model is no better than guessing: its macro F1 on the valid split is {best.val_f1:.3f}, guessing's "
        f"{guessed(rows):.3f}, by chance up to {bar:.3f}. Give it more rows or epochs, or another learning rate"
    )
