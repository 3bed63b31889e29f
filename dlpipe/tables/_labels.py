"""Spell labels: one class has one spelling, whatever kind of file it came from.

A CSV has no types: alone, ``1.0`` can be a whole number beside a missing value, or a version. So labels are
spelled over all sources at once, or as the table has them.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from dlpipe.tables._values import normalise

TRUTH = {"true": "True", "false": "False"}
"""How pandas and Python write them; JSON and SQL write them in lower case."""
# pandas writes whole numbers beside a missing value as 1.0, and as 1,0 for a decimal comma
WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:\.0*|,0)?")
MISSING_WORDS = frozenset({"nan", "null", "<na>", "nat", "#n/a"})
LISTED = 8


@dataclass(frozen=True)
class Spelling:
    """How the labels of some sources are written in a table.

    Attributes
    ----------
    changed : mapping
        Label as it was read -> the class, for labels that are written in another way.
    notes : tuple of str
        What a person should know about the classes, one line each.
    """

    changed: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __call__(self, label: str) -> str:
        """Return the class that ``label`` stands for."""
        return self.changed.get(label, label)


def spell_labels(rows: Mapping[str, int], *, fold: bool = False, known: Collection[str] = ()) -> Spelling:
    """Return how the labels of ``rows`` (label -> number of rows) are written as classes.

    Whole numbers are one class however they are written (``1``, ``1.0``), and so are truth values (``true``,
    ``True``); without ``known``, that is only done where all labels are of this kind.

    Parameters
    ----------
    fold : bool
        Make labels one class that differ only in case, blanks or Unicode form; otherwise a note names them.
    known : collection of str, optional
        The classes of the table that the rows are added to, whose spelling holds.

    Examples
    --------
    >>> spell_labels({"1.0": 3, "0": 2}).changed
    {'1.0': '1'}
    >>> spell_labels({"1.0": 3, "1.5": 2}).changed, spell_labels({"1.0": 3}, known=["1", "1.5"]).changed
    ({}, {'1.0': '1'})
    >>> spell_labels({"good": 3, "Good": 2, "bad": 4}).notes
    ("Labels that differ only in case, blanks or Unicode form are different classes here: 'good' (3 rows) and \
'Good' (2). To make them one, set fold_labels (--fold-labels true).",)
    >>> spell_labels({"good": 3, "Good": 2, "bad": 4}, fold=True).changed
    {'Good': 'good'}
    """
    changed = _spell_as_known(rows, known) if known else _spell_by_value(rows)
    written: Counter[str] = Counter()
    for label, count in rows.items():
        written[changed.get(label, label)] += count
    alike = _group_alike(written, known)
    notes = [*_note_missing_words(written, known)]
    if alike and not fold:
        notes.insert(0, _describe_alike(alike, written))
    if not fold:
        return Spelling(changed, tuple(notes))
    chosen = {label: _choose(group, written, known) for group in alike for label in group}
    folded = {label: chosen.get(changed.get(label, label), changed.get(label, label)) for label in rows}
    if alike:
        notes.insert(0, _describe_folding(alike, written, chosen))
    return Spelling({label: made for label, made in folded.items() if label != made}, tuple(notes))


def fold_label(label: str) -> str:
    """Return what labels share that look the same but for case, blanks and Unicode form.

    Examples
    --------
    >>> fold_label("Very  Good"), fold_label("cafe\\u0301") == fold_label("CAF\\xc9"), fold_label("a\\u200b")
    ('very good', True, 'a')
    """
    shown = "".join(sign for sign in label if unicodedata.category(sign) != "Cf")
    return normalise(shown)


def to_label_value(label: str) -> str:
    """Return the spelling of the whole number or truth value that ``label`` stands for, or ``label``.

    Examples
    --------
    >>> [to_label_value(label) for label in ("1.0", "-0.0", "01", "1.5", "TRUE", "good")]
    ['1', '0', '01', '1.5', 'True', 'good']
    """
    number = WHOLE.fullmatch(label)
    if number:
        return "0" if number[1] == "-0" and label != "-0" else number[1]
    return TRUTH.get(label.casefold(), label)


def name_labels(rows: Mapping[str, int]) -> str:
    """Return labels with their numbers of rows, the most frequent first.

    Examples
    --------
    >>> name_labels({"good": 1, "bad": 1200})
    "'bad' (1,200 rows), 'good' (1)"
    """
    ranked = sorted(rows.items(), key=lambda pair: (-pair[1], pair[0]))
    words = [_format_count(label, count, first=not at) for at, (label, count) in enumerate(ranked[:LISTED])]
    return ", ".join(words) + (f" and {len(ranked) - LISTED} more" if len(ranked) > LISTED else "")


def list_labels(labels: Iterable[str]) -> str:
    """Return the first of the sorted labels, quoted."""
    every = sorted(labels)
    return ", ".join(repr(label[:40]) for label in every[:LISTED]) + (", ..." if len(every) > LISTED else "")


def _spell_by_value(rows: Mapping[str, int]) -> dict[str, str]:
    """Return the other spelling of each label where all of them are whole numbers, or all truth values."""
    labels = [label for label in rows if label.casefold() not in MISSING_WORDS]
    whole = all(WHOLE.fullmatch(label) for label in labels)
    if not whole and not all(label.casefold() in TRUTH for label in labels):
        return {}
    return {label: to_label_value(label) for label in labels if to_label_value(label) != label}


def _spell_as_known(rows: Mapping[str, int], known: Collection[str]) -> dict[str, str]:
    """Return the class of ``known`` that each label which is none of them has the value of."""
    by_value: dict[str, list[str]] = {}
    for there in known:
        by_value.setdefault(to_label_value(there), []).append(there)
    found = {label: by_value.get(to_label_value(label), []) for label in rows if label not in known}
    return {label: same[0] for label, same in found.items() if len(same) == 1}


def _group_alike(rows: Mapping[str, int], known: Collection[str]) -> list[list[str]]:
    """Return the groups of labels that differ only in what ``fold_label`` levels."""
    groups: dict[str, list[str]] = {}
    for label in sorted({*rows, *known}):
        groups.setdefault(fold_label(label), []).append(label)
    # what the table has from before and no row brings is not told again
    return [group for group in groups.values() if len(group) > 1 and any(label in rows for label in group)]


def _choose(group: Collection[str], rows: Mapping[str, int], known: Collection[str]) -> str:
    """Return the spelling of a class: the table's, or else that of most rows."""
    there = [label for label in group if label in known] or list(group)
    # of two that are as frequent, the one with composed letters and fewer blanks
    return min(there, key=lambda label: (-rows.get(label, 0), len(label), label))


