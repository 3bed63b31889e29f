"""Attributions of a row as a ``shap.Explanation``, for shap's plots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlpipe.pictures import to_drawable

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.floating[Any]]


def to_shap(
    parts: Sequence[str],
    base: Floats,
    attributions: Floats,
    *,
    titles: Sequence[str],
    labels: Sequence[str],
    label: str | None = None,
) -> Any:
    """Return the attributions of a row as a ``shap.Explanation``.

    Parameters
    ----------
    parts : sequence of str
        At least one.
    base : array of shape (n_outputs,)
    attributions : array of shape (n_parts, n_outputs)
    titles : sequence of str
        What the parts are called: the plots of one label write them beside their bars.
    labels : sequence of str
        The meaning of the columns.
    label : str, optional
        The one to explain; by default all.
    """
    shap = import_shap()
    # as matplotlib draws them: a dollar begins a formula there
    names = [to_drawable(title).replace("$", r"\$") for title in titles]
    if label is not None:
        column = labels.index(label)
        # without data, which the plots would write before each name: the name of a word is the word
        return shap.Explanation(attributions[:, column], float(base[column]), feature_names=names)
    # shap takes the names of as many parts as there are labels for names of the labels
    named = names if len(parts) != len(labels) else None
    return shap.Explanation(attributions, base, np.array(parts), feature_names=named, output_names=list(labels))


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
