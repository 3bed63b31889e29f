"""Probabilities for texts from a trained model, as fast as the machine allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlpipe.machine import keep_freed_memory
from dlpipe.task.model import TOKENIZER, TextModel

if TYPE_CHECKING:
    import numpy as np

    from dlpipe.task.batches import Encoded
    from dlpipe.task.engines.networks import Network


class Predictor:
    """A trained model, loaded and ready.

    Attributes
    ----------
    labels : tuple of str
        The meaning of the columns of ``predict_proba``.
    max_length : int
        Tokens beyond this are not seen.
    digest : str
        SHA-256 of the weights.
    engine : str
        What computes: ``torch``, ``torch-bf16``, ``onnx`` or ``onnx-int8``.
    """

    def __init__(self, model: TextModel, network: Network, engine: str) -> None:
        from dlpipe.task.batches import TextEncoder

        self.labels, self.max_length, self.digest, self.engine = (
            model.labels,
            model.max_length,
            model.digest,
            engine,
        )
        self._network = network
        self._encode = TextEncoder(
            model.files[TOKENIZER].decode(), max_length=model.max_length, pad_id=model.pad_id
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arrive in another process, such as one on a cluster, and make that ready."""
        self.__dict__.update(state)
        keep_freed_memory()

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """Return the probability of each label for each text: float32, shape (len(texts), n_labels)."""
        return self.predict_encoded(self.encode(texts))

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Return the token ids of ``texts``; another thread may do this while ``predict_encoded`` works."""
        return self._encode(texts)

    def predict_encoded(self, encoded: Encoded, *, done: Callable[[np.ndarray], None] | None = None) -> np.ndarray:
        """Return what ``predict_proba`` does, for texts that are token ids already.

        Parameters
        ----------
        done : callable, optional
            Called with the numbers of the texts of each batch when they are predicted.
        """
        from dlpipe.task.engines.networks import probabilities

        return probabilities(self._network, encoded, len(self.labels), done=done)

    def seen_characters(self, text: str) -> int:
        """Return how many characters of ``text`` the model reads: all, or those of its first tokens."""
        return self._encode.seen_characters(text)


def open_predictor(
    model: TextModel | Path | str,
    *,
    threads: int | None = None,
    device: str | None = None,
    engine: str | None = None,
) -> Predictor:
    """Return a ``Predictor`` for a model or the folder of one.

    Parameters
    ----------
    threads : int, optional
        Threads of this process; by default one for each core that this process may use.
    device : str, optional
        For torch, such as ``"cpu"`` or ``"cuda:1"``; by default a GPU where there is one.
    engine : str, optional
        By default the one chosen when the model was registered, or torch: where a model has none, on a GPU, and
        (with a line that says why) where the chosen one cannot be used here. ``"exact"`` asks for the fastest one
        with 32 bits, for work that adds probabilities up.

    Raises
    ------
    EngineUnavailable
        When ``engine`` is given and cannot be used: unknown, not stored with the model, damaged, or this machine
        lacks what it needs.
    """
    from dlpipe.task.engines.opening import open_network

    folder = None if isinstance(model, TextModel) else Path(model)
    if not isinstance(model, TextModel):
        model = TextModel.load(Path(model))
    name, network = open_network(model, folder, threads=threads, device=device, engine=engine)
    return Predictor(model, network, name)
