"""A trained model as a handful of files, ready to store, register or load anywhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from dlpipe.errors import ModelNotFound

WEIGHTS, CARD = "model.safetensors", "dlpipe.json"
ENGINE = "engine.chosen"
"""The tag of a version that names the engine that was chosen for it."""
ENGINES = "mlflow.dlpipe.engines"
"""The tag of a version with how each engine did, as JSON; MLflow's pages do not show tags that begin like this."""


class EngineChoice(Protocol):
    """The ways to run a model that were compared, and the one that was chosen; its ``str`` is a line for each."""

    @property
    def chosen(self) -> str:
        """The name of the engine."""

    def tags(self) -> dict[str, str]:
        """Return the choice and how each engine did as tags of a model version."""


@dataclass(frozen=True)
class Model:
    """A trained model: safetensors weights, JSON for the rest, no pickled code.

    Attributes
    ----------
    files : mapping of file name to bytes
        ``model.safetensors``, ``dlpipe.json`` (the card: task, names of the outputs, what is of the inputs, and
        under ``decision`` what turns outputs into decisions), and what the inputs need beside them.
    """

    FILES: ClassVar[tuple[str, ...]] = (WEIGHTS, CARD)
    """What a folder must have to be such a model."""
    engines: ClassVar[EngineChoice | None] = None
    """Other ways to run it than torch, where something exported them: see ``Inputs.export_engines``."""

    files: Mapping[str, bytes]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(digest={self.digest[:12]!r}, labels={list(self.labels)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # what is cached does not count: a step that only reads the model has the same artifact, stored once
        return type(self), (dict(self.files),)

    @cached_property
    def card(self) -> dict[str, Any]:
        """The content of ``dlpipe.json``."""
        return dict(json.loads(self.files[CARD]))

    @property
    def task(self) -> str:
        """The name of the task."""
        return str(self.card["task"])

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the outputs in their order: classes, for one."""
        return tuple(self.card["labels"])

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the weights, and of what turns their outputs into decisions where there is such."""
        digest = hashlib.sha256(self.files[WEIGHTS])
        # two models with the same weights and other thresholds answer otherwise; a model without a decision keeps
        # the digest of its weights file
        if decision := self.card.get("decision"):
            digest.update(json.dumps(decision, sort_keys=True).encode())
        return digest.hexdigest()

    def save(self, folder: Path) -> Path:
        """Write the files into ``folder`` (made if needed) and return it."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        return folder

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the model whose files are in ``folder``.

        Raises
        ------
        ModelNotFound
            When one of the files is missing.
        """
        missing = [name for name in cls.FILES if not (folder / name).is_file()]
        if missing:
            raise ModelNotFound(f"{str(folder)!r} is not a dlpipe model: it lacks {', '.join(missing)}.")
        return cls({name: (folder / name).read_bytes() for name in cls.FILES})


def read_engine_numbers(tags: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return how each engine did beside torch, as the tags of a version keep it; empty where they keep nothing.

    Examples
    --------
    >>> read_engine_numbers({ENGINES: '{"onnx": {"speedup": 2.15}}'}), read_engine_numbers({ENGINES: "?"})
    ({'onnx': {'speedup': 2.15}}, {})
    """
    try:
        return {str(name): dict(numbers) for name, numbers in json.loads(tags.get(ENGINES, "{}")).items()}
    except (ValueError, TypeError, AttributeError):  # somebody has changed the tag
        return {}


def load_card(folder: Path) -> dict[str, Any]:
    """Return the card of the model in ``folder``, or raise ``ModelNotFound``."""
    if not (folder / CARD).is_file():
        raise ModelNotFound(f"{str(folder)!r} is not a dlpipe model: it lacks {CARD}.")
    return dict(json.loads((folder / CARD).read_text(encoding="utf-8")))
