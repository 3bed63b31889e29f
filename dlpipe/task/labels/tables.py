"""The scores of each label as a table."""

from __future__ import annotations

from dlpipe.task.evaluation import ScoreTable
from dlpipe.task.label_scores import LabelCounts, tabulate_labels
from dlpipe.task.labels.scores import LabelEvaluation, LabelScore


def tabulate_label_scores(evaluation: LabelEvaluation, baseline: LabelEvaluation) -> ScoreTable:
    """Return the scores of each label beside the baseline's F1, and from which probability on it is given."""
    return tabulate_labels(
        [count_label(score) for score in evaluation.by_label],
        [count_label(score) for score in baseline.by_label],
        noun="label",
        notes=[f"{score.threshold:.2f}" for score in evaluation.by_label],
        notes_title="given from",
    )


def count_label(score: LabelScore) -> LabelCounts:
    """Return the counts that a score is made of."""
    hits = round(score.recall * score.rows) if score.rows else 0  # the recall of no rows is NaN
    return LabelCounts(score.label, hits, score.rows - hits, max(0, score.given - hits))
