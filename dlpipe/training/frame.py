"""Flash's task and trainer around the network of any task. The only module that imports lightning-flash.

Flash 0.8.2 brings the fine-tuning strategies, the schedule and the trainer. Network, batches, loss and scores come
from the two halves of a task of ours.

By themselves, Flash and Lightning 1.9 import all that they could work with: MLflow, datasets,
sentence-transformers, scikit-learn, SciPy, FastAPI and most of transformers. Here Flash is told that its extras
are missing, which it is made for, and what Lightning and torchmetrics pass on from those packages is imported when
somebody uses it. That takes 2.9 s of CPU instead of 7.1, 1.6 of them for torch, in each process that trains.
Whoever needs all of Flash imports it first.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy
import torch

from dlpipe.training.deferred_imports import defer_imports
from dlpipe.training.optimizer import ClippedAdamW

if TYPE_CHECKING:
    from dlpipe.task import Target, TrainingSettings

DEFERRED = (
    "pytorch_lightning.loggers.mlflow",
    "torchmetrics.functional.text.bert",
    "torchmetrics.functional.text.infolm",
    "torchmetrics.text.bert",
    "torchmetrics.text.infolm",
)
"""Modules that their packages import only to pass their names on."""
INSTALLED = {"torch", "pytorch_lightning"}
"""The packages that Flash is told are installed."""

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    numpy.Inf = numpy.inf  # type: ignore[attr-defined]  # pytorch_lightning 1.9 asks for the old name
    with defer_imports(DEFERRED):
        import pytorch_lightning
    # Flash asks this for each of its extras, and it imports them to see
    with mock.patch("lightning_utilities.core.imports.module_available", INSTALLED.__contains__):
        import flash
    from flash.core.data.io.input import DataKeys
    from flash.core.finetuning import FlashBaseFinetuning
    from flash.core.optimizers import _SCHEDULERS_REGISTRY
    from flash.core.utilities.providers import _HUGGINGFACE

TARGET = DataKeys.TARGET
Callback = pytorch_lightning.Callback
SCHEDULE = "dlpipe/linear"


class NetworkTask(flash.Task):
    """Flash's task around a network of ours.

    Parameters
    ----------
    network, target
        As in ``build_flash_task``.
    learning_rate, optimizer, lr_scheduler
        As ``flash.Task`` takes them.
    """

    def __init__(
        self, network: torch.nn.Module, target: Target, learning_rate: float, optimizer: Any, lr_scheduler: Any
    ) -> None:
        super().__init__(learning_rate=learning_rate, optimizer=optimizer, lr_scheduler=lr_scheduler)
        self.network, self._target = network, target
        self._outputs: list[tuple[torch.Tensor, torch.Tensor]] = []

    @property
    def backbone(self) -> torch.nn.Module | None:
        """What the strategies freeze; they look for this name."""
        return getattr(self.network, "encoder", None)

    def forward(self, batch: dict[Any, torch.Tensor]) -> torch.Tensor:
        """Return logits of shape (n, n_outputs)."""
        logits: torch.Tensor = self.network(**{name: part for name, part in batch.items() if name is not TARGET})
        return logits

    def training_step(self, batch: dict[Any, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Return the mean loss; Flash's own step also keeps metrics of each batch, which nobody reads."""
        return self._target.compute_loss(self(batch), batch[TARGET])

    def validation_step(self, batch: dict[Any, torch.Tensor], batch_idx: int) -> None:
        """Keep logits and targets: scores of an epoch come from all of its rows at once."""
        self._outputs.append((self(batch).float(), batch[TARGET]))

    def validation_epoch_end(self, outputs: Any) -> None:
        """Log the scores of the epoch, ``val_loss`` among them."""
        logits, encoded = (torch.cat(parts) for parts in zip(*self._outputs, strict=True))
        self._outputs.clear()
        self.log_dict(self._target.score_epoch(logits, encoded))


def build_flash_task(network: torch.nn.Module, target: Target, settings: TrainingSettings) -> NetworkTask:
    """Return Flash's task for a network, with AdamW and linear warm-up and decay of the learning rate.

    Parameters
    ----------
    network : torch.nn.Module
        As ``Inputs.build_network`` returns it.
    target : Target
        Whose loss and scores these are.
    settings : TrainingSettings
        Of these the learning rate, the weight decay and the warm-up count.
    """
    schedule = (SCHEDULE, {"num_warmup_steps": settings.warmup}, {"interval": "step"})
    return NetworkTask(network, target, settings.rate, _make_optimizer_factory(settings.weight_decay), schedule)


@_SCHEDULERS_REGISTRY(name=SCHEDULE, providers=_HUGGINGFACE, interval="step")
def _warm_up_and_decay(
    optimizer: torch.optim.Optimizer, num_warmup_steps: int, num_training_steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Return the schedule of transformers' ``get_linear_schedule_with_warmup``; Flash has it only through that."""

    def share(step: int) -> float:
        if step < num_warmup_steps:
            return step / num_warmup_steps
        return max(0.0, (num_training_steps - step) / max(1, num_training_steps - num_warmup_steps))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def _make_optimizer_factory(weight_decay: float) -> Any:
    def make(parameters: Any, lr: float) -> torch.optim.Optimizer:
        return ClippedAdamW(parameters, lr=lr, weight_decay=weight_decay)

    return make


class Finetuning(FlashBaseFinetuning):
    """Flash's strategies, with what it takes to resume from a checkpoint after the backbone was unfrozen.

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
    """Flash's trainer without its own logs and checkpoints, which can resume from a checkpoint."""

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
        self, task: NetworkTask, batches: Any, validation: Any, *, strategy: Finetuning, checkpoint: Path | None
    ) -> None:
        """Do what Flash's ``finetune`` does, which takes no checkpoint to resume from.

        Parameters
        ----------
        task : NetworkTask
        batches, validation : torch.utils.data.DataLoader
            Of the train and the valid rows.
        strategy : Finetuning
        checkpoint : Path or None
            A file that ``save_checkpoint`` of this trainer wrote.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._resolve_callbacks(task, strategy)
            pytorch_lightning.Trainer.fit(
                self, task, batches, validation, ckpt_path=checkpoint and str(checkpoint)
            )
        if self.interrupted:  # Lightning swallows Ctrl-C; half a training must not pass for a whole one
            raise KeyboardInterrupt
