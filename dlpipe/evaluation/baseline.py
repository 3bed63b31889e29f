"""The baseline that a network has to beat: TF-IDF and logistic regression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlpipe.evaluation.bootstrap import Floats


@dataclass(frozen=True)
class Baseline:
    """A fitted scikit-learn pipeline and the labels it knows, sorted."""

    pipeline: Any
    labels: tuple[str, ...]

    def predict_proba(self, texts: Sequence[str], *, labels: Sequence[str] | None = None) -> Floats:
        """Return probabilities of shape (n_texts, n_labels), columns in the order of ``labels``.

        A label that the training rows lacked has probability zero; ``labels`` defaults to ``self.labels``.
        """
        import numpy as np

        asked = list(self.labels if labels is None else labels)
        known = self.pipeline.predict_proba(list(texts))
        made = np.zeros((len(texts), len(asked)))
        for column, label in enumerate(self.labels):
            if label in asked:
                made[:, asked.index(label)] = known[:, column]
        return made


def fit_baseline(texts: Sequence[str], labels: Sequence[str], *, seed: int) -> Baseline:
    """Return TF-IDF (words and pairs of words) with logistic regression, fitted to ``texts`` and their ``labels``.

    Examples
    --------
    >>> fitted = fit_baseline(["so good", "very good", "so bad", "very bad"], ["+", "+", "-", "-"], seed=0)
    >>> fitted.labels
    ('+', '-')
    >>> fitted.predict_proba(["good"], labels=["-", "+"]).argmax()
    np.int64(1)
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = LogisticRegression(max_iter=1000, random_state=seed)
    pipeline = make_pipeline(vectoriser(texts), model).fit(list(texts), list(labels))
    return Baseline(pipeline, tuple(str(label) for label in pipeline.classes_))


def vectoriser(texts: Sequence[str]) -> Any:
    """Return an unfitted TF-IDF of words, or of characters where no text has a word (emoji only, say)."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    made = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    words = made.build_analyzer()
    if any(words(text) for text in texts):
        return made
    return TfidfVectorizer(analyzer="char", ngram_range=(1, 2), sublinear_tf=True)
