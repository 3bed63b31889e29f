"""TabularModel: a network over columns, trained, as a handful of files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dlpipe.task.model import CARD, WEIGHTS, Model, load_card
from dlpipe.task.tabular.scaling import Scaling
from dlpipe.task.texts.model import CONFIG, TOKENIZER

TEXT_FILES = (CONFIG, TOKENIZER)
"""What a model has that reads a text."""


@dataclass(frozen=True, repr=False)
class TabularModel(Model):
    """A trained model that reads columns."""

    @cached_property
    def scaling(self) -> Scaling:
        """The columns, and how they become arrays."""
        return Scaling.from_json(self.card["decision"]["columns"])

    @classmethod
    def load(cls, folder: Path) -> TabularModel:
        """Return the model whose files are in ``folder``, or raise ``ModelNotFound``."""
        text = load_card(folder)["decision"]["columns"]["text"]
        made = super().load(folder)
        if not text:
            return made
        return cls({**made.files, **{name: (folder / name).read_bytes() for name in TEXT_FILES}})


__all__ = ["CARD", "TEXT_FILES", "WEIGHTS", "TabularModel"]
