"""TorchPredictor: outputs of a torch network for rows, batch by batch; what small networks need to be used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlpipe.machine import keep_freed_memory
from dlpipe.task.batches import BATCH_TOKENS, EncodedRows, sort_batches
from dlpipe.task.entry_points import find_task
from dlpipe.task.model import Model
from dlpipe.task.predictor import Row

if TYPE_CHECKING:
    import torch

ROWS = 4096
"""Rows of a batch where each costs one: there is nothing to pad, and small batches would only cost calls."""


class TorchPredictor:
    """A trained model on torch, loaded and ready; see ``dlpipe.task.Predictor``.

    Parameters
    ----------
    model : Model
    network : torch.nn.Module
        With the weights of the model; its arguments are what the encoded rows' ``make_batch`` returns.
    encode : callable
        Takes rows and returns ``EncodedRows``.
    """

    engine = "torch"
    workers = 1
    """A batch has all threads of torch."""

    def __init__(
        self, model: Model, network: torch.nn.Module, encode: Callable[[Sequence[Row]], EncodedRows]
    ) -> None:
        import torch

        self.card, self.labels, self.digest = model.card, model.labels, model.digest
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._network, self._encode = network.eval().to(self._device), encode

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arrive in another process, such as one on a cluster, and make that ready."""
        self.__dict__.update(state)
        keep_freed_memory()

    def predict_outputs(self, rows: Sequence[Row]) -> np.ndarray:
        """Return outputs for rows: float32, shape (len(rows), n_outputs)."""
        return self.predict_encoded(self.encode(rows))

    def predict_batch(self, rows: Sequence[Row]) -> np.ndarray:
        """Return what ``predict_outputs`` does, for rows that are one batch."""
        encoded = self.encode(rows)
        return self._compute(encoded, np.arange(len(encoded)))

    def encode(self, rows: Sequence[Row]) -> EncodedRows:
        """Return what the network reads of rows; another thread may do this while ``predict_encoded`` works."""
        return self._encode(rows)

    def predict_encoded(
        self, encoded: EncodedRows, *, done: Callable[[np.ndarray], None] | None = None
    ) -> np.ndarray:
        """Return what ``predict_outputs`` does, for rows that are encoded already.

        Parameters
        ----------
        encoded : EncodedRows
        done : callable, optional
            Called with the numbers of the rows of each batch when they are predicted.
        """
        result = np.empty((len(encoded), len(self.labels)), np.float32)
        most = ROWS if encoded.lengths.max(initial=1) == 1 else 256
        for rows in sort_batches(encoded.lengths, tokens=BATCH_TOKENS, rows=most):
            result[rows] = self._compute(encoded, rows)
            if done is not None:
                done(rows)
        return result

    def _compute(self, encoded: EncodedRows, rows: np.ndarray) -> np.ndarray:
        """Return the outputs of one batch, float32 of shape (len(rows), n_outputs)."""
        import torch

        batch = {name: part.to(self._device) for name, part in encoded.make_batch(rows).items()}
        with torch.inference_mode():
            logits = self._network(**batch).float().cpu().numpy()
        return find_task(self.card["task"]).target.activate(logits, self.card).astype(np.float32, copy=False)
