"""What the first rows of a file show: which of its columns a task may read, and which has the labels.

Each task has a function that names the settings of ``[data]``, made of the ones here. Where two columns may be
meant they ask, since a project made of the wrong one runs for minutes before anybody sees that.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from dlpipe.errors import ColumnInDoubt, SettingError
from dlpipe.tables import Preview, is_number, join_words

LABEL_NAMES = frozenset(
    (
        *("label", "labels", "class", "category", "sentiment", "target", "topic", "stars", "rating", "score"),
        *("outcome", "diagnosis", "species", "duplicate", "is_duplicate", "entailment", "genres", "tags", "y"),
    )
)
"""What a column of labels is often called: decides between several that may be one."""
ID_NAMES = frozenset(("", "id", "index", "row", "row_id", "unnamed: 0"))
"""What a column of numbers of rows is often called: it says nothing about them."""
MOST_CLASSES = 100
"""Of more values, a column holds names, codes or numbers."""
TEXT_LENGTH = 12.0
"""Characters on average from which a column can be texts: shorter ones are names and codes."""
AS_LONG = 0.5
"""From this share of the longest column's length on, another column may be the text as well."""
LISTED = 8
"""So many columns or values are named in a line."""

Given = Mapping[str, Any]
"""The settings of ``[data]`` that are known: names of columns, or lists of them."""


@dataclass(frozen=True)
class Suggestion:
    """What a file showed of a task.

    Attributes
    ----------
    settings : mapping
        Of the section ``[data]``: names of columns, or lists of them.
    lines : tuple of str
        What was found, for the person who asked and as comments in the settings.
    training : mapping
        Settings of the section ``[training]`` that suit such columns better than the task's defaults.
    """

    settings: Given
    lines: tuple[str, ...]
    training: Given = field(default_factory=dict)


Suggest = Callable[[Preview, Given], Suggestion]
"""Takes the first rows of a file, and the settings of ``[data]`` that are known, and returns what the rows show.

Raises ``SettingError`` when a column that is named is not there, or which one is meant is in doubt.
"""


# -- what a column is ------------------------------------------------------------------------------------------


def count_values(values: Iterable[Any]) -> Counter[str]:
    """Return how many rows each value has; missing ones are none.

    Examples
    --------
    >>> count_values(["good", "bad", " good ", "", None, 1.0])
    Counter({'good': 2, 'bad': 1, '1': 1})
    """
    return Counter(text for value in values if (text := to_text(value)))


def to_text(value: Any) -> str:
    """Return a value as text: whole numbers without a point, lists as JSON, nothing for a missing one.

    Examples
    --------
    >>> to_text(1.0), to_text(Decimal("1.00")), to_text(["a"]), to_text(float("inf")), to_text(None)
    ('1', '1', '["a"]', 'inf', '')
    """
    if value is None or value != value:
        return ""
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        value = int(value)
    return str(value).strip()


def measure_length(values: Iterable[Any]) -> float:
    """Return how many characters the values have on average, missing ones aside; 0 where all are missing."""
    lengths = [len(text) for value in values if (text := to_text(value))]
    return sum(lengths) / max(len(lengths), 1)


def are_numbers(values: Iterable[Any], *, separator: str = "") -> bool:
    """Return whether all values are numbers, missing ones aside, as an ingest will read them.

    Parameters
    ----------
    values : iterable
    separator : str
        Of the CSV that they are from. Where it is another than a comma, commas may stand for decimal points. In
        other files "1,500" is as likely fifteen hundred, and an ingest takes it for no number.

    Examples
    --------
    >>> are_numbers(["1", "2.5", "", None, 3]), are_numbers(["1", "a"]), are_numbers([])
    (True, False, False)
    >>> are_numbers(["1,5", "2"], separator=";"), are_numbers(["1,5", "2"], separator=",")
    (True, False)
    """
    texts = [text for value in values if (text := to_text(value))]
    return bool(texts) and all(is_number(_with_point(text, separator)) for text in texts)


def split_labels(value: Any) -> list[str] | None:
    """Return the labels in a cell that holds a list of them, or ``None``.

    Examples
    --------
    >>> split_labels("war|drama"), split_labels('["war"]'), split_labels(["war", "drama"]), split_labels("war")
    (['war', 'drama'], ['war'], ['war', 'drama'], None)
    """
    if isinstance(value, list):
        return list(map(str, value))
    text = to_text(value)
    if text.startswith("["):
        try:
            return list(map(str, json.loads(text)))
        except ValueError:
            return None
    return text.split("|") if "|" in text else None


