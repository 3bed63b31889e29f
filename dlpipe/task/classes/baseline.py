"""The baseline of classes: logistic regression or gradient boosting over plain features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlpipe.task.predictor import Row
from dlpipe.task.protocol import Baseline

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class ClassBaseline(Baseline):
    """A fitted scikit-learn pipeline and the classes it knows, sorted."""

    pipeline: Any
    labels: tuple[str, ...]

    def predict_outputs(self, rows: Sequence[Row], *, outputs: Sequence[str] | None = None) -> Floats:
        """Return probabilities of shape (n_rows, n_labels), columns in the order of ``outputs``.

        A class that the training rows lacked has probability zero; ``outputs`` defaults to ``self.labels``.
        """
        return order_columns(self.pipeline.predict_proba(list(rows)), self.labels, outputs)


def order_columns(probabilities: Floats, labels: Sequence[str], outputs: Sequence[str] | None) -> Floats:
    """Return columns of probabilities in another order, 0 for a label that is new and without those left out.

    Parameters
    ----------
    probabilities : array of shape (n_rows, n_labels)
    labels : sequence of n_labels str
        Of the columns.
    outputs : sequence of n_outputs str, optional
        The labels that are asked for; by default ``labels``.

    Examples
    --------
    >>> import numpy as np
    >>> order_columns(np.array([[0.9, 0.1]]), ["bad", "good"], ["good", "new", "bad"]).tolist()
    [[0.1, 0.0, 0.9]]
    """
    import numpy as np

    asked = list(labels if outputs is None else outputs)
    made = np.zeros((len(probabilities), len(asked)))
    for column, label in enumerate(labels):
        if label in asked:
            made[:, asked.index(label)] = probabilities[:, column]
    return made


def fit_class_baseline(
    features: Any, rows: Sequence[Row], labels: Sequence[str], *, seed: int, boosted: bool = False
) -> ClassBaseline:
    """Return logistic regression, or gradient boosting, over ``features``, fitted to rows and their labels.

    Parameters
    ----------
    features : an unfitted transformer of scikit-learn
    rows : sequence of n_rows rows, as ``features`` takes them
    labels : sequence of n_rows str
    seed : int
    boosted : bool
        Whether it is gradient boosting, which takes dense features.

    Examples
    --------
    >>> from sklearn.feature_extraction.text import TfidfVectorizer
    >>> rows, labels = ["so good", "very good", "so bad", "very bad"], ["+", "+", "-", "-"]
    >>> fitted = fit_class_baseline(TfidfVectorizer(), rows, labels, seed=0)
    >>> fitted.labels
    ('+', '-')
    >>> fitted.predict_outputs(["good"], outputs=["-", "+"]).argmax()
    np.int64(1)
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    # at scikit-learn's own C = 1: it is what people get in ten lines, and no C is best on short and on long texts
    model: Any = LogisticRegression(max_iter=1000, random_state=seed)
    if boosted:
        from sklearn.ensemble import HistGradientBoostingClassifier

        model = HistGradientBoostingClassifier(random_state=seed)
    pipeline = make_pipeline(features, model).fit(list(rows), list(labels))
    return ClassBaseline(pipeline, tuple(str(label) for label in pipeline.classes_))
