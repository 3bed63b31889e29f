"""How columns become arrays: learnt of the train split, kept with the model as JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

OTHER = 0
"""The number of a category that the train split lacks."""


@dataclass(frozen=True)
class NumberColumn:
    """A column of numbers.

    Attributes
    ----------
    mean, deviation : float
        Of the train split; numbers are scaled by them.
    median : float
        What stands for a number that is left out.
    """

    name: str
    mean: float
    deviation: float
    median: float


@dataclass(frozen=True)
class CategoryColumn:
    """A column of categories.

    Attributes
    ----------
    values : sequence of str
        Those of the train split, the most frequent first; a missing one is the empty string.
    """

    name: str
    values: Sequence[str]


@dataclass(frozen=True)
class Scaling:
    """All columns that a model reads.

    Attributes
    ----------
    text : str
        The name of the column with a text; empty where there is none.
    """

    numbers: tuple[NumberColumn, ...]
    categories: tuple[CategoryColumn, ...]
    text: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all columns."""
        columns: tuple[NumberColumn | CategoryColumn, ...] = (*self.numbers, *self.categories)
        return (*(column.name for column in columns), *((self.text,) if self.text else ()))

    def make_usual_row(self) -> dict[str, Any]:
        """Return what stands for columns that are left out: medians and the most frequent values; no text."""
        numbers: dict[str, Any] = {column.name: column.median for column in self.numbers}
        return numbers | {column.name: column.values[0] or None for column in self.categories}

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON can hold it; ``from_json`` reads it."""
        return asdict(self)

    @classmethod
    def from_json(cls, made: Mapping[str, Any]) -> Scaling:
        """Return what ``to_json`` wrote."""
        numbers = tuple(NumberColumn(**column) for column in made["numbers"])
        categories = tuple(CategoryColumn(**column) for column in made["categories"])
        return cls(numbers, categories, made["text"])

    def scale_numbers(self, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Return scaled numbers, 0 where one is missing, and after them 1 where it is: float32 (n_rows, 2 * n)."""
        raw = np.array(
            [[to_number(row.get(column.name)) for column in self.numbers] for row in rows], np.float64
        ).reshape(len(rows), len(self.numbers))
        # a missing number stands at the mean, which is 0, and its flag lets the network learn what missing means
        missing = np.isnan(raw)
        means, deviations = ([getattr(column, name) for column in self.numbers] for name in ("mean", "deviation"))
        scaled = (raw - np.array(means, np.float64)) / np.array(deviations, np.float64)
        return np.hstack([np.where(missing, 0.0, scaled), missing]).astype(np.float32)

    def encode_categories(self, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Return the numbers of categories: int64 (n_rows, n_categories)."""
        columns = []
        for column in self.categories:
            place = {value: number for number, value in enumerate(column.values, start=OTHER + 1)}
            columns.append([place.get(to_category(row.get(column.name)), OTHER) for row in rows])
        return np.array(columns, np.int64).reshape(len(self.categories), len(rows)).T


def learn_scaling(rows: Sequence[Mapping[str, Any]], kinds: Mapping[str, str]) -> Scaling:
    """Return what the rows of the train split say of their columns.

    Parameters
    ----------
    rows : sequence of mappings
        Column to value; None is missing.
    kinds : mapping
        Column -> ``number``, ``category`` or ``text``, of which there may be one.

    Examples
    --------
    >>> rows = [{"age": 30, "town": "Bern"}, {"age": 50, "town": None}]
    >>> found = learn_scaling(rows, {"age": "number", "town": "category"})
    >>> found.numbers[0].mean, found.categories[0].values, found.scale_numbers([{"age": None}]).tolist()
    (40.0, ['', 'Bern'], [[0.0, 1.0]])
    """
    numbers, categories = [], []
    for name, kind in kinds.items():
        values = [row.get(name) for row in rows]
        if kind == "number":
            known = np.array([to_number(value) for value in values], np.float64)
            known = known[~np.isnan(known)] if not np.isnan(known).all() else np.zeros(1)
            numbers.append(
                NumberColumn(name, float(known.mean()), float(known.std()) or 1.0, float(np.median(known)))
            )
        elif kind == "category":
            counts = Counter(map(to_category, values))
            categories.append(CategoryColumn(name, sorted(counts, key=lambda value: (-counts[value], value))))
    text = next((name for name, kind in kinds.items() if kind == "text"), "")
    return Scaling(tuple(numbers), tuple(categories), text)


def to_number(value: Any) -> float:
    """Return a value as a number, NaN where it is missing."""
    return math.nan if value is None else float(value)


def to_category(value: Any) -> str:
    """Return a value as a category, an empty one where it is missing."""
    return "" if value is None or value != value else str(value)
