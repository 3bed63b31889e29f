"""What an evaluation says of each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlpipe.task.classes.scores import ClassEvaluation

if TYPE_CHECKING:
    from dlpipe.task.classes.resampling import Integers

SHOWN = 6
"""So many classes stand in a line; of more, those with the lowest recall."""


def compute_recalls(evaluation: ClassEvaluation) -> dict[str, float]:
    """Return the recall of each class that the rows have: the share of its rows that the model got right."""
    return compute_shares(evaluation.confusion, evaluation.labels, axis=1)


def compute_shares(confusion: Integers, labels: Sequence[str], *, axis: int) -> dict[str, float]:
    """Return the share of the rows of each class that are right; of those that have none, nothing.

    Parameters
    ----------
    confusion : array of shape (n_labels, n_labels)
        Rows are the truth, columns the prediction.
    labels : sequence of n_labels str
    axis : int
        1 for the rows that have the class, which is its recall; 0 for those that are said to, its precision.

    Examples
    --------
    >>> import numpy as np
    >>> confusion = np.array([[3, 1], [0, 0]])
    >>> compute_shares(confusion, ["bad", "good"], axis=1), compute_shares(confusion, ["bad", "good"], axis=0)
    ({'bad': 0.75}, {'bad': 1.0, 'good': 0.0})
    """
    rows, right = confusion.sum(axis=axis), confusion.diagonal()
    return {label: float(right[at] / rows[at]) for at, label in enumerate(labels) if rows[at]}


def find_majority(evaluation: ClassEvaluation) -> tuple[str, float]:
    """Return the most frequent class of the rows, and the macro F1 of always answering it.

    As in scikit-learn, the mean is over the classes that the rows have; the others have an F1 of 0.
    """
    rows = evaluation.confusion.sum(axis=1)
    most = int(rows.argmax())
    f1 = 2 * rows[most] / (rows[most] + rows.sum())
    return evaluation.labels[most], float(f1 / (rows > 0).sum())


def describe_recalls(evaluation: ClassEvaluation) -> str:
    """Return the recall of each class in words, the lowest first where there are many."""
    rows = dict(zip(evaluation.labels, evaluation.confusion.sum(axis=1).tolist(), strict=True))
    recalls = compute_recalls(evaluation)
    shown = sorted(recalls, key=recalls.__getitem__)[:SHOWN] if len(recalls) > SHOWN else list(recalls)
    words = ", ".join(f"{label!r} {recalls[label]:.3f} of {rows[label]}" for label in shown)
    return f"recall {words}" if len(shown) == len(recalls) else f"lowest recall of {len(recalls)} classes {words}"
