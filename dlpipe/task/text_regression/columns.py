"""Which columns of a file are a text and its number."""

from __future__ import annotations

from dlpipe.tables import Preview
from dlpipe.task.columns import (
    Given,
    Suggestion,
    check_given,
    describe_numbers,
    describe_rows,
    describe_text,
    find_number,
    find_text,
)


def suggest_columns(found: Preview, given: Given) -> Suggestion:
    """Return which column has the texts and which the numbers.

    ``given`` may have ``text_column`` and ``label_column``; see ``dlpipe.task.columns.Suggest``.

    Examples
    --------
    >>> columns = {"review": ["I loved this film", "It was rather dull"], "stars": [4.5, 1.0]}
    >>> suggest_columns(Preview("films.csv", columns, 2, True), {}).lines[1]
    "label   'stars': numbers from 1 to 4.5 in 2 rows"
    """
    check_given(found, given)
    text = find_text(found, given)
    label = find_number(found, given, besides=[text])
    numbers = describe_numbers(found, label)
    lines = (describe_text(found, text), f"label   {label!r}: {numbers} in {describe_rows(found)}")
    return Suggestion({"text_column": text, "label_column": label}, lines)
