"""The scores of a model: each metric with its interval, and what it got wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

SHOWN = 300  # characters of a row in a list of mistakes
SPELLINGS = {
    "f1": "F1",
    "auroc": "AUROC",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "r2": "R²",
    "spearman": "rank correlation",
    "coverage": "coverage of the interval",
}


@dataclass(frozen=True)
class Mistake:
    """A row that the model got wrong.

    Attributes
    ----------
    row_id : str
    text : str
        The row as people read it, see ``Inputs.format_row``.
    label, predicted : label
        The true one, and the one that the model predicts.
    """

    row_id: str
    text: str
    label: Any
    predicted: Any

    def to_cells(self) -> dict[str, str]:
        """Return what a list of mistakes shows, by the names of its columns.

        Examples
        --------
        >>> Mistake("4f", "a fine film", "good", "bad").to_cells()
        {'row': 'a fine film', 'label': 'good', 'predicted': 'bad'}
        """
        return {"row": cut_text(self.text), "label": str(self.label), "predicted": str(self.predicted)}


@dataclass(frozen=True)
class RowErrors:
    """What a model predicts of each row, and how wrong that is.

    Attributes
    ----------
    row_ids, predicted : str array of shape (n_rows,)
        A prediction as people read it, see ``Target.format_label``.
    errors : float array of shape (n_rows,)
        How wrong each row is, see ``Target.measure_row_errors``.
    """

    row_ids: np.ndarray
    predicted: np.ndarray
    errors: np.ndarray


@dataclass(frozen=True)
class ScoreTable:
    """A table of an evaluation, such as the scores of each class, for people.

    Attributes
    ----------
    caption : str
    columns : tuple of str
    rows : tuple of tuple of str
    shades : tuple of tuple of float, optional
        How dark each cell but the first of its row is, 0 to 1; such a table is a picture, such as of a confusion.
    note : str, optional
        How to read it, in one line.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    shades: tuple[tuple[float, ...], ...] = ()
    note: str = ""


def cut_text(text: str, *, limit: int = SHOWN) -> str:
    """Return a text of at most so many characters; one that is cut ends in three dots.

    Examples
    --------
    >>> cut_text("a fine film", limit=7), cut_text("a fine film")
    ('a fine…', 'a fine film')
    """
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def spell_metric(metric: str) -> str:
    """Return the metric's name as it reads in a sentence.

    Examples
    --------
    >>> spell_metric("macro_f1"), spell_metric("auroc"), spell_metric("log_loss"), spell_metric("mae")
    ('macro F1', 'AUROC', 'log loss', 'mean absolute error')
    """
    return " ".join(SPELLINGS.get(word, word) for word in metric.split("_"))


def format_interval(value: float, interval: tuple[float, float]) -> str:
    """Return a value with its interval: ``0.871 (0.846 to 0.894)``; a dash where there is none."""
    if value != value:
        return "–"
    low, high = interval
    return f"{value:.3f}" if low != low else f"{value:.3f} ({low:.3f} to {high:.3f})"


@dataclass(frozen=True)
class Evaluation:
    """How a model did on ``rows`` rows.

    Attributes
    ----------
    metrics : mapping
        NaN where the rows give a metric no value.
    intervals : mapping
        Metric -> (low, high) of its 95 % bootstrap interval.
    labels : tuple of str
        The names of the outputs.
    rows : int
    mistakes : tuple of Mistake
        The worst ones, the worst first.
    headline : str
        The metric that is named first.
    precision, recall : mapping of label to share
        Of each label that is predicted, and of each that a row has; empty where a target has no such thing.
    by_row : RowErrors, optional
        What is predicted of each row; evaluations on a table have it, and those of older runs lack it.
    """

    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    labels: tuple[str, ...]
    rows: int
    mistakes: tuple[Mistake, ...]
    headline: str
    precision: Mapping[str, float] = field(default_factory=dict, kw_only=True, repr=False)
    recall: Mapping[str, float] = field(default_factory=dict, kw_only=True, repr=False)
    by_row: RowErrors | None = field(default=None, kw_only=True, repr=False, compare=False)

    def line(self, metric: str | None = None) -> str:
        """Return a metric, by default the headline, with its interval: ``accuracy 0.871 (0.846 to 0.894)``."""
        name = metric or self.headline
        low, high = self.intervals[name]
        return f"{spell_metric(name)} {self.metrics[name]:.3f} ({low:.3f} to {high:.3f})"

    def lines(self) -> tuple[str, ...]:
        """Return one line a metric."""
        return tuple(self.line(metric) for metric in self.metrics)
