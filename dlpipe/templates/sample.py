"""Some rows of the data, for a project's tests."""

from __future__ import annotations

import csv
import itertools
from collections import defaultdict
from pathlib import Path

from dlpipe.tables import Preview
from dlpipe.templates.columns import Suggestion, value_text

SAMPLE_ROWS = 200


def write_sample(file: Path, found: Preview, suggested: Suggestion) -> int:
    """Write some rows of each class, with the columns that are read, and return how many."""
    names = list(suggested.settings.values())
    label = names.index(suggested.label_column)
    rows = zip(*(map(value_text, found.columns[name]) for name in names), strict=True)
    by_class: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    seen: set[str] = set()
    for row in rows:
        text = " ".join(" ".join(row[:label] + row[label + 1 :]).casefold().split())
        if all(row) and text not in seen:
            seen.add(text)
            by_class[row[label]][text] = row
    each = [list(rows.values()) for rows in by_class.values()]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*each))
    chosen = list(itertools.islice((row for row in turns if row), SAMPLE_ROWS))
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([names, *chosen])
    return len(chosen)
