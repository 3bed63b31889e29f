"""Rows that were asked, from the log to tables: a text as it is, values of columns as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from dlpipe.errors import SchemaMismatch
from dlpipe.serving.log_rows import dump
from dlpipe.tables import Label, RowForm, parse_label


def name_asked(text: str, form: RowForm) -> Mapping[str, Any]:
    """Return the values of a row that was asked by the columns of a table.

    Parameters
    ----------
    text : str
        As the log has it.
    form : RowForm
        Of the table.

    Raises
    ------
    SchemaMismatch
        When the row has other columns.

    Examples
    --------
    >>> from dlpipe.tables import TEXT_FORM
    >>> name_asked("A fine film.", TEXT_FORM)
    {'text': 'A fine film.'}
    """
    names = [column.name for column in form.inputs]
    if form.is_text:
        return {names[0]: text}
    try:
        values = orjson.loads(text)
    except orjson.JSONDecodeError:
        values = None
    if isinstance(values, dict) and not values.keys().isdisjoint(names):
        return values
    asked = f"the columns {', '.join(values)}" if isinstance(values, dict) else "no columns"
    raise SchemaMismatch(
        f"The rows that were asked have {asked}, those of the table have {', '.join(names)}. Name the table of "
        "the model that was asked; where an earlier version read other columns, begin after it with --since."
    )


def write_asked(path: Path, rows: Iterable[tuple[str, str]], form: RowForm) -> None:
    """Write rows with their labels as JSON Lines, under the names of the columns of a table.

    Parameters
    ----------
    path : Path
    rows : iterable of (text, label)
        As log and feedback have them.
    form : RowForm
        Of the table.
    """
    with path.open("wb") as file:
        for text, label in rows:
            file.write(dump({**name_asked(text, form), **_name_label(label, form.label)}) + b"\n")


def _name_label(given: str, label: Label) -> dict[str, Any]:
    """Return a label under the columns of its sources: where each label has one of its own, 1 and 0."""
    if len(label.sources) == 1:
        return {"label": given}
    read = parse_label(given, label)
    # what is no label is written so that the append sets it aside and names it
    return {name: given if read is None else int(name in read) for name in label.sources}
