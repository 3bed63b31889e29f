"""TextModel: the trained classifier as a handful of files, ready to store, register or load anywhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dlpipe.errors import ModelNotFound

WEIGHTS, CONFIG, TOKENIZER, CARD = "model.safetensors", "config.json", "tokenizer.json", "dlpipe.json"


@dataclass(frozen=True)
class TextModel:
    """A trained text classifier: safetensors weights, JSON for the rest, no pickled code.

    Attributes
    ----------
    files : mapping of file name to bytes
        ``model.safetensors`` (encoder and head), ``config.json`` (the encoder's), ``tokenizer.json`` and
        ``dlpipe.json`` (labels, max_length, where the backbone came from).
    """

    files: Mapping[str, bytes]

    def __repr__(self) -> str:
        return f"TextModel(digest={self.digest[:12]!r}, labels={list(self.labels)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # what is cached does not count: a step that only reads the model has the same artifact, stored once
        return TextModel, (dict(self.files),)

    @cached_property
    def card(self) -> dict[str, Any]:
        """What ``dlpipe.json`` says."""
        return dict(json.loads(self.files[CARD]))

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of the network's outputs."""
        return tuple(self.card["labels"])

    @property
    def max_length(self) -> int:
        """The most tokens of a text that the network sees."""
        return int(self.card["max_length"])

    @property
    def pad_id(self) -> int:
        """The token id that fills short texts up."""
        return int(json.loads(self.files[CONFIG]).get("pad_token_id") or 0)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the weights."""
        return hashlib.sha256(self.files[WEIGHTS]).hexdigest()

    def save(self, folder: Path) -> Path:
        """Write the files into ``folder`` (made if needed) and return it."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        return folder

    @classmethod
    def load(cls, folder: Path) -> TextModel:
        """Return the model whose files are in ``folder``.

        Raises
        ------
        ModelNotFound
            When one of the files is missing.
        """
        missing = [name for name in (WEIGHTS, CONFIG, TOKENIZER, CARD) if not (folder / name).is_file()]
        if missing:
            raise ModelNotFound(f"{str(folder)!r} is not a dlpipe model: it lacks {', '.join(missing)}.")
        return cls({name: (folder / name).read_bytes() for name in (WEIGHTS, CONFIG, TOKENIZER, CARD)})