def _describe_alike(alike: Iterable[Collection[str]], rows: Mapping[str, int]) -> str:
    return (
        "Labels that differ only in case, blanks or Unicode form are different classes here: "
        f"{'; '.join(_name_group(group, rows) for group in alike)}. "
        "To make them one, set fold_labels (--fold-labels true)."
    )


def _describe_folding(alike: Iterable[Collection[str]], rows: Mapping[str, int], chosen: Mapping[str, str]) -> str:
    pairs = (f"{_name_group(group, rows)} as {chosen[next(iter(group))]!r}" for group in alike)
    return f"Labels that differ only in case, blanks or Unicode form were made one class: {'; '.join(pairs)}."


def _name_group(group: Collection[str], rows: Mapping[str, int]) -> str:
    ranked = sorted(group, key=lambda label: (-rows.get(label, 0), label))
    # composed and decomposed letters look the same unless they are escaped
    same_look = len({unicodedata.normalize("NFC", label) for label in group}) < len(group)
    words = [
        _format_count(label, rows.get(label, 0), first=not at, plain=same_look) for at, label in enumerate(ranked)
    ]
    return " and ".join(words)


def _format_count(label: str, count: int, *, first: bool, plain: bool = False) -> str:
    shown = ascii(label[:40]) if plain else repr(label[:40])
    unit = (" row" if count == 1 else " rows") if first else ""
    return f"{shown} ({count:,}{unit})"


def _note_missing_words(rows: Mapping[str, int], known: Collection[str]) -> list[str]:
    words = {label: count for label, count in rows.items() if label.casefold() in MISSING_WORDS - set(known)}
    if not words or len(words) == len(rows):
        return []
    return [
        f"A label that reads like a missing value is a class here: {name_labels(words)}. Leave such cells empty."
    ]
