"""The Flash task and trainer around the network. The only file that names lightning-flash.

Flash 0.8.2 brings the task, the fine-tuning strategies, the schedule and the trainer. Two things of its text
classifier are replaced through its own registry and adapter: the network (mean pooling instead of the untrained
pooler of BERT) and the batches (padded to their longest text instead of to ``max_length``).

Imported as they come, Flash and Lightning 1.9 import all that they could work with: MLflow, datasets,
sentence-transformers, scikit-learn, SciPy, FastAPI and most of transformers, which takes several seconds in each
process. Here Flash is told that its extras are missing, which it is made for, and what Lightning and torchmetrics
pass on from those packages is imported when somebody asks for it. Whoever needs all of Flash imports it first.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import numpy
import torch

from dlpipe.task.backbones import Backbone
from dlpipe.task.later import imported_when_asked_for
from dlpipe.task.network import HeadNetwork, TextNetwork, pretrained_network
from dlpipe.task.optimizer import RowAdamW

LATER = (
    "pytorch_lightning.loggers.mlflow",
    "torchmetrics.functional.text.bert",
    "torchmetrics.functional.text.infolm",
    "torchmetrics.text.bert",
    "torchmetrics.text.infolm",
)
"""Modules that their packages only pass names on from."""
FOUND = {"torch", "pytorch_lightning"}
"""What Flash finds installed."""

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    numpy.Inf = numpy.inf  # type: ignore[attr-defined]  # pytorch_lightning 1.9 asks for the old name
    with imported_when_asked_for(LATER):
        import pytorch_lightning
    # Flash asks this for each of its extras, and it imports them to see
    with mock.patch("lightning_utilities.core.imports.module_available", FOUND.__contains__):
        import flash
        from flash.core.utilities.imports import _EXTRAS_AVAILABLE
    _EXTRAS_AVAILABLE["text"] = True  # without it, Flash refuses to make a text classifier
    from flash.core.data.io.input import DataKeys
    from flash.core.finetuning import FlashBaseFinetuning
    from flash.core.optimizers import _SCHEDULERS_REGISTRY
    from flash.core.utilities.providers import _HUGGINGFACE
    from flash.text import TextClassifier
    from flash.text.classification.adapters import HuggingFaceAdapter
    from flash.text.classification.backbones import TEXT_CLASSIFIER_BACKBONES

TARGET = DataKeys.TARGET
Callback = pytorch_lightning.Callback
BACKBONE_KEY, HEAD_KEY, SCHEDULE = "dlpipe/mean-pooled", "dlpipe/head", "dlpipe/linear"


class MeanPooledAdapter(HuggingFaceAdapter):
    """Flash's adapter for Hugging Face models, around a network of ours and batches that are padded already."""

    def __init__(self, backbone: Any, num_classes: int, max_length: int, **network: Any) -> None:
        super(HuggingFaceAdapter, self).__init__()
        self.model: TextNetwork | HeadNetwork = backbone(num_classes=num_classes, **network)
        self._outputs: list[tuple[torch.Tensor, torch.Tensor]] = []

    @property
    def backbone(self) -> torch.nn.Module:
        """What the strategies freeze."""
        return self.model.encoder  # type: ignore[union-attr, no-any-return]

    def forward(self, batch: dict[Any, torch.Tensor]) -> torch.Tensor:
        """Return logits of shape (n, n_labels)."""
        logits: torch.Tensor = self.model(**{name: part for name, part in batch.items() if name is not TARGET})
        return logits

    def training_step(self, batch: dict[Any, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Return the mean cross-entropy; Flash's own step also keeps metrics of each batch, which nobody reads."""
        return torch.nn.functional.cross_entropy(self(batch), batch[TARGET])

    def validation_step(self, batch: dict[Any, torch.Tensor], batch_idx: int) -> None:
        """Keep logits and targets: metrics of an epoch come from all of its rows at once."""
        self._outputs.append((self(batch).float(), batch[TARGET]))

    def validation_epoch_end(self, outputs: Any) -> None:
        """Log ``val_loss``, ``val_accuracy`` and ``val_f1`` (macro) of the epoch."""
        logits, target = (torch.cat(parts) for parts in zip(*self._outputs, strict=True))
        self._outputs.clear()
        self._task.log_dict(validation_metrics(logits, target))


@TEXT_CLASSIFIER_BACKBONES(name=BACKBONE_KEY, adapter=MeanPooledAdapter)
def _mean_pooled(folder: str, num_classes: int, dropout: float, lora: tuple[int, float] | None) -> TextNetwork:
    return pretrained_network(Backbone(folder, Path(folder)), num_classes, dropout, lora)


@TEXT_CLASSIFIER_BACKBONES(name=HEAD_KEY, adapter=MeanPooledAdapter)
def _head(hidden: int, num_classes: int, dropout: float) -> HeadNetwork:
    return HeadNetwork(hidden, num_classes, dropout)


@_SCHEDULERS_REGISTRY(name=SCHEDULE, providers=_HUGGINGFACE, interval="step")
def _warm_up_and_decay(
    optimizer: torch.optim.Optimizer, num_warmup_steps: int, num_training_steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Return what ``get_linear_schedule_with_warmup`` of transformers does, which Flash has only beside it."""

    def share(step: int) -> float:
        if step < num_warmup_steps:
            return step / num_warmup_steps
        return max(0.0, (num_training_steps - step) / max(1, num_training_steps - num_warmup_steps))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def validation_metrics(logits: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
    """Return ``val_loss``, ``val_accuracy`` and macro ``val_f1`` of logits (n, k) against classes (n,)."""
    guess = logits.argmax(1)
    return {
        "val_loss": float(torch.nn.functional.cross_entropy(logits, target)),
        "val_accuracy": float((guess == target).float().mean()),
        "val_f1": _macro_f1(target, guess),
    }


def _macro_f1(target: torch.Tensor, guess: torch.Tensor) -> float:
    """Return what scikit-learn's ``f1_score`` does; importing that takes longer than many a trial."""
    right, wanted, given = (
        torch.bincount(each, minlength=int(torch.cat([target, guess]).max()) + 1).double()
        for each in (target[target == guess], target, guess)
    )
    seen = wanted + given > 0
    return float((2 * right[seen] / (wanted + given)[seen]).mean())


def text_classifier(
    backbone: Backbone | int,
    n_labels: int,
    *,
    max_length: int,
    dropout: float,
    learning_rate: float,
    weight_decay: float,
    warmup: float,
    lora: tuple[int, float] | None = None,
) -> TextClassifier:
    """Return Flash's ``TextClassifier`` with AdamW, and linear warm-up and decay of the learning rate.

    With a number in place of the backbone, it is the head alone, for pooled states of that width.
    """
    network = {"hidden": backbone} if isinstance(backbone, int) else {"folder": str(backbone.folder), "lora": lora}
    return TextClassifier(
        num_classes=n_labels,
        backbone=HEAD_KEY if isinstance(backbone, int) else BACKBONE_KEY,
        max_length=max_length,
        **network,
        dropout=dropout,
        optimizer=_adamw(weight_decay),
        learning_rate=learning_rate,
        lr_scheduler=(SCHEDULE, {"num_warmup_steps": warmup}, {"interval": "step"}),
        metrics={},
    )


def _adamw(weight_decay: float) -> Any:
    def make(parameters: Any, lr: float) -> torch.optim.Optimizer:
        return RowAdamW(parameters, lr=lr, weight_decay=weight_decay)

    return make


class Finetuning(FlashBaseFinetuning):
    """Flash's strategies, with what it takes to go on from a checkpoint after the backbone was unfrozen.

    Flash unfreezes by extending the optimizer's first group in place, which Lightning does not notice, so its
    checkpoints name the head's parameters alone; and nothing unfreezes the backbone again after a restart.
    """

    def __init__(self, strategy: str, schedule: Any = None) -> None:
        super().__init__(strategy, schedule)

    def _store(self, task: Any, index: int, groups_before: int, groups: list[dict[str, Any]]) -> None:
        names = {parameter: name for name, parameter in task.named_parameters()}
        self._internal_optimizer_metadata[index] = self._by_name(groups, names)

    @staticmethod
    def _by_name(groups: list[dict[str, Any]], names: dict[Any, str]) -> list[dict[str, Any]]:
        return [{**group, "params": [names[parameter] for parameter in group["params"]]} for group in groups]

    def on_fit_start(self, trainer: Any, task: Any) -> None:
        """Restore the optimizer's groups and train all that they hold."""
        super().on_fit_start(trainer, task)
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.requires_grad = True


class Trainer(flash.Trainer):
    """Flash's trainer, without its side effects on the working directory, that can go on from a checkpoint."""

    def __init__(self, *, epochs: int, precision: str, callbacks: list[Any]) -> None:
        super().__init__(
            max_epochs=epochs,
            accelerator="auto",
            devices=1,
            precision=precision,
            callbacks=callbacks,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )

    def finetune_from(
        self, task: TextClassifier, batches: Any, validation: Any, *, strategy: Finetuning, checkpoint: Path | None
    ) -> None:
        """Run Flash's ``finetune`` with a strategy; from ``checkpoint`` where there is one."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._resolve_callbacks(task, strategy)
            pytorch_lightning.Trainer.fit(
                self, task, batches, validation, ckpt_path=checkpoint and str(checkpoint)
            )
        if self.interrupted:  # Lightning swallows Ctrl-C; half a training must not pass for a whole one
            raise KeyboardInterrupt
