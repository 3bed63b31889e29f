"""What stands in whatever a model of MLflow, or a client, is given: columns, and values that are missing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dlpipe.errors import SettingError

TEXT, ROW_ID = "text", "row_id"
JSON_KINDS = (
    (bool, "a boolean"),
    (int | float, "a number"),
    (str, "a text"),
    (Mapping, "an object"),
    (list, "a list"),
)


def read_text_values(model_input: Any) -> list[object]:
    """Return what stands where the texts should be, as it is.

    Of a table (a DataFrame, a dictionary of columns, a list of records) that is its column ``text``, or its only
    one, whatever its name; a Series, an array or a list is a column itself.
    """
    if isinstance(model_input, Mapping) or hasattr(model_input, "columns"):
        # pyarrow calls the columns themselves by that word
        named = getattr(model_input, "column_names", None) or getattr(model_input, "columns", model_input)
        names = list(named)
        return read_column(model_input[find_text_column(names)])
    if isinstance(model_input, Sequence) and model_input and all(isinstance(row, Mapping) for row in model_input):
        column = find_text_column(list(dict.fromkeys(name for row in model_input for name in row)))
        return [unwrap_scalar(row.get(column)) for row in model_input]
    return read_column(model_input)


def read_column(given: Any) -> list[object]:
    """Return the values of a column; a single value is a column of one row, and rows of one value are values."""
    if hasattr(given, "to_pylist"):  # of pyarrow
        return list(given.to_pylist())
    given = unwrap_scalar(given)
    if is_scalar(given):
        return [given]
    rows = [unwrap_scalar(row) for row in given]
    if rows and all(not is_scalar(row) and len(row) == 1 for row in rows):
        return [unwrap_scalar(row[0]) for row in rows]
    return rows


def find_text_column(names: Sequence[Any]) -> Any:
    """Return the name of the column with the texts.

    Raises
    ------
    SettingError
        When none is called ``text`` and there are several, or the only one has the ids of dlpipe's own tables;
        and where two are called ``text``.

    Examples
    --------
    >>> find_text_column(["id", "text"]), find_text_column(["review"])
    ('text', 'review')
    """
    if names.count(TEXT) > 1:
        raise SettingError(f"{names.count(TEXT)} columns are named 'text', of {len(names)}. Pass one of them.")
    if TEXT in names:
        return TEXT
    if len(names) == 1 and names[0] != ROW_ID:
        return names[0]
    there = ", ".join(map(repr, names)) or "none"
    raise SettingError(f"The texts must be in a column named 'text'; got {there}. Name it so, or pass it alone.")


def is_scalar(given: Any) -> bool:
    """Return whether ``given`` is one value: a text, a number, nothing at all; and no list or array."""
    return isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable)


def unwrap_scalar(value: Any) -> Any:
    """Return what an array without a dimension holds, as MLflow's server makes of a single value."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def describe_value(value: object) -> str:
    """Return what a value is, in the words of JSON, and its beginning.

    Examples
    --------
    >>> describe_value(3), describe_value({"text": "Dull"}), describe_value(None)
    ('a number: 3', 'an object: {"text": "Dull"}', 'null')
    """
    if value is None:
        return "null"
    kind = next((word for type_, word in JSON_KINDS if isinstance(value, type_)), f"a {type(value).__name__}")
    try:
        return f"{kind}: {json.dumps(value, ensure_ascii=False)[:60]}"
    except (TypeError, ValueError, RecursionError):  # JSON has no such value
        return f"{kind}: {repr(value)[:60]}"


def is_missing(value: object) -> bool:
    """Return whether ``value`` stands for nothing: ``None``, a NaN of any kind, pandas' ``NA`` and ``NaT``.

    Examples
    --------
    >>> is_missing(None), is_missing(float("nan")), is_missing("nan"), is_missing(0)
    (True, True, False, False)
    """
    if value is None or isinstance(value, str):
        return value is None
    try:
        return bool(value != value)
    except (TypeError, ValueError):  # NA does not say whether it is itself; an array has no single answer
        return type(value).__name__ == "NAType"
