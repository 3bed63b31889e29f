"""Probabilities as a table of predictions keeps them: a list a row, beside the names in another list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dlpipe.task.classes.baseline import order_columns

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    Floats = npt.NDArray[np.floating[Any]]


def read_probabilities(predictions: pa.Table, names: Sequence[str]) -> Floats:
    """Return the probabilities of predictions of one model: (n_rows, n_names), 0 for a name that it lacks.

    Parameters
    ----------
    predictions : pyarrow.Table
        With the columns ``probabilities`` and ``labels``, and at least one row.
    names : sequence of n_names str

    Examples
    --------
    >>> import pyarrow as pa
    >>> kept = pa.table({"probabilities": [[0.25, 0.75]], "labels": [["bad", "good"]]})
    >>> read_probabilities(kept, ["good", "new", "bad"]).tolist()
    [[0.75, 0.0, 0.25]]
    """
    own = predictions["labels"][0].as_py()
    flat = predictions["probabilities"].combine_chunks().flatten().to_numpy()
    return order_columns(flat.reshape(len(predictions), len(own)), own, names)
