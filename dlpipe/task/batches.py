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

    def make_batch(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """Return the network's arguments for some rows, by the names that its ``forward`` gives them.

        Parameters
        ----------
        rows : int array of shape (n,)
            Numbers of rows, in the order in which the batch has them.

        Returns
        -------
        dict of tensors
            On the CPU: whoever trains or predicts moves them.
        """


def bucket_batches(
    lengths: np.ndarray, batch_size: int, *, seed: int, epoch: int, span: int = 200
) -> list[np.ndarray]:
    """Return shuffled batches of row numbers in which rows have about the same length.

    Rows are shuffled, sorted by length within spans of ``span`` batches, cut into batches, and the batches
    shuffled again: every epoch sees other batches, and little is padding.

    Parameters
    ----------
    lengths : int array of shape (n_rows,)
        What each row costs, see ``EncodedRows.lengths``.
    batch_size : int
        Rows of a batch; the last of a span may have fewer.
    seed, epoch : int
        They alone decide the order: a training that resumes in this epoch sees the same batches.
    span : int
        Batches within which rows are sorted. Measured on short texts, spans of 200 pad less than 0.1 % more than
        sorting all rows, spans of 50 batches 1.8 %.

    Returns
    -------
    list of int array
        Each row number in one of them.

    Examples
    --------
    >>> [rows.tolist() for rows in bucket_batches(np.array([9, 2, 8, 3]), 2, seed=0, epoch=0)]
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


def sort_batches(lengths: np.ndarray, *, tokens: int, rows: int = 256) -> Iterator[np.ndarray]:
    """Yield row numbers from the longest rows to the shortest: little padding, where no order is asked for.

    Parameters
    ----------
    lengths : int array of shape (n_rows,)
        What each row costs, see ``EncodedRows.lengths``.
    tokens : int
        What a padded batch costs at most: rows times the longest of them. A row that costs more is a batch alone.
    rows : int
        Rows of a batch at most.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, min(rows, tokens // max(1, int(lengths[order[start]]))))
        yield order[start : start + size]
        start += size
