"""The scores of a model that predicts numbers, and what it got wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dlpipe.errors import EvaluationError
from dlpipe.task.bootstrap import bootstrap
from dlpipe.task.evaluation import Evaluation, Mistake

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.floating[Any]]

METRICS = ("mae", "rmse", "r2", "spearman", "coverage")


@dataclass(frozen=True)
class NumberEvaluation(Evaluation):
    """How a model did on rows with a number.

    Attributes
    ----------
    metrics : mapping
        mae and rmse (mean absolute and root mean squared error, in the unit of the numbers), r2 (the share of the
        variance that is explained), spearman (rank correlation) and coverage (the share of rows whose number lies
        in its interval; NaN without intervals).
    predicted, true : array of shape (n_rows,)
    halfwidth, promised : float
        How far an interval reaches to either side, and the coverage that it was made for; NaN without intervals.
    """

    predicted: Floats
    true: Floats
    halfwidth: float
    promised: float


def evaluate_numbers(
    outputs: Floats,
    truth: Sequence[float],
    *,
    halfwidth: float,
    promised: float,
    row_ids: Sequence[str],
    shown: Sequence[str],
    seed: int = 0,
    resamples: int = 1000,
    worst: int = 20,
) -> NumberEvaluation:
    """Return the scores of predicted numbers against true ones, with 95 % percentile bootstrap intervals.

    Parameters
    ----------
    outputs : array of shape (n_rows, 1)
    truth : sequence of n_rows float
    halfwidth, promised : float
        Of the prediction intervals, and the coverage that they promise; NaN without.
    row_ids, shown : sequences of n_rows str
    seed, resamples : int
        The intervals are the same for the same seed.
    worst : int
        How many mistakes to keep: the rows with the largest error.

    Raises
    ------
    EvaluationError
        When lengths differ, or a number is not finite.

    Examples
    --------
    >>> outputs, more = np.array([[1.0], [2.0], [4.0]]), {"row_ids": "abc", "shown": "xyz"}
    >>> made = evaluate_numbers(outputs, [1.0, 2.0, 3.0], halfwidth=0.5, promised=0.9, **more)
    >>> round(made.metrics["r2"], 3), round(made.metrics["coverage"], 3), made.mistakes[0].predicted
    (0.5, 0.667, '4')
    """
    predicted, true = check_numbers(outputs, truth, row_ids, shown)

    def measure(counts: Floats) -> dict[str, Floats]:
        return resample_metrics(counts, predicted, true, halfwidth)

    whole = measure(np.ones((len(true), 1)))
    errors = np.abs(predicted - true)
    mistakes = tuple(
        Mistake(row_ids[row], shown[row], f"{true[row]:.4g}", f"{predicted[row]:.4g}")
        for row in np.argsort(-errors, kind="stable")[:worst]
        if errors[row] > 0
    )
    return NumberEvaluation(
        metrics={name: float(whole[name][0]) for name in METRICS},
        intervals=bootstrap(measure, rows=len(true), seed=seed, resamples=resamples),
        labels=("value",),
        rows=len(true),
        mistakes=mistakes,
        headline=METRICS[0],
        predicted=predicted,
        true=true,
        halfwidth=halfwidth,
        promised=promised,
    )


def check_numbers(
    outputs: Floats, truth: Sequence[float], row_ids: Sequence[str], shown: Sequence[str]
) -> tuple[Floats, Floats]:
    """Return predicted and true numbers, both float64 of shape (n_rows,), when everything fits together.

    Parameters
    ----------
    outputs : array of shape (n_rows, 1)
    truth : sequence of n_rows float
    row_ids, shown : sequences of n_rows str

    Raises
    ------
    EvaluationError
        When lengths differ, or a number is not finite.
    """
    if not len(outputs) == len(truth) == len(row_ids) == len(shown) or not len(truth):
        raise EvaluationError(
            f"{len(outputs)} outputs, {len(truth)} numbers and {len(row_ids)} ids do not fit: give as many of "
            "each, and one at least."
        )
    predicted, true = np.asarray(outputs, np.float64)[:, 0], np.asarray(truth, np.float64)
    for what, values, remedy in (
        ("predicted", predicted, "train again with a lower learning rate"),
        ("true", true, "correct the table"),
    ):
        if not np.isfinite(values).all():
            raise EvaluationError(f"A {what} number is not finite; {remedy}.")
    return predicted, true


def resample_metrics(counts: Floats, predicted: Floats, true: Floats, halfwidth: float) -> dict[str, Floats]:
    """Return metric -> its value in each resample.

    Parameters
    ----------
    counts : array of shape (n_rows, n_resamples)
        How often each row is drawn.
    predicted, true : array of shape (n_rows,)
    halfwidth : float
        Of the prediction intervals; NaN without.
    """
    rows = counts.sum(axis=0)
    errors = np.abs(predicted - true)
    squares = errors**2 @ counts / rows
    mean = true @ counts / rows
    variance = np.maximum(true**2 @ counts / rows - mean**2, 0)
    # where all numbers of a resample are the same, there is no variance to explain
    varied = variance > 1e-12 * (1 + mean**2)
    missed = np.divide(squares, variance, out=np.full(len(rows), np.nan), where=varied)
    inside = (errors <= halfwidth).astype(np.float64) if np.isfinite(halfwidth) else np.full(len(true), np.nan)
    return {
        "mae": errors @ counts / rows,
        "rmse": np.sqrt(squares),
        "r2": 1 - missed,
        "spearman": resample_spearman(counts, predicted, true),
        "coverage": inside @ counts / rows,
    }


def resample_spearman(counts: Floats, predicted: Floats, true: Floats) -> Floats:
    """Return Spearman's rank correlation in each resample, ties at their mean rank; NaN where a side is constant.

    Parameters
    ----------
    counts : float array of shape (n_rows, n_resamples)
        How often each row is drawn.
    predicted, true : float arrays of shape (n_rows,)
    """
    ranks = [resample_ranks(counts, values) for values in (predicted, true)]
    rows = counts.sum(axis=0)
    centred = [rank - (rank * counts).sum(axis=0) / rows for rank in ranks]
    cross = (centred[0] * centred[1] * counts).sum(axis=0)
    spread = np.sqrt((centred[0] ** 2 * counts).sum(axis=0) * (centred[1] ** 2 * counts).sum(axis=0))
    return np.divide(cross, spread, out=np.full(len(rows), np.nan), where=spread > 0)


def resample_ranks(counts: Floats, values: Floats) -> Floats:
    """Return the mean rank of each row in each resample, from 1: (n_rows, n_resamples)."""
    levels, place = np.unique(values, return_inverse=True)
    sizes = np.zeros((len(levels), counts.shape[1]))
    np.add.at(sizes, place, counts)
    below = np.cumsum(sizes, axis=0) - sizes
    ranks: Floats = (below + (sizes + 1) / 2)[place]
    return ranks
