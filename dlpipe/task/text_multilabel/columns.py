"""Which columns of a file are a text and its labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from dlpipe.tables import Preview
from dlpipe.task.columns import (
    MOST_CLASSES,
    Given,
    Suggestion,
    check_given,
    choose_label,
    count_values,
    describe_rows,
    describe_text,
    describe_values,
    find_text,
    format_count,
    make_choice_error,
    split_labels,
    to_text,
)

FLAGS = frozenset(("0", "1", "true", "false"))


def suggest_columns(found: Preview, given: Given) -> Suggestion:
    """Return which column has the texts, and which the labels: a column of lists, or a column of 0 and 1 for each.

    ``given`` may have ``text_column``, and ``label_column`` or ``label_columns``; see
    ``dlpipe.task.columns.Suggest``.

    Examples
    --------
    >>> columns = {"review": ["A film about a war", "A film about nothing"], "genres": ["war|drama", "drama"]}
    >>> suggest_columns(Preview("films.csv", columns, 2, True), {}).lines[1]
    "labels  'genres': 2 labels in 2 rows: 'drama' (2), 'war' (1)"
    >>> columns = {"review": ["A film about a war", "A film about nothing"], "war": [1, 0], "drama": [1, 1]}
    >>> suggest_columns(Preview("films.csv", columns, 2, True), {}).settings
    {'text_column': 'review', 'label_columns': ['war', 'drama']}
    """
    check_given(found, given)
    text = find_text(found, given)
    flags = list(given.get("label_columns", ())) or find_flags(found, besides=text)
    if "label_column" not in given and len(flags) > 1:
        labels = Counter({name: sum(map(_is_set, found.columns[name])) for name in flags})
        return _suggest(
            found, text, {"label_columns": flags}, f"{format_count(len(flags), 'column')} of 0 and 1", labels
        )
    label = given.get("label_column") or find_lists(found, besides=text)
    return _suggest(found, text, {"label_column": label}, repr(label), count_labels(found.columns[label]))


def find_lists(found: Preview, *, besides: str) -> str:
    """Return the column whose cells hold lists of labels."""
    counts = {name: count_labels(values) for name, values in found.columns.items() if name != besides}
    descriptions = {name: format_count(len(labels), "label") for name, labels in counts.items()}
    lists = [
        name
        for name, labels in counts.items()
        if 1 < len(labels) <= MOST_CLASSES and any(split_labels(value) for value in found.columns[name])
    ]
    if not lists:
        raise make_choice_error(found, "the labels", [], descriptions, "label_column")
    return choose_label(found, lists, descriptions, "label_column")


def find_flags(found: Preview, *, besides: str) -> list[str]:
    """Return the columns of 0 and 1."""
    values = {name: count_values(found.columns[name]) for name in found.columns if name != besides}
    return [name for name, rows in values.items() if rows and {value.casefold() for value in rows} <= FLAGS]


def count_labels(values: Sequence[Any]) -> Counter[str]:
    """Return how many rows each label has.

    Examples
    --------
    >>> count_labels(["war|drama", "drama", "[]", ""])
    Counter({'drama': 2, 'war': 1})
    """
    lists = (split_labels(value) for value in values if to_text(value))
    alone = (to_text(value) for value in values)
    pairs = zip(lists, filter(None, alone), strict=True)
    # an empty list is a row without labels, and no label of that name
    return Counter(label for several, cell in pairs for label in ([cell] if several is None else several))


def _suggest(found: Preview, text: str, setting: dict[str, Any], where: str, labels: Counter[str]) -> Suggestion:
    number = format_count(len(labels), "label")
    line = f"labels  {where}: {number} in {describe_rows(found)}: {describe_values(labels)}"
    return Suggestion({"text_column": text, **setting}, (describe_text(found, text), line))


def _is_set(value: Any) -> bool:
    return to_text(value).casefold() in ("1", "true")
