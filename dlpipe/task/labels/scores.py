"""The scores of a model that gives labels, and what it got wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dlpipe.errors import EvaluationError
from dlpipe.task.bootstrap import bootstrap
from dlpipe.task.evaluation import Evaluation, Mistake

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.floating[Any]]

METRICS = ("macro_f1", "micro_f1", "exact_match", "log_loss")


@dataclass(frozen=True)
class LabelScore:
    """How a label was given.

    Attributes
    ----------
    rows : int
        That have it.
    threshold : float
        From which probability on it is given.
    given : int
        The rows that are given it.
    """

    label: str
    rows: int
    precision: float
    recall: float
    f1: float
    threshold: float
    given: int = 0


@dataclass(frozen=True)
class LabelEvaluation(Evaluation):
    """How a model did on rows with any number of labels.

    Attributes
    ----------
    metrics : mapping
        macro_f1 (the mean over the labels that a row has or is given), micro_f1 (over all of them together),
        exact_match (the share of rows with exactly the right labels) and log_loss (the mean over rows and labels).
    by_label : tuple of LabelScore
    """

    by_label: tuple[LabelScore, ...] = ()


def evaluate_labels(
    outputs: Floats,
    truth: Sequence[Sequence[str]],
    labels: Sequence[str],
    *,
    thresholds: Floats,
    row_ids: Sequence[str],
    shown: Sequence[str],
    seed: int = 0,
    resamples: int = 1000,
    worst: int = 20,
) -> LabelEvaluation:
    """Return the scores of probabilities against the labels of rows, with 95 % percentile bootstrap intervals.

    Parameters
    ----------
    outputs : array of shape (n_rows, n_labels)
        Probabilities, columns in the order of ``labels``.
    truth : sequence of n_rows lists of str
    labels : sequence of n_labels str
    thresholds : array of shape (n_labels,)
        From which probability on each label is given.
    row_ids, shown : sequences of n_rows str
    seed, resamples : int
        The intervals are the same for the same seed.
    worst : int
        How many mistakes to keep.

    Raises
    ------
    EvaluationError
        When lengths differ, a label is unknown, or a probability is not finite.

    Examples
    --------
    >>> outputs, truth = np.array([[0.9, 0.2], [0.6, 0.7], [0.1, 0.3]]), [["a"], ["b"], []]
    >>> made = evaluate_labels(outputs, truth, "ab", thresholds=np.full(2, 0.5), row_ids="xyz", shown="pqr")
    >>> round(made.metrics["macro_f1"], 3), round(made.metrics["exact_match"], 3), made.mistakes[0].predicted
    (0.833, 0.667, 'a, b')
    """
    known = encode_truth(truth, labels, outputs, row_ids, shown)
    given = (outputs >= thresholds).astype(np.float64)
    losses = compute_losses(outputs, known)

    by_label = tuple(score_labels(labels, known, given, thresholds))

    def measure(counts: Floats) -> dict[str, Floats]:
        return resample_metrics(counts, known, given, losses)

    whole = measure(np.ones((len(known), 1)))
    return LabelEvaluation(
        metrics={name: float(whole[name][0]) for name in METRICS},
        intervals=bootstrap(measure, rows=len(known), seed=seed, resamples=resamples),
        labels=tuple(labels),
        rows=len(known),
        mistakes=find_worst_mistakes(truth, labels, given, losses, row_ids, shown)[:worst],
        headline=METRICS[0],
        by_label=by_label,
        precision={score.label: score.precision for score in by_label if score.given},
        recall={score.label: score.recall for score in by_label if score.rows},
    )


def encode_truth(
    truth: Sequence[Sequence[str]],
    labels: Sequence[str],
    outputs: Floats,
    row_ids: Sequence[str],
    shown: Sequence[str],
) -> Floats:
    """Return 1 where a row has a label, float64 of shape (n_rows, n_labels), when everything fits together.

    Parameters
    ----------
    truth : sequence of n_rows sequences of str
    labels : sequence of n_labels str
    outputs : array of shape (n_rows, n_labels)
    row_ids, shown : sequences of n_rows str

    Raises
    ------
    EvaluationError
        When lengths differ, an output is not finite, or a row has a label that the model does not know.
    """
    if not len(outputs) == len(truth) == len(row_ids) == len(shown) or not len(truth):
        raise EvaluationError(
            f"{len(outputs)} outputs, {len(truth)} rows with labels and {len(row_ids)} ids do not fit: give as "
            "many of each, and one at least."
        )
    if not np.isfinite(outputs).all():
        raise EvaluationError("A probability is not finite; train again with a lower learning rate.")
    if unknown := sorted({label for row in truth for label in row} - {*labels}):
        raise EvaluationError(
            f"The model does not know the label {unknown[0]!r} of the rows to evaluate; it knows "
            f"{', '.join(labels)}. Train it with that label, or drop those rows."
        )
    place = {label: number for number, label in enumerate(labels)}
    made = np.zeros((len(truth), len(labels)))
    for row, names in enumerate(truth):
        made[row, [place[name] for name in names]] = 1
    return made


def resample_metrics(counts: Floats, known: Floats, given: Floats, losses: Floats) -> dict[str, Floats]:
    """Return metric -> its value in each resample.

    Parameters
    ----------
    counts : array of shape (n_rows, n_resamples)
        How often each row is drawn.
    known, given : array of shape (n_rows, n_labels)
        1 where a row has the label, and where it is given it.
    losses : array of shape (n_rows,)
    """
    rows = counts.sum(axis=0)
    hits, both = (known * given).T @ counts, (known + given).T @ counts
    seen = both > 0
    f1 = np.divide(2 * hits, both, out=np.zeros_like(both), where=seen)
    labels = seen.sum(axis=0)
    everything = both.sum(axis=0)
    return {
        "macro_f1": np.divide(f1.sum(axis=0), labels, out=np.full(len(rows), np.nan), where=labels > 0),
        "micro_f1": np.divide(
            2 * hits.sum(axis=0), everything, out=np.full(len(rows), np.nan), where=everything > 0
        ),
        "exact_match": (known == given).all(axis=1) @ counts / rows,
        "log_loss": losses @ counts / rows,
    }


def compute_losses(outputs: Floats, known: Floats) -> Floats:
    """Return the mean binary cross-entropy of each row in nats: (n_rows,)."""
    shares = np.clip(outputs.astype(np.float64), 1e-7, 1 - 1e-7)
    losses: Floats = -(known * np.log(shares) + (1 - known) * np.log(1 - shares)).mean(axis=1)
    return losses


def score_labels(labels: Sequence[str], known: Floats, given: Floats, thresholds: Floats) -> list[LabelScore]:
    """Return precision, recall and F1 of each label, NaN where the rows give it no value.

    Parameters
    ----------
    labels : sequence of n_labels str
    known, given : float arrays of shape (n_rows, n_labels)
        1 where a row has the label, and where it is given it.
    thresholds : float array of shape (n_labels,)
        From which probability on each label is given.
    """
    hits = (known * given).sum(axis=0)
    rows, gifts = known.sum(axis=0), given.sum(axis=0)
    found = []
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.stack([hits / gifts, hits / rows, 2 * hits / (rows + gifts)])
    for at, label in enumerate(labels):
        precision, recall, f1 = (float(value) for value in values[:, at])
        found.append(
            LabelScore(label, int(rows[at]), precision, recall, f1, float(thresholds[at]), int(gifts[at]))
        )
    return found


def find_worst_mistakes(
    truth: Sequence[Sequence[str]],
    labels: Sequence[str],
    given: Floats,
    losses: Floats,
    row_ids: Sequence[str],
    shown: Sequence[str],
) -> tuple[Mistake, ...]:
    """Return the rows that were not given exactly their labels, those with the largest loss first.

    Parameters
    ----------
    truth : sequence of n_rows sequences of str
    labels : sequence of n_labels str
    given : float array of shape (n_rows, n_labels)
        1 where a row is given the label.
    losses : float array of shape (n_rows,)
    row_ids, shown : sequences of n_rows str
    """
    names = np.array(list(labels), dtype=object)
    answers = [sorted(names[row.astype(bool)]) for row in given]
    wrong = [row for row in np.argsort(-losses, kind="stable") if answers[row] != sorted(truth[row])]
    return tuple(
        Mistake(row_ids[row], shown[row], format_labels(truth[row]), format_labels(answers[row])) for row in wrong
    )


def format_labels(labels: Sequence[str]) -> str:
    """Return labels in one line; a word where there is none."""
    return ", ".join(sorted(labels)) or "none"


def compute_recalls(evaluation: LabelEvaluation) -> Mapping[str, float]:
    """Return the recall of each label that a row has."""
    return {score.label: score.recall for score in evaluation.by_label if score.rows}
