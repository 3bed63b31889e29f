"""Pictures of what was compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dlpipe.monitoring.domains import Domains
from dlpipe.monitoring.samples import Sample
from dlpipe.pictures import FAINT, GRID, INK, MODEL, OTHER, drawable, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OLD, NEW = FAINT, MODEL
BARS = 20
LABELS = 12  # the most frequent ones are drawn
LOOKS = 60  # the last ones are drawn


def samples_figure(reference: Sample, current: Sample) -> Figure:
    """Return lengths, probabilities and labels of the new rows beside those of the training table."""
    figure = new_figure(11, 3.4)
    lengths, probabilities, labels = figure.subplots(1, 3)
    draw_shares(lengths, reference.lengths, current.lengths, "words in a text")
    draw_shares(probabilities, reference.probability, current.probability, "predicted probability")
    draw_labels(labels, reference.predicted, current.predicted)
    for axes in (lengths, probabilities, labels):
        style(axes)
    lengths.set_ylabel("share of the rows", color=FAINT)
    if lengths.has_data():
        lengths.legend(loc="best", frameon=False, fontsize=9)
    return figure


def draw_shares(axes: Axes, old: Sequence[float], new: Sequence[float], name: str) -> None:
    """Draw two histograms over the same bins, each with bars that add up to one."""
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


def draw_labels(axes: Axes, old: Sequence[str], new: Sequence[str]) -> None:
    """Draw how often each label was predicted."""
    import numpy as np

    axes.set_title("predicted labels", fontsize=11, color=INK)
    before, after = Counter(old), Counter(new)
    names = [name for name, _ in (before + after).most_common(LABELS)]
    places = np.arange(len(names))
    for counts, color, shift in ((before, OLD, -0.2), (after, NEW, 0.2)):
        shares = [counts[name] / max(1, counts.total()) for name in names]
        axes.bar(places + shift, shares, width=0.38, color=color, alpha=0.45 if color == OLD else 1.0)
    shown = [drawable(name, limit=14) for name in names]
    axes.set_xticks(places, shown, rotation=0 if len(names) < 4 else 90, fontsize=9, parse_math=False)


def domains_figure(domains: Domains) -> Figure:
    """Return the words by which new texts are told from those of the training table."""
    ranked = [*reversed(domains.new), *domains.old]
    figure = new_figure(6.2, 0.9 + 0.22 * max(4, len(ranked)))
    axes = figure.add_subplot()
    axes.set_title(
        f"Words that tell new texts (blue) from old ones, AUC {domains.auc:.2f}", fontsize=11, color=INK
    )
    colors = [NEW if weight > 0 else OLD for _, weight in ranked]
    axes.barh(range(len(ranked)), [weight for _, weight in ranked], color=colors)
    axes.set_yticks(range(len(ranked)), [drawable(word) for word, _ in ranked], fontsize=9, parse_math=False)
    axes.set_xlabel("weight", color=FAINT)
    style(axes)
    return figure


def history_figure(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Return how AUC and accuracy went over the last looks; red dots are those that found drift."""
    figure = new_figure(11, 3.2)
    looks = list(history)[-LOOKS:]
    for axes, column, name in zip(
        figure.subplots(1, 2),
        ("domain", "accuracy"),
        ("AUC of telling new texts from old", "accuracy"),
        strict=True,
    ):
        points = [(place, row[column]) for place, row in enumerate(looks) if is_number(row[column])]
        axes.plot([place for place, _ in points], [value for _, value in points], color=NEW, marker="o", ms=4)
        raised = [(place, value) for place, value in points if looks[place]["drifted"]]
        axes.scatter([p for p, _ in raised], [v for _, v in raised], color="#c0392b", zorder=3, s=30)
        axes.set_title(name, fontsize=11, color=INK)
        axes.set_xlabel(f"looks, the last {len(looks)} of them", color=FAINT)
        axes.set_xlim(-0.5, max(1, len(looks)) - 0.5)
        axes.set_ylim(0.4 if column == "domain" else 0.0, 1.03)
        axes.set_xticks([])
        style(axes)
    if looks and is_number(looks[-1]["test_accuracy"]):
        axes.axhline(
            looks[-1]["test_accuracy"], color=OTHER, linewidth=1, linestyle=(0, (4, 4)), label="test split"
        )
        axes.legend(loc="best", frameon=False, fontsize=9)
    return figure


def is_number(value: float | None) -> bool:
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
