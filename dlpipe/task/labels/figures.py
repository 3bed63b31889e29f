"""Pictures of an evaluation of labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlpipe.pictures import FAINT, GRID, INK, MODEL, OTHER, new_figure, to_drawable
from dlpipe.task.labels.scores import LabelEvaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMED = 40  # labels; of more, the most frequent ones


def make_label_figure(evaluation: LabelEvaluation, baseline: LabelEvaluation) -> Figure:
    """Return the F1 of each label, the most frequent first, beside the baseline's."""
    scores = sorted(evaluation.by_label, key=lambda score: -score.rows)[:NAMED]
    plain = {score.label: score.f1 for score in baseline.by_label}
    figure = new_figure(7.0, 1.6 + 0.34 * len(scores))
    axes = figure.add_subplot()
    places = range(len(scores))
    # NaN, of a label that no row has or is given, draws no bar
    axes.barh([at - 0.19 for at in places], [score.f1 for score in scores], 0.38, color=MODEL, label="model")
    axes.barh(
        [at + 0.19 for at in places],
        [plain.get(score.label, float("nan")) for score in scores],
        0.38,
        color=OTHER,
        label="baseline",
    )
    names = [f"{to_drawable(score.label, limit=28)} ({score.rows:,})" for score in scores]
    axes.set_yticks(list(places), names, fontsize=9, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("F1 on the test rows (in brackets: rows with the label)", fontsize=9, color=FAINT)
    axes.set_title(f"{evaluation.line()}, {evaluation.rows:,} rows", fontsize=11, color=INK, pad=10)
    axes.grid(axis="x", color=GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    figure.legend(loc="outside lower right", fontsize=8, frameon=False, ncols=2)
    return figure
