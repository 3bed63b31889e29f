"""Training a task on a pinned table version, with checkpoints from which a killed training resumes.

data              what a training reads, prepared once and shared
checkpoints       where checkpoints go; checkpoints in a local folder
loop              one training run (imports torch and Flash)
frame             Flash's task and trainer; the only module that imports lightning-flash
domain            where a training computed, as far as its weights depend on it
optimizer         AdamW with clipping that updates the rows of an embedding that a batch has
deferred_imports  importing a package without some of its modules
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlpipe.task import Chance, Model, Task, TrainingSettings, find_task
from dlpipe.training.checkpoints import Checkpoints, FolderCheckpoints
from dlpipe.training.domain import Domain

if TYPE_CHECKING:
    from dlpipe.tables import TableVersion

__all__ = ["Checkpoints", "Domain", "EpochScore", "Fitted", "FolderCheckpoints", "fit"]


@dataclass(frozen=True)
class EpochScore:
    """The scores of an epoch.

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
        """Return everything in one flat dictionary, as JSON and Ray can hold it; ``from_record`` reads it."""
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
        """Return the scores that ``to_record`` wrote; other entries, such as those of Ray, are ignored.

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
    """A trained model with the history of its training.

    Attributes
    ----------
    resumed_after : int
        The number of epochs that came from a checkpoint; 0 when none did.
    domain : Domain
        In which the training, or the rest of a resumed one, computed.
    earlier_domains : tuple of Domain
        Others, in which epochs before a checkpoint were trained.
    """

    model: Model
    epochs: tuple[EpochScore, ...]
    best_epoch: int
    resumed_after: int
    domain: Domain
    earlier_domains: tuple[Domain, ...] = ()

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
    on_loss: Callable[[int, float], None] | None = None,
    say: Callable[[str], None] | None = print,
) -> Fitted:
    """Return the model trained on the ``train`` split of ``table``; its ``valid`` split chooses the epoch.

    The same table version, settings and number of threads give the same weights on the same machine, whether
    or not the training was interrupted and resumed from ``checkpoints``.

    Parameters
    ----------
    table : TableVersion
        With the columns of the task's inputs, ``label`` and ``split``.
    settings : TrainingSettings
        Those of the task's inputs.
    task : Task, optional
        What is learnt; by default text classification.
    checkpoints : Checkpoints, optional
        Where to resume from, and where to save the state after each epoch but the last.
    on_epoch : callable, optional
        Called after each epoch, for live pictures and for tuning; again for an epoch that is trained again because
        the process was killed before its checkpoint.
    on_loss : callable, optional
        Called with the number of batches so far and the mean loss of the latest ones, at even distances and at
        most 500 times in a training.
    say : callable, optional
        Gets progress as lines of text; ``None`` prints nothing.

    Raises
    ------
    BackboneNotFound
        When the backbone is not available offline.
    TrainingFailed
        When the loss stops being a number.
    """
    from dlpipe.training.data import prepare_data

    tell = say or (lambda line: None)
    for doubt in settings.doubts:
        tell(doubt)
    task = task or find_task()
    data = prepare_data(table, settings, task=task, say=tell)
    # after the rows are read: a table that nothing can be learnt from fails without waiting for torch and Flash
    from dlpipe.training.loop import assemble_model, train

    trained = train(
        data,
        task=task,
        settings=settings,
        checkpoints=checkpoints,
        on_epoch=on_epoch,
        on_loss=on_loss,
        say=say,
    )
    model = assemble_model(trained, data, task, settings)
    fitted = Fitted(
        model, trained.epochs, trained.best_epoch, trained.resumed_after, trained.domains[-1], trained.domains[:-1]
    )
    valid = data.valid.targets
    for doubt in (
        doubt_score(fitted.best.score, task.target.measure_chance(valid)),
        task.target.doubt_decision(valid, data.coding),
    ):
        if doubt:
            tell(doubt)
    return fitted


def doubt_score(score: float, chance: Chance) -> str:
    """Return why a model may have learnt nothing; empty where its score is better than guessing."""
    bar = chance.bound_guess()
    if score > bar:
        return ""
    return (
        f"the model is no better than guessing: its {chance.words} on the valid split is {score:.3f}, guessing's "
        f"{chance.guess:.3f}, by chance up to {bar:.3f}. Give it more rows or epochs, or another learning rate"
    )
