"""Read the cells of a source as the texts, categories, numbers and labels of a form."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from dlpipe.errors import BadSource
from dlpipe.tables._form import Column, Label, Values, suggest_column
from dlpipe.tables._sources import Source
from dlpipe.tables._values import format_labels, format_number, is_number

NO_NUMBER = frozenset({"", "nan", "null", "none", "na", "n/a", "<na>", "nat", "#n/a"})
"""How programs write that a number is missing."""
NOUNS = {"class": "classes", "labels": "labels"}
# 1.0 as well: pandas writes whole numbers so where the column had a missing value
FLAGS = {"1": True, "0": False, "true": True, "false": False, "1.0": True, "0.0": False}


def read_inputs(cells: Sequence[Any], columns: Sequence[Column], source: Source, line: int) -> Values:
    """Return the inputs that stand in the first cells of a row.

    Parameters
    ----------
    cells : sequence
        What stands in the sources of a form's columns.
    columns : sequence of Column
        The inputs.
    source : Source
    line : int
        Where the row is, for messages.

    Raises
    ------
    BadSource
        When a cell holds something that no column of its kind has, such as a date.
    """
    if len(columns) == 1:  # without the loop below: this is done for each row
        return (INPUTS[columns[0].kind](cells[0], columns[0], source, line),)
    pairs = zip(columns, cells, strict=False)
    return tuple(INPUTS[column.kind](cell, column, source, line) for column, cell in pairs)


def read_label(cells: Sequence[Any], label: Label, source: Source, line: int) -> str | None:
    """Return the label that stands in the last cells of a row, as ``Label`` writes it; None where it is missing.

    What is no label of this kind is the string that stands there; of several columns of 0 and 1, what stands in
    them.

    Parameters
    ----------
    cells : sequence
        What stands in the columns of ``label.sources``.
    label : Label
    source : Source
    line : int
        Where the row is, for messages.

    Raises
    ------
    BadSource
        When a cell holds something that no label is, such as a date.
    """
    if label.kind == "class":
        return _read_class(cells[0], label.sources[0], label, source, line)
    if label.kind == "number":
        number = _read_number(cells[0], label, source, line)
        return format_number(number) if isinstance(number, float) else number
    if len(label.sources) > 1:
        return _read_flags(cells, label)
    return _read_labels(cells[0], label, source, line)


def _read_text(value: Any, column: Column, source: Source, line: int) -> str | None:
    if isinstance(value, str):
        return None if column.optional and not value.strip() else value
    if value is None or _is_nan(value):
        return None
    raise BadSource(
        f"The {column.name} column {column.source!r} of {source.path!r} holds {_describe_type(value)}, not text "
        f"({value!r} on {source.unit} {line}).{suggest_column(column.name, column.setting)}"
    )


def _read_category(value: Any, column: Column, source: Source, line: int) -> str | None:
    if isinstance(value, str):
        return value.strip() or None
    if value is None or _is_nan(value):
        return None
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, float | Decimal) and math.isfinite(value):
        return str(int(value)) if value == int(value) else str(value)
    raise BadSource(
        f"The column {column.source!r} of {source.path!r} holds {_describe_type(value)}, not categories "
        f"({value!r} on {source.unit} {line}).{suggest_column(column.name, column.setting)}"
    )


def _read_number(value: Any, column: Column | Label, source: Source, line: int) -> float | str | None:
    """Return a finite number, None for a missing one, and the string that stands there for something else."""
    if isinstance(value, str):
        bare = value.strip()
        if is_number(bare):
            return float(bare) + 0.0
        return None if bare.casefold() in NO_NUMBER else value
    if value is None or _is_nan(value):
        return None
    if isinstance(value, bool | int | float | Decimal):
        return _to_finite(value)
    name, called = ("label", column.sources[0]) if isinstance(column, Label) else (column.name, column.source)
    what = "label column" if name == "label" else "column"
    raise BadSource(
        f"The {what} {called!r} of {source.path!r} holds {_describe_type(value)}, not numbers "
        f"({value!r} on {source.unit} {line}).{suggest_column(name, column.setting)}"
    )


INPUTS: Mapping[str, Callable[[Any, Column, Source, int], Any]] = {
    "text": _read_text,
    "category": _read_category,
    "number": _read_number,
}


def _to_finite(value: int | float | Decimal) -> float | str:
    try:
        number = float(value) + 0.0
    except OverflowError:  # JSON has whole numbers of any length
        return str(value)
    return number if math.isfinite(number) else str(value)


def _read_class(value: Any, name: str, label: Label, source: Source, line: int) -> str | None:
    """Return a class as a string; whole numbers and truth values are classes too."""
    if value is None or isinstance(value, str):
        return value
    if _is_nan(value):
        return None
    if isinstance(value, bool | int):
        return str(value)
    # whole numbers with nulls become floating point on their way through pandas, and databases have decimals
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        return str(int(value))
    raise BadSource(
        f"The label column {name!r} of {source.path!r} holds {_describe_type(value)}, not {NOUNS[label.kind]} "
        f"({value!r} on {source.unit} {line}).{suggest_column('label', label.setting)}"
    )


def _read_labels(value: Any, label: Label, source: Source, line: int) -> str | None:
    """Return several labels from a list, from a string that is a JSON list, or from one with separators."""
    if isinstance(value, str):
        bare = value.strip()
        if not bare:
            return None
        if bare.startswith("["):
            try:
                listed = json.loads(bare)
            except (ValueError, RecursionError):
                return f"no JSON: {bare}"
            return _read_labels(listed, label, source, line)
        return format_labels(bare.split(label.separator))
    if isinstance(value, list | tuple):
        classes = [_read_class(part, label.sources[0], label, source, line) for part in value]
        return format_labels(part for part in classes if part)
    made = _read_class(value, label.sources[0], label, source, line)
    return None if made is None else format_labels([made])


def _read_flags(cells: Sequence[Any], label: Label) -> str | None:
    """Return the labels whose column has a 1; None where a column has nothing."""
    flags = []
    for cell in cells:
        if cell is None or _is_nan(cell) or (isinstance(cell, str) and not cell.strip()):
            return None
        flags.append(_read_flag(cell))
    if None in flags:
        return ", ".join(f"{name}: {cell}" for name, cell in zip(label.sources, cells, strict=True))
    return format_labels(name for name, flag in zip(label.sources, flags, strict=True) if flag)


def _read_flag(cell: Any) -> bool | None:
    if isinstance(cell, int | float | Decimal):  # databases write 1.00
        return bool(cell) if cell in (0, 1) else None
    return FLAGS.get(str(cell).strip().casefold())


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and value != value


def _describe_type(value: Any) -> str:
    return (
        "numbers" if isinstance(value, bool | int | float | Decimal) else f"values of type {type(value).__name__}"
    )
