"""Every metric of classes in many resamples at once, see ``dlpipe.task.bootstrap``.

For a resample that draws each row once, all functions give scikit-learn's values. They are matrix products over
``counts``, since scikit-learn would have to be called for each of a thousand resamples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 15

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.integer[Any]]


def resample_metrics(counts: Floats, probabilities: Floats, known: Integers) -> dict[str, Floats]:
    """Return metric -> its value in each resample, of shape (n_resamples,).

    Parameters
    ----------
    counts : float array of shape (n_rows, n_resamples)
        How often each row is drawn.
    probabilities : float array of shape (n_rows, n_labels)
        Rows sum to one.
    known : int array of shape (n_rows,)
        The index of each row's true label.
    """
    right = probabilities.argmax(axis=1) == known
    rows = len(known)
    return {
        "accuracy": right @ counts / rows,
        "macro_f1": resample_f1(counts, probabilities, known),
        "auroc": resample_auroc(counts, probabilities, known),
        "log_loss": compute_losses(probabilities, known) @ counts / rows,
        "calibration_error": resample_calibration(counts, probabilities, right) / rows,
    }


def compute_losses(probabilities: Floats, known: Integers) -> Floats:
    """Return minus the logarithm of the probability of each row's true label, clipped as scikit-learn clips."""
    smallest = np.finfo(np.float64).eps
    return -np.log(np.clip(probabilities[np.arange(len(known)), known], smallest, 1 - smallest))


def resample_f1(counts: Floats, probabilities: Floats, known: Integers) -> Floats:
    """Return macro F1 in each resample, over the labels that occur in its truth or its predictions.

    Parameters
    ----------
    counts : float array of shape (n_rows, n_resamples)
        How often each row is drawn.
    probabilities : float array of shape (n_rows, n_labels)
    known : int array of shape (n_rows,)
    """
    classes = np.arange(probabilities.shape[1])[:, None]
    true = (classes == known).astype(np.float64)
    predicted = (classes == probabilities.argmax(axis=1)).astype(np.float64)
    hits, both = (true * predicted) @ counts, (true + predicted) @ counts
    return average_ratio(2 * hits, both)


def average_ratio(above: Floats, below: Floats) -> Floats:
    """Return the mean of ``above / below`` over the first axis where ``below`` is not zero, NaN if it all is."""
    usable = below > 0
    ratio = np.divide(above, below, out=np.zeros_like(above), where=usable)
    number = usable.sum(axis=0)
    return np.divide(ratio.sum(axis=0), number, out=np.full(len(number), np.nan), where=number > 0)


def resample_auroc(counts: Floats, probabilities: Floats, known: Integers) -> Floats:
    """Return AUROC in each resample: of the second of two labels, else the mean one-versus-rest.

    A label that a resample lacks (or a resample of that label alone) is left out of that resample's mean.

    Parameters
    ----------
    counts : float array of shape (n_rows, n_resamples)
        How often each row is drawn.
    probabilities : float array of shape (n_rows, n_labels)
    known : int array of shape (n_rows,)
    """
    asked = [1] if probabilities.shape[1] == 2 else np.unique(known)
    pairs = [count_ordered_pairs(counts, probabilities[:, label], known == label) for label in asked]
    return average_ratio(np.stack([won for won, _ in pairs]), np.stack([number for _, number in pairs]))


def count_ordered_pairs(counts: Floats, score: Floats, positive: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return in each resample the (positive, negative) pairs that ``score`` orders rightly, and all pairs.

    A tie counts half, as in the Mann-Whitney statistic, of which AUROC is the share.

    Parameters
    ----------
    counts : float array of shape (n_rows, n_resamples)
        How often each row is drawn.
    score : float array of shape (n_rows,)
        Higher is more likely positive.
    positive : bool array of shape (n_rows,)

    Returns
    -------
    two float arrays of shape (n_resamples,)
    """
    inside, outside = np.flatnonzero(positive), np.flatnonzero(~positive)
    outside = outside[np.argsort(score[outside])]
    # cumulated, so that two look-ups say how many drawn negative rows score below a positive one, ties by half
    below = np.zeros((len(outside) + 1, counts.shape[1]))
    np.cumsum(counts[outside], axis=0, out=below[1:])
    first = np.searchsorted(score[outside], score[inside], side="left")
    last = np.searchsorted(score[outside], score[inside], side="right")
    won: Floats = ((below[first] + below[last]) * counts[inside]).sum(axis=0) / 2
    return won, counts[inside].sum(axis=0) * below[-1]


def resample_calibration(counts: Floats, probabilities: Floats, right: npt.NDArray[np.bool_]) -> Floats:
    """Return in each resample the sum over bins of |right answers - summed confidence|.

    Divided by the number of rows it is the expected calibration error.

    Parameters
    ----------
    counts : float array of shape (n_rows, n_resamples)
        How often each row is drawn.
    probabilities : float array of shape (n_rows, n_labels)
    right : bool array of shape (n_rows,)
        Whether the most probable label is the true one.
    """
    confidence = probabilities.max(axis=1)
    gap = np.zeros((BINS, len(right)))
    gap[find_bin(confidence), np.arange(len(right))] = right - confidence
    distance: Floats = np.abs(gap @ counts).sum(axis=0)
    return distance


def find_bin(confidence: Floats) -> Integers:
    """Return the index of each confidence's bin: bin i holds (i / BINS, (i + 1) / BINS]."""
    return np.clip(np.ceil(confidence * BINS).astype(np.intp) - 1, 0, BINS - 1)
