"""TrainingSettings: the settings of a training that every task has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

from annotated_types import Ge, Gt, Le, Lt

FAR_BELOW, FAR_ABOVE = 10.0, 50.0
"""A learning rate that is so many times below or above the usual one is warned about."""


@dataclass(frozen=True)
class TrainingSettings:
    """How to train: the section ``[training]``. The inputs of a task add settings of their networks."""

    epochs: Annotated[int, Ge(1), Le(1000)] = 2
    max_train_rows: Annotated[int, Ge(0)] = 0
    """Train on so many rows, drawn by the seed; 0 takes all."""
    batch_size: Annotated[int, Ge(1), Le(4096)] = 32
    learning_rate: Annotated[float, Gt(0), Le(1)] | None = None
    """The highest rate of the linear warm-up and decay; None takes the network's ``usual_rate``."""
    warmup: Annotated[float, Ge(0), Lt(1)] = 0.1
    """The share of all steps in which the rate rises."""
    weight_decay: Annotated[float, Ge(0), Le(1)] = 0.01
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.1
    patience: Annotated[int, Ge(1)] = 2
    """Stop after this many epochs without a better score on the valid split."""
    seed: Annotated[int, Ge(0), Le(2**31 - 1)] = 0
    precision: Literal["auto", "32", "bf16"] = "auto"
    """``auto`` is bf16 where the GPU or the CPU has instructions for it, otherwise 32."""
    threads: Annotated[int, Ge(0)] = 0
    """Torch threads; 0 takes every core that the process may use."""

    @property
    def usual_rate(self) -> float:
        """The learning rate for a network of this kind where ``learning_rate`` is None."""
        return 1e-3

    @property
    def strategy_name(self) -> str:
        """How Flash's trainer fine-tunes: ``no_freeze`` trains everything from the first step."""
        return "no_freeze"

    @property
    def schedule(self) -> object:
        """What Flash's strategy takes beside its name, such as epochs; None for one that takes nothing."""
        return None

    @property
    def rate(self) -> float:
        """The learning rate: ``learning_rate``, or the usual one."""
        return self.usual_rate if self.learning_rate is None else self.learning_rate

    def resolve(self) -> Self:
        """Return these settings with the learning rate as a number."""
        return replace(self, learning_rate=self.rate)

    @property
    def doubts(self) -> tuple[str, ...]:
        """Warnings about these settings, one a line; empty where nothing is odd."""
        return (doubt,) if (doubt := self.doubt_rate("this network")) else ()

    def doubt_rate(self, whose: str) -> str:
        """Return a warning where the learning rate is far from the usual one of ``whose``; empty otherwise."""
        usual, rate = self.usual_rate, self.rate
        of_whom = f"the {usual:g} of {whose}"
        if rate * FAR_BELOW < usual:
            return f"learning_rate {rate:g} is {usual / rate:.0f} times below {of_whom}: it may learn little"
        if rate > usual * FAR_ABOVE:
            return f"learning_rate {rate:g} is {rate / usual:.0f} times above {of_whom}: it may not settle"
        return ""

    def find_ineffective(self, names: Iterable[str]) -> list[str]:
        """Return the names of settings, of those given, that make no difference beside the others.

        A search over one of them would try the same training again and again.
        """
        return []
