"""What the steps show on their Metaflow cards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from metaflow import current
from metaflow.cards import Image, Markdown, Table, VegaChart

from dlpipe.evaluation import Evaluation, Mistake
from dlpipe.explain import Explanations, make_effects_figure, make_row_figure
from dlpipe.flows.reporting import report_point
from dlpipe.monitoring import DriftReport, make_domains_figure, make_history_figure, make_samples_figure
from dlpipe.monitoring.signals import Signal
from dlpipe.pictures import to_png
from dlpipe.tables import Ingest
from dlpipe.task import Quality, Target
from dlpipe.task.gate import spell_metric
from dlpipe.training import EpochScore
from dlpipe.tuning import Tuned


def _add(*parts: Any, card: str | None = None) -> None:
    shown = current.card[card] if card else current.card
    for part in parts:
        shown.append(part)


def _make_table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    return Table([[str(cell) for cell in row] for row in rows], headers=list(headers))


def show_data(ingest: Ingest) -> None:
    """Show splits, labels, text lengths, sources and quarantine."""
    profile = ingest.profile
    news = "a new version." if ingest.new_version else "the same content as before: no new version."
    _add(
        Markdown(f"# Data: {ingest.table}"),
        Markdown(f"{ingest.table.rows:,} rows, digest `{ingest.table.digest}`, {news}"),
        _make_table(["split", "rows", *ingest.labels], _list_split_rows(ingest)),
        *([_make_table(["what to know"], ([note] for note in ingest.notes))] if ingest.notes else []),
        *_make_lengths(profile),
        Markdown("## Sources"),
        _make_table(
            ["file", "bytes", "SHA-256"], ([s["name"], s["size"], s["sha256"][:16]] for s in profile["sources"])
        ),
        Markdown(_describe_appended(ingest)),
        Markdown("## Quarantine"),
        Markdown(_describe_quarantine(ingest)),
    )
    if ingest.bad_rows:
        _add(_make_table(["reason", "rows"], ingest.bad_rows.items()))


def _make_lengths(profile: Mapping[str, Any]) -> list[Any]:
    """Return the lengths of texts, and the quantiles of labels that are numbers, where there are such."""
    lengths = {name: profile[name] for name in ("words", "characters") if name in profile}
    shown = {"## Length of the texts": lengths, "## Numbers to predict": profile.get("numbers", {})}
    parts: list[Any] = []
    for heading, rows in shown.items():
        if rows:
            quantiles = list(next(iter(rows.values())))
            cells = [[name, *found.values()] for name, found in rows.items()]
            parts += [Markdown(heading), _make_table(["", *quantiles], cells)]
    return parts


def _list_split_rows(ingest: Ingest) -> Iterable[Sequence[Any]]:
    for split, rows in ingest.split_rows.items():
        counts = ingest.profile["labels"][split]
        yield [split, rows, *(counts.get(label, 0) for label in ingest.labels)]


def _describe_appended(ingest: Ingest) -> str:
    return (
        f"{ingest.appended_rows:,} rows were appended and stay; {ingest.unlabelled_rows:,} of them have no label "
        "and are in no split."
    )


def _describe_quarantine(ingest: Ingest) -> str:
    where = f" in `{ingest.quarantine}`" if ingest.quarantine else ""
    bad = sum(ingest.bad_rows.values())
    return f"{bad} rows set aside{where}; {ingest.leaked_rows} rows dropped that also stand in a later split."


class LearningCurves:
    """The training's card, redrawn after each epoch while the step runs."""

    def __init__(self) -> None:
        self._epochs: list[EpochScore] = []
        self._chart = VegaChart(_draw_curves([]), show_controls=False)
        self._line = Markdown("Waiting for the first epoch.")
        self._card = current.card["training"]
        self._card.extend([Markdown("# Training"), self._line, self._chart])

    def add(self, score: EpochScore) -> None:
        """Draw one more epoch, and report it: MLflow has it at once."""
        self._epochs.append(score)
        report_point("epoch_scores", score)
        self._chart.update(_draw_curves(self._epochs))
        self._line.update(
            f"Epoch {score.epoch}: {_format_scores(score)} on the valid split, "
            f"{score.rows_per_second:,.0f} rows/s."
        )
        self._card.refresh()

    def add_loss(self, step: int, loss: float) -> None:
        """Report the loss of the latest batches."""
        report_point("batches", {"step": step, "loss": loss})


def _format_scores(score: EpochScore) -> str:
    scores = {name: value for name, value in score.scores.items() if name != "val_loss"}
    return ", ".join(f"{name.removeprefix('val_')} {value:.3f}" for name, value in scores.items())


def _collect_scores(score: EpochScore) -> dict[str, float]:
    return {"train_loss": score.train_loss, **score.scores}


def _draw_curves(epochs: Sequence[EpochScore]) -> dict[str, Any]:
    points = [(e.epoch, name, value) for e in epochs for name, value in _collect_scores(e).items()]
    values = [{"epoch": epoch, "name": name, "value": value} for epoch, name, value in points]
    axis = {"type": "quantitative", "scale": {"zero": False}}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"values": values},
        "mark": {"type": "line", "point": True},
        "width": 460,
        "height": 280,
        "encoding": {
            "x": {"field": "epoch", "type": "ordinal", "axis": {"labelAngle": 0}},
            "y": {"field": "value", "title": None, **axis},
            "color": {"field": "name", "type": "nominal", "title": None},
        },
    }


