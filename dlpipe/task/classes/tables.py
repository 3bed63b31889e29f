"""Tables of an evaluation of classes: the scores of each class, and what is taken for what."""

from __future__ import annotations

from dlpipe.task.classes.scores import ClassEvaluation
from dlpipe.task.evaluation import ScoreTable
from dlpipe.task.label_scores import LabelCounts, tabulate_labels

DRAWN = 40
"""So many classes stand in the confusion matrix; of more, those that are most often confused."""
LISTED = 10
"""So many confusions are listed, the most frequent first."""
ROOMY = 8
"""Up to so many classes, a cell of the confusion matrix has room for a share beside its count."""


def tabulate_classes(evaluation: ClassEvaluation, baseline: ClassEvaluation) -> ScoreTable:
    """Return precision, recall and F1 of each class beside the baseline's F1, and what the class is taken for."""
    confusions = {true: (predicted, count) for true, predicted, count in reversed(list_confusions(evaluation))}
    notes = [
        f"{confusions[label][0]} ({confusions[label][1]:,})" if label in confusions else ""
        for label in evaluation.labels
    ]
    return tabulate_labels(
        count_classes(evaluation),
        count_classes(baseline),
        noun="class",
        notes=notes,
        notes_title="mostly taken for (rows)",
    )


def count_classes(evaluation: ClassEvaluation) -> list[LabelCounts]:
    """Return how often each class is right and wrong."""
    hits = evaluation.confusion.diagonal()
    missed, false = (evaluation.confusion.sum(axis=axis) - hits for axis in (1, 0))
    return [
        LabelCounts(label, int(hits[at]), int(missed[at]), int(false[at]))
        for at, label in enumerate(evaluation.labels)
    ]


def list_confusions(evaluation: ClassEvaluation) -> list[tuple[str, str, int]]:
    """Return (true class, predicted class, rows) of each confusion, the most frequent first."""
    found = [
        (true, predicted, int(evaluation.confusion[row, column]))
        for row, true in enumerate(evaluation.labels)
        for column, predicted in enumerate(evaluation.labels)
        if row != column and evaluation.confusion[row, column]
    ]
    return sorted(found, key=lambda each: -each[2])


def tabulate_confusion(evaluation: ClassEvaluation) -> ScoreTable:
    """Return the confusion matrix: counts, shaded by their share of the true class's rows."""
    places = choose_drawn(evaluation)
    labels = [evaluation.labels[place] for place in places]
    totals = evaluation.confusion.sum(axis=1)
    shares = [[float(evaluation.confusion[row, at] / max(1, totals[row])) for at in places] for row in places]
    cells = [
        [
            write_cell(int(evaluation.confusion[row, at]), share, roomy=len(labels) <= ROOMY)
            for at, share in zip(places, line, strict=True)
        ]
        for row, line in zip(places, shares, strict=True)
    ]
    left_out = len(evaluation.labels) - len(labels)
    more = f" The {left_out} classes that are least often confused are left out." if left_out else ""
    return ScoreTable(
        "Confusion",
        ("true ↓ predicted →", *labels),
        tuple((label, *line) for label, line in zip(labels, cells, strict=True)),
        tuple(map(tuple, shares)),
        note=f"Rows of the test split: a line is a true class, shaded by what share of it is called so.{more}",
    )


def choose_drawn(evaluation: ClassEvaluation) -> list[int]:
    """Return the places of the classes to draw, in their order."""
    if len(evaluation.labels) <= DRAWN:
        return list(range(len(evaluation.labels)))
    wrong = [counts.missed + counts.false for counts in count_classes(evaluation)]
    return sorted(sorted(range(len(wrong)), key=lambda place: -wrong[place])[:DRAWN])


def write_cell(count: int, share: float, *, roomy: bool) -> str:
    """Return a count, with its share where there is room; nothing for 0 where there is none."""
    if roomy:
        return f"{count:,} ({share:.0%})"
    return f"{count:,}" if count else ""


def tabulate_confusions(evaluation: ClassEvaluation) -> ScoreTable:
    """Return the most frequent confusions."""
    totals = dict(zip(evaluation.labels, evaluation.confusion.sum(axis=1).tolist(), strict=True))
    rows = [
        (true, predicted, f"{count:,}", f"{count / totals[true]:.0%} of {totals[true]:,}")
        for true, predicted, count in list_confusions(evaluation)[:LISTED]
    ]
    return ScoreTable("Most frequent confusions", ("true", "predicted", "rows", "of the true class"), tuple(rows))
