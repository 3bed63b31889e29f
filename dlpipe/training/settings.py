"""The settings of a training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from dlpipe.task.backbones import DEFAULT_BACKBONE

RATES = {"no_freeze": 2e-4, "freeze_unfreeze": 2e-4, "unfreeze_milestones": 2e-4, "lora": 1e-3, "freeze": 1e-2}
"""The learning rate of each strategy: few new weights take, and need, larger steps than a trained encoder."""
ONLY_FOR = {
    "lora_rank": ("lora",),
    "lora_alpha": ("lora",),
    "unfreeze_epoch": ("freeze_unfreeze", "unfreeze_milestones"),
    "unfreeze_modules": ("unfreeze_milestones",),
}
"""The strategies that look at a setting, where not all do."""
FAR_BELOW, FAR_ABOVE = 10.0, 50.0  # a learning rate so many times off is doubted


@dataclass(frozen=True)
class TrainingSettings:
    """How to fine-tune. The defaults were chosen by measurement on real text; see docs/decisions.md."""

    backbone: str = DEFAULT_BACKBONE
    """``all-MiniLM-L6-v2`` (ships), a local folder or a Hugging Face id."""
    strategy: Literal["freeze", "lora", "no_freeze", "freeze_unfreeze", "unfreeze_milestones"] = "no_freeze"
    """Flash's fine-tuning strategies, and adapters (LoRA)."""
    lora_rank: Annotated[int, Ge(1), Le(1024)] = 8
    """``lora``: the rank of the adapters."""
    lora_alpha: Annotated[float, Gt(0), Le(100_000)] = 16.0
    """``lora``: the adapters' product is scaled by ``lora_alpha / lora_rank``."""
    unfreeze_epoch: Annotated[int, Ge(1)] = 1
    """``freeze_unfreeze``: train the head alone for this many epochs, then everything. ``unfreeze_milestones``:
    open the last ``unfreeze_modules`` modules after this many epochs, and all one epoch later."""
    unfreeze_modules: Annotated[int, Ge(1)] = 24
    """``unfreeze_milestones``: how many of the backbone's innermost modules (about a dozen a layer) open first."""
    epochs: Annotated[int, Ge(1), Le(1000)] = 2
    max_train_rows: Annotated[int, Ge(0)] = 0
    """Train on so many rows, drawn by the seed; 0 takes all."""
    batch_size: Annotated[int, Ge(1), Le(4096)] = 32
    learning_rate: Annotated[float, Gt(0), Le(1)] | None = None
    """The highest rate of the linear warm-up and decay; None takes that of the strategy (``RATES``)."""
    warmup: Annotated[float, Ge(0), Lt(1)] = 0.1
    """The share of all steps in which the rate rises."""
    weight_decay: Annotated[float, Ge(0), Le(1)] = 0.01
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.1
    max_length: Annotated[int, Ge(4), Le(8192)] = 256
    """Tokens of a text beyond this are not seen. Short texts cost nothing more: padding is by batch."""
    patience: Annotated[int, Ge(1)] = 2
    """Stop after this many epochs without a better macro F1 on the valid split."""
    seed: Annotated[int, Ge(0), Le(2**31 - 1)] = 0
    precision: Literal["auto", "32", "bf16"] = "auto"
    """``auto`` is bf16 where the GPU or the CPU has instructions for it, otherwise 32."""
    threads: Annotated[int, Ge(0)] = 0
    """Torch threads; 0 takes every core that the process may use."""
    allow_download: bool = False
    """Fetch a Hugging Face backbone that is not in the local cache."""

    @property
    def rate(self) -> float:
        """The learning rate that is meant.

        Examples
        --------
        >>> TrainingSettings(strategy="freeze").rate, TrainingSettings(strategy="freeze", learning_rate=0.003).rate
        (0.01, 0.003)
        """
        return RATES[self.strategy] if self.learning_rate is None else self.learning_rate

    def settled(self) -> TrainingSettings:
        """Return these settings with the learning rate as a number."""
        return replace(self, learning_rate=self.rate)

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why these settings may not work as they are meant; empty where nothing speaks against them.

        Examples
        --------
        >>> TrainingSettings(strategy="freeze", learning_rate=2e-4).doubts
        ('learning_rate 0.0002 is 50 times below the 0.01 of strategy freeze: it may learn little',)
        >>> TrainingSettings(strategy="freeze_unfreeze", epochs=1).doubts
        ('strategy freeze_unfreeze trains the whole encoder from epoch 2 on, and epochs = 1 ends before',)
        """
        return tuple(filter(None, (self._doubt_of_rate(), self._doubt_of_epochs())))

    def _doubt_of_rate(self) -> str:
        usual, rate = RATES[self.strategy], self.rate
        of_strategy = f"the {usual:g} of strategy {self.strategy}"
        if rate * FAR_BELOW < usual:
            return f"learning_rate {rate:g} is {usual / rate:.0f} times below {of_strategy}: it may learn little"
        if rate > usual * FAR_ABOVE:
            return f"learning_rate {rate:g} is {rate / usual:.0f} times above {of_strategy}: it may not settle"
        return ""

    def _doubt_of_epochs(self) -> str:
        opened = {"freeze_unfreeze": self.unfreeze_epoch, "unfreeze_milestones": self.unfreeze_epoch + 1}
        if self.epochs > opened.get(self.strategy, 0):
            return ""
        first = opened[self.strategy] + 1
        return (
            f"strategy {self.strategy} trains the whole encoder from epoch {first} on, and epochs = {self.epochs} "
            "ends before"
        )

    def without_effect(self, names: Iterable[str]) -> list[str]:
        """Return those of ``names`` that the strategy does not look at.

        Examples
        --------
        >>> TrainingSettings().without_effect(["dropout", "lora_rank"])
        ['lora_rank']
        """
        return [name for name in names if name in ONLY_FOR and self.strategy not in ONLY_FOR[name]]
