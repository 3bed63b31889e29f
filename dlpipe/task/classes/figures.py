"""Pictures of an evaluation: the confusion matrix and the calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlpipe.pictures import FAINT, GRID, INK, MODEL, OTHER, new_figure, to_drawable
from dlpipe.task.classes.scores import ClassEvaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WRITTEN = 25  # labels beyond which counts are too small to read
NAMED = 60  # labels beyond which only every second, third, ... is named


def make_confusion_figure(evaluation: ClassEvaluation) -> Figure:
    """Return the confusion matrix: counts, coloured by their share of the true label's rows."""
    number = len(evaluation.labels)
    side = min(2.6 + 0.6 * number, 13.0)
    figure = new_figure(side + 2.0, side + 0.6)
    axes = figure.add_subplot()
    shares = compute_row_shares(evaluation.confusion)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    label_axes(axes, evaluation.labels, cell=side / number)
    if number <= WRITTEN:
        write_counts(axes, evaluation.confusion, shares, size=11 if number <= 8 else 7.5)
    axes.set_title(evaluation.line() + f", {evaluation.rows:,} rows", fontsize=11, color=INK, pad=12)
    bar = figure.colorbar(image, ax=axes, fraction=0.045, pad=0.03)
    bar.set_label("share of the true label", fontsize=9, color=FAINT)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    return figure


def compute_row_shares(confusion: Any) -> Any:
    """Return each count as a share of its row; zero in a row of zeros."""
    import numpy as np

    return confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)


def label_axes(axes: Axes, labels: tuple[str, ...], *, cell: float) -> None:
    """Write the labels beside rows and columns.

    Parameters
    ----------
    axes : matplotlib Axes
    labels : tuple of str
        Of more than ``NAMED``, every second, third, ... is written.
    cell : float
        The width of a cell in inches: labels that are wider stand upright.
    """
    places = range(0, len(labels), 1 + (len(labels) - 1) // NAMED)
    names = [to_drawable(labels[place], limit=24) for place in places]
    size = 10 if len(labels) <= WRITTEN else 7
    upright = max(map(len, names)) * 0.1 > cell
    axes.set_xticks(list(places), names, rotation=90 if upright else 0, fontsize=size, parse_math=False)
    axes.set_yticks(list(places), names, fontsize=size, parse_math=False)
    axes.set_xlabel("predicted", color=FAINT)
    axes.set_ylabel("true", color=FAINT)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def write_counts(axes: Axes, confusion: Any, shares: Any, *, size: float) -> None:
    """Write each count into its cell, white on dark.

    Parameters
    ----------
    axes : matplotlib Axes
    confusion : int array of shape (n_labels, n_labels)
    shares : float array of shape (n_labels, n_labels)
        Each count as a share of its row; it decides the colour, and is written where there is room.
    size : float
        Of the letters, in points.
    """
    import numpy as np

    for (row, column), count in np.ndenumerate(confusion):
        share = shares[row, column]
        words = f"{count:,}\n{share:.0%}" if size > 10 else f"{count:,}" if count else ""
        color = "white" if share > 0.55 else INK
        axes.text(column, row, words, ha="center", va="center", fontsize=size, color=color)


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
