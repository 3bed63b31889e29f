"""The card of a look at drift."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from metaflow.cards import Markdown

from dlpipe.flows.cards.parts import make_image, make_table, show
from dlpipe.monitoring import DriftReport, make_domains_figure, make_history_figure, make_samples_figure
from dlpipe.monitoring.signals import Signal
from dlpipe.task import Quality
from dlpipe.task.gate import spell_metric


def show_drift(monitored: DriftReport) -> None:
    """Show whether new rows differ from those of the training, in what, and how it went before."""
    show(make_drift_parts(monitored))


def make_drift_parts(monitored: DriftReport) -> Iterator[Any]:
    """Yield what the card of a look shows."""
    drift, subject, task = monitored.drift, monitored.subject, monitored.subject.task
    raised = [signal.name for signal in drift.raised]
    yield Markdown(f"# {drift.title}: {subject.source.name}")
    yield Markdown(f"{subject.classifier}, trained on {subject.trained_on}. {drift.reason}.")
    if drift.missing:
        yield Markdown(f"Not compared: {'; '.join(drift.missing)}.")
    yield make_table(
        ["compared", "size", "limit", "p (Holm)", "new rows", ""], map(_list_signal_cells, drift.signals)
    )
    figure = make_samples_figure(monitored.reference, monitored.current, raised=raised)
    yield make_image(figure, "Training (grey) and new rows (blue)")
    if drift.domains:
        figure = make_domains_figure(drift.domains, task.inputs)
        yield make_image(figure, f"What tells new {task.inputs.rows_noun} from old ones")
    yield Markdown("## Quality")
    yield Markdown(_describe_quality(monitored.quality))
    yield Markdown("## Over time")
    yield make_image(make_history_figure(monitored.history, task), "Earlier looks; red where drift was found")


def _list_signal_cells(signal: Signal) -> Sequence[Any]:
    numbers = [f"{signal.size:.3f}", f"{signal.limit:.3f}", f"{signal.adjusted:.2g}", signal.rows]
    return [signal.words, *numbers, "raised" if signal.raised else ""]


def _describe_quality(quality: Quality) -> str:
    name = spell_metric(quality.metric)
    name = name[0].upper() + name[1:]
    test = f"{quality.test_value:.3f} on the {quality.test_rows:,} rows of the test split"
    if not quality.rows:
        return f"No new row has a label yet. {name} was {test}."
    low, high = quality.interval
    return f"{name} {quality.value:.3f} ({low:.3f} to {high:.3f}) on {quality.rows:,} new rows; {test}."
