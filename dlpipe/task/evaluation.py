"""The scores of a model: each metric with its interval, and what it got wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SHOWN = 300  # characters of a row in a list of mistakes


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
        return {"row": self.text[:SHOWN], "label": str(self.label), "predicted": str(self.predicted)}


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
    """

    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    labels: tuple[str, ...]
    rows: int
    mistakes: tuple[Mistake, ...]
    headline: str

    def line(self, metric: str | None = None) -> str:
        """Return a metric, by default the headline, with its interval: ``accuracy 0.871 (0.846 to 0.894)``."""
        name = metric or self.headline
        low, high = self.intervals[name]
        return f"{name.replace('_', ' ')} {self.metrics[name]:.3f} ({low:.3f} to {high:.3f})"

    def lines(self) -> tuple[str, ...]:
        """Return one line a metric."""
        return tuple(self.line(metric) for metric in self.metrics)
