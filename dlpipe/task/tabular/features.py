"""Plain features of columns, for a baseline and for drift. Imports scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline

from dlpipe.task.tabular.scaling import learn_scaling

TEXT_FEATURES = 32
"""Components of TF-IDF at most: gradient boosting takes dense features alone, and few of them fast."""


class ColumnFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Scaled numbers with flags of missing ones, a flag for each category, and the main components of TF-IDF.

    Parameters
    ----------
    kinds : mapping
        Column -> ``number``, ``category`` or ``text``.
    """

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self.kinds = kinds

    def fit(self, rows: Sequence[Mapping[str, Any]], labels: Any = None) -> ColumnFeatures:
        """Learn the columns of the rows."""
        self.scaling_ = learn_scaling(rows, self.kinds)
        self.text_ = None
        if self.scaling_.text:
            words = TfidfVectorizer(sublinear_tf=True)
            found = words.fit_transform(self._texts(rows))
            size = max(1, min(TEXT_FEATURES, min(found.shape) - 1))
            self.text_ = make_pipeline(words, TruncatedSVD(size, random_state=0)).fit(self._texts(rows))
        return self

    def transform(self, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Return the features: float (n_rows, n_features)."""
        categories = self.scaling_.encode_categories(rows)
        flags = [
            categories[:, [at]] == np.arange(len(column.values) + 1)
            for at, column in enumerate(self.scaling_.categories)
        ]
        texts = [] if self.text_ is None else [self.text_.transform(self._texts(rows))]
        return np.hstack([self.scaling_.scale_numbers(rows), *flags, *texts])

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return what each feature is, as people read it."""
        numbers = [column.name for column in self.scaling_.numbers]
        missing = [f"{name} is missing" for name in numbers]
        flags = [
            f"{column.name} = {value}"
            for column in self.scaling_.categories
            for value in ("another", *column.values)
        ]
        width = 0 if self.text_ is None else self.text_[-1].n_components
        return np.array(
            [*numbers, *missing, *flags, *(f"{self.scaling_.text} {at}" for at in range(width))], object
        )

    def _texts(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        return [str(row.get(self.scaling_.text) or "") for row in rows]
