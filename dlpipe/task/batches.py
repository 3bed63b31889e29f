"""What a network reads of rows, and batches of rows that cost about the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    import torch

# on two cores, batches of 2,000 to 8,000 padded tokens ran equally fast; smaller ones keep memory low
BATCH_TOKENS = 4096


class EncodedRows(Protocol):
    """What a network reads of some rows."""

    def __len__(self) -> int:
        """Return how many rows there are."""

    @property
    def lengths(self) -> np.ndarray:
        """What each row costs, in tokens or the like, int64 of shape (n,): batches are made of similar ones."""

    def batch(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """Return the network's arguments for these rows, by the names that its ``forward`` gives them."""


def bucketed_batches(
    lengths: np.ndarray, batch_size: int, *, seed: int, epoch: int, span: int = 200
) -> list[np.ndarray]:
    """Return shuffled batches of row numbers in which rows have about the same length.

    Rows are shuffled, sorted by length within spans of ``span`` batches, cut into batches, and the batches
    shuffled again: every epoch sees other batches, and little is padding.

    Examples
    --------
    >>> [rows.tolist() for rows in bucketed_batches(np.array([9, 2, 8, 3]), 2, seed=0, epoch=0)]
    [[2, 0], [1, 3]]
    """
    draw = np.random.default_rng((seed, epoch))
    order = draw.permutation(len(lengths))
    batches: list[np.ndarray] = []
    for start in range(0, len(order), span * batch_size):
        rows = order[start : start + span * batch_size]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        batches.extend(rows[at : at + batch_size] for at in range(0, len(rows), batch_size))
    return [batches[at] for at in draw.permutation(len(batches))]


def sorted_batches(lengths: np.ndarray, *, tokens: int, rows: int = 256) -> Iterator[np.ndarray]:
    """Yield row numbers from the longest texts to the shortest, at most ``tokens`` padded tokens a batch."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, min(rows, tokens // max(1, int(lengths[order[start]]))))
        yield order[start : start + size]
        start += size
