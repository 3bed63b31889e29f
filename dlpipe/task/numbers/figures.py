"""Pictures of an evaluation of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlpipe.pictures import FAINT, GRID, INK, MODEL, OTHER, new_figure
from dlpipe.task.numbers.scores import NumberEvaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def make_scatter_figure(evaluation: NumberEvaluation) -> Figure:
    """Return predicted against true numbers, with the line of right answers and the intervals around it."""
    figure = new_figure(6.2, 5.8)
    axes = figure.add_subplot()
    low = float(min(evaluation.true.min(), evaluation.predicted.min()))
    high = float(max(evaluation.true.max(), evaluation.predicted.max()))
    axes.plot([low, high], [low, high], color=FAINT, linewidth=1)
    if evaluation.halfwidth == evaluation.halfwidth:
        half = evaluation.halfwidth
        axes.fill_between(
            [low, high], [low - half, high - half], [low + half, high + half], color=MODEL, alpha=0.1
        )
    axes.scatter(evaluation.true, evaluation.predicted, s=9, color=MODEL, alpha=0.5, linewidths=0)
    held = evaluation.metrics["coverage"]
    words = f"; the band holds {held:.0%} of the rows, made for {evaluation.promised:.0%}" if held == held else ""
    axes.set_xlabel(f"true{words}", fontsize=9, color=FAINT)
    axes.set_ylabel("predicted", fontsize=9, color=FAINT)
    axes.set_title(f"{evaluation.line()}, {evaluation.rows:,} rows", fontsize=11, color=INK, pad=10)
    axes.grid(color=GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def make_error_figure(evaluation: NumberEvaluation, baseline: NumberEvaluation) -> Figure:
    """Return which share of rows is off by at most so much, for the model and the baseline."""
    import numpy as np

    figure = new_figure(6.2, 3.6)
    axes = figure.add_subplot()
    for name, made, colour in (("model", evaluation, MODEL), ("baseline", baseline, OTHER)):
        errors = np.sort(np.abs(made.predicted - made.true))
        axes.step(errors, np.arange(1, len(errors) + 1) / len(errors), where="post", color=colour, label=name)
    axes.set_xlabel("absolute error", fontsize=9, color=FAINT)
    axes.set_ylabel("share of rows", fontsize=9, color=FAINT)
    axes.set_ylim(0, 1)
    axes.grid(color=GRID)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    return figure
