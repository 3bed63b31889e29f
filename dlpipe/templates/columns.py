"""What the first rows of a file show of a task: which columns it has, and what stands in them.

A function for each task; it names the settings of ``[data]``, and says in lines what it went by. Where two columns
may be meant it asks, since a project made of the wrong one runs for minutes before anybody sees that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlpipe.errors import SettingError
from dlpipe.tables import Preview

LABEL_NAMES = ("label", "labels", "class", "category", "sentiment", "target", "topic", "stars", "rating")
"""What a column of labels is often called: decides between several that may be one."""
MOST_CLASSES = 100
TEXT_LENGTH = 12.0
"""Characters on average from which a column can be texts: shorter ones are names and codes."""
AS_LONG = 0.5
"""From this share of the longest column's length on, another column may be the text as well."""
LISTED = 8


@dataclass(frozen=True)
class Suggestion:
    """What a file showed of a task.

    Attributes
    ----------
    settings : mapping
        Of the section ``[data]``: the columns.
    lines : tuple of str
        What was found, for the person who asked and as comments in the settings.
    label_column : str
        The column whose values a sample must have all of.
    options : tuple of str
        Those of the command that choose other columns.
    """

    settings: Mapping[str, str]
    lines: tuple[str, ...]
    label_column: str
    options: tuple[str, ...]


Suggest = Callable[[Preview, Mapping[str, str]], Suggestion]
"""Takes the first rows, and the columns that options name, and returns what they show."""


def suggest_texts_with_classes(found: Preview, given: Mapping[str, str]) -> Suggestion:
    """Return which column has the texts and which the classes of one label each.

    Parameters
    ----------
    found : Preview
    given : mapping
        ``text_column`` and ``label_column``, where options name them.

    Raises
    ------
    SettingError
        When a column is not there, or which one is meant is in doubt.

    Examples
    --------
    >>> columns = {
    ...     "id": ["1", "2", "3", "4"],
    ...     "text": ["I loved this film", "It was rather dull", "Dull and too long", "A lovely evening"],
    ...     "stars": ["5", "1", "1", "5"],
    ... }
    >>> suggest_texts_with_classes(Preview("films.csv", columns, 4, True), {}).settings
    {'text_column': 'text', 'label_column': 'stars'}
    """
    for name, column in given.items():
        if column not in found.columns:
            option = f"--{name.replace('_', '-')}"
            raise SettingError(f"{found.path!r} has no column {column!r} ({option}); {_list(found.columns)}.")
    text = given.get("text_column") or _longest(found, besides=given.get("label_column"))
    label = given.get("label_column") or _few_values(found, besides=text)
    if text == label:
        raise SettingError(f"--text-column and --label-column both name {text!r}; {_list(found.columns)}.")
    classes = class_rows(found.columns[label])
    if len(classes) < 2:
        raise SettingError(
            f"The column {label!r} of {found.path!r} has {_count(len(classes), 'value')} in {_rows(found)}: there "
            f"is nothing to tell apart. Name another with --label-column; {_list(found.columns)}."
        )
    length = _length(found.columns[text])
    lines = (
        f"text    {text!r}: {length:.0f} characters on average",
        f"label   {label!r}: {_count(len(classes), 'class')} in {_rows(found)}: {_name(classes)}",
    )
    return Suggestion(
        {"text_column": text, "label_column": label}, lines, label, ("--text-column", "--label-column")
    )


TASKS: Mapping[str, Suggest] = {"text-classification": suggest_texts_with_classes}
"""The tasks that a project can be made for."""


def class_rows(values: Iterable[Any]) -> Counter[str]:
    """Return how many rows each label has; missing ones are none.

    Examples
    --------
    >>> class_rows(["good", "bad", " good ", "", None, 1])
    Counter({'good': 2, 'bad': 1, '1': 1})
    """
    return Counter(text for value in values if (text := value_text(value)))


def _longest(found: Preview, *, besides: str | None) -> str:
    """Return the column with the longest texts."""
    lengths = {
        name: _length(values)
        for name, values in found.columns.items()
        if name != besides and any(isinstance(value, str) and not _is_number(value) for value in values)
    }
    longest = max(lengths.values(), default=0.0)
    near = [name for name, length in lengths.items() if length >= AS_LONG * longest and length >= TEXT_LENGTH]
    if len(near) != 1:
        told = {name: f"{length:.0f} characters on average" for name, length in lengths.items()}
        raise _doubt(found, "texts", near, told, "--text-column")
    return near[0]


def _few_values(found: Preview, *, besides: str) -> str:
    """Return the column with few different values, each of which several rows have."""
    counts = {name: class_rows(values) for name, values in found.columns.items() if name != besides}
    several = [name for name, rows in counts.items() if _are_classes(rows)]
    known = [name for name in several if name.casefold().strip() in LABEL_NAMES]
    best = several if len(several) == 1 else known
    if len(best) != 1:
        told = {name: f"{_count(len(rows), 'value')}" for name, rows in counts.items()}
        raise _doubt(found, "labels", best or several, told, "--label-column")
    return best[0]


def _are_classes(rows: Counter[str]) -> bool:
    return 2 <= len(rows) <= min(MOST_CLASSES, rows.total() // 2)


def _doubt(
    found: Preview, what: str, columns: Sequence[str], told: Mapping[str, str], option: str
) -> SettingError:
    """Return the error for a file in which no column, or more than one, may hold ``what``."""
    which = ", ".join(f"{name!r} ({told[name]})" for name in columns[:LISTED])
    may = f"several columns may hold the {what}: {which}" if columns else f"no column is sure to hold {what}"
    return SettingError(f"In {found.path!r} {may}. Name it with {option}; {_list(found.columns)}.")


def _list(columns: Iterable[str]) -> str:
    return f"the columns are: {', '.join(map(repr, columns))}"


def _name(classes: Counter[str]) -> str:
    named = [f"{label[:40]!r} ({rows:,})" for label, rows in classes.most_common(LISTED)]
    return ", ".join(named) + (f" and {len(classes) - LISTED} more" if len(classes) > LISTED else "")


def _rows(found: Preview) -> str:
    return f"{found.rows:,} rows" if found.whole else f"the first {found.rows:,} rows"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}{'es' if what.endswith('s') else 's'}"


def _length(values: Iterable[Any]) -> float:
    """Return how many characters the values have on average, missing ones aside."""
    lengths = [len(text) for value in values if (text := value_text(value))]
    return sum(lengths) / max(len(lengths), 1)


def value_text(value: Any) -> str:
    """Return a value as a label is read: floating-point whole numbers as whole ones, missing ones as nothing."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", ".", 1))
    except ValueError:
        return not text.strip()
    return True
