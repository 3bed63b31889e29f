"""Scores of probabilities against the truth, each with a bootstrap interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlpipe.task.classes.per_class import compute_shares
from dlpipe.task.classes.scores import METRICS, ClassEvaluation

if TYPE_CHECKING:
    from dlpipe.task.classes.resampling import Floats


def evaluate_classes(
    probabilities: Floats,
    truth: Sequence[str],
    labels: Sequence[str],
    *,
    row_ids: Sequence[str],
    shown: Sequence[str],
    seed: int = 0,
    resamples: int = 1000,
    worst: int = 20,
) -> ClassEvaluation:
    """Return the scores of ``probabilities`` against ``truth``, with 95 % percentile bootstrap intervals.

    AUROC is that of the second of two labels, and the mean over one-versus-rest for more. The calibration
    error is the expected calibration error over fifteen equal-width bins of the highest probability (Guo,
    Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017).

    Parameters
    ----------
    probabilities : array of shape (n_rows, n_labels)
        Columns in the order of ``labels``; rows are scaled to a sum of one.
    truth, row_ids, shown : sequences of n_rows strings
    seed, resamples : int
        The intervals are the same for the same seed.
    worst : int
        How many mistakes to keep.

    Raises
    ------
    EvaluationError
        When lengths differ, a label is unknown, or a probability is negative or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> sure = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]])
    >>> truth, classes = ["bad", "good", "good", "bad"], ["bad", "good"]
    >>> made = evaluate_classes(sure, truth, classes, row_ids="abcd", shown="wxyz")
    >>> made.line()
    'accuracy 0.750 (0.250 to 1.000)'
    >>> made.mistakes
    (ClassMistake(row_id='d', text='z', label='bad', predicted='good', probability=0.6),)
    """
    from dlpipe.task.bootstrap import bootstrap
    from dlpipe.task.classes import measures
    from dlpipe.task.classes.resampling import resample_metrics

    measures.check_lengths(probabilities, truth, labels, row_ids, shown)
    scaled = measures.normalize_probabilities(probabilities)
    known = measures.index_labels(truth, labels)
    confusion = measures.count_confusion(scaled, known)
    return ClassEvaluation(
        metrics=measures.compute_metrics(scaled, known),
        intervals=bootstrap(
            lambda counts: resample_metrics(counts, scaled, known),
            rows=len(known),
            seed=seed,
            resamples=resamples,
        ),
        labels=tuple(labels),
        confusion=confusion,
        reliability=measures.compute_reliability(scaled, known),
        rows=len(known),
        headline=METRICS[0],
        mistakes=measures.find_worst_mistakes(scaled, truth, labels, row_ids, shown)[:worst],
        precision=compute_shares(confusion, labels, axis=0),
        recall=compute_shares(confusion, labels, axis=1),
    )
