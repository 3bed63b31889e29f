"""Plain features of two texts, for a baseline. Imports scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin


class PairVectorizer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """TF-IDF of both texts, of what they share, of what they differ by, and how alike they are."""

    def __init__(self, vectoriser: Any) -> None:
        self.vectoriser = vectoriser

    def fit(self, pairs: Sequence[tuple[str, str]], labels: Any = None) -> PairVectorizer:
        """Learn the words of all texts."""
        self.vectoriser.fit([text for pair in pairs for text in pair])
        return self

    def transform(self, pairs: Sequence[tuple[str, str]]) -> sparse.csr_matrix:
        """Return the features: (n_pairs, 4 * n_words + 1)."""
        first, second = (self.vectoriser.transform([pair[at] for pair in pairs]) for at in (0, 1))
        alike = sparse.csr_matrix(np.asarray(first.multiply(second).sum(axis=1)))
        return sparse.hstack([first, second, first.multiply(second), abs(first - second), alike]).tocsr()

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return each word with where it stands."""
        words = self.vectoriser.get_feature_names_out()
        places = ("in the first text", "in the second text", "in both texts", "in one of the texts")
        return np.array([*(f"{word} {place}" for place in places for word in words), "alike"], object)