def show_trials(tuned: Tuned) -> None:
    """Show what was tried, the best first."""
    names = list(tuned.trials[0].values) if tuned.trials else []
    best = ", ".join(f"{name} {_format_value(value)}" for name, value in tuned.best.items())
    _add(
        Markdown("# Trials"),
        Markdown(f"Used: {best}" if best else "No search: the settings are used as they stand."),
        *([Markdown(f"{tuned.note[0].upper()}{tuned.note[1:]}.")] if tuned.note else []),
        card="trials",
    )
    if names:
        _add(
            _make_table(["trial", *names, "score", "epochs", "note"], _list_trial_rows(tuned, names)),
            card="trials",
        )


def _list_trial_rows(tuned: Tuned, names: Sequence[str]) -> Iterable[Sequence[Any]]:
    for trial in sorted(tuned.trials, key=lambda trial: (-trial.score, trial.number)):
        values = [_format_value(trial.values[name]) for name in names]
        yield [trial.number + 1, *values, f"{trial.score:.4f}", len(trial.scores), trial.error or ""]


def _format_value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def show_evaluation(evaluation: Evaluation, baseline: Evaluation, target: Target) -> None:
    """Show metrics with intervals beside the baseline's, the target's pictures and the worst mistakes.

    Parameters
    ----------
    evaluation, baseline : Evaluation
        Of the model and of the plain model, on the same test rows.
    target : Target
        The task's, which knows what pictures suit its labels.
    """
    mistakes = [mistake.to_cells() for mistake in evaluation.mistakes]
    _add(
        Markdown("# Evaluation on the test split"),
        _make_table(
            ["metric", "model (95 % interval)", "baseline (95 % interval)"],
            (
                [name, _format_interval(evaluation, name), _format_interval(baseline, name)]
                for name in evaluation.metrics
            ),
        ),
        *(Image(to_png(figure), caption) for caption, figure in target.draw_figures(evaluation, baseline)),
        Markdown("## Worst mistakes"),
        _make_table(list(mistakes[0]), (list(cells.values()) for cells in mistakes))
        if mistakes
        else Markdown("None: every row was predicted right."),
    )


def _format_interval(evaluation: Evaluation, name: str) -> str:
    low, high = evaluation.intervals[name]
    return f"{evaluation.metrics[name]:.3f} ({low:.3f} to {high:.3f})"


def show_drift(monitored: DriftReport) -> None:
    """Show whether new rows differ from those of the training, in what, and how it went before."""
    drift, subject, task = monitored.drift, monitored.subject, monitored.subject.task
    raised = [signal.name for signal in drift.raised]
    _add(
        Markdown(f"# {drift.title}: {subject.source.name}"),
        Markdown(f"{subject.classifier}, trained on {subject.trained_on}. {drift.reason}."),
        *([Markdown(f"Not compared: {'; '.join(drift.missing)}.")] if drift.missing else []),
        _make_table(
            ["compared", "size", "limit", "p (Holm)", "new rows", ""],
            map(_list_signal_cells, drift.signals),
        ),
        Image(
            to_png(make_samples_figure(monitored.reference, monitored.current, raised=raised)),
            "Training (grey) and new rows (blue)",
        ),
    )
    if drift.domains:
        picture = to_png(make_domains_figure(drift.domains, task.inputs))
        _add(Image(picture, f"What tells new {task.inputs.rows_noun} from old ones"))
    _add(
        Markdown("## Quality"),
        Markdown(_describe_quality(monitored.quality)),
        Markdown("## Over time"),
        Image(to_png(make_history_figure(monitored.history, task)), "Earlier looks; red where drift was found"),
    )


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


def show_nothing(title: str, why: str) -> None:
    """Show why there is nothing to show."""
    _add(Markdown(f"# {title}"), Markdown(why))


def show_explanations(
    explanations: Explanations,
    mistakes: Sequence[Mistake],
    *,
    title: str = "Explanations",
    drawn: str = "drawn from the test split",
) -> None:
    """Show the parts that matter most, then each row with its own.

    Parameters
    ----------
    explanations : Explanations
    mistakes : sequence of Mistake
        Rows among them that the model got wrong: the label stands beside what was predicted.
    title : str, optional
    drawn : str, optional
        Where the rows are from, below the picture of each that is no mistake.
    """
    if not any(row.parts for row in explanations.rows):
        why = f"None of these rows has a {explanations.noun}." if explanations.rows else "No row was asked for."
        show_nothing(f"Nothing to explain: {title}", why)
        return
    truth = {mistake.row_id: mistake.label for mistake in mistakes}
    caption = f"{explanations.noun.capitalize()}s that matter most"
    _add(Markdown(f"# {title}"), Image(to_png(make_effects_figure(explanations)), caption))
    if explanations.agreement is not None:
        _add(Markdown(explanations.agreement.line()))
    for row in explanations.rows:
        caption = f"a mistake: the label is {truth[row.row_id]}" if row.row_id in truth else drawn
        _add(Image(to_png(make_row_figure(row)), caption))
