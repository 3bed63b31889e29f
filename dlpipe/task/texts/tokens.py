"""Token ids and pooled states of texts, which networks read, and the tokenizer that makes the ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from tokenizers import Encoding


@dataclass(frozen=True)
class TokenIds:
    """Token ids of texts, one after another in one array; padding happens batch by batch.

    One array is memory-mapped, and shared by the processes of a search without a copy.

    Attributes
    ----------
    ids : int32 array of shape (tokens,)
    offsets : int64 array of shape (n + 1,)
        Row ``i`` is ``ids[offsets[i] : offsets[i + 1]]``.
    """

    ids: np.ndarray
    offsets: np.ndarray
    pad_id: int

    @classmethod
    def from_rows(cls, rows: Iterable[Sequence[int] | np.ndarray], pad_id: int) -> TokenIds:
        """Return the token ids of ``rows``, each a sequence of its own length.

        Examples
        --------
        >>> made = TokenIds.from_rows([[5, 6, 7], [8]], pad_id=0)
        >>> made.pad_tensors(np.array([1, 0]))["input_ids"].tolist()
        [[8, 0, 0], [5, 6, 7]]
        """
        parts = [np.asarray(row, dtype=np.int32) for row in rows]
        ids = np.concatenate([np.empty(0, dtype=np.int32), *parts])
        return cls(ids, np.cumsum([0, *map(len, parts)], dtype=np.int64), pad_id)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> np.ndarray:
        """Token counts, shape (n,)."""
        return np.diff(self.offsets)

    def pad_arrays(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return ``input_ids`` and ``attention_mask`` of these rows, both (len(rows), longest) and int64.

        Rows are padded to the longest of them, not to ``max_length``: most of that would be computed for nothing.
        """
        lengths = self.lengths[rows]
        columns = np.arange(int(lengths.max()))
        mask = columns < lengths[:, None]
        ids = np.full(mask.shape, self.pad_id, dtype=np.int64)
        ids[mask] = self.ids[(self.offsets[rows][:, None] + columns)[mask]]
        return {"input_ids": ids, "attention_mask": mask.astype(np.int64)}

    def pad_tensors(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """Return what ``pad_arrays`` does, as tensors of torch."""
        import torch

        return {name: torch.from_numpy(part) for name, part in self.pad_arrays(rows).items()}

    make_batch = pad_tensors


@dataclass(frozen=True)
class TextEmbeddings:
    """Pooled states of texts, float32 of shape (n, hidden): what the head reads of a frozen backbone."""

    vectors: np.ndarray

    def __len__(self) -> int:
        return len(self.vectors)

    @cached_property
    def lengths(self) -> np.ndarray:
        """One for each row: they all cost the same."""
        return np.ones(len(self.vectors), dtype=np.int64)

    def make_batch(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """Return ``pooled`` of these rows, shape (len(rows), hidden)."""
        import torch

        return {"pooled": torch.from_numpy(self.vectors[rows])}


class TextTokenizer:
    """Turns texts into token ids with a tokenizer given as the JSON of the ``tokenizers`` library."""

    def __init__(self, tokenizer_json: str, *, max_length: int, pad_id: int = 0) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_str(tokenizer_json)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length)
        self.max_length, self.pad_id = max_length, pad_id

    def __call__(self, texts: Sequence[Any], *, chunk: int = 1024) -> TokenIds:
        """Return the token ids of ``texts``, or of pairs of texts that are read together.

        Parameters
        ----------
        texts : sequence of str, or of tuples of two str
        chunk : int, optional
            Texts that the tokenizer gets at a time: its encodings, larger than the ids, live as long as a chunk.
        """
        return TokenIds.from_rows(self._rows(texts, chunk), self.pad_id)

    def _rows(self, texts: Sequence[Any], chunk: int) -> Iterator[np.ndarray]:
        for start in range(0, len(texts), chunk):
            # fast: without the offsets, which only explanations need
            made = self._tokenizer.encode_batch_fast(list(texts[start : start + chunk]))
            yield from (np.array(row.ids, dtype=np.int32) for row in made)

    def encode_batch(self, texts: Sequence[Any]) -> list[Encoding]:
        """Return what the tokenizer says of each text: ids, which tokens are its own, where the others stand."""
        made: list[Encoding] = self._tokenizer.encode_batch(list(texts))
        return made

    def count_seen_characters(self, text: str) -> int:
        """Return how many characters of ``text`` its tokens cover before it is cut at ``max_length``."""
        return self.count_seen_of_each((text,))[0]

    def count_seen_of_each(self, texts: Sequence[str]) -> list[int]:
        """Return how many characters of each of one or two texts are covered when they are read together."""
        first, *second = texts
        made = self._tokenizer.encode(first, second[0] if second else None)
        if not made.overflowing:
            return [len(text) for text in texts]
        ends = [0] * len(texts)
        for which, (_, end) in zip(made.sequence_ids, made.offsets, strict=True):
            if which is not None:
                ends[which] = max(ends[which], end)
        return ends
