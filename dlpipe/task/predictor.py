"""Predictor: the protocol of a trained model that is loaded and ready, whatever its task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

Row = Any
"""What a model reads of one row: a text, a pair of texts, a mapping of columns to values. ``None`` is missing."""


class Predictor(Protocol):
    """A trained model, loaded and ready.

    Attributes
    ----------
    card : mapping
        Of the model, as its ``dlpipe.json`` has it: the task, and what turns outputs into decisions.
    labels : tuple of str
        The names of the outputs.
    digest : str
        Of the model, see ``Model.digest``.
    engine : str
        What computes, such as ``torch``.
    workers : int
        How many threads may call ``predict_batch`` at a time.
    """

    @property
    def card(self) -> Mapping[str, Any]:
        """The card of the model."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the outputs."""

    @property
    def digest(self) -> str:
        """The digest of the model."""

    @property
    def engine(self) -> str:
        """The name of the engine."""

    @property
    def workers(self) -> int:
        """The number of threads that may predict a batch at a time."""

    def predict_outputs(self, rows: Sequence[Row]) -> np.ndarray:
        """Return outputs for rows: float32, shape (len(rows), n_outputs)."""

    def predict_batch(self, rows: Sequence[Row]) -> np.ndarray:
        """Return what ``predict_outputs`` does, for rows that are one batch and are computed in this thread."""

    def encode(self, rows: Sequence[Row]) -> Any:
        """Return rows as ``EncodedRows``; another thread may do this while ``predict_encoded`` works."""

    def predict_encoded(self, encoded: Any, *, done: Callable[[np.ndarray], None] | None = None) -> np.ndarray:
        """Return what ``predict_outputs`` does, for rows that are encoded already.

        Parameters
        ----------
        done : callable, optional
            Called with the numbers of the rows of each batch when they are predicted.
        """
