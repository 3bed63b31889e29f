"""Statistics of two samples: how surprising their difference is (p), and how large (PSI); Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.floating[Any]]

BINS = 10  # the usual deciles of the population stability index


def kolmogorov_smirnov(reference: Sequence[float] | Floats, current: Sequence[float] | Floats) -> float:
    """Return the p-value of the two-sample Kolmogorov-Smirnov test.

    Examples
    --------
    >>> kolmogorov_smirnov(range(100), range(100)), kolmogorov_smirnov(range(100), range(50, 150)) < 1e-6
    (1.0, True)
    """
    from scipy.stats import ks_2samp

    return float(ks_2samp(reference, current).pvalue)


def chi_square(reference: Sequence[int] | Floats, current: Sequence[int] | Floats) -> float:
    """Return the p-value of the chi-square test on how often each category occurs in two samples.

    Categories that occur in neither are left out, rare ones are put together: the test needs about five expected.

    Examples
    --------
    >>> round(chi_square([50, 50], [50, 50]), 3), chi_square([90, 10], [10, 90]) < 1e-6, chi_square([9], [4])
    (1.0, True, 1.0)
    """
    import numpy as np
    from scipy.stats import chi2_contingency

    counts = _merge_rare(np.array([reference, current], dtype=float))
    if counts.shape[1] < 2:
        return 1.0
    return float(chi2_contingency(counts).pvalue)


def _merge_rare(counts: Floats) -> Floats:
    """Return the counts with the categories that are expected less than five times in a sample made one."""
    import numpy as np

    sizes = counts.sum(axis=1, keepdims=True)
    expected = sizes * counts.sum(axis=0, keepdims=True) / counts.sum()
    rare = expected.min(axis=0) < 5
    together = counts[:, rare].sum(axis=1, keepdims=True)
    made = counts[:, ~rare] if not together.any() else np.hstack([counts[:, ~rare], together])
    return made[:, made.sum(axis=0) > 0]


def psi(reference: Sequence[float] | Floats, current: Sequence[float] | Floats) -> float:
    """Return the population stability index of numbers, in bins with about a tenth of the reference each.

    A number that many rows of the reference have, as lengths do, is a bin of its own.
    What chance alone gives, for samples of these sizes from one population, is taken off: (bins - 1)(1/n + 1/m),
    the mean found by Yurdakul, "Statistical Properties of Population Stability Index" (2018). It is 0 at least.

    Examples
    --------
    >>> import numpy as np
    >>> numbers = np.random.default_rng(0).normal(size=4000)
    >>> psi(numbers[:2000], numbers[2000:]) < 0.01, psi(numbers[:2000], numbers[2000:] + 1) > 0.5
    (True, True)
    """
    import numpy as np

    before, after = np.asarray(reference, dtype=float), np.asarray(current, dtype=float)
    cuts = np.unique(np.quantile(before, np.arange(1, BINS) / BINS))
    # a cut at such a number and one just above it make a bin of it alone
    frequent = [cut for cut in cuts if (before == cut).mean() > 0.5 / BINS]
    cuts = np.unique([*cuts, *np.nextafter(frequent, np.inf)])
    bins = [np.searchsorted(cuts, numbers, side="right") for numbers in (before, after)]
    counts = [np.bincount(places, minlength=len(cuts) + 1).astype(float) for places in bins]
    return psi_of_counts(counts[0], counts[1])


def psi_of_counts(reference: Sequence[int] | Floats, current: Sequence[int] | Floats) -> float:
    """Return the population stability index of counts by category, less what chance gives; see ``psi``.

    Examples
    --------
    >>> round(psi_of_counts([5000, 5000], [9000, 1000]), 2), psi_of_counts([50, 50], [50, 50])
    (0.88, 0.0)
    """
    import numpy as np

    counts = np.array([reference, current], dtype=float)
    counts = counts[:, counts.sum(axis=0) > 0]
    sizes = counts.sum(axis=1)
    # half a row more in each bin: an empty one would make the index infinite
    before, after = (counts + 0.5) / (sizes[:, None] + 0.5 * counts.shape[1])
    by_chance = (counts.shape[1] - 1) * (1 / sizes).sum()
    return max(0.0, float(((after - before) * np.log(after / before)).sum() - by_chance))


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values adjusted by Holm's procedure, in their order: below alpha, they are significant together.

    Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979. It holds for tests that depend on each
    other, as those of length and domain of the same rows do, and is never weaker than Bonferroni's.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, highest = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=lambda at: values[at])):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = highest
    return adjusted
