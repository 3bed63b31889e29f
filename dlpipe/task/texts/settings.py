"""The settings of a training over texts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from dlpipe.task.settings import TrainingSettings
from dlpipe.task.texts.backbones import DEFAULT_BACKBONE

RATES = {"no_freeze": 2e-4, "freeze_unfreeze": 2e-4, "unfreeze_milestones": 2e-4, "lora": 1e-3, "freeze": 1e-2}
"""The learning rate of each strategy: few new weights take, and need, larger steps than a trained encoder."""
ONLY_FOR = {
    "lora_rank": ("lora",),
    "lora_alpha": ("lora",),
    "unfreeze_epoch": ("freeze_unfreeze", "unfreeze_milestones"),
    "unfreeze_modules": ("unfreeze_milestones",),
    "allow_download": (),
}
"""The strategies that look at a setting, where not all do; where a backbone came from matters to none."""


@dataclass(frozen=True)
class TextTraining(TrainingSettings):
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
    max_length: Annotated[int, Ge(4), Le(8192)] = 256
    """Tokens of a text beyond this are not seen. Short texts cost nothing more: padding is by batch."""
    allow_download: bool = False
    """Fetch a Hugging Face backbone that is not in the local cache."""

    @property
    def usual_rate(self) -> float:
        """The learning rate of the strategy.

        Examples
        --------
        >>> TextTraining(strategy="freeze").rate, TextTraining(strategy="freeze", learning_rate=0.003).rate
        (0.01, 0.003)
        """
        return RATES[self.strategy]

    @property
    def strategy_name(self) -> str:
        """A head alone has nothing to freeze, and adapters freeze the rest themselves."""
        return "no_freeze" if self.strategy in ("freeze", "lora") else self.strategy

    @property
    def schedule(self) -> object:
        """When the encoder is unfrozen."""
        first = self.unfreeze_epoch
        schedules: dict[str, object] = {
            "freeze_unfreeze": first,
            "unfreeze_milestones": ((first, first + 1), self.unfreeze_modules),
        }
        return schedules.get(self.strategy)

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why these settings may not work as they are meant; empty where nothing speaks against them.

        Examples
        --------
        >>> TextTraining(strategy="freeze", learning_rate=2e-4).doubts
        ('learning_rate 0.0002 is 50 times below the 0.01 of strategy freeze: it may learn little',)
        >>> TextTraining(strategy="freeze_unfreeze", epochs=1).doubts
        ('strategy freeze_unfreeze trains the whole encoder from epoch 2 on, and epochs = 1 ends before',)
        """
        return tuple(filter(None, (self.doubt_rate(f"strategy {self.strategy}"), self._doubt_epochs())))

    def _doubt_epochs(self) -> str:
        opened = {"freeze_unfreeze": self.unfreeze_epoch, "unfreeze_milestones": self.unfreeze_epoch + 1}
        if self.epochs > opened.get(self.strategy, 0):
            return ""
        first = opened[self.strategy] + 1
        return (
            f"strategy {self.strategy} trains the whole encoder from epoch {first} on, and epochs = {self.epochs} "
            "ends before"
        )

    def find_ineffective(self, names: Iterable[str]) -> list[str]:
        """Return those of ``names`` that the strategy does not look at.

        Examples
        --------
        >>> TextTraining().find_ineffective(["dropout", "lora_rank"])
        ['lora_rank']
        """
        return [name for name in names if name in ONLY_FOR and self.strategy not in ONLY_FOR[name]]
