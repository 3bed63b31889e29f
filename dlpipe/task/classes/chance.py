"""What chance alone gives: the macro F1 of guessing, and how sure a macro F1 is."""

from __future__ import annotations

import math
from collections.abc import Sequence


def estimate_f1_error(score: float, rows: Sequence[int]) -> float:
    """Return about the standard error of a macro F1 on so many rows of each class.

    That of a share for each class, on its own rows: exact for accuracy with classes of one size, and large where a
    class has few rows.

    Examples
    --------
    >>> round(estimate_f1_error(0.5, [150, 150]), 3), round(estimate_f1_error(0.5, [297, 3]), 3)
    (0.029, 0.145)
    >>> estimate_f1_error(1.0, [50, 50]) > 0
    True
    """
    there = [count for count in rows if count]
    total = sum(there)
    share = (score * total + 1) / (total + 2)  # a score of 0 or 1 is not sure either
    return math.sqrt(share * (1 - share) * sum(1 / count for count in there)) / len(there)


def guess_f1(rows: Sequence[int]) -> float:
    """Return the macro F1 of labels that are drawn by their shares: for each class its share, so 1 by classes."""
    return 1 / max(1, sum(count > 0 for count in rows))
