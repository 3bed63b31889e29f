"""From a pickle to its value, by the builders of every package that is known."""

from __future__ import annotations

import functools
import os
import pickle
from collections.abc import Mapping
from typing import Any

from dlpipe.bridge.opening.build import Build, Builder
from dlpipe.bridge.opening.inert import load_inert

CLASSES = "DLPIPE_BRIDGE_CLASSES"
"""Variable that names the classes whose own code may run, such as ``shop.Order film.*``; ``*`` for all."""


def open_pickle(data: bytes, *, trust: str | None = None) -> Any:
    """Return the value in a pickle, of which no code runs but that of classes that ``trust`` names.

    Plain values, containers, dates, NumPy, pandas and Arrow come as themselves, dlpipe's dataclasses as
    ``Fields``. Whatever else there is comes as ``Unopened``, also inside containers.

    Parameters
    ----------
    trust : str, optional
        Patterns of whole names, with blanks or commas between them; by default those of ``DLPIPE_BRIDGE_CLASSES``.

    Raises
    ------
    Exception
        Of any kind, when the pickle is damaged.

    Examples
    --------
    >>> import datetime
    >>> open_pickle(pickle.dumps([1, datetime.date(2026, 11, 28), print]))
    [1, datetime.date(2026, 11, 28), Unopened(name='builtins.print')]
    """
    patterns = (os.environ.get(CLASSES, "") if trust is None else trust).replace(",", " ").split()
    if "*" in patterns:
        return pickle.loads(data)
    tree, names = load_inert(data)
    return Build(tuple(patterns), load_builders()).value(tree) if names else tree


@functools.cache
def load_builders() -> Mapping[str, Builder]:
    """Return the builders by top-level package and last name; imported only for pickles that name a class."""
    from dlpipe.bridge.opening import arrays, frames, plain, tables

    return {**plain.BUILDERS, **arrays.BUILDERS, **tables.BUILDERS, **frames.BUILDERS}
