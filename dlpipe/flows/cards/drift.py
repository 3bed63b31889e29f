"""The card of a look at drift: whether new rows differ, in what, what follows, and how it went before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from metaflow.cards import Markdown

from dlpipe.flows.cards.parts import Box, make_boxes, make_image, make_note, make_table, show
from dlpipe.flows.cards.shares import make_shares
from dlpipe.monitoring import DriftReport, make_history_figure
from dlpipe.monitoring.looks import format_date
from dlpipe.monitoring.signals import SeriesPair, Signal, pair_samples
from dlpipe.task import Quality
from dlpipe.task.evaluation import cut_text, spell_metric

PANELS = 12
"""So many series are drawn; of more, those that were raised come first."""
LOOKS = 10
"""So many of the last looks are listed."""


def show_drift(monitored: DriftReport, *, publishes: bool = True) -> None:
    """Show whether new rows differ from those of the training, in what, what follows, and how it went before.

    ``publishes`` is whether drift publishes the event that starts a training.
    """
    show(make_drift_parts(monitored, publishes=publishes))


def make_drift_parts(monitored: DriftReport, *, publishes: bool = True) -> Iterator[Any]:
    """Yield what the card of a look shows."""
    drift, subject = monitored.drift, monitored.subject
    yield Markdown(f"# {drift.title}: {subject.source.name}")
    yield make_boxes(
        make_verdict_box(monitored),
        Box(
            "compared",
            f"{monitored.current.count:,} new rows",
            f"of {subject.source}, with {len(monitored.reference.rows):,} rows of {subject.trained_on}",
        ),
        make_quality_box(monitored.quality),
    )
    yield Markdown(f"**What happens next:** {monitored.describe_next(publishes=publishes)}")
    yield Markdown(f"Model: `{subject.classifier}`, trained on {subject.trained_on}.")
    if drift.missing:
        yield Markdown(f"Not compared: {'; '.join(drift.missing)}.")
    if drift.signals:
        yield Markdown("## What was compared")
        yield make_note(
            "A signal is raised where a difference is larger than its limit, and no chance: p, corrected by Holm "
            "for the number of comparisons, is small. AUC: 0.5 is guessing, 1 tells all rows apart. PSI, the "
            "population stability index, is how far shares have moved: 0 is not at all."
        )
        signals = sorted(drift.signals, key=lambda signal: not signal.raised)
        columns = ["", "compared", "size", "limit", "p (Holm)", "new rows"]
        yield make_table(columns, map(_list_signal_cells, signals))
        yield from make_newest_parts(monitored)
        yield from make_series_parts(monitored)
    yield Markdown("## Quality")
    yield Markdown(describe_quality(monitored.quality))
    yield from make_history_parts(monitored)


def make_verdict_box(monitored: DriftReport) -> Box:
    """Return whether drift was found, and in what."""
    drift = monitored.drift
    if not drift.signals:
        return Box("drift", "nothing to compare", "; ".join(drift.missing))
    note = drift.raised[0].words if drift.raised else f"none of {len(drift.signals)} signals is raised"
    more = f", and {len(drift.raised) - 1} more" if len(drift.raised) > 1 else ""
    return Box("drift", "found" if drift.drifted else "none", f"{note}{more}", not drift.drifted)


def make_quality_box(quality: Quality) -> Box:
    """Return how good predictions of new rows are, where that is known."""
    name = spell_metric(quality.metric)
    if not quality.rows:
        return Box(f"{name} of new rows", "unknown", "none of them has a label yet")
    low, high = quality.interval
    note = f"{low:.3f} to {high:.3f} on {quality.rows:,} rows; {quality.test_value:.3f} on the test split"
    return Box(f"{name} of new rows", f"{quality.value:.3f}", note)


def make_newest_parts(monitored: DriftReport) -> Iterator[Any]:
    """Yield the new rows that look least like old ones, and the features by which they are told."""
    domains, inputs = monitored.drift.domains, monitored.subject.task.inputs
    if domains is None:
        return
    yield Markdown(f"## What is new in the {inputs.rows_noun}")
    if domains.auc < monitored.settings.max_auc:
        yield make_note(
            f"Little: an AUC of {domains.auc:.2f} (0.5 is guessing) stays below the limit of "
            f"{monitored.settings.max_auc:.2f}."
        )
    rows = [monitored.current.rows[place] for place in domains.newest]
    if rows:
        yield make_table(
            [f"the new {inputs.rows_noun} that look least like old ones"],
            [[cut_text(inputs.format_row(row))] for row in rows],
        )
    if domains.new or domains.old:
        told = [", ".join(name for name, _ in weights) or "none" for weights in (domains.new, domains.old)]
        yield make_table([f"{inputs.features_noun} of new ones", "of old ones"], [told])


def make_series_parts(monitored: DriftReport) -> Iterator[Any]:
    """Yield each series of new rows beside that of the training, those that were raised first."""
    raised = {signal.name for signal in monitored.drift.raised}
    rows, predictions = pair_samples(monitored.reference, monitored.current)
    pairs: list[SeriesPair] = sorted((*predictions, *rows), key=lambda pair: pair.signal not in raised)
    for pair in [pair for pair in pairs if pair.new.values and pair.old.values][:PANELS]:
        words = pair.new.words
        yield Markdown(f"### {words[0].upper()}{words[1:]}{': raised' if pair.signal in raised else ''}")
        yield make_shares(pair.new, pair.old, second="training")


def make_history_parts(monitored: DriftReport) -> Iterator[Any]:
    """Yield how it went: a picture with the limits, and the last looks with their dates."""
    history = monitored.history
    yield Markdown("## Over time")
    if len(history) < 2:
        yield Markdown(f"This is the first look at this model ({format_date(history[0]['at'])}).")
        return
    task = monitored.subject.task
    figure = make_history_figure(history, task, monitored.settings)
    yield make_image(figure, f"The last {len(history)} looks; red where drift was found")
    lines = (
        [format_date(row["at"]), "drift" if row["drifted"] else "", f"{row['rows']:,}", cut_text(row["reason"])]
        for row in reversed(history[-LOOKS:])
    )
    yield make_table(["look", "", "new rows", "found"], lines)


def _list_signal_cells(signal: Signal) -> Sequence[Any]:
    numbers = [f"{signal.size:.3f}", f"{signal.limit:.3f}", f"{signal.adjusted:.2g}", f"{signal.rows:,}"]
    return ["raised" if signal.raised else "", signal.words, *numbers]


def describe_quality(quality: Quality) -> str:
    """Return how good predictions of new rows are, or that none has a label."""
    name = spell_metric(quality.metric)
    name = name[0].upper() + name[1:]
    test = f"{quality.test_value:.3f} on the {quality.test_rows:,} rows of the test split"
    if not quality.rows:
        return f"No new row has a label yet. {name} was {test}."
    low, high = quality.interval
    return f"{name} {quality.value:.3f} ({low:.3f} to {high:.3f}) on {quality.rows:,} new rows; {test}."
