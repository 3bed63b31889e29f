"""Precision, recall and F1 of each label with intervals, from counts alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dlpipe.task.evaluation import ScoreTable, format_interval
from dlpipe.task.quality import compute_wilson_interval

Score = tuple[float, tuple[float, float]]
"""A value with the 95 % interval around it; NaN without rows."""


@dataclass(frozen=True)
class LabelCounts:
    """How often a label is right and wrong.

    Attributes
    ----------
    label : str
    hits, missed, false : int
        The rows that have it and are given it, have it and are not, and are given it and do not have it.
    """

    label: str
    hits: int
    missed: int
    false: int

    @property
    def precision(self) -> Score:
        """The share of the rows that are given it which have it."""
        return measure_share(self.hits, self.hits + self.false)

    @property
    def recall(self) -> Score:
        """The share of the rows that have it which are given it."""
        return measure_share(self.hits, self.hits + self.missed)

    @property
    def f1(self) -> Score:
        """The harmonic mean of both.

        Examples
        --------
        >>> value, (low, high) = LabelCounts("a", 80, 20, 0).f1
        >>> round(value, 3), round(low, 3), round(high, 3)
        (0.889, 0.831, 0.929)
        """
        # a share s of the rows that have it or are given it is right, and F1 is 2 s / (1 + s), which grows with s
        share, (low, high) = measure_share(self.hits, self.hits + self.missed + self.false)
        return 2 * share / (1 + share), (2 * low / (1 + low), 2 * high / (1 + high))


def measure_share(right: int, rows: int) -> Score:
    """Return a share with Wilson's interval, which has a width where all rows are right, too."""
    return (right / rows if rows else math.nan), compute_wilson_interval(right, rows)


def tabulate_labels(
    counts: Sequence[LabelCounts],
    baseline: Sequence[LabelCounts],
    *,
    noun: str,
    notes: Sequence[str],
    notes_title: str,
) -> ScoreTable:
    """Return precision, recall and F1 of each label with intervals, the lowest F1 first, beside the baseline's F1.

    Parameters
    ----------
    counts, baseline : sequence of LabelCounts
        Of the same labels in the same order.
    noun : str
        What a label is called: ``class``.
    notes : sequence of str
        One for each label, shown in the last column.
    notes_title : str
        The name of that column.
    """
    found = sorted(zip(counts, baseline, notes, strict=True), key=lambda each: sort_key(each[0]))
    rows = [
        (
            own.label,
            f"{own.hits + own.missed:,}",
            *(format_interval(*score) for score in (own.precision, own.recall, own.f1)),
            format_interval(plain.f1[0], (math.nan, math.nan)),
            note,
        )
        for own, plain, note in found
    ]
    return ScoreTable(
        f"By {noun}",
        (noun, "rows", "precision", "recall", "F1", "baseline's F1", notes_title),
        tuple(rows),
        note=f"The lowest F1 first, with 95 % intervals. Precision: how many of the rows that are called a {noun} "
        "are one; recall: how many of its rows are found.",
    )


def sort_key(counts: LabelCounts) -> float:
    """Return the F1, and more than any where there is none."""
    return 2.0 if math.isnan(counts.f1[0]) else counts.f1[0]
