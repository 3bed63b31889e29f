"""Each metric over all rows, with the checks that come before."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dlpipe.errors import EvaluationError
from dlpipe.task.classes.resampling import BINS, Floats, Integers, compute_losses, find_bin
from dlpipe.task.classes.scores import Bin, ClassMistake


def check_lengths(
    probabilities: Floats,
    truth: Sequence[str],
    labels: Sequence[str],
    row_ids: Sequence[str],
    shown: Sequence[str],
) -> None:
    """Raise ``EvaluationError`` unless there is a row of probabilities for each row of everything else.

    Parameters
    ----------
    probabilities : array that should have the shape (n_rows, n_labels)
    truth, row_ids, shown : sequences that should have n_rows str
    labels : sequence of n_labels str
    """
    if not len(truth):
        raise EvaluationError("There is no row to evaluate; give the test split at least one.")
    asked = (len(truth), len(labels))
    if probabilities.shape != asked or {len(row_ids), len(shown)} != {len(truth)}:
        raise EvaluationError(
            f"Probabilities of shape {probabilities.shape}, {len(row_ids)} row ids and {len(shown)} shown rows do "
            f"not fit {asked[0]} rows and {asked[1]} labels; pass one of each for every row."
        )


def normalize_probabilities(probabilities: Floats) -> Floats:
    """Return ``probabilities`` as float64 rows that sum to one.

    Raises
    ------
    EvaluationError
        When one is negative or not finite, or a row is all zeros.
    """
    made = np.asarray(probabilities, dtype=np.float64)
    bad = ~(np.isfinite(made).all(axis=1) & (made >= 0).all(axis=1) & (made.sum(axis=1) > 0))
    if bad.any():
        raise EvaluationError(
            f"{bad.sum()} of {len(made)} rows have a probability that is negative or not finite, the first is row "
            f"{int(bad.argmax())}; train again with a lower learning rate."
        )
    return made / made.sum(axis=1, keepdims=True)


def index_labels(truth: Sequence[str], labels: Sequence[str]) -> Integers:
    """Return the position of each true label in ``labels``."""
    position = {label: index for index, label in enumerate(labels)}
    unknown = sorted(set(truth) - set(position))
    if unknown:
        raise EvaluationError(
            f"The model does not know the label {unknown[0]!r} of the rows to evaluate; it knows "
            f"{', '.join(labels)}. Train it with that label, or drop those rows."
        )
    return np.array([position[label] for label in truth])


def compute_metrics(probabilities: Floats, known: Integers) -> dict[str, float]:
    """Return each of ``METRICS`` over all rows."""
    from sklearn.metrics import accuracy_score, f1_score, log_loss

    predicted = probabilities.argmax(axis=1)
    classes = list(range(probabilities.shape[1]))
    return {
        "accuracy": float(accuracy_score(known, predicted)),
        "macro_f1": float(f1_score(known, predicted, average="macro", zero_division=0.0)),
        "auroc": compute_auroc(probabilities, known),
        # scikit-learn has no log loss of a model with one class
        "log_loss": float(log_loss(known, probabilities, labels=classes))
        if len(classes) > 1
        else float(compute_losses(probabilities, known).mean()),
        "calibration_error": compute_calibration_error(compute_reliability(probabilities, known)),
    }


def compute_auroc(probabilities: Floats, known: Integers) -> float:
    """Return the AUROC of the second of two labels, or the mean one-versus-rest; NaN when the truth is one class.

    Labels that do not occur in the truth have no AUROC and are left out of the mean.
    """
    from sklearn.metrics import roc_auc_score

    present = np.unique(known)
    if len(present) < 2:
        return math.nan
    asked = [1] if probabilities.shape[1] == 2 else present
    return float(np.mean([roc_auc_score(known == label, probabilities[:, label]) for label in asked]))


def compute_calibration_error(bins: Sequence[Bin]) -> float:
    """Return the mean distance of confidence and accuracy, weighted by the rows of each bin."""
    rows = sum(part.rows for part in bins)
    return sum(part.rows * abs(part.accuracy - part.confidence) for part in bins if part.rows) / rows


def compute_reliability(probabilities: Floats, known: Integers) -> tuple[Bin, ...]:
    """Return the confidence and the accuracy of each bin of the highest probability."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == known
    place = find_bin(confidence)
    return tuple(make_bin(index, confidence[place == index], right[place == index]) for index in range(BINS))


def make_bin(index: int, confidence: Floats, right: npt.NDArray[np.bool_]) -> Bin:
    """Return the bin at ``index`` with the rows that fell into it.

    Parameters
    ----------
    index : int
        From 0 to ``BINS - 1``.
    confidence : float array of shape (n_rows_of_the_bin,)
    right : bool array of shape (n_rows_of_the_bin,)
        Whether the predicted label is the true one.
    """
    if not len(right):
        return Bin(index / BINS, (index + 1) / BINS, 0, math.nan, math.nan)
    return Bin(index / BINS, (index + 1) / BINS, len(right), float(confidence.mean()), float(right.mean()))


def count_confusion(probabilities: Floats, known: Integers) -> Integers:
    """Return how often each label (row) was predicted as each label (column)."""
    from sklearn.metrics import confusion_matrix

    classes = range(probabilities.shape[1])
    counts: Integers = confusion_matrix(known, probabilities.argmax(axis=1), labels=list(classes))
    return counts


def find_worst_mistakes(
    probabilities: Floats,
    truth: Sequence[str],
    labels: Sequence[str],
    row_ids: Sequence[str],
    shown: Sequence[str],
) -> tuple[ClassMistake, ...]:
    """Return the rows that were predicted wrongly, most confident first, ties in the order of the rows.

    Parameters
    ----------
    probabilities : array of shape (n_rows, n_labels)
    truth, row_ids, shown : sequences of n_rows str
    labels : sequence of n_labels str
    """
    predicted = [labels[index] for index in probabilities.argmax(axis=1)]
    confidence = probabilities.max(axis=1)
    wrong = (row for row in np.argsort(-confidence, kind="stable") if predicted[row] != truth[row])
    return tuple(
        ClassMistake(row_ids[row], shown[row], truth[row], predicted[row], float(confidence[row])) for row in wrong
    )
