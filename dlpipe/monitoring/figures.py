"""Figures of two samples, of what tells them apart, and of earlier looks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

from dlpipe.monitoring.domains import Domains
from dlpipe.monitoring.samples import Sample
from dlpipe.monitoring.signals import has_words, pair_samples
from dlpipe.pictures import FAINT, GRID, INK, MODEL, OTHER, new_figure, to_drawable
from dlpipe.task import Inputs, Task
from dlpipe.task.gate import spell_metric
from dlpipe.task.quality import ACCURACY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OLD, NEW = FAINT, MODEL
BARS = 20
LABELS = 12  # the most frequent ones are drawn
PANELS = 12  # of more series, those of signals that were raised come first
ACROSS = 3
LOOKS = 60  # the last ones are drawn


def make_samples_figure(reference: Sample, current: Sample, *, raised: Collection[str] = ()) -> Figure:
    """Return each series of the new rows and their predictions beside that of the training table.

    Parameters
    ----------
    reference, current : Sample
    raised : collection of str
        The signals that were raised; where there are too many series, theirs are drawn.
    """
    rows, predictions = pair_samples(reference, current)
    pairs = [*rows, *predictions]
    if len(pairs) > PANELS:
        pairs = sorted(pairs, key=lambda pair: pair.signal not in raised)[:PANELS]
    down = max(1, -(-len(pairs) // ACROSS))
    figure = new_figure(11, 3.4 * down)
    panels = figure.subplots(down, ACROSS, squeeze=False).ravel()
    for axes, (_, old, new) in zip(panels, pairs, strict=False):
        draw = draw_labels if has_words(old, new) else draw_shares
        draw(axes, old.values, new.values, new.words.removeprefix("the "))
        style(axes)
    for axes in panels[len(pairs) :]:
        axes.set_axis_off()
    panels[0].set_ylabel("share of the rows", color=FAINT)
    if panels[0].has_data():
        panels[0].legend(loc="best", frameon=False, fontsize=9)
    return figure


def draw_shares(axes: Axes, old: Sequence[Any], new: Sequence[Any], name: str) -> None:
    """Draw two histograms over the same bins, each with bars that add up to one.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    old, new : sequence of float
    name : str
        The title.
    """
    import numpy as np

    axes.set_title(name, fontsize=11, color=INK)
    if not (len(old) and len(new)):
        axes.text(0.5, 0.5, "nothing to compare", ha="center", va="center", transform=axes.transAxes, color=FAINT)
        return
    edges = np.histogram_bin_edges(
        np.concatenate([np.asarray(old, float), np.asarray(new, float)]), bins=BARS
    ).tolist()
    for values, color, label, filled in ((old, OLD, "training", True), (new, NEW, "new rows", False)):
        axes.hist(
            values,
            bins=edges,
            weights=np.full(len(values), 1 / len(values)),
            color=color,
            alpha=0.45 if filled else 1.0,
            histtype="stepfilled" if filled else "step",
            linewidth=1.8,
            label=f"{label} ({len(values):,})",
        )


def draw_labels(axes: Axes, old: Sequence[Any], new: Sequence[Any], name: str) -> None:
    """Draw how often each value occurs.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    old, new : sequence of str
    name : str
        The title.
    """
    import numpy as np

    axes.set_title(name, fontsize=11, color=INK)
    before, after = Counter(old), Counter(new)
    names = [name for name, _ in (before + after).most_common(LABELS)]
    places = np.arange(len(names))
    for counts, color, shift in ((before, OLD, -0.2), (after, NEW, 0.2)):
        shares = [counts[name] / max(1, counts.total()) for name in names]
        label = f"{'training' if color == OLD else 'new rows'} ({counts.total():,})"
        axes.bar(places + shift, shares, width=0.38, color=color, alpha=0.45 if color == OLD else 1.0, label=label)
    shown = [to_drawable(name, limit=14) for name in names]
    axes.set_xticks(places, shown, rotation=0 if len(names) < 4 else 90, fontsize=9, parse_math=False)


def make_domains_figure(domains: Domains, inputs: Inputs) -> Figure:
    """Return the features by which new rows are told from those of the training table: words, say."""
    ranked = [*reversed(domains.new), *domains.old]
    figure = new_figure(6.2, 0.9 + 0.22 * max(4, len(ranked)))
    axes = figure.add_subplot()
    what = f"{inputs.features_noun.capitalize()} that tell new {inputs.rows_noun} (blue) from old ones"
    axes.set_title(f"{what}, AUC {domains.auc:.2f}", fontsize=11, color=INK)
    colors = [NEW if weight > 0 else OLD for _, weight in ranked]
    axes.barh(range(len(ranked)), [weight for _, weight in ranked], color=colors)
    axes.set_yticks(range(len(ranked)), [to_drawable(word) for word, _ in ranked], fontsize=9, parse_math=False)
    axes.set_xlabel("weight", color=FAINT)
    style(axes)
    return figure


def make_history_figure(history: Sequence[Mapping[str, Any]], task: Task) -> Figure:
    """Return how AUC and quality went over the last looks; red dots are those that found drift."""
    metric = task.target.compare_quality((), ()).metric
    figure = new_figure(11, 3.2)
    looks = list(history)[-LOOKS:]
    for axes, column, name in zip(
        figure.subplots(1, 2),
        ("domain", metric),
        (f"AUC of telling new {task.inputs.rows_noun} from old", spell_metric(metric)),
        strict=True,
    ):
        points = [(place, row[column]) for place, row in enumerate(looks) if is_number(row.get(column))]
        axes.plot([place for place, _ in points], [value for _, value in points], color=NEW, marker="o", ms=4)
        raised = [(place, value) for place, value in points if looks[place]["drifted"]]
        axes.scatter([p for p, _ in raised], [v for _, v in raised], color="#c0392b", zorder=3, s=30)
        axes.set_title(name, fontsize=11, color=INK)
        axes.set_xlabel(f"looks, the last {len(looks)} of them", color=FAINT)
        axes.set_xlim(-0.5, max(1, len(looks)) - 0.5)
        if column in ("domain", ACCURACY):
            axes.set_ylim(0.4 if column == "domain" else 0.0, 1.03)
        axes.set_xticks([])
        style(axes)
    test = looks[-1].get(f"test_{metric}") if looks else None
    if is_number(test):
        axes.axhline(test, color=OTHER, linewidth=1, linestyle=(0, (4, 4)), label="test split")
        axes.legend(loc="best", frameon=False, fontsize=9)
    return figure


def is_number(value: float | None) -> TypeGuard[float]:
    """Return whether there is a value.

    Examples
    --------
    >>> is_number(0.5), is_number(None), is_number(float("nan"))
    (True, False, False)
    """
    return value is not None and value == value


def style(axes: Axes) -> None:
    """Give an axes the look of the others."""
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
