"""How far gradients agree with Owen values about the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Agreement:
    """How far the attributions of the gradient method agree with Owen values.

    Attributes
    ----------
    rows : int
        The rows that were compared; those with fewer than two parts, or whose parts all have the same value, say
        nothing and are left out.
    rank : float
        Spearman's rank correlation of the parts' attributions toward the highest output, the mean over rows.
    sign : float
        The share of parts with the same sign, the mean over rows.
    gap : float
        By how much the gradient method's numbers miss the model's output, the mean over rows.
    """

    rows: int
    rank: float
    sign: float
    gap: float

    def line(self) -> str:
        """Return this in one sentence."""
        return (
            f"Gradients agree with Owen values on {self.rows} rows: rank correlation {self.rank:.2f}, "
            f"same sign {self.sign:.0%}."
        )


def correlate_ranks(first: Sequence[float] | Floats, second: Sequence[float] | Floats) -> float:
    """Return Spearman's rank correlation: Pearson's of ranks, equal values sharing the mean of theirs.

    Examples
    --------
    >>> round(correlate_ranks([1, 2, 3, 4], [0.1, 0.3, 0.2, 9.0]), 3)
    0.8
    >>> round(correlate_ranks([1, 1, 2], [3, 2, 5]), 3)
    0.866
    """
    import numpy as np

    return float(np.corrcoef(rank_values(first), rank_values(second))[0, 1])


def rank_values(values: Sequence[float] | Floats) -> Floats:
    """Return ranks from 1; equal values share the mean of theirs."""
    import numpy as np

    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    middle: Floats = (np.cumsum(count) - (count - 1) / 2)[place]
    return middle
