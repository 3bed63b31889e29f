"""The baseline of numbers: ridge regression over plain features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlpipe.task.folds import make_folds
from dlpipe.task.predictor import Row
from dlpipe.task.protocol import Baseline

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.floating[Any]]

FOLDS = 5


@dataclass(frozen=True)
class NumberBaseline(Baseline):
    """A fitted scikit-learn pipeline, and how wide its intervals are."""

    pipeline: Any
    halfwidth: float
    coverage: float

    @property
    def decision(self) -> Mapping[str, Any]:
        """What a model's card has under ``decision``."""
        return {"halfwidth": self.halfwidth, "coverage": self.coverage}

    def predict_outputs(self, rows: Sequence[Row], *, outputs: Sequence[str] | None = None) -> Floats:
        """Return the numbers: (n_rows, 1)."""
        made: Floats = self.pipeline.predict(list(rows)).reshape(-1, 1)
        return made


def fit_number_baseline(
    features: Any,
    rows: Sequence[Row],
    labels: Sequence[float],
    *,
    seed: int,
    coverage: float,
    boosted: bool = False,
) -> NumberBaseline:
    """Return ridge regression over ``features``; its intervals come from rows that it was not fitted to.

    Parameters
    ----------
    features : an unfitted transformer of scikit-learn
    rows : sequence of n_rows rows
    labels : sequence of n_rows float
    seed : int
        Of the folds from which the width of the intervals comes.
    coverage : float
        The share of rows whose number is to lie in its interval.
    boosted : bool
        Whether gradient boosting stands in for ridge regression.
    """
    import numpy as np
    from sklearn.base import clone
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline

    from dlpipe.task.numbers.intervals import bound_coverage, compute_halfwidth

    truth = np.asarray(labels, np.float64)
    model: Any = Ridge(random_state=seed)
    if boosted:
        from sklearn.ensemble import HistGradientBoostingRegressor

        model = HistGradientBoostingRegressor(random_state=seed)
    pipeline = make_pipeline(features, model)
    folds = make_folds(len(rows), most=FOLDS, seed=seed)
    # errors on rows to which the model was fitted are too small, and so would be the intervals
    unseen = cross_val_predict(clone(pipeline), list(rows), truth, cv=folds)
    halfwidth = compute_halfwidth(np.abs(unseen - truth), coverage=coverage)
    promised = bound_coverage(len(rows), coverage=coverage)
    return NumberBaseline(pipeline.fit(list(rows), truth), halfwidth, promised)
