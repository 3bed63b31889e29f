"""Some rows of the data, for a project's tests."""

from __future__ import annotations

import csv
import itertools
import json
import unicodedata
from collections import defaultdict
from pathlib import Path

from dlpipe.tables import Preview, RowForm
from dlpipe.task.columns import Given, as_list, to_text

SAMPLE_ROWS = 200
LABEL = "label"
"""What the settings begin with that name columns of labels."""
OPTIONAL = ("number_columns", "category_columns")
"""Settings that name columns of which a row may lack the value: that says something, too."""


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
    optional = {name for key, names in settings.items() if key in OPTIONAL for name in as_list(names)}
    columns = ([to_text(value) for value in found.columns[name]] for name in (*inputs, *labels))
    by_label: dict[tuple[str, ...], list[tuple[str, ...]]] = defaultdict(list)
    seen: set[str] = set()
    for row in zip(*columns, strict=True):
        same = level(row[: len(inputs)])
        is_valid = all(value or name in optional for name, value in zip((*inputs, *labels), row, strict=True))
        if is_valid and same not in seen:
            seen.add(same)
            by_label[row[len(inputs) :]].append(row)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*by_label.values()))
    chosen = list(itertools.islice(filter(None, turns), SAMPLE_ROWS))
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerows([[*inputs, *labels], *chosen])
    return len(chosen)


def make_example(found: Preview, form: RowForm) -> str:
    """Return a row as ``dlpipe predict`` takes it: a text, or the inputs of a whole row as a JSON object."""
    if form.is_text:
        return "A text that nobody has seen."
    columns = [[to_text(value) for value in found.columns[column.source]] for column in form.inputs]
    row = next(filter(all, zip(*columns, strict=True)), tuple(values[0] for values in columns))
    return json.dumps(
        {
            column.name: float(value.replace(",", ".")) if column.kind == "number" and value else value
            for column, value in zip(form.inputs, row, strict=True)
        },
        ensure_ascii=False,
    )


def level(values: tuple[str, ...]) -> str:
    """Return what rows share that are the same to a table: case, white space and Unicode form levelled."""
    return " ".join(unicodedata.normalize("NFKC", " ".join(values)).casefold().split())
