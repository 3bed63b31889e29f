"""Folds of rows: what a baseline says of rows that it was not fitted to."""

from __future__ import annotations

from typing import Any

from dlpipe.errors import EvaluationError


def make_folds(rows: int, *, most: int, seed: int) -> Any:
    """Return scikit-learn's folds of so many rows: ``most`` of them, or one a row where there are fewer.

    Parameters
    ----------
    rows : int
    most : int
    seed : int
        Of the order in which rows are taken.

    Raises
    ------
    EvaluationError
        When there are no two rows, of which one could be left out.

    Examples
    --------
    >>> make_folds(3, most=5, seed=0).get_n_splits()
    3
    >>> make_folds(1, most=5, seed=0)
    Traceback (most recent call last):
    ...
    dlpipe.errors.EvaluationError: A baseline is fitted to 2 rows or more; the train split has 1. Add rows to it.
    """
    from sklearn.model_selection import KFold

    if rows < 2:
        raise EvaluationError(
            f"A baseline is fitted to 2 rows or more; the train split has {rows}. Add rows to it."
        )
    return KFold(min(most, rows), shuffle=True, random_state=seed)
