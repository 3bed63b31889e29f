"""Cache of a pipeline's answers, for texts that come again."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlpipe.inference.languages import Language

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Answer:
    """What a pipeline found of a text: the model's outputs, and its language."""

    outputs: np.ndarray
    language: Language


class AnswerCache:
    """The last ``size`` answers that were used, for all threads of a process.

    Texts are known by a digest of 16 bytes, so that a text of a megabyte takes no more room than a short one.
    """

    def __init__(self, size: int) -> None:
        self._size, self._lock = size, threading.Lock()
        self._kept: OrderedDict[bytes, Answer] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, keys: Iterable[bytes]) -> dict[bytes, Answer]:
        """Return what is known under ``keys``, which counts as used now."""
        found = {}
        with self._lock:  # a server's threads share the cache, and a read moves entries too
            for key in keys:
                if (answer := self._kept.get(key)) is not None:
                    self._kept.move_to_end(key)
                    found[key] = answer
        return found

    def keep(self, answers: Mapping[bytes, Answer]) -> None:
        """Keep ``answers``, and drop those that have not been used for longest."""
        with self._lock:
            for key, answer in answers.items():
                self._kept[key] = answer
                self._kept.move_to_end(key)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)


def digest_text(text: str) -> bytes:
    """Return what a text is known by.

    Examples
    --------
    >>> digest_text("good") == digest_text("good"), digest_text("good") == digest_text("good ")
    (True, False)
    """
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
