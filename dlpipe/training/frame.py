"""Flash's task and trainer around the network of any task. The only file that names lightning-flash.

Flash 0.8.2 brings the fine-tuning strategies, the schedule and the trainer. Network, batches, loss and scores come
from the two halves of a task of ours.

Imported as they come, Flash and Lightning 1.9 import all that they could work with: MLflow, datasets,
sentence-transformers, scikit-learn, SciPy, FastAPI and most of transformers, which takes several seconds in each
process. Here Flash is told that its extras are missing, which it is made for, and what Lightning and torchmetrics
pass on from those packages is imported when somebody asks for it. Whoever needs all of Flash imports it first.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy
import torch

from dlpipe.training.later import imported_when_asked_for
from dlpipe.training.optimizer import RowAdamW

if TYPE_CHECKING:
    from dlpipe.task import Target, TrainingSettings

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
    from flash.core.data.io.input import DataKeys
    from flash.core.finetuning import FlashBaseFinetuning
    from flash.core.optimizers import _SCHEDULERS_REGISTRY
    from flash.core.utilities.providers import _HUGGINGFACE

TARGET = DataKeys.TARGET
Callback = pytorch_lightning.Callback
SCHEDULE = "dlpipe/linear"


class NetworkTask(flash.Task):
    """Flash's task around a network of ours, with AdamW, and linear warm-up and decay of the learning rate.

    Parameters
    ----------
    network : torch.nn.Module
        As ``Inputs.build_network`` returns it.
    target : Target
        Whose loss and scores these are.
    """

    def __init__(
        self, network: torch.nn.Module, target: Target, learning_rate: float, optimizer: Any, lr_scheduler: Any
    ) -> None:
        super().__init__(learning_rate=learning_rate, optimizer=optimizer, lr_scheduler=lr_scheduler)
        self.network, self._target = network, target
        self._outputs: list[tuple[torch.Tensor, torch.Tensor]] = []

    @property
    def backbone(self) -> torch.nn.Module | None:
        """What the strategies freeze."""
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


def network_task(network: torch.nn.Module, target: Target, settings: TrainingSettings) -> NetworkTask:
    """Return Flash's task for a network with the rate, decay and warm-up of ``settings``."""
    schedule = (SCHEDULE, {"num_warmup_steps": settings.warmup}, {"interval": "step"})
    return NetworkTask(network, target, settings.rate, _adamw(settings.weight_decay), schedule)


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
        self, task: NetworkTask, batches: Any, validation: Any, *, strategy: Finetuning, checkpoint: Path | None
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
