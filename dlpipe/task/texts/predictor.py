"""Outputs for texts from a trained model, as fast as the machine allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from dlpipe.machine import keep_freed_memory
from dlpipe.task.texts.model import TOKENIZER, TextModel

if TYPE_CHECKING:
    import numpy as np

    from dlpipe.task.texts.engines.networks import Network
    from dlpipe.task.texts.tokens import TokenIds


class TextPredictor:
    """A trained model that reads texts, loaded and ready.

    Attributes
    ----------
    card : mapping
        What the model's ``dlpipe.json`` says.
    labels : tuple of str
        The meaning of the columns of ``predict_outputs``.
    max_length : int
        Tokens beyond this are not seen.
    digest : str
        SHA-256 of the weights.
    engine : str
        What computes: ``torch``, ``torch-bf16``, ``onnx`` or ``onnx-int8``.
    workers : int
        How many threads may call ``predict_batch`` at a time.
    """

    def __init__(self, model: TextModel, network: Network, engine: str) -> None:
        from dlpipe.task.texts.engines.networks import make_activation
        from dlpipe.task.texts.tokens import TextTokenizer

        self.card, self.labels, self.max_length = model.card, model.labels, model.max_length
        self.digest, self.engine = model.digest, engine
        self._network, self._activate = network, make_activation(model.card)
        self.workers = network.workers
        self._encode = TextTokenizer(
            model.files[TOKENIZER].decode(), max_length=model.max_length, pad_id=model.pad_id
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arrive in another process, such as one on a cluster, and make that ready.

        glibc's settings are the process's own and are not pickled: without them each batch fetches its pages anew.
        """
        self.__dict__.update(state)
        keep_freed_memory()

    def predict_outputs(self, texts: Sequence[str]) -> np.ndarray:
        """Return the outputs for each text, such as probabilities: float32, shape (len(texts), n_outputs)."""
        return self.predict_encoded(self.encode(texts))

    def predict_batch(self, texts: Sequence[str]) -> np.ndarray:
        """Return what ``predict_outputs`` does, for texts that are one batch and are computed in this thread."""
        import numpy as np

        encoded = self.encode(texts)
        logits = self._network.compute_logits(encoded.pad_arrays(np.arange(len(encoded))))
        return self._activate(logits).astype(np.float32, copy=False)

    def encode(self, texts: Sequence[str]) -> TokenIds:
        """Return the token ids of ``texts``; another thread may do this while ``predict_encoded`` works."""
        return self._encode(texts)

    def predict_encoded(
        self, encoded: TokenIds, *, done: Callable[[np.ndarray], None] | None = None
    ) -> np.ndarray:
        """Return what ``predict_outputs`` does, for texts that are token ids already.

        Tokenizing is apart so that another thread does it meanwhile, for the next part of a table.

        Parameters
        ----------
        done : callable, optional
            Called with the numbers of the texts of each batch when they are predicted.
        """
        from dlpipe.task.texts.engines.networks import compute_outputs

        return compute_outputs(self._network, encoded, len(self.labels), activate=self._activate, done=done)

    def count_seen_characters(self, text: str) -> int:
        """Return how many characters of ``text`` the model reads: all, or those of its first tokens."""
        return self._encode.count_seen_characters(text)

    def count_seen_of_each(self, texts: Sequence[str]) -> list[int]:
        """Return how many characters of each of two texts the model reads, when it reads them together."""
        return self._encode.count_seen_of_each(texts)
