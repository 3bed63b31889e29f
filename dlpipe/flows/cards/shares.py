"""How often values occur, in new rows beside earlier ones."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlpipe.flows.cards.parts import make_bars

if TYPE_CHECKING:
    from metaflow.cards import Markdown

    from dlpipe.task import DriftSeries

BINS = 10
USUAL, FAR = 0.99, 1.5
"""Where the largest number is so many times as far from the smallest as this quantile, the rest is one range."""
VALUES = 12
"""So many values are named: those whose share changed most, of those that occur often."""


def make_shares(new: DriftSeries, old: DriftSeries, *, second: str = "before") -> Markdown:
    """Return how often each value occurs, or for numbers how many lie in each range, beside before.

    Parameters
    ----------
    new, old : DriftSeries
        Of the same kind, without missing values; there is a new one at least.
    second : str, optional
        What the old ones are called.
    """
    name = new.words.removeprefix("the ")
    if not isinstance(new.values[0], str):
        numbers = [list(map(float, series.values)) for series in (new, old)]
        return make_histogram(*numbers, name=name, second=second)
    after, before = Counter(map(str, new.values)), Counter(map(str, old.values))
    names = [value for value, _ in (after + before).most_common(VALUES)]
    counts = [(after[value], before[value]) for value in names]
    rest = (after.total() - sum(new for new, _ in counts), before.total() - sum(old for _, old in counts))
    if any(rest):
        names, counts = [*names, "all others"], [*counts, rest]
    return make_bars(name, names, *zip(*counts, strict=True), first="new rows", second=second)


def make_histogram(
    new: Sequence[float],
    old: Sequence[float],
    *,
    name: str,
    within: tuple[float, float] | None = None,
    second: str = "before",
) -> Markdown:
    """Return how many numbers lie in each of ten ranges, beside those of before in the same ranges.

    Parameters
    ----------
    new, old : sequence of float
    name : str
        What they are.
    within : (low, high), optional
        What the ranges divide; by default all there is. Empty ranges at its lower end are left out.
    second : str, optional
        What the old ones are called.
    """
    import numpy as np

    samples = [np.asarray(values, np.float64) for values in (new, old)]
    both = np.concatenate(samples)
    most = float(np.quantile(both, USUAL))
    has_outliers = within is None and both.max() - both.min() > FAR * (most - both.min()) > 0
    is_whole = within is None and bool((both == both.round()).all())
    if has_outliers:  # one long text would leave all others in one range
        samples = [np.minimum(values, math.floor(most) if is_whole else most) for values in samples]
    both = np.concatenate(samples)
    if within is None and both.min() == both.max():
        edges, names = [both.min() - 0.5, both.min() + 0.5], [f"{both.min():g}"]
    elif is_whole:
        edges, names = divide_whole_numbers(int(both.min()), int(both.max()), has_outliers=has_outliers)
    else:
        edges = np.histogram_bin_edges(both, bins=BINS, range=within).tolist()
        digits = max(0, 1 - math.floor(math.log10(edges[1] - edges[0])))
        names = [f"{low:.{digits}f} to {high:.{digits}f}" for low, high in itertools.pairwise(edges)]
        if has_outliers:
            names[-1] = f"{edges[-2]:.{digits}f} or more"
    counts = np.array([np.histogram(values, bins=edges)[0] for values in samples])
    first = int(counts.any(axis=0).argmax())
    after, before = counts[:, first:].tolist()
    return make_bars(name, names[first:], after, before, first="new rows", second=second)


def divide_whole_numbers(low: int, high: int, *, has_outliers: bool) -> tuple[list[float], list[str]]:
    """Return at most ten ranges of whole numbers: their edges, and their names.

    Examples
    --------
    >>> divide_whole_numbers(0, 3, has_outliers=False)
    ([-0.5, 0.5, 1.5, 2.5, 3.5], ['0', '1', '2', '3'])
    >>> divide_whole_numbers(4, 29, has_outliers=True)[1][::4]
    ['4 to 6', '16 to 18', '28 or more']
    """
    step = math.ceil((high - low + 1) / BINS)
    starts = list(range(low, high + 1, step))
    names = [str(start) if step == 1 else f"{start:,} to {start + step - 1:,}" for start in starts]
    if has_outliers:
        names[-1] = f"{starts[-1]:,} or more"
    return [*(start - 0.5 for start in starts), starts[-1] + step - 0.5], names
