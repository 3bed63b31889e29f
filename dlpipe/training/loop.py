"""One training run on Flash's trainer."""

from __future__ import annotations

import json
import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from dlpipe.errors import TrainingFailed
from dlpipe.task import Backbone, find_backbone
from dlpipe.task.batches import Encoded, TextEncoder, bucketed_batches, sorted_batches
from dlpipe.task.classifier import TARGET, Callback, Finetuning, Trainer, text_classifier
from dlpipe.task.network import text_model, tokenizer_json
from dlpipe.task.predictor import BATCH_TOKENS, use_machine
from dlpipe.training import EpochScore, Fitted, TrainingSettings
from dlpipe.training.checkpoints import Checkpoints

STATE, BEST, HISTORY = "state.ckpt", "best.safetensors", "history.json"
SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True)
class Examples:
    """Texts with the numbers of their classes."""

    texts: list[str]
    classes: list[int]


def run(
    train: Examples,
    valid: Examples,
    labels: tuple[str, ...],
    *,
    settings: TrainingSettings,
    checkpoints: Checkpoints | None,
    on_epoch: Callable[[EpochScore], None] | None,
    say: Callable[[str], None] | None,
) -> Fitted:
    """Train, keep the best epoch's weights and return them with the history."""
    _quiet()
    use_machine(settings.threads or None)
    torch.manual_seed(settings.seed)
    backbone = find_backbone(settings.backbone, allow_download=settings.allow_download)
    tokenizer = tokenizer_json(backbone.folder)
    task = _task(backbone, len(labels), settings)
    network = task.adapter.model
    pad_id = getattr(network.encoder.config, "pad_token_id", None) or 0
    encode = TextEncoder(tokenizer, max_length=_max_length(settings, network), pad_id=pad_id)
    batches = TrainBatches(encode(train.texts), train.classes, settings.batch_size, settings.seed)
    progress = Progress(network, batches, settings, checkpoints, on_epoch, say or _nothing)
    trainer = Trainer(epochs=settings.epochs, precision=_precision(settings), callbacks=[progress])
    trainer.finetune_from(
        task,
        _loader(batches),
        _loader(ValidBatches(encode(valid.texts), valid.classes)),
        strategy=_strategy(settings),
        checkpoint=progress.restore(),
    )
    network.load_state_dict(progress.best_weights)
    source = {"backbone": settings.backbone, "backbone_digest": backbone.digest}
    model = text_model(
        network, tokenizer_json=tokenizer, labels=labels, max_length=encode.max_length, source=source
    )
    return Fitted(model, tuple(progress.history), progress.best_epoch, progress.resumed_after)


class TrainBatches(torch.utils.data.IterableDataset[dict[Any, torch.Tensor]]):
    """Length-bucketed batches that depend on the seed and ``epoch`` (counted from 0) alone."""

    def __init__(self, encoded: Encoded, classes: list[int], batch_size: int, seed: int) -> None:
        self._encoded, self._classes = encoded, torch.tensor(classes)
        self._batch_size, self._seed = batch_size, seed
        self.epoch = 0

    @property
    def rows(self) -> int:
        """How many rows an epoch has."""
        return len(self._classes)

    def __len__(self) -> int:
        return math.ceil(self.rows / self._batch_size)

    def __iter__(self) -> Iterator[dict[Any, torch.Tensor]]:
        for rows in bucketed_batches(self._encoded.lengths, self._batch_size, seed=self._seed, epoch=self.epoch):
            yield {**self._encoded.padded(rows), TARGET: self._classes[rows]}


class ValidBatches(torch.utils.data.IterableDataset[dict[Any, torch.Tensor]]):
    """Batches of all rows from the longest to the shortest, always the same."""

    def __init__(self, encoded: Encoded, classes: list[int]) -> None:
        self._encoded, self._classes = encoded, torch.tensor(classes)
        self._batches = list(sorted_batches(encoded.lengths, tokens=BATCH_TOKENS))

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[dict[Any, torch.Tensor]]:
        for rows in self._batches:
            yield {**self._encoded.padded(rows), TARGET: self._classes[rows]}


