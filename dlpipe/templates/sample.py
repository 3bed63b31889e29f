"""Some rows of the data, for a project's tests."""

from __future__ import annotations

import csv
import itertools
import unicodedata
from collections import defaultdict
from pathlib import Path

from dlpipe.tables import Preview
from dlpipe.task.columns import Given, as_list, show_value

SAMPLE_ROWS = 200
LABEL = "label"
"""What the settings begin with that name columns of labels."""


def write_sample(file: Path, found: Preview, settings: Given) -> int:
    """Write different rows of each class, with the columns that are read, and return how many.

    Parameters
    ----------
    file : Path
    found : Preview
    settings : mapping
        Those of ``[data]`` that name columns.
    """
    inputs = [name for key, names in settings.items() if not key.startswith(LABEL) for name in as_list(names)]
    labels = [name for key, names in settings.items() if key.startswith(LABEL) for name in as_list(names)]
    columns = ([show_value(value) for value in found.columns[name]] for name in (*inputs, *labels))
    by_label: dict[tuple[str, ...], list[tuple[str, ...]]] = defaultdict(list)
    seen: set[str] = set()
    for row in zip(*columns, strict=True):
        same = level(row[: len(inputs)])
        if all(row) and same not in seen:
            seen.add(same)
            by_label[row[len(inputs) :]].append(row)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*by_label.values()))
    chosen = list(itertools.islice(filter(None, turns), SAMPLE_ROWS))
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerows([[*inputs, *labels], *chosen])
    return len(chosen)


def level(values: tuple[str, ...]) -> str:
    """Return what rows share that are the same to a table: case, white space and Unicode form levelled."""
    return " ".join(unicodedata.normalize("NFKC", " ".join(values)).casefold().split())
