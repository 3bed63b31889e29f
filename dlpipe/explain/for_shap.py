"""Attributions of words as an object of shap, for shap's plots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.floating[Any]]


def as_shap(
    words: Sequence[str], base: Floats, attributions: Floats, *, labels: Sequence[str], label: str | None = None
) -> Any:
    """Return the attributions of a text as a ``shap.Explanation``.

    Parameters
    ----------
    words : sequence of str
        At least one.
    base : array of shape (n_labels,)
    attributions : array of shape (n_words, n_labels)
    labels : sequence of str
        The meaning of the columns.
    label : str, optional
        The one to explain; by default all.
    """
    data, places = np.array(words), [f"word {place}" for place, _ in enumerate(words, start=1)]
    shap = import_shap()
    if label is not None:
        column = labels.index(label)
        return shap.Explanation(attributions[:, column], float(base[column]), data, feature_names=places)
    # shap takes the names of as many words as there are labels for names of the labels
    named = places if len(words) != len(labels) else None
    return shap.Explanation(attributions, base, data, feature_names=named, output_names=list(labels))


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
