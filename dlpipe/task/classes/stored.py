"""Probabilities as a table of predictions keeps them: a list a row, beside the names in another list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dlpipe.task.classes.baseline import order_columns

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    Floats = npt.NDArray[np.floating[Any]]

SHARE = "p_"
"""How the column of the probability of a class or label begins, in frames and answers."""


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


def list_probabilities(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return answers of a server with the lists that a table of predictions keeps, beside what they have.

    Examples
    --------
    >>> (made,) = list_probabilities([{"predicted": "good", "p_bad": 0.25, "p_good": 0.75}])
    >>> made["predicted"], made["probabilities"], made["labels"]
    ('good', [0.25, 0.75], ['bad', 'good'])
    """
    found = []
    for record in records:
        names = [name for name in record if name.startswith(SHARE)]
        lists = {
            "probabilities": [record[name] for name in names],
            "labels": [name.removeprefix(SHARE) for name in names],
        }
        found.append({**record, **lists})
    return found
