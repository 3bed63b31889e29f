"""An explanation as an object of shap, for shap's plots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dlpipe.errors import ExplanationError

if TYPE_CHECKING:
    from dlpipe.explain.explanations import Explanation


def as_shap(explanation: Explanation, label: str | None = None) -> Any:
    """Return ``explanation`` as a ``shap.Explanation``; see ``Explanation.to_shap``."""
    words, labels = explanation.words, explanation.labels
    if not words:
        raise ExplanationError(f"Row {explanation.row_id!r} has no words: shap has no plot of it.")
    data, places = np.array(words), [f"word {place}" for place, _ in enumerate(words, start=1)]
    shap = import_shap()
    if label is not None:
        column = labels.index(label)
        values = explanation.attributions[:, column]
        return shap.Explanation(values, float(explanation.base[column]), data, feature_names=places)
    # shap takes the names of as many words as there are labels for names of the labels
    named = places if len(words) != len(labels) else None
    options = {"feature_names": named, "output_names": list(labels)}
    return shap.Explanation(explanation.attributions, explanation.base, data, **options)


def import_shap() -> Any:
    """Return the module shap, with its numba functions left as plain Python.

    To compile them takes seconds, and the plots do not need them.
    """
    import numba

    config: Any = numba.config
    kept, config.DISABLE_JIT = config.DISABLE_JIT, 1
    try:
        import shap
    finally:
        config.DISABLE_JIT = kept
    return shap
