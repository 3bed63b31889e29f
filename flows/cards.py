"""What the steps show on their Metaflow cards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from metaflow import current
from metaflow.cards import Image, Markdown, Table, VegaChart

from dlpipe.evaluation import Evaluation, calibration_figure, confusion_figure
from dlpipe.explain import Explanations, row_figure, words_figure
from dlpipe.pictures import png
from dlpipe.tables import Ingest
from dlpipe.training import EpochScore
from dlpipe.tuning import Tuned


def _add(*parts: Any) -> None:
    for part in parts:
        current.card.append(part)


def _table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    return Table([[str(cell) for cell in row] for row in rows], headers=list(headers))


def show_data(ingest: Ingest) -> None:
    """Show splits, labels, text lengths, sources and quarantine."""
    labels, counts, sources = ingest.labels, ingest.profile["labels"], ingest.profile["sources"]
    _add(
        Markdown(f"# Data: {ingest.table}"),
        Markdown(
            f"{ingest.table.rows:,} rows, digest `{ingest.table.digest}`, "
            + ("a new version." if ingest.new_version else "the same content as before: no new version.")
        ),
        _table(
            ["split", "rows", *labels],
            (
                [split, rows, *(counts[split].get(label, 0) for label in labels)]
                for split, rows in ingest.split_rows.items()
            ),
        ),
        Markdown("## Sources"),
        _table(
            ["file", "bytes", "SHA-256"],
            ([s["name"], s["size"], s["sha256"][:16]] for s in sources),
        ),
        Markdown("## Quarantine"),
        Markdown(
            f"{sum(ingest.bad_rows.values())} rows set aside"
            + (f" in `{ingest.quarantine}`" if ingest.quarantine else "")
            + f"; {ingest.leaked_rows} rows dropped that also stand in a later split."
        ),
        _table(["reason", "rows"], ingest.bad_rows.items()),
    )


class LearningCurves:
    """The training's card, redrawn after each epoch while the step runs."""

    def __init__(self) -> None:
        self._epochs: list[EpochScore] = []
        self._chart = VegaChart(_curves([]), show_controls=False)
        self._line = Markdown("Waiting for the first epoch.")
        _add(Markdown("# Training"), self._line, self._chart)

    def add(self, score: EpochScore) -> None:
        """Draw one more epoch."""
        self._epochs.append(score)
        self._chart.update(_curves(self._epochs))
        self._line.update(
            f"Epoch {score.epoch}: accuracy {score.val_accuracy:.3f}, macro F1 {score.val_f1:.3f} on the valid "
            f"split, {score.rows_per_second:,.0f} rows/s."
        )
        current.card.refresh()


def _curves(epochs: Sequence[EpochScore]) -> dict[str, Any]:
    names = ("train_loss", "val_loss", "val_accuracy", "val_f1")
    values = [{"epoch": e.epoch, "name": name, "value": getattr(e, name)} for e in epochs for name in names]
    axis = {"type": "quantitative", "scale": {"zero": False}}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "data": {"values": values},
        "mark": {"type": "line", "point": True},
        "width": 460,
        "height": 280,
        "encoding": {
            "x": {"field": "epoch", "type": "ordinal"},
            "y": {"field": "value", "title": None, **axis},
            "color": {"field": "name", "type": "nominal", "title": None},
        },
    }


def show_trials(tuned: Tuned) -> None:
    """Show what was tried, the best first."""
    names = list(tuned.trials[0].values) if tuned.trials else []
    ranked = sorted(tuned.trials, key=lambda trial: (-trial.score, trial.number))
    _add(
        Markdown("# Trials"),
        Markdown(
            "No search: the settings are used as they stand." if not ranked else f"Best: `{dict(tuned.best)}`"
        ),
        _table(
            ["trial", *names, "val_f1", "epochs", "note"],
            (
                [t.number + 1, *(t.values[n] for n in names), f"{t.score:.4f}", len(t.scores), t.error or ""]
                for t in ranked
            ),
        ),
    )


def show_evaluation(evaluation: Evaluation, baseline: Evaluation) -> None:
    """Show metrics with intervals beside the baseline's, confusion, calibration and the worst mistakes."""
    _add(
        Markdown("# Evaluation on the test split"),
        _table(
            ["metric", "model (95 % interval)", "TF-IDF baseline (95 % interval)"],
            ([name, _interval(evaluation, name), _interval(baseline, name)] for name in evaluation.metrics),
        ),
        Image(png(confusion_figure(evaluation)), "Confusion matrix"),
        Image(png(calibration_figure(evaluation, baseline)), "Calibration"),
        Markdown("## Worst mistakes"),
        _table(
            ["text", "label", "predicted", "probability"],
            ([m.text[:300], m.label, m.predicted, f"{m.probability:.3f}"] for m in evaluation.mistakes),
        ),
    )


def _interval(evaluation: Evaluation, name: str) -> str:
    low, high = evaluation.intervals[name]
    return f"{evaluation.metrics[name]:.3f} ({low:.3f} to {high:.3f})"


def show_explanations(explanations: Explanations) -> None:
    """Show the words that matter most, then each text with its words coloured."""
    _add(Markdown("# Explanations"), Image(png(words_figure(explanations)), "Words that matter most"))
    for row in explanations.rows:
        _add(Image(png(row_figure(row)), row.row_id))
