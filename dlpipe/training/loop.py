"""One training run on Flash's trainer."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from dlpipe.errors import TrainingFailed
from dlpipe.machine import has_fast_bf16, use_machine
from dlpipe.scratch import open_scratch
from dlpipe.task import Model, Task, TrainingSettings
from dlpipe.task.batches import BATCH_TOKENS, bucket_batches, sort_batches
from dlpipe.training import EpochScore
from dlpipe.training.checkpoints import Checkpoints
from dlpipe.training.data import Examples, TrainingData
from dlpipe.training.domain import Domain, read_domain
from dlpipe.training.frame import TARGET, Callback, Finetuning, Trainer, build_flash_task

STATE, BEST, HISTORY, DOMAINS = "state.ckpt", "best.safetensors", "history.json", "domains.json"
SECONDS_BETWEEN_LINES = 10.0
MOST_LOSSES = 500
"""So many losses at most are reported of a training, at even distances."""


@dataclass(frozen=True)
class TrainedNetwork:
    """A network with the weights of its best epoch, and the history of its training.

    Attributes
    ----------
    domains : tuple of Domain
        In which it was trained, the last one at last: more than one where it was resumed in another.
    """

    network: torch.nn.Module
    epochs: tuple[EpochScore, ...]
    best_epoch: int
    resumed_after: int
    domains: tuple[Domain, ...]


def train(
    data: TrainingData,
    *,
    task: Task,
    settings: TrainingSettings,
    checkpoints: Checkpoints | None = None,
    on_epoch: Callable[[EpochScore], None] | None = None,
    on_loss: Callable[[int, float], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> TrainedNetwork:
    """Train a network on ``data``.

    Parameters
    ----------
    data : TrainingData
        As ``prepare_data`` returns it.
    task, settings, checkpoints, on_epoch, on_loss
        As in ``dlpipe.training.fit``.
    say : callable, optional
        Gets progress as lines of text; by default nothing is printed.

    Raises
    ------
    TrainingFailed
        When the loss stops being a number.
    """
    _silence_libraries()
    # before anything is computed: the number of threads decides how sums are rounded, and so the weights
    use_machine(settings.threads or None)
    torch.manual_seed(settings.seed)  # for the first weights of the head; epochs have seeds of their own
    network = task.inputs.build_network(data.train.inputs, data.coding, settings)
    flash_task = build_flash_task(network, task.target, settings)
    batches = TrainBatches(data.train, draw_rows(data, settings), settings)
    precision = _choose_precision(network, settings)
    domains = [read_domain(precision, task=task.name)]
    progress = EpochCallback(
        network, batches, task, settings, domains, checkpoints, on_epoch, on_loss, say or _ignore_line
    )
    trainer = Trainer(epochs=settings.epochs, precision=precision, callbacks=[progress])
    trainer.finetune_from(
        flash_task,
        _make_loader(batches),
        _make_loader(ValidBatches(data.valid)),
        strategy=Finetuning(settings.strategy_name, settings.schedule),
        checkpoint=progress.restore(),
    )
    network.load_state_dict(progress.best_weights)
    return TrainedNetwork(
        network, tuple(progress.history), progress.best_epoch, progress.resumed_after, tuple(domains)
    )


def predict_valid(trained: TrainedNetwork, data: TrainingData, task: Task) -> np.ndarray:
    """Return the activated outputs of the network for the rows of the valid split, in their order.

    Parameters
    ----------
    trained : TrainedNetwork
        Its network is left in evaluation mode.
    data : TrainingData
    task : Task

    Returns
    -------
    ndarray of shape (n_rows, n_outputs)
    """
    network = trained.network.eval()
    device = next(network.parameters()).device
    outputs = np.empty((len(data.valid.targets), len(data.coding.outputs)), np.float32)
    batches = ValidBatches(data.valid)
    with torch.inference_mode():
        for rows, batch in zip(batches.rows, batches, strict=True):
            inputs = {name: part.to(device) for name, part in batch.items() if name is not TARGET}
            outputs[rows] = network(**inputs).float().cpu().numpy()
    return task.target.activate(outputs, {"decision": dict(data.coding.more)})


def assemble_model(trained: TrainedNetwork, data: TrainingData, task: Task, settings: TrainingSettings) -> Model:
    """Return the files of the model: weights, card, and what its inputs need beside them.

    Parameters
    ----------
    trained : TrainedNetwork
    data : TrainingData
        What it was trained on; some targets choose decisions, such as thresholds, on the valid split.
    task : Task
    settings : TrainingSettings
    """
    decision = dict(data.coding.more)
    if task.target.has_decision:
        decision |= task.target.learn_decision(predict_valid(trained, data, task), data.valid.targets, data.coding)
    card: dict[str, Any] = {"task": task.name, "labels": list(data.coding.outputs)}
    if decision:
        card["decision"] = decision
    return task.inputs.assemble_model(trained.network, data.train.inputs, settings, card)


def draw_rows(data: TrainingData, settings: TrainingSettings) -> np.ndarray:
    """Return the numbers of the train rows to train on: all, or ``max_train_rows`` of them, drawn by the seed."""
    rows = len(data.train.targets)
    if not 0 < settings.max_train_rows < rows:
        return np.arange(rows)
    return np.random.default_rng(settings.seed).permutation(rows)[: settings.max_train_rows]


class TrainBatches(torch.utils.data.IterableDataset[dict[Any, torch.Tensor]]):
    """Length-bucketed batches that depend on the seed and ``epoch`` (counted from 0) alone."""

    def __init__(self, examples: Examples, drawn: np.ndarray, settings: TrainingSettings) -> None:
        self._inputs, self._drawn = examples.inputs, drawn
        self._targets = torch.from_numpy(examples.targets[drawn])
        self._lengths = examples.inputs.lengths[drawn]
        self._batch_size, self._seed = settings.batch_size, settings.seed
        self.epoch = 0

    @property
    def rows(self) -> int:
        """How many rows an epoch has."""
        return len(self._drawn)

    def __len__(self) -> int:
        return math.ceil(self.rows / self._batch_size)

    def __iter__(self) -> Iterator[dict[Any, torch.Tensor]]:
        for rows in bucket_batches(self._lengths, self._batch_size, seed=self._seed, epoch=self.epoch):
            yield {**self._inputs.make_batch(self._drawn[rows]), TARGET: self._targets[rows]}


class ValidBatches(torch.utils.data.IterableDataset[dict[Any, torch.Tensor]]):
    """Batches of all rows from the longest to the shortest, always the same."""

    def __init__(self, examples: Examples) -> None:
        self._inputs, self._targets = examples.inputs, torch.tensor(examples.targets)
        lengths = examples.inputs.lengths
        rows = BATCH_TOKENS if lengths.max() == 1 else 256  # vectors cost next to nothing
        self.rows = list(sort_batches(lengths, tokens=BATCH_TOKENS, rows=rows))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[Any, torch.Tensor]]:
        for rows in self.rows:
            yield {**self._inputs.make_batch(rows), TARGET: self._targets[rows]}


class EpochCallback(Callback):  # type: ignore[misc]
    """Seeds epochs, watches the loss, keeps the best weights, saves checkpoints, stops early, prints progress.

    All that an epoch needs to be repeated exactly (order of rows, dropout) comes from the seed and the number
    of the epoch, so a training that resumes from a checkpoint gives the weights of an undisturbed one, and no
    state of random generators has to be saved.

    Parameters
    ----------
    network : torch.nn.Module
        Whose weights are kept: without what Flash's task adds.
    batches : TrainBatches
        Told the number of each epoch.
    task, settings, checkpoints, on_epoch, on_loss, say
        As in ``train``.
    domains : list of Domain
        That of this process; those that a checkpoint names are put before it.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        batches: TrainBatches,
        task: Task,
        settings: TrainingSettings,
        domains: list[Domain],
        checkpoints: Checkpoints | None,
        on_epoch: Callable[[EpochScore], None] | None,
        on_loss: Callable[[int, float], None] | None,
        say: Callable[[str], None],
    ) -> None:
        self._network, self._batches, self._target, self._settings = network, batches, task.target, settings
        self._domains = domains
        self._checkpoints, self._on_epoch, self._on_loss, self._say = checkpoints, on_epoch, on_loss, say
        self._every = math.ceil(settings.epochs * len(batches) / MOST_LOSSES)
        self.history: list[EpochScore] = []
        self.best_weights: dict[str, torch.Tensor] = {}
        self.resumed_after = 0

    @property
    def best_epoch(self) -> int:
        """The epoch (from 1) with the best score on the valid split; the lower loss breaks ties."""
        return max(self.history, key=lambda score: (score.score, -score.val_loss)).epoch

    def restore(self) -> Path | None:
        """Load our part of the newest checkpoint and return the file with the trainer's; ``None`` without one."""
        folder = self._checkpoints.latest() if self._checkpoints else None
        if folder is None:
            return None
        self.history = [EpochScore.from_record(score) for score in json.loads((folder / HISTORY).read_text())]
        self.best_weights = load_file(folder / BEST)
        earlier = [Domain(**domain) for domain in json.loads((folder / DOMAINS).read_text())]
        self._domains[:0] = [domain for domain in earlier if domain not in self._domains]
        self.resumed_after = len(self.history)
        self._say(f"going on after epoch {self.resumed_after} from its checkpoint")
        return folder / STATE

    def on_train_epoch_start(self, trainer: Any, task: Any) -> None:
        """Seed the epoch by its number."""
        self._batches.epoch = trainer.current_epoch
        torch.manual_seed(self._settings.seed * 1_000_003 + trainer.current_epoch)
        self._losses: list[torch.Tensor] = []
        self._started = self._said = time.monotonic()

    def on_train_batch_end(self, trainer: Any, task: Any, outputs: Any, batch: Any, at: int) -> None:
        """Stop on a loss that is not a number; print progress every few seconds."""
        loss = outputs["loss"].detach()
        self._losses.append(loss)
        if not torch.isfinite(loss):
            raise TrainingFailed(
                f"the loss became {float(loss)} in step {at + 1} of epoch {trainer.current_epoch + 1}; "
                f"lower learning_rate (now {self._settings.rate:g})."
            )
        step = trainer.global_step
        if self._on_loss and step % self._every == 0:
            self._on_loss(step, float(torch.stack(self._losses[-self._every :]).mean()))
        now = time.monotonic()
        if now - self._said >= SECONDS_BETWEEN_LINES:
            self._said = now
            self._say(self._describe_step(trainer.current_epoch, at + 1, now - self._started))

    def on_validation_start(self, trainer: Any, task: Any) -> None:
        """Stop the clock: ``seconds`` of an epoch are those of training."""
        self._seconds = time.monotonic() - self._started

    def on_train_epoch_end(self, trainer: Any, task: Any) -> None:
        """Add the epoch to the history, keep its weights if they are the best, save a checkpoint."""
        score = self._make_score(trainer)
        self.history.append(score)
        best = self.best_epoch == score.epoch
        if best:  # copies: a state_dict is a view of the weights, which the next step changes
            self.best_weights = {name: value.clone() for name, value in self._network.state_dict().items()}
        trainer.should_stop = self._count_epochs_without_gain() >= self._settings.patience
        self._say(self._describe_epoch(score, best, trainer.should_stop))
        # before the checkpoint: killed in between, the epoch is trained again and reported twice, instead of never
        if self._on_epoch:
            self._on_epoch(score)
        if score.epoch < self._settings.epochs and not trainer.should_stop:
            self._save(trainer)

    def _count_epochs_without_gain(self) -> int:
        scores = [score.score for score in self.history]
        return len(scores) - 1 - scores.index(max(scores))

    def _save(self, trainer: Any) -> None:
        if self._checkpoints is None:
            return
        with open_scratch() as folder:
            trainer.save_checkpoint(folder / STATE)
            save_file(self.best_weights, folder / BEST)
            (folder / HISTORY).write_text(json.dumps([score.to_record() for score in self.history]))
            (folder / DOMAINS).write_text(json.dumps([asdict(domain) for domain in self._domains]))
            self._checkpoints.save(folder)

    def _make_score(self, trainer: Any) -> EpochScore:
        scores = {
            name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val_")
        }
        return EpochScore(
            epoch=trainer.current_epoch + 1,
            train_loss=float(torch.stack(self._losses).mean()),
            scores=scores,
            deciding=self._target.deciding_metric,
            seconds=self._seconds,
            rows_per_second=self._batches.rows / self._seconds,
        )

    def _describe_step(self, epoch: int, step: int, seconds: float) -> str:
        recent = float(torch.stack(self._losses[-50:]).mean())
        left = seconds / step * (len(self._batches) - step)
        rate = step * self._settings.batch_size / seconds
        return (
            f"epoch {epoch + 1}/{self._settings.epochs}  step {step}/{len(self._batches)}  loss {recent:.3f}  "
            f"{rate:,.0f} rows/s  {left:.0f} s left in the epoch"
        )

    def _describe_epoch(self, score: EpochScore, best: bool, stop: bool) -> str:
        note = "  best so far" if best else f"  no better than epoch {self.best_epoch}"
        scores = "  ".join(f"{name} {value:.3f}" for name, value in score.scores.items())
        return (
            f"epoch {score.epoch}/{self._settings.epochs}  train_loss {score.train_loss:.3f}  {scores}  "
            f"{score.seconds:.0f} s  {score.rows_per_second:,.0f} rows/s{note}{', stopping' if stop else ''}"
        )


def _choose_precision(network: torch.nn.Module, settings: TrainingSettings) -> str:
    if settings.precision != "auto":
        return settings.precision
    if getattr(network, "encoder", None) is None:  # a head is too small to gain from it
        return "32"
    return "bf16" if has_fast_bf16() else "32"


def _make_loader(batches: Any) -> Any:
    return torch.utils.data.DataLoader(batches, batch_size=None)


def _ignore_line(line: str) -> None:
    pass


def _silence_libraries() -> None:
    """Silence what the libraries print about themselves; ``EpochCallback`` prints what matters."""
    for name in ("pytorch_lightning", "lightning_fabric", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
