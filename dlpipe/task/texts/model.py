"""TextModel: a network over texts, trained, as a handful of files."""

from __future__ import annotations

import json
from dataclasses import dataclass

from dlpipe.task.model import CARD, WEIGHTS, Model

CONFIG, TOKENIZER = "config.json", "tokenizer.json"


@dataclass(frozen=True, repr=False)
class TextModel(Model):
    """A trained model that reads texts.

    Attributes
    ----------
    files : mapping of file name to bytes
        ``model.safetensors`` (encoder and head), ``config.json`` (the encoder's), ``tokenizer.json`` and
        ``dlpipe.json`` (task, labels, max_length, where the backbone came from).
    """

    FILES = (WEIGHTS, CONFIG, TOKENIZER, CARD)

    @property
    def max_length(self) -> int:
        """The most tokens of a text that the network sees."""
        return int(self.card["max_length"])

    @property
    def pad_id(self) -> int:
        """The token id that fills short texts up."""
        return int(json.loads(self.files[CONFIG]).get("pad_token_id") or 0)
