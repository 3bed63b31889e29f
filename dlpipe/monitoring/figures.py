"""The figure of earlier looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeGuard

from dlpipe.monitoring.settings import DriftSettings
from dlpipe.pictures import FAINT, GRID, INK, MODEL, OTHER, new_figure
from dlpipe.task import Task
from dlpipe.task.evaluation import spell_metric
from dlpipe.task.quality import ACCURACY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOOKS = 60  # the last ones are drawn
RAISED, LIMIT = "#c0392b", "#c0392b"


def make_history_figure(history: Sequence[Mapping[str, Any]], task: Task, settings: DriftSettings) -> Figure:
    """Return how AUC and quality went over the last looks, with the limits; red dots are those that found drift.

    Parameters
    ----------
    history : sequence of mapping
        Rows of ``<table>_drift``, the oldest first.
    task : Task
    settings : DriftSettings
        The limits of the last look.
    """
    metric = task.target.compare_quality((), ()).metric
    figure = new_figure(8.6, 3.2)
    looks = list(history)[-LOOKS:]
    test = looks[-1].get(f"test_{metric}") if looks else None
    domain, quality = figure.subplots(1, 2)
    draw_looks(domain, looks, "domain", f"AUC of telling new {task.inputs.rows_noun} from old")
    draw_looks(quality, looks, metric, spell_metric(metric))
    draw_line(domain, settings.max_auc, "limit", LIMIT)
    draw_line(domain, 0.5, "guessing", FAINT)
    domain.set_ylim(0.4, 1.03)
    if metric == ACCURACY:
        quality.set_ylim(0.0, 1.03)
    if is_number(test):
        draw_line(quality, test, "test split", OTHER)
        draw_line(quality, find_worst(test, metric, task, settings), "limit", LIMIT)
    for axes in (domain, quality):
        axes.legend(loc="best", frameon=False, fontsize=8)
    return figure


def find_worst(test: float, metric: str, task: Task, settings: DriftSettings) -> float:
    """Return the quality that is the worst which raises no signal.

    Parameters
    ----------
    test : float
        That of the test split.
    metric : str
    task : Task
        Whose target says which setting is the limit.
    settings : DriftSettings

    Examples
    --------
    >>> from dlpipe.task import find_task
    >>> find_worst(0.9, "accuracy", find_task("text-classification"), DriftSettings(max_accuracy_drop=0.25))
    0.65
    """
    limit: float = getattr(settings, task.target.compare_quality((), ()).limit)
    return test * (1 + limit) if metric in task.target.lower_is_better else test - limit


def draw_looks(axes: Axes, looks: Sequence[Mapping[str, Any]], column: str, title: str) -> None:
    """Draw a column of looks over time; red where drift was found.

    Parameters
    ----------
    axes : matplotlib Axes
    looks : sequence of mapping
    column, title : str
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    points = [
        (datetime.fromisoformat(row["at"]), row[column], row["drifted"])
        for row in looks
        if is_number(row.get(column))
    ]
    axes.set_title(title, fontsize=11, color=INK)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    if not points:
        axes.set_xticks([])
        axes.text(0.5, 0.5, "nothing to compare yet", ha="center", transform=axes.transAxes, color=FAINT)
        return
    times: list[Any] = [at for at, _, _ in points]
    axes.plot(times, [value for _, value, _ in points], color=MODEL, marker="o", ms=4)
    raised: list[Any] = [at for at, _, drifted in points if drifted]
    axes.scatter(raised, [value for _, value, drifted in points if drifted], color=RAISED, zorder=3, s=30)
    locator = AutoDateLocator(minticks=2, maxticks=6)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def draw_line(axes: Axes, value: float, label: str, color: str) -> None:
    """Draw a broken line at ``value`` with a name in the legend."""
    axes.axhline(value, color=color, linewidth=1, linestyle=(0, (4, 4)), label=f"{label} {value:.3g}")


def is_number(value: float | None) -> TypeGuard[float]:
    """Return whether there is a value.

    Examples
    --------
    >>> is_number(0.5), is_number(None), is_number(float("nan"))
    (True, False, False)
    """
    return value is not None and value == value
