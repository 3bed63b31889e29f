"""The settings of a training over columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from dlpipe.task.settings import TrainingSettings
from dlpipe.task.texts import DEFAULT_BACKBONE

OF_LAYERS, OF_TEXTS = ("width", "dropout"), ("backbone", "strategy", "max_length", "allow_download")
"""What matters where there are dense layers, and where there is a text."""


@dataclass(frozen=True)
class TabularTraining(TrainingSettings):
    """How to train on columns. Where there is a text among them, a backbone reads it."""

    epochs: Annotated[int, Ge(1), Le(1000)] = 40
    patience: Annotated[int, Ge(1)] = 10
    """Stop after this many epochs without a better score on the valid split."""
    width: Annotated[int, Ge(1), Le(4096)] = 64
    """Units of a dense layer."""
    layers: Annotated[int, Ge(0), Le(16)] = 2
    """Dense layers below the last one; 0 is a linear model."""
    backbone: str = DEFAULT_BACKBONE
    """What reads the text: ``all-MiniLM-L6-v2`` (ships), a local folder or a Hugging Face id."""
    strategy: Literal["freeze", "no_freeze"] = "freeze"
    """Whether the backbone stays as it is, or is trained with the rest."""
    max_length: Annotated[int, Ge(4), Le(8192)] = 256
    """Tokens of a text beyond this are not seen."""
    allow_download: bool = False
    """Fetch a Hugging Face backbone that is not in the local cache."""

    @property
    def usual_rate(self) -> float:
        """The learning rate of new layers; a backbone that is trained with them takes smaller steps."""
        return 3e-3 if self.strategy == "freeze" else 2e-4

    def find_ineffective(self, names: Iterable[str]) -> list[str]:
        """Return those of ``names`` that a linear model has no use for.

        Examples
        --------
        >>> TabularTraining(layers=0).find_ineffective(["epochs", "width"])
        ['width']
        """
        return [] if self.layers else [name for name in names if name in OF_LAYERS]