def are_classes(values: Counter[str]) -> bool:
    """Return whether values can be classes: two to a hundred, each on two rows on average."""
    return 2 <= len(values) <= min(MOST_CLASSES, values.total() // 2)


# -- which column is meant -------------------------------------------------------------------------------------


def check_given(found: Preview, given: Given) -> None:
    """Raise ``SettingError`` unless the columns that are known are there, each once."""
    named = [(name, column) for name, columns in given.items() for column in as_list(columns)]
    for name, column in named:
        if column in found.repeated:
            raise SettingError(
                f"{found.path!r} has two columns {column!r} ({to_option(name)}): rename one of them."
            )
        if column not in found.columns:
            raise SettingError(
                f"{found.path!r} has no column {column!r} ({to_option(name)}); {list_columns(found)}."
            )
    for column, count in Counter(column for _, column in named).items():
        if count > 1:
            options = " and ".join(dict.fromkeys(to_option(name) for name, other in named if other == column))
            raise SettingError(f"{options} name {column!r} twice; {list_columns(found)}.")


def find_text(found: Preview, given: Given, setting: str = "text_column") -> str:
    """Return the column with the longest texts.

    Parameters
    ----------
    found : Preview
    given : mapping
        Settings that are known: the one named ``setting`` is taken as it is, and columns of the others are
        passed over.
    setting : str
        That names the column.

    Raises
    ------
    SettingError
        When no column, or more than one, may be meant.
    """
    if setting in given:
        return str(given[setting])
    lengths = measure_texts(found, given)
    longest = max(lengths.values(), default=0.0)
    near = [name for name, length in lengths.items() if length >= max(AS_LONG * longest, TEXT_LENGTH)]
    if len(near) != 1:
        descriptions = {name: f"{length:.0f} characters on average" for name, length in lengths.items()}
        raise make_choice_error(found, "the texts", near, descriptions, setting)
    return near[0]


def find_class(found: Preview, given: Given, *, besides: Iterable[str], setting: str = "label_column") -> str:
    """Return the column with few different values, each of which several rows have.

    Of several such columns it is the one that is called as columns of labels are, see ``LABEL_NAMES``.

    Parameters
    ----------
    found : Preview
    given : mapping
        Settings that are known: the one named ``setting`` is looked at and taken.
    besides : iterable of str
        Columns that hold something else.
    setting : str
        That names the column.

    Raises
    ------
    SettingError
        When no column, or more than one, may be meant; or when the known one has one value.
    """
    if setting in given:
        return _check_classes(found, str(given[setting]), setting)
    counts = {name: count_values(values) for name, values in found.columns.items() if name not in {*besides}}
    several = [name for name, rows in counts.items() if are_classes(rows)]
    descriptions = {name: f"{format_count(len(rows), 'value')}" for name, rows in counts.items()}
    return choose_label(found, several, descriptions, setting)


def find_number(found: Preview, given: Given, *, besides: Iterable[str], setting: str = "label_column") -> str:
    """Return the column with numbers, of several the one that is called as columns of labels are.

    Parameters
    ----------
    found : Preview
    given : mapping
        Settings that are known: the one named ``setting`` is looked at and taken.
    besides : iterable of str
        Columns that hold something else.
    setting : str
        That names the column.

    Raises
    ------
    SettingError
        When no column, or more than one, may be meant; or when the known one holds something else.
    """
    if setting in given:
        return check_numbers(found, str(given[setting]), setting)
    descriptions = {
        name: describe_numbers(found, name)
        for name, values in found.columns.items()
        if name not in {*besides} and name.casefold() not in ID_NAMES
        if are_numbers(values, separator=found.separator)
    }
    return choose_label(found, [*descriptions], descriptions, setting)


def choose_label(found: Preview, several: Sequence[str], descriptions: Mapping[str, str], setting: str) -> str:
    """Return the only one of the columns that may hold the labels, or the only one that is called so.

    Parameters
    ----------
    found : Preview
    several : sequence of str
        Columns that may hold them.
    descriptions : mapping
        Column -> what it holds, for the person who has to choose.
    setting : str
        That names the column.

    Raises
    ------
    SettingError
        When that leaves no column, or more than one.
    """
    known = [name for name in several if name.casefold().strip() in LABEL_NAMES]
    best = several if len(several) == 1 else known
    if len(best) != 1:
        raise make_choice_error(found, "the labels", best or several, descriptions, setting)
    return best[0]


def measure_texts(found: Preview, given: Given) -> dict[str, float]:
    """Return the length of what stands in each column of strings that nothing is known of."""
    known = {column for columns in given.values() for column in as_list(columns)}
    return {
        name: measure_length(values)
        for name, values in found.columns.items()
        if name not in known and any(isinstance(value, str) for value in values)
        if not are_numbers(values, separator=found.separator)
    }


def make_choice_error(
    found: Preview, what: str, columns: Sequence[str], descriptions: Mapping[str, str], *settings: str
) -> ColumnInDoubt:
    """Return the error for a file in which no column, or more than one, may hold ``what``.

    Parameters
    ----------
    found : Preview
    what : str
        With its article: ``the labels``.
    columns : sequence of str
        Those that may hold it, the likeliest first.
    descriptions : mapping
        Column -> what it holds.
    *settings : str
        That name the column, each an option of `dlpipe init`.
    """
    which = ", ".join(f"{name!r} ({descriptions[name]})" for name in columns[:LISTED])
    may = f"several columns may hold {what}: {which}" if columns else f"no column is sure to hold {what}"
    options = " and ".join(map(to_option, settings))
    return ColumnInDoubt(f"In {found.path!r} {may}. Name it with {options}; {list_columns(found)}.")


def _check_classes(found: Preview, column: str, setting: str) -> str:
    values = count_values(found.columns[column])
    if len(values) < 2:
        raise SettingError(
            f"The column {column!r} of {found.path!r} has {format_count(len(values), 'value')} in "
            f"{describe_rows(found)}: there is nothing to tell apart. Name another with {to_option(setting)}; "
            f"{list_columns(found)}."
        )
    return column


def check_numbers(found: Preview, column: str, setting: str) -> str:
    """Return ``column``, which ``setting`` names, or raise ``SettingError`` where it holds no numbers."""
    values = found.columns[column]
    if not are_numbers(values, separator=found.separator):
        hint = " Write them with a point." if are_numbers(values, separator=";") else ""
        raise SettingError(
            f"The column {column!r} of {found.path!r} holds no numbers ({to_option(setting)}).{hint}"
        )
    return column


# -- lines -----------------------------------------------------------------------------------------------------


def describe_text(found: Preview, column: str) -> str:
    """Return the line on a column of texts."""
    return f"text    {column!r}: {measure_length(found.columns[column]):.0f} characters on average"


def describe_classes(found: Preview, column: str) -> str:
    """Return the line on the column of one class of several."""
    classes = count_values(found.columns[column])
    number = format_count(len(classes), "class")
    return f"label   {column!r}: {number} in {describe_rows(found)}: {describe_values(classes)}"


def describe_numbers(found: Preview, column: str) -> str:
    """Return from where to where the numbers of a column reach."""
    texts = (text for value in found.columns[column] if (text := to_text(value)))
    numbers = sorted(float(_with_point(text, found.separator)) for text in texts)
    return f"numbers from {numbers[0]:g} to {numbers[-1]:g}"


def describe_rows(found: Preview) -> str:
    """Return how many rows were looked at."""
    return f"{found.rows:,} rows" if found.whole else f"the first {found.rows:,} rows"


def describe_values(values: Counter[str]) -> str:
    """Return values with their numbers of rows, the most frequent first."""
    named = [f"{value[:40]!r} ({rows:,})" for value, rows in values.most_common(LISTED)]
    return ", ".join(named) + (f" and {len(values) - LISTED} more" if len(values) > LISTED else "")


def list_columns(found: Preview) -> str:
    """Return the names of the columns."""
    listed = f"the columns are: {', '.join(map(repr, found.columns))}"
    return f"{listed}; {line}" if (line := describe_repeated(found)) else listed


def describe_repeated(found: Preview) -> str:
    """Return which columns cannot be read, since several have one name; empty where there are none.

    Examples
    --------
    >>> describe_repeated(Preview("a.csv", {"label": ["1"]}, 1, True, ",", ("text",)))
    "several columns are called 'text': none of them is read"
    """
    names = join_words([repr(name) for name in found.repeated])
    return f"several columns are called {names}: none of them is read" if found.repeated else ""


def format_count(number: int, what: str) -> str:
    """Return a number of things.

    Examples
    --------
    >>> format_count(1, "class"), format_count(2, "class"), format_count(2, "value")
    ('1 class', '2 classes', '2 values')
    """
    return f"{number} {what}" if number == 1 else f"{number} {what}{'es' if what.endswith('s') else 's'}"


def as_list(columns: Any) -> list[str]:
    """Return the names of columns of a setting that holds one or several."""
    return [columns] if isinstance(columns, str) else list(columns)


def to_option(setting: str) -> str:
    """Return the option of a setting in `dlpipe init` and `dlpipe append`, such as ``--text-column``."""
    return f"--{setting.replace('_', '-')}"


def _with_point(text: str, separator: str) -> str:
    """Return a number with a point for its decimal comma, where commas separate nothing."""
    return text.replace(",", ".", 1) if separator not in ("", ",") else text
