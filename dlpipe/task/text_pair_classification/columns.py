"""Which columns of a file are two texts and their class."""

from __future__ import annotations

from dlpipe.tables import Preview
from dlpipe.task.columns import (
    TEXT_LENGTH,
    Given,
    Suggestion,
    check_given,
    describe_classes,
    describe_text,
    find_class,
    make_choice_error,
    measure_texts,
)

SETTINGS = ("text_column", "text_pair_column")


def suggest_columns(found: Preview, given: Given) -> Suggestion:
    """Return which columns have the two texts, in the order of the file, and which has the classes.

    ``given`` may have ``text_column``, ``text_pair_column`` and ``label_column``; see
    ``dlpipe.task.columns.Suggest``.

    Examples
    --------
    >>> columns = {
    ...     "question": ["How do I bake bread?", "May I bring a dog?", "How do I make bread?", "When is it?"],
    ...     "other": ["How is bread baked?", "When do you open?", "How is bread made?", "When do you open?"],
    ...     "duplicate": ["yes", "no", "yes", "no"],
    ... }
    >>> suggest_columns(Preview("questions.csv", columns, 4, True), {}).settings
    {'text_column': 'question', 'text_pair_column': 'other', 'label_column': 'duplicate'}
    """
    check_given(found, given)
    known = [str(given[name]) for name in SETTINGS if name in given]
    lengths = measure_texts(found, given)
    long = [name for name, length in lengths.items() if length >= TEXT_LENGTH]
    if len(known) + len(long) != len(SETTINGS) and len(known) < len(SETTINGS):
        descriptions = {name: f"{length:.0f} characters on average" for name, length in lengths.items()}
        raise make_choice_error(found, "the two texts", long, descriptions, *SETTINGS)
    free = iter(long)
    texts = {name: str(given[name]) if name in given else next(free) for name in SETTINGS}
    label = find_class(found, given, besides=texts.values())
    lines = (*(describe_text(found, column) for column in texts.values()), describe_classes(found, label))
    return Suggestion({**texts, "label_column": label}, lines)
