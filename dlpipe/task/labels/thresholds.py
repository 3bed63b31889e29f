"""Thresholds: from which probability on a label is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.floating[Any]]


def find_thresholds(outputs: Floats, truth: Floats) -> tuple[Floats, Floats]:
    """Return for each label the threshold with the highest F1, and that F1.

    Labels that no row has, or whose probability is the same 0 on all rows, get a threshold of 0.5 and an F1 of 0:
    there is nothing to choose by. A threshold stands half way between two
    probabilities, so that it does not depend on the last bits of either.

    Parameters
    ----------
    outputs : array of shape (n_rows, n_labels)
        Probabilities.
    truth : array of shape (n_rows, n_labels)
        1 where a row has the label, 0 elsewhere.

    Examples
    --------
    >>> outputs, truth = np.array([[0.9], [0.4], [0.2]]), np.array([[1], [1], [0]])
    >>> [part.round(3).tolist() for part in find_thresholds(outputs, truth)]
    [[0.3], [1.0]]
    """
    order = np.argsort(-outputs, axis=0, kind="stable")
    ranked, hits = (np.take_along_axis(part, order, axis=0) for part in (outputs, truth))
    given = np.arange(1, len(ranked) + 1)[:, None]
    f1 = 2 * np.cumsum(hits, axis=0) / (given + truth.sum(axis=0))
    after = np.vstack([ranked[1:], np.zeros((1, ranked.shape[1]), ranked.dtype)])
    f1[ranked == after] = -1.0  # rows of one probability cannot be told apart
    best, columns = f1.argmax(axis=0), np.arange(ranked.shape[1])
    known = truth.any(axis=0) & (f1.max(axis=0) > 0)
    thresholds = np.where(known, (ranked[best, columns] + after[best, columns]) / 2, 0.5)
    return thresholds.astype(np.float64), np.where(known, f1[best, columns], 0.0)