class Progress(Callback):  # type: ignore[misc]
    """Seeds each epoch, watches the loss, keeps the best weights, saves checkpoints, stops early, and says so.

    All that an epoch needs to be repeated exactly (order of rows, dropout) comes from the seed and the number
    of the epoch, so a training that goes on from a checkpoint gives the weights of an undisturbed one.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        batches: TrainBatches,
        settings: TrainingSettings,
        checkpoints: Checkpoints | None,
        on_epoch: Callable[[EpochScore], None] | None,
        say: Callable[[str], None],
    ) -> None:
        self._network, self._batches, self._settings = network, batches, settings
        self._checkpoints, self._on_epoch, self._say = checkpoints, on_epoch, say
        self.history: list[EpochScore] = []
        self.best_weights: dict[str, torch.Tensor] = {}
        self.resumed_after = 0

    @property
    def best_epoch(self) -> int:
        """The epoch (from 1) with the best macro F1 on the valid split; the lower loss breaks ties."""
        return max(self.history, key=lambda score: (score.val_f1, -score.val_loss)).epoch

    def restore(self) -> Path | None:
        """Take up the newest checkpoint and return the trainer's part of it, ``None`` where there is none."""
        folder = self._checkpoints.latest() if self._checkpoints else None
        if folder is None:
            return None
        self.history = [EpochScore(**score) for score in json.loads((folder / HISTORY).read_text())]
        self.best_weights = load_file(folder / BEST)
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
        """Stop on a loss that is not a number; say where we are every few seconds."""
        loss = outputs["loss"].detach()
        self._losses.append(loss)
        if not torch.isfinite(loss):
            raise TrainingFailed(
                f"the loss became {float(loss)} in step {at + 1} of epoch {trainer.current_epoch + 1}; "
                f"lower learning_rate (now {self._settings.learning_rate:g})."
            )
        now = time.monotonic()
        if now - self._said >= SECONDS_BETWEEN_LINES:
            self._said = now
            self._say(self._step_line(trainer.current_epoch, at + 1, now - self._started))

    def on_validation_start(self, trainer: Any, task: Any) -> None:
        """Stop the clock: ``seconds`` of an epoch are those of training."""
        self._seconds = time.monotonic() - self._started

    def on_train_epoch_end(self, trainer: Any, task: Any) -> None:
        """Write the epoch down; keep its weights if they are the best; leave a checkpoint."""
        score = self._score(trainer)
        self.history.append(score)
        best = self.best_epoch == score.epoch
        if best:
            self.best_weights = {name: value.clone() for name, value in self._network.state_dict().items()}
        trainer.should_stop = self._epochs_without_gain() >= self._settings.patience
        self._say(self._epoch_line(score, best, trainer.should_stop))
        if self._on_epoch:
            self._on_epoch(score)
        if score.epoch < self._settings.epochs and not trainer.should_stop:
            self._save(trainer)

    def _epochs_without_gain(self) -> int:
        scores = [score.val_f1 for score in self.history]
        return len(scores) - 1 - scores.index(max(scores))

    def _save(self, trainer: Any) -> None:
        if self._checkpoints is None:
            return
        with tempfile.TemporaryDirectory(prefix="dlpipe-checkpoint-") as name:
            folder = Path(name)
            trainer.save_checkpoint(folder / STATE)
            save_file(self.best_weights, folder / BEST)
            (folder / HISTORY).write_text(json.dumps([asdict(score) for score in self.history]))
            self._checkpoints.save(folder)

    def _score(self, trainer: Any) -> EpochScore:
        val = {name: float(trainer.callback_metrics[name]) for name in ("val_loss", "val_accuracy", "val_f1")}
        return EpochScore(
            epoch=trainer.current_epoch + 1,
            train_loss=float(torch.stack(self._losses).mean()),
            seconds=self._seconds,
            rows_per_second=self._batches.rows / self._seconds,
            **val,
        )

    def _step_line(self, epoch: int, step: int, seconds: float) -> str:
        recent = float(torch.stack(self._losses[-50:]).mean())
        left = seconds / step * (len(self._batches) - step)
        rate = step * self._settings.batch_size / seconds
        return (
            f"epoch {epoch + 1}/{self._settings.epochs}  step {step}/{len(self._batches)}  loss {recent:.3f}  "
            f"{rate:,.0f} rows/s  {left:.0f} s left in the epoch"
        )

    def _epoch_line(self, score: EpochScore, best: bool, stop: bool) -> str:
        note = "  best so far" if best else f"  no better than epoch {self.best_epoch}"
        return (
            f"epoch {score.epoch}/{self._settings.epochs}  train_loss {score.train_loss:.3f}  "
            f"val_loss {score.val_loss:.3f}  val_accuracy {score.val_accuracy:.3f}  val_f1 {score.val_f1:.3f}  "
            f"{score.seconds:.0f} s  {score.rows_per_second:,.0f} rows/s{note}{', stopping' if stop else ''}"
        )


def _task(backbone: Backbone, n_labels: int, settings: TrainingSettings) -> Any:
    return text_classifier(
        backbone,
        n_labels,
        max_length=settings.max_length,
        dropout=settings.dropout,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup=settings.warmup,
        lora=(settings.lora_rank, settings.lora_alpha) if settings.strategy == "lora" else None,
    )


def _strategy(settings: TrainingSettings) -> Finetuning:
    first = settings.unfreeze_epoch
    schedules = {"freeze_unfreeze": first, "unfreeze_milestones": ((first, first + 1), settings.unfreeze_modules)}
    flash_strategy = "no_freeze" if settings.strategy == "lora" else settings.strategy  # adapters freeze the rest
    return Finetuning(flash_strategy, schedules.get(settings.strategy))


def _precision(settings: TrainingSettings) -> str:
    if settings.precision != "auto":
        return settings.precision
    return "bf16" if _has_fast_bf16() else "32"


def _has_fast_bf16() -> bool:
    """Tell whether the device multiplies bf16 faster than fp32: a CPU that lacks the instructions emulates it."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _max_length(settings: TrainingSettings, network: Any) -> int:
    return min(
        settings.max_length, getattr(network.encoder.config, "max_position_embeddings", settings.max_length)
    )


def _loader(batches: Any) -> Any:
    return torch.utils.data.DataLoader(batches, batch_size=None)


def _nothing(line: str) -> None:
    pass


def _quiet() -> None:
    """Silence what the libraries say about themselves; what matters is said by ``Progress``."""
    import transformers

    for name in ("pytorch_lightning", "lightning_fabric", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
