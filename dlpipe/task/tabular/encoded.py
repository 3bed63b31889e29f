"""Arrays of rows with columns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from dlpipe.task.batches import EncodedRows
from dlpipe.task.tabular.scaling import Scaling

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class EncodedColumns:
    """What a network reads of rows with columns.

    Attributes
    ----------
    numbers : float32 array of shape (n_rows, 2 * n_numbers)
    categories : int64 array of shape (n_rows, n_categories)
    texts : EncodedRows or None
        Token ids, or pooled states for a frozen backbone.
    scaling : Scaling
        By which the arrays were made.
    """

    numbers: np.ndarray
    categories: np.ndarray
    texts: EncodedRows | None
    scaling: Scaling

    def __len__(self) -> int:
        return len(self.numbers)

    @cached_property
    def lengths(self) -> np.ndarray:
        """What a row costs: that of its text, or one."""
        return np.ones(len(self), np.int64) if self.texts is None else self.texts.lengths

    def make_batch(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """Return the arrays of these rows, and what is read of their texts."""
        import torch

        made = {
            "numbers": torch.from_numpy(self.numbers[rows]),
            "categories": torch.from_numpy(self.categories[rows]),
        }
        return made if self.texts is None else {**made, **self.texts.make_batch(rows)}
