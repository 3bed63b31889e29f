"""Series of points: records and tables with a column that counts them, column by column."""

from __future__ import annotations

import itertools
import math
import numbers
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dlpipe.bridge.opening import Unopened
from dlpipe.bridge.values import KEY_LENGTH, TEXTS, look_inside
from dlpipe.redaction import looks_secret, redact

MOST_POINTS = 5_000
"""So many points of all series of one artifact, which is also the most rows of a data frame."""
DEPTH = 2
"""So many keys stand in a name after the artifact's own."""
INDEXES = ("epoch", "step", "iteration", "fold")
"""Names that say which point of a series a record is, the first one counts."""
Path = tuple[str, ...]
"""Keys on the way to a number, the artifact's name first."""


class TooMany(Exception):
    """More stands in an artifact than a page can show."""


class TooManyPoints(TooMany):
    """A series, or several, of more points than are shown."""

    def __init__(self) -> None:
        super().__init__(f"more than {MOST_POINTS:,} points: they are in the file alone")


def unpack(value: Any) -> Any:
    """Return the number in an array without a shape, as ``torch.Tensor.numpy`` gives it; else the value itself."""
    is_array = type(value).__module__ == "numpy" and type(value).__name__ == "ndarray"
    return value[()] if is_array and value.shape == () else value


def name_keys(inner: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each key as a text that no other key is, such as 1 and ``"1"``, with its value."""
    taken: set[str] = set()
    for key, item in inner.items():
        if isinstance(key, Unopened):
            continue
        whole = redact(str(key))
        name = next(name for name in itertools.chain([whole], number_names(whole)) if name not in taken)
        taken.add(name)
        yield name, item


def is_number(value: Any) -> bool:
    """Return whether this is a real number of any kind, and no flag."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and not is_flag(value)


def is_flag(value: Any) -> bool:
    """Return whether this is true or false, of Python or NumPy."""
    return isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")


def is_scalar(value: Any) -> bool:
    """Return whether this is one value: a number, a flag, a text, a date and the like."""
    return isinstance(value, str | TEXTS) or is_flag(value) or is_number(value)


def read_records(value: Any) -> list[Mapping[Any, Any]]:
    """Return the records of a sequence; nothing when it is none, or something in it is no record."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence) or not value:
        return []
    if (first := look_inside(value[0])) is None:
        return []
    if len(value) > MOST_POINTS:
        if isinstance(first, Mapping) and set(INDEXES) & set(map(str, first)):
            raise TooManyPoints
        return []
    records = [look_inside(item) for item in value]
    mappings = [item for item in records if isinstance(item, Mapping)]
    return mappings if len(mappings) == len(records) else []


def to_columns(records: Sequence[Mapping[Any, Any]], depth: int) -> dict[Path, list[Any]]:
    """Return values by name, ``None`` where a record has not that name; names within a record's mappings too."""
    columns: dict[Path, list[Any]] = {}
    for at, record in enumerate(records):
        for path, item in _walk(record, depth):
            columns.setdefault(path, [None] * len(records))[at] = item
    return columns


def _walk(record: Mapping[Any, Any], depth: int) -> Iterator[tuple[Path, Any]]:
    for key, item in name_keys(record):
        item = unpack(item)
        inner = look_inside(item) if depth > 0 and not is_scalar(item) else None
        if isinstance(inner, Mapping):
            yield from (((key, *path), leaf) for path, leaf in _walk(inner, depth - 1))
        else:
            yield (key,), item


def split_record(
    name: str, record: Mapping[Any, Any], *, finite: bool = True
) -> tuple[int | None, dict[Path, float]]:
    """Return the place of a record in its series, and its numbers; ``None`` of a record that has no place.

    Parameters
    ----------
    name : str
        Of the series, which all paths begin with.
    record : mapping
        Values by name; those within its mappings count, too.
    finite : bool, optional
        Whether numbers that are not finite are left out; NaN stands for each of them if not.

    Examples
    --------
    >>> split_record("epochs", {"epoch": 2, "loss": 0.5, "scores": {"f1": 0.75}, "note": "best"})
    (2, {('epochs', 'loss'): 0.5, ('epochs', 'scores', 'f1'): 0.75})
    """
    found = dict(_walk(record, DEPTH - 1))
    index = next((key for key in INDEXES if _is_count(found.get((key,)))), None)
    return None if index is None else int(found[(index,)]), {
        (name, *path): float(item) if is_finite(item) else math.nan
        for path, item in found.items()
        if path != (index,)
        and (is_finite(item) or (not finite and is_number(item)))
        and not any(map(looks_secret, path))
    }


def read_columns(value: Any) -> dict[Path, list[Any]] | None:
    """Return the columns of numbers of a table that has an index; nothing of a table that has none.

    ``None`` is for what is no table.
    """
    module, kind = type(value).__module__.partition(".")[0], type(value).__name__
    if (module, kind) == ("pyarrow", "Table"):
        names = list(value.column_names)
    elif (module, kind) == ("pandas", "DataFrame"):
        names = [*value.columns, value.index.name]
    else:
        return None
    if not set(INDEXES) & set(map(str, names)):
        return {}
    if len(value) > MOST_POINTS:
        raise TooManyPoints
    value = value.to_pandas() if kind == "Table" else value
    if not value.columns.is_unique:
        return {}
    if value.index.name in INDEXES and value.index.name not in value.columns:
        value = value.reset_index()
    return {(name,): _read_column(column) for name, column in name_keys(dict(value.items()))}


def _read_column(column: Any) -> list[Any]:
    """Return the values of a column: pandas does not tell what is missing from what is not a number."""
    values = [None if missing else item for item, missing in zip(column.tolist(), column.isna(), strict=True)]
    numbers_alone = all(item is None or is_number(item) for item in values)
    return [math.nan if item is None else item for item in values] if numbers_alone else values


def find_index(columns: Mapping[tuple[str, ...], Sequence[Any]]) -> tuple[str, ...]:
    """Return the name of the column that counts the records: whole numbers from 0 that every record has."""
    for name in INDEXES:
        values = columns.get((name,), ())
        if values and all(map(_is_count, values)):
            return (name,)
    return ()


def _is_count(value: Any) -> bool:
    return is_finite(value) and 0 <= value == int(value) < 2**63


def is_finite(value: Any) -> bool:
    """Return whether this is a number that a double holds."""
    try:
        return is_number(value) and math.isfinite(value)
    except OverflowError:  # a whole number that no double holds
        return False


def number_names(name: str) -> Iterator[str]:
    """Yield a name with numbers behind it, for where it is taken."""
    for again in itertools.count(2):
        yield f"{name[: KEY_LENGTH - 8]}:{again}"
