"""The baseline of labels: a logistic regression for each over plain features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlpipe.task.classes.baseline import order_columns
from dlpipe.task.folds import make_folds
from dlpipe.task.predictor import Row
from dlpipe.task.protocol import Baseline

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.floating[Any]]

FOLDS = 3


@dataclass(frozen=True)
class LabelBaseline(Baseline):
    """A fitted scikit-learn pipeline, the labels it knows, and from which probability on it gives each."""

    pipeline: Any
    labels: tuple[str, ...]
    thresholds: tuple[float, ...]

    @property
    def decision(self) -> Mapping[str, Any]:
        """What a model's card has under ``decision``."""
        return {"thresholds": dict(zip(self.labels, self.thresholds, strict=True))}

    def predict_outputs(self, rows: Sequence[Row], *, outputs: Sequence[str] | None = None) -> Floats:
        """Return the probability of each label: (n_rows, n_labels), 0 for one that the training rows lacked."""
        return order_columns(self.pipeline.predict_proba(list(rows)), self.labels, outputs)


def fit_label_baseline(
    features: Any, rows: Sequence[Row], truth: Floats, labels: Sequence[str], *, seed: int, boosted: bool = False
) -> LabelBaseline:
    """Return a logistic regression for each label; its thresholds are chosen on rows that it was not fitted to.

    Parameters
    ----------
    features : an unfitted transformer of scikit-learn
    rows : sequence of n_rows rows
    truth : array of shape (n_rows, n_labels)
        1 where a row has the label.
    labels : sequence of n_labels str
    seed : int
        Of the folds on which thresholds are chosen.
    boosted : bool
        Whether gradient boosting stands in for each logistic regression.
    """
    from sklearn.base import clone
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline

    from dlpipe.task.labels.thresholds import find_thresholds

    model: Any = LogisticRegression(max_iter=1000, random_state=seed)
    if boosted:
        from sklearn.ensemble import HistGradientBoostingClassifier

        model = HistGradientBoostingClassifier(random_state=seed)
    pipeline = make_pipeline(features, OneVsRestClassifier(model))
    folds = make_folds(len(rows), most=FOLDS, seed=seed)
    # of rows to which it was fitted, a model's probabilities are more extreme than those of new rows
    unseen = cross_val_predict(clone(pipeline), list(rows), truth, cv=folds, method="predict_proba")
    thresholds, _ = find_thresholds(unseen, truth)
    return LabelBaseline(pipeline.fit(list(rows), truth), tuple(labels), tuple(thresholds.tolist()))
