"""Which columns of a file are a text and its class."""

from __future__ import annotations

from dlpipe.tables import Preview
from dlpipe.task.columns import (
    Given,
    Suggestion,
    check_given,
    describe_classes,
    describe_text,
    find_class,
    find_text,
)


def suggest_columns(found: Preview, given: Given) -> Suggestion:
    """Return which column has the texts and which the classes of one label each.

    ``given`` may have ``text_column`` and ``label_column``; see ``dlpipe.task.columns.Suggest``.

    Examples
    --------
    >>> columns = {
    ...     "id": ["1", "2", "3", "4"],
    ...     "text": ["I loved this film", "It was rather dull", "Dull and too long", "A lovely evening"],
    ...     "stars": ["5", "1", "1", "5"],
    ... }
    >>> suggest_columns(Preview("films.csv", columns, 4, True), {}).settings
    {'text_column': 'text', 'label_column': 'stars'}
    """
    check_given(found, given)
    text = find_text(found, given)
    label = find_class(found, given, besides=[text])
    lines = (describe_text(found, text), describe_classes(found, label))
    return Suggestion({"text_column": text, "label_column": label}, lines)
