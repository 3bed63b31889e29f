"""The picture of an evaluation of classes: the calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlpipe.pictures import FAINT, GRID, INK, MODEL, OTHER, new_figure
from dlpipe.task.classes.scores import ClassEvaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def make_calibration_figure(evaluation: ClassEvaluation, baseline: ClassEvaluation | None = None) -> Figure:
    """Return accuracy against confidence for the model (and the baseline), over how many rows each bin has."""
    figure = new_figure(6.2, 6.4)
    curve, rows = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
    curve.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 4)), label="perfect")
    width = 0.45 / len(evaluation.reliability) if baseline else 0.9 / len(evaluation.reliability)
    draw_calibration(curve, rows, evaluation, "model", MODEL, "o", width, -width / 2 if baseline else 0.0)
    if baseline:
        draw_calibration(curve, rows, baseline, "baseline", OTHER, "s", width, width / 2)
    label_calibration(curve, rows, lowest=1 / len(evaluation.labels))
    return figure


def draw_calibration(
    curve: Axes,
    rows: Axes,
    evaluation: ClassEvaluation,
    name: str,
    color: str,
    marker: str,
    width: float,
    shift: float,
) -> None:
    """Draw the calibration of a model: its line, and how many rows each bin has.

    Parameters
    ----------
    curve, rows : matplotlib Axes
        The panel of the line, and that of the bars.
    evaluation : ClassEvaluation
    name, color, marker : str
        Of the model in the legend.
    width, shift : float
        Of a bar, and by how much it stands beside the middle of its bin, both in units of confidence.
    """
    filled = [part for part in evaluation.reliability if part.rows]
    error = evaluation.metrics["calibration_error"]
    curve.plot(
        [part.confidence for part in filled],
        [part.accuracy for part in filled],
        color=color,
        linewidth=1.6,
        label=f"{name} (calibration error {error:.3f})",
    )
    sizes = [20 + 160 * part.rows / evaluation.rows for part in filled]
    curve.scatter(
        [part.confidence for part in filled],
        [part.accuracy for part in filled],
        s=sizes,
        color=color,
        marker=marker,
        zorder=3,
    )
    middles = [(part.low + part.high) / 2 + shift for part in filled]
    rows.bar(middles, [part.rows for part in filled], width=width, color=color)


def label_calibration(curve: Axes, rows: Axes, *, lowest: float) -> None:
    """Label both panels.

    Parameters
    ----------
    curve, rows : matplotlib Axes
    lowest : float
        Where confidence starts: the highest of k probabilities is at least 1/k.
    """
    curve.set_ylabel("share that is right", color=FAINT)
    curve.set_title("When the model says 90 %, is it right 90 % of the time?", fontsize=11, color=INK, pad=10)
    curve.set_ylim(-0.02, 1.02)
    curve.set_xlim(max(0.0, lowest - 0.06), 1.02)
    curve.legend(loc="best", frameon=False, fontsize=9)
    rows.set_ylabel("rows", color=FAINT)
    rows.set_xlabel("confidence: the probability of the predicted label", color=FAINT)
    for axes in (curve, rows):
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9)
