"""Texts to token ids, and batches of texts of about the same length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Encoded:
    """Token ids of texts, each an int32 array of its own length; padding happens batch by batch."""

    ids: list[np.ndarray]
    pad_id: int

    @cached_property
    def lengths(self) -> np.ndarray:
        """Token counts, shape (n,)."""
        return np.array([len(row) for row in self.ids], dtype=np.int64)

    def padded(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """Return ``input_ids`` and ``attention_mask`` of these rows, both (len(rows), longest) and int64."""
        import torch

        width = int(self.lengths[rows].max())
        ids = np.full((len(rows), width), self.pad_id, dtype=np.int64)
        mask = np.zeros((len(rows), width), dtype=np.int64)
        for at, row in enumerate(rows):
            ids[at, : self.lengths[row]] = self.ids[row]
            mask[at, : self.lengths[row]] = 1
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}


class TextEncoder:
    """Turns texts into token ids with a tokenizer given as the JSON of the ``tokenizers`` library."""

    def __init__(self, tokenizer_json: str, *, max_length: int, pad_id: int = 0) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_str(tokenizer_json)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length)
        self.max_length, self.pad_id = max_length, pad_id

    def __call__(self, texts: Sequence[str], *, chunk: int = 1024) -> Encoded:
        """Return the token ids of ``texts``; a text of a megabyte costs no more memory than its chunk."""
        ids: list[np.ndarray] = []
        for start in range(0, len(texts), chunk):
            made = self._tokenizer.encode_batch_fast(list(texts[start : start + chunk]))
            ids.extend(np.array(row.ids, dtype=np.int32) for row in made)
        return Encoded(ids, self.pad_id)

    def seen_characters(self, text: str) -> int:
        """Return how many characters of ``text`` its tokens cover before it is cut at ``max_length``."""
        made = self._tokenizer.encode(text)
        return max((end for _, end in made.offsets), default=0) if made.overflowing else len(text)


def bucketed_batches(
    lengths: np.ndarray, batch_size: int, *, seed: int, epoch: int, span: int = 50
) -> list[np.ndarray]:
    """Return shuffled batches of row numbers in which rows have about the same length.

    Rows are shuffled, sorted by length within spans of ``span`` batches, cut into batches, and the batches
    shuffled again: every epoch sees other batches, and little is padding.

    Examples
    --------
    >>> [rows.tolist() for rows in bucketed_batches(np.array([9, 2, 8, 3]), 2, seed=0, epoch=0)]
    [[1, 3], [2, 0]]
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
